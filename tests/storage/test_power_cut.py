"""A power cut keeps what was flushed and nothing else: the order of flushes and renames, call by call."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from actisketch.storage import Cache, files, local
from actisketch.storage.keys import parse_chunk_key

from . import made_up


class Disk:
    """Follows every write, rename and flush below a folder, and knows what a power cut would leave."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.flushed: set[int] = set()
        """Inodes whose content is on the disk."""
        self.named: dict[Path, int] = {}
        """Names that are on the disk, once their folder was flushed."""
        self.pending: dict[Path, int] = {}
        self.committed_early: list[str] = []
        self.n_records = 0
        write_new, sync, replace = files.write_new, files.sync, os.replace

        def written(path: Path, parts: Any) -> None:
            write_new(path, parts)
            self.flushed.discard(os.stat(path).st_ino)

        def flushed(path: Path) -> None:
            sync(path)
            if path.is_dir():
                for name in [name for name in self.pending if name.parent == path]:
                    self.named[name] = self.pending.pop(name)
            else:
                self.flushed.add(os.stat(path).st_ino)

        def renamed(source: Path, target: Path) -> None:
            inode = os.stat(source).st_ino
            if target.suffix == ".block":
                self.n_records += 1
                self.look(target, inode)
            replace(source, target)
            self.pending[target] = inode

        patch.setattr(local, "write_new", written)
        patch.setattr(local, "sync", flushed)
        patch.setattr(os, "replace", renamed)

    def is_safe(self, path: Path) -> bool:
        return path in self.named and self.named[path] in self.flushed and path not in self.pending

    def look(self, record: Path, inode: int) -> None:
        """Note what is not safe at the moment when a block's record gets its name."""
        if inode not in self.flushed:
            self.committed_early.append(f"{record.name}: its own content")
        index = str(int(record.name.split(".")[0]))
        for path in self.folder.rglob(f"c.{index}.*"):
            if parse_chunk_key(path.relative_to(self.folder).as_posix()) and not self.is_safe(path):
                self.committed_early.append(f"{record.name}: {path.name}")
        for path in (self.folder / ".actisketch/cache.json", *self.folder.rglob("zarr.json")):
            if not self.is_safe(path):
                self.committed_early.append(f"{record.name}: {path.name}")


def test_a_record_gets_its_name_when_all_that_it_vouches_for_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache"
    disk = Disk(folder, monkeypatch)
    with Cache.create_or_resume(folder, made_up.spec()) as cache:
        made_up.fill(cache)
    with Cache.create_or_resume(folder, made_up.spec(n_samples=50)) as cache:
        made_up.fill(cache)

    assert disk.n_records == 5 + 3
    assert disk.committed_early == []
    records = list(folder.rglob("*.block"))
    assert len(records) == 7
    assert all(disk.is_safe(record) for record in records)
