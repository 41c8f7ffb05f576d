"""Only the keys that a cache writes are its own: a record in another folder, or a number written otherwise, is not."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import pytest

from actisketch.storage import Cache
from actisketch.storage.keys import COMMITS, parse_chunk_key, parse_record_key
from actisketch.storage.stores import open_store

from . import made_up


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Cache.create_or_resume(tmp_path / "cache", made_up.spec()) as cache:
        made_up.fill(cache)
    return tmp_path / "cache"


@pytest.mark.parametrize("place", ["backup", "backup/older", "00000000.0-8.block.d"])
def test_records_that_were_copied_elsewhere_commit_nothing(folder: Path, place: str) -> None:
    records = sorted((folder / COMMITS).iterdir())
    (folder / COMMITS / place).mkdir(parents=True)
    for record in records[:3]:
        shutil.copy(record, folder / COMMITS / place / record.name)
    named = Cache.open(folder).verify()
    for record in records[:3]:
        record.unlink()
    with Cache.create_or_resume(folder, made_up.spec()) as cache:
        assert [block.index for block in cache.missing()] == [0, 1, 2]
        made_up.check(made_up.fill(cache))
        report = cache.verify()

    assert named.foreign == report.foreign
    assert sorted(report.foreign) == [f"{COMMITS}/{place}/{record.name}" for record in records[:3]]
    assert all((folder / key).exists() for key in report.foreign)


def test_records_of_outdated_bounds_that_somebody_keeps_elsewhere_are_not_deleted(folder: Path) -> None:
    kept = folder / COMMITS / "backup/00000004.32-37.block"
    kept.parent.mkdir()
    shutil.copy(folder / COMMITS / kept.name, kept)
    with Cache.create_or_resume(folder, made_up.spec(n_samples=50)) as cache:
        made_up.check(made_up.fill(cache))

    assert kept.exists()
    assert not (folder / COMMITS / kept.name).exists()


@pytest.mark.parametrize(
    ("key", "odd"),
    [
        ("{array}/c.3.0.0.0", "{array}/c.03.0.0.0"),
        ("{array}/c.3.0.0.0", "{array}/c.3.0.00.0"),
        ("{array}/c.3.0.0.0", "{array}/c.٣.0.0.0"),
        ("{array}/c.3.0.0.0", "{array}/C.3.0.0.0"),
        ("{array}/c.3.0.0.0", "{array}/c.3.0.0.0.partial"),
        (f"{COMMITS}/00000003.24-32.block", f"{COMMITS}/00000003.024-32.block"),
        (f"{COMMITS}/00000003.24-32.block", f"{COMMITS}/0000000٣.24-32.block"),
        (f"{COMMITS}/00000003.24-32.block", f"{COMMITS}/000000003.24-32.block"),
        (f"{COMMITS}/00000003.24-32.block", "00000003.24-32.block"),
        (f"{COMMITS}/00000003.24-32.block", ".actisketch/00000003.24-32.block"),
    ],
)
def test_a_number_that_is_written_otherwise_is_foreign_and_stands_for_nothing(
    folder: Path, key: str, odd: str
) -> None:
    array = next(p.name for p in folder.iterdir() if p.name.startswith("block1"))
    key, odd = key.format(array=array), odd.format(array=array)
    shutil.copy(folder / key, folder / odd)

    assert Cache.open(folder).verify().foreign == (odd,)
    assert parse_chunk_key(odd) is None
    assert parse_record_key(odd) is None
    (folder / key).unlink()
    report = Cache.open(folder).verify()
    assert report.foreign == (odd,)
    assert [p.key for p in report.problems if p.kind in ("missing", "uncommitted")] == [key]


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("name", ["probe-0123456789abcdef", "probe-0123456789abcdef-fedcba9876543210"])
def test_what_a_cluster_run_leaves_is_harmless_and_removed_under_the_lock(
    tmp_path: Path, name: str, remote: bool
) -> None:
    url = f"memory://{uuid.uuid4()}" if remote else str(tmp_path / "cache")
    with Cache.create_or_resume(url, made_up.spec()) as cache:
        made_up.fill(cache)
    store = open_store(url)
    store.write(f".actisketch/{name}", [b"secret"])
    report = Cache.open(url).verify()
    Cache.create_or_resume(url, made_up.spec()).close()

    assert [(p.kind, p.key) for p in report.problems] == [("leftover", f".actisketch/{name}")]
    assert report.is_sound
    assert report.is_complete
    assert store.read(f".actisketch/{name}") is None


@pytest.mark.parametrize("name", ["probe-", "probe-notes.txt", "probe-12/3", "probes-12", "probe-12.json"])
def test_what_only_looks_like_it_is_foreign_and_stays(folder: Path, name: str) -> None:
    path = folder / ".actisketch" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("precious")
    report = Cache.open(folder).verify()
    Cache.create_or_resume(folder, made_up.spec()).close()

    assert report.foreign == (f".actisketch/{name}",)
    assert path.read_text() == "precious"
