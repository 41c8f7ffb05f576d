"""One object that cannot be read is damage and costs its block; a store that is away is an error."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from actisketch.storage import Cache, connection
from actisketch.storage.errors import StorageError
from actisketch.storage.keys import parse_chunk_key

from ..on_disk import contents
from . import made_up
from .conftest import BUCKET, S3Server
from .test_faults import FailsForAWhile, proxy

RECORD = ".actisketch/commits/00000003.24-32.block"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Cache.create_or_resume(tmp_path / "cache", made_up.spec()) as cache:
        made_up.fill(cache)
    return tmp_path / "cache"


def chunk_keys(folder: Path) -> list[str]:
    """Return the chunks of the last point, in order."""
    keys = sorted(p.relative_to(folder).as_posix() for p in folder.glob("all_zero*/c.*"))
    assert all(map(parse_chunk_key, keys))
    return keys


def put_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


class Unreadable:
    """Lets the system refuse to read some files."""

    def __init__(self, patch: pytest.MonkeyPatch, *endings: str, number: int = errno.EIO) -> None:
        self.endings, self.number = endings, number
        really_open = os.open
        really_read = Path.read_bytes

        def refuse(path: Any) -> None:
            if str(path).endswith(self.endings):
                raise OSError(self.number, os.strerror(self.number))

        def read_bytes(path: Path) -> bytes:
            refuse(path)
            return really_read(path)

        def open_file(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
            if not flags & (os.O_WRONLY | os.O_RDWR | os.O_DIRECTORY) and Path(path).is_file():
                refuse(path)
            return really_open(path, flags, mode, **more)

        patch.setattr(Path, "read_bytes", read_bytes)
        patch.setattr(os, "open", open_file)


@pytest.mark.parametrize("how", ["folder", errno.EIO, errno.EACCES])
def test_an_unreadable_chunk_hides_no_other_damage_and_is_repaired(
    folder: Path, how: str | int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = contents(folder)
    first, second = chunk_keys(folder)[1:3]
    (folder / second).unlink()
    if isinstance(how, int):
        Unreadable(monkeypatch, first, number=how)
    else:
        put_a_folder(folder / first)
    with (
        caplog.at_level(logging.WARNING),
        Cache.create_or_resume(folder, made_up.spec()) as cache,
    ):
        report = cache.verify()
        with pytest.raises(StorageError, match="could not read"):
            cache.read_block("all zero", cache.blocks[1])

        assert [(p.kind, p.key) for p in report.problems] == [("damaged", first), ("missing", second)]
        assert "it cannot be read: could not read" in report.problems[0].detail
        assert first in caplog.text
        cache.repair(report)
        monkeypatch.undo()
        made_up.check(made_up.fill(cache))
        assert cache.verify().problems == ()

    assert contents(folder) == before


@pytest.mark.parametrize("how", ["folder", errno.EIO, errno.EACCES])
def test_a_block_with_an_unreadable_record_counts_as_missing(
    folder: Path, how: str | int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(folder)
    if isinstance(how, int):
        Unreadable(monkeypatch, RECORD, number=how)
    else:
        put_a_folder(folder / RECORD)
    with Cache.create_or_resume(folder, made_up.spec()) as cache:
        assert [block.index for block in cache.missing()] == [3]
        assert not cache.is_committed(cache.blocks[3])
        assert [(p.kind, p.key) for p in cache.verify().problems] == [("record", RECORD)]
        made_up.record(cache, cache.blocks[3])
        monkeypatch.undo()
        made_up.check(cache)
        assert cache.verify().problems == ()

    assert contents(folder) == before


def test_an_unreadable_document_of_zarr_is_written_again(folder: Path) -> None:
    before = contents(folder)
    put_a_folder(folder / "zarr.json")
    put_a_folder((folder / chunk_keys(folder)[0]).with_name("zarr.json"))
    with Cache.create_or_resume(folder, made_up.spec()) as cache:
        assert cache.verify().problems == ()

    assert contents(folder) == before


def test_a_folder_with_files_in_the_way_of_a_chunk_is_never_removed(folder: Path) -> None:
    chunk = folder / chunk_keys(folder)[1]
    put_a_folder(chunk)
    (chunk / "mine").write_text("precious")
    with Cache.create_or_resume(folder, made_up.spec()) as cache:
        report = cache.verify()

        assert [p.kind for p in report.problems] == ["damaged", "foreign"]
        with pytest.raises(StorageError, match=r"a folder stands where a file belongs.*: move it elsewhere"):
            cache.repair(report)
        with pytest.raises(StorageError, match=r"a folder stands where a file belongs.*: move it elsewhere"):
            made_up.fill(cache)
        assert (chunk / "mine").read_text() == "precious"
        shutil.rmtree(chunk)
        made_up.check(made_up.fill(cache))


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_disk_that_reads_nothing_is_an_error_and_no_damage(
    folder: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache.open(folder)
    Unreadable(monkeypatch, "", number=number)

    with pytest.raises(StorageError, match="could not read"):
        cache.verify()
    with pytest.raises(StorageError, match="could not read"):
        cache.missing()


def test_a_disk_that_was_unmounted_is_an_error_and_no_damage(folder: Path) -> None:
    cache = Cache.open(folder)
    folder.rename(folder.with_name("elsewhere"))

    with pytest.raises(StorageError, match="is the file system still mounted"):
        cache.verify()


@pytest.fixture
def bucket(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A whole cache in a bucket, its URL, options by way of a proxy, and the proxy."""
    monkeypatch.setattr(connection, "_WAITS_S", (0.001, 0.001))
    url = f"s3://{BUCKET}/unreadable-{tmp_path.name}"
    with Cache.create_or_resume(url, made_up.spec(), s3.options) as cache:
        made_up.fill(cache)
    with proxy(s3, "none") as (endpoint, handler):
        quick = {"max_retries": 0, "backoff": {"base": 2, "init_backoff": timedelta(milliseconds=1)}}
        yield url, {**s3.options, "endpoint": endpoint, "retry_config": quick}, handler


