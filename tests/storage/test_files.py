"""One file is written and read: past the page cache where the system lets us, with the same bytes in any case."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from actisketch.storage import files


def test_large_files_go_past_the_page_cache_and_small_or_refused_ones_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = os.urandom(2**23 + 12_345)
    refused: list[int] = []
    really_open = os.open

    def no_direct(path: Any, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECT:
            refused.append(flags)
            raise OSError(errno.EINVAL, "Invalid argument")
        return really_open(path, flags, mode)

    parts: Sequence[bytes] = [body[:100], body[100:5_000_000], body[5_000_000:]]
    files.write_new(tmp_path / "direct", parts)
    monkeypatch.setattr(os, "open", no_direct)
    files.write_new(tmp_path / "buffered", parts)
    files.write_new(tmp_path / "small", [b"a", b"bc"])
    monkeypatch.undo()

    assert (tmp_path / "direct").read_bytes() == (tmp_path / "buffered").read_bytes() == body
    assert (tmp_path / "small").read_bytes() == b"abc"
    assert len(refused) == 1
    with pytest.raises(FileExistsError):
        files.write_new(tmp_path / "direct", parts)


@pytest.mark.parametrize("is_cached", [True, False])
@pytest.mark.parametrize("shift", [0, 64])
@pytest.mark.parametrize("room", [-4096, 0, 1, 4096])
@pytest.mark.parametrize("nbytes", [0, 2**20 - 4096, 2**21, 2**21 + 1])
def test_a_file_is_read_into_memory_whole(
    tmp_path: Path, nbytes: int, room: int, shift: int, *, is_cached: bool
) -> None:
    """Past the page cache and through it, into memory that begins with a page or not, and is too small or not."""
    body, path = os.urandom(nbytes), tmp_path / "file"
    files.write_new(path, [body])
    if is_cached:
        path.read_bytes()
    pages = memoryview(mmap.mmap(-1, nbytes + 3 * 4096))[shift:]
    memory = pages[: max(0, nbytes + room)]
    after = bytes(pages[len(memory) :])

    read = files.read_into(path, memory)

    assert read == body
    assert bytes(pages[len(memory) :]) == after
    assert isinstance(read, memoryview) or room < 0


def test_what_the_page_cache_lacks_is_read_past_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body, path = os.urandom(2**21), tmp_path / "file"
    files.write_new(path, [body])
    opened: list[int] = []
    really_open = os.open

    def noted(path: Any, flags: int, mode: int = 0o777) -> int:
        opened.append(flags & os.O_DIRECT)
        return really_open(path, flags, mode)

    monkeypatch.setattr(os, "open", noted)
    for _ in range(2):
        assert files.read_into(path, memoryview(mmap.mmap(-1, len(body)))) == body
        path.read_bytes()

    # A file system without direct writes has left it in the cache.
    assert sum(map(bool, opened)) <= 1
    assert not any(opened[2:])
