"""Every object of a small cache in turn is harmed; verify names it and no door returns its values."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from actisketch.storage import Block, Cache, CommitRecord
from actisketch.storage.errors import FormatError, IncompleteError
from actisketch.storage.keys import COMMITS, parse_chunk_key, parse_record_key

from . import made_up


@pytest.fixture(scope="module", params=["none", "zstd"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damage") / str(request.param)
    with Cache.create_or_resume(folder, made_up.spec(codec=request.param)) as cache:
        made_up.fill(cache)
    return folder


def delete(path: Path, other: Path) -> None:
    path.unlink()


def truncate(path: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def empty(path: Path, other: Path) -> None:
    path.write_bytes(b"")


def lengthen(path: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def flip_one_bit(path: Path, other: Path) -> None:
    stored = bytearray(path.read_bytes())
    stored[len(stored) * 2 // 3] ^= 0b100
    path.write_bytes(stored)


def put_another_in_its_place(path: Path, other: Path) -> None:
    path.write_bytes(other.read_bytes())


HARMS = [delete, truncate, empty, lengthen, flip_one_bit, put_another_in_its_place]
Harm = Callable[[Path, Path], None]


def chunk_paths(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if parse_chunk_key(p.relative_to(folder).as_posix()))


def record_paths(folder: Path) -> list[Path]:
    return sorted((folder / COMMITS).iterdir())


@pytest.mark.parametrize("harm", HARMS)
def test_every_harmed_chunk_is_named_and_never_read(whole: Path, tmp_path: Path, harm: Harm) -> None:
    paths = chunk_paths(whole)
    assert len(paths) == 15
    for path in paths:
        # The dead layer's chunks are all alike: putting one in the place of another harms nothing.
        others = [p for p in paths if p.read_bytes() != path.read_bytes()]
        same_point = [p for p in others if p.parent == path.parent]
        keep = path.read_bytes()
        harm(path, (same_point or others)[0])
        try:
            _check_chunk_is_named(whole, path)
        finally:
            path.write_bytes(keep)
    assert Cache.open(whole).verify().problems == ()


def _check_chunk_is_named(folder: Path, path: Path) -> None:
    cache = Cache.open(folder)
    key = path.relative_to(folder).as_posix()
    array, index = parse_chunk_key(key) or ("", -1)
    point = {key: name for name, key in cache.spec.keys.items()}[array]
    problems = cache.verify().problems

    assert [(p.key, p.point, p.block) for p in problems] == [(key, point, cache.blocks[index])]
    assert problems[0].kind == ("damaged" if path.exists() else "missing")
    with pytest.raises(FormatError, match=f"block {index}"):
        cache.read_block(point, cache.blocks[index])
    with pytest.raises(FormatError, match=f"block {index}"):
        list(cache.chunks(point))


@pytest.mark.parametrize("harm", HARMS)
def test_every_harmed_record_is_named_and_never_used(whole: Path, harm: Harm) -> None:
    paths = record_paths(whole)
    assert len(paths) == 5
    for path in paths:
        keep = path.read_bytes()
        harm(path, next(p for p in paths if p != path))
        try:
            _check_record_is_named(whole, path)
        finally:
            path.write_bytes(keep)
    assert Cache.open(whole).verify().problems == ()


def _check_record_is_named(folder: Path, path: Path) -> None:
    cache = Cache.open(folder)
    block = Block(*(parse_record_key(f"{COMMITS}/{path.name}") or (-1, 0, 0)))
    report = cache.verify()

    assert [(p.kind, p.block) for p in report.problems] == [
        ("record" if path.exists() else "uncommitted", block)
    ]
    with pytest.raises((FormatError, IncompleteError), match=f"block {block.index} "):
        list(cache.all_sketches())
    with pytest.raises((FormatError, IncompleteError), match=f"block {block.index} "):
        cache.read_commit(block)


def test_every_flipped_bit_of_a_record_is_seen(whole: Path) -> None:
    """Magic, version, lengths, header, sketches, checksums: nothing in it is unprotected."""
    keep = record_paths(whole)[1].read_bytes()
    for position in range(len(keep) * 8):
        stored = bytearray(keep)
        stored[position // 8] ^= 1 << (position % 8)

        with pytest.raises(FormatError):
            CommitRecord.decode(bytes(stored))


@pytest.mark.parametrize("harm", [truncate, empty, lengthen, put_another_in_its_place])
def test_a_resumed_run_computes_a_block_again_whose_record_is_cut_or_foreign(
    whole: Path, tmp_path: Path, harm: Harm
) -> None:
    folder = shutil.copytree(whole, tmp_path / "copy")
    first, second, *_ = record_paths(folder)
    harm(first, second)
    with Cache.create_or_resume(folder, made_up.spec()) as cache:
        assert [block.index for block in cache.missing()] == [0]
        made_up.check(made_up.fill(cache))


@pytest.mark.parametrize("harm", HARMS)
def test_repair_brings_every_byte_back(whole: Path, tmp_path: Path, harm: Harm) -> None:
    folder = shutil.copytree(whole, tmp_path / "copy")
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    chunks, records = chunk_paths(folder), record_paths(folder)
    harm(chunks[3], chunks[4])
    harm(records[2], records[0])
    harm(folder / "zarr.json", chunks[0])
    harm(chunks[0].parent / "zarr.json", folder / "zarr.json")
    with Cache.create_or_resume(folder, made_up.spec()) as cache:
        report = cache.verify()
        assert not report.is_sound
        made_up.fill(cache)
        assert cache.repair(report) == report.damaged
        made_up.fill(cache)
        assert cache.verify().problems == ()
        made_up.check(cache)

    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_a_damaged_description_is_refused_and_told(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "copy")
    path = folder / ".actisketch/cache.json"
    text = path.read_text()
    for harmed in (text.replace("b2", "b3"), text[:-9], "", text.replace('"format": 1', '"format": 2')):
        path.write_text(harmed)

        with pytest.raises(FormatError, match=r"damaged|update actisketch"):
            Cache.open(folder)
        with pytest.raises(FormatError, match=r"damaged|update actisketch"):
            Cache.create_or_resume(folder, made_up.spec())


def test_harmed_arrays_are_told(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "copy")
    path = chunk_paths(folder)[0].parent / "zarr.json"
    path.write_text(path.read_text().replace("float32", "float64"))

    assert [(p.kind, p.key.rpartition("/")[2]) for p in Cache.open(folder).verify().problems] == [
        ("document", "zarr.json")
    ]


def test_what_does_not_belong_is_named_foreign(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "copy")
    first = next(p for p in chunk_paths(folder) if p.name == "c.0.0.0.0")
    odd = [
        "notes.txt",
        f"{first.parent.name}/c.99.0.0.0",
        f"{first.parent.name}/c.0.0",
        ".actisketch/commits/x",
        "more/c.0.0",
    ]
    for key in odd:
        (folder / key).parent.mkdir(exist_ok=True)
        (folder / key).write_bytes(first.read_bytes())
    report = Cache.open(folder).verify()

    assert sorted(p.key for p in report.problems) == sorted(odd)
    assert {p.kind for p in report.problems} == {"foreign"}
    assert not report.is_sound
    assert report.damaged == ()


def test_a_cache_that_was_copied_into_another_is_foreign(whole: Path, tmp_path: Path) -> None:
    other = {**made_up.IDENTITY, "model": {"topology": "other"}}
    with Cache.create_or_resume(tmp_path / "other", made_up.spec(identity=other)) as cache:
        for path in (*chunk_paths(whole), *record_paths(whole)):
            target = tmp_path / "other" / path.relative_to(whole)
            target.parent.mkdir(exist_ok=True, parents=True)
            shutil.copy(path, target)

        assert cache.missing() == cache.blocks
        assert [p.kind for p in cache.verify().problems] == ["record"] * 5


def test_an_interrupted_cache_is_sound_and_not_complete(tmp_path: Path) -> None:
    with Cache.create_or_resume(tmp_path / "cache", made_up.spec()) as cache:
        made_up.record(cache, cache.blocks[3])
        with cache.write(cache.blocks[1]) as writer:
            writer.append(made_up.arrays(cache, cache.blocks[1]))
        report = cache.verify()

    assert (report.is_sound, report.is_complete, report.n_committed, report.n_blocks) == (True, False, 1, 5)
    assert [p.block.index for p in report.problems if p.block] == [0, 1, 2, 4]


@pytest.mark.parametrize("harm", [truncate, empty, flip_one_bit])
def test_plain_zarr_refuses_a_harmed_chunk_too(whole: Path, tmp_path: Path, harm: Harm) -> None:
    folder = shutil.copytree(whole, tmp_path / "copy")
    path = next(p for p in chunk_paths(folder) if "block1" in p.parent.name)
    harm(path, path)
    array = zarr.open_group(folder, mode="r")[path.parent.name]
    assert isinstance(array, zarr.Array)

    with pytest.raises(Exception, match=r"."):
        array[:]


def test_plain_zarr_reads_a_missing_chunk_as_nan_and_not_as_zero(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "copy")
    path = next(p for p in chunk_paths(folder) if p.parent.name.startswith("all_zero") and p.name == "c.1.0")
    path.unlink()
    array = zarr.open_group(folder, mode="r")[path.parent.name]
    assert isinstance(array, zarr.Array)
    values = np.asarray(array[:])

    assert np.isnan(values[8:16]).all()
    assert not values[:8].any()
    assert not values[16:].any()


def test_a_foreign_key_is_left_by_repair_and_named_with_what_to_do(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "copy")
    junk = chunk_paths(folder)[0].with_name("junk")
    junk.write_text("precious")
    key = junk.relative_to(folder).as_posix()
    with Cache.create_or_resume(folder, made_up.spec()) as cache:
        report = cache.verify()
        assert cache.repair(report) == ()
        assert cache.verify() == report

    assert report.foreign == (key,)
    assert report.documents == ()
    assert "move or remove it" in report.problems[0].detail
    assert junk.read_text() == "precious"
    junk.unlink()
    assert Cache.open(folder).verify().is_sound


def test_an_array_behind_a_link_is_the_caches(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "copy")
    nbytes = Cache.open(folder).nbytes()
    array = chunk_paths(folder)[0].parent
    shutil.move(array, tmp_path / "elsewhere")
    array.symlink_to(tmp_path / "elsewhere")
    with Cache.create_or_resume(folder, made_up.spec()) as cache:
        assert cache.verify().problems == ()
        cache.discard(cache.blocks[0])
        made_up.check(made_up.fill(cache))
        assert cache.verify().problems == ()

    assert cache.nbytes() == nbytes
    assert array.is_symlink()


def test_links_that_lead_nowhere_or_round_in_a_circle_are_foreign(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "copy")
    nbytes = Cache.open(folder).nbytes()
    array = chunk_paths(folder)[0].parent
    (array / "up").symlink_to(folder)
    (array / "itself").symlink_to(array / "itself")
    (array / "nowhere").symlink_to(tmp_path / "nowhere")
    cache = Cache.open(folder)

    assert sorted(cache.verify().foreign) == [f"{array.name}/{name}" for name in ("itself", "nowhere", "up")]
    assert nbytes < cache.nbytes() < nbytes + 10_000