def harm_requests(handler: type[FailsForAWhile], is_harmed: Any) -> list[str]:
    """Answer requests with 503 where `is_harmed` says so; return the list of those."""
    harmed: list[str] = []
    well = handler.handle_any

    def answer(self: FailsForAWhile) -> None:
        if not is_harmed(self.path):
            well(self)
            return
        harmed.append(self.path)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    for verb in ("GET", "PUT", "HEAD", "DELETE", "POST"):
        setattr(handler, f"do_{verb}", answer)
    return harmed


def test_an_object_that_a_bucket_never_gives_is_tried_again_and_then_damage(bucket: Any) -> None:
    url, options, handler = bucket
    cache = Cache.open(url, options)
    harmed = harm_requests(handler, lambda path: path.endswith(("c.1.0", "00000003.24-32.block")))
    problems = cache.verify().problems

    assert [(p.kind, p.key.rpartition("/")[2], p.block and p.block.index) for p in problems] == [
        *[("damaged", "c.1.0", 1)] * 2,
        ("record", "00000003.24-32.block", 3),
    ]
    assert len(harmed) == 3 * 2 * 3  # objects; before and after others were read; attempts


def test_a_bucket_that_is_away_is_an_error_and_no_damage(bucket: Any) -> None:
    url, options, handler = bucket
    cache = Cache.open(url, options)
    harm_requests(handler, lambda path: True)

    with pytest.raises(StorageError, match="check the store and run again"):
        cache.verify()


def test_an_outage_that_ends_while_a_chunk_is_read_leaves_it_sound(bucket: Any) -> None:
    url, options, handler = bucket
    cache = Cache.open(url, options)
    harmed: list[str] = []
    harmed = harm_requests(handler, lambda path: path.endswith("c.1.0") and len(harmed) < 4)

    assert cache.verify().problems == ()
    assert len(harmed) == 4
