"""A block is written from several threads at once, point by point: the same bytes, in bounded memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from actisketch.storage import Block, BlockWriter, Cache, PointSpec
from actisketch.storage.errors import InputError, StorageError
from actisketch.storage.local import LocalFolder

from ..on_disk import contents
from . import made_up

N_THREADS = 4
POINTS = tuple(
    # The larger ones have chunks of 4 samples, the others of a whole block: these stay open from slab to slab.
    PointSpec(name=f"point {n}", shape=(n,), chunk_samples=4 if n > 500 else 24)
    for n in (4099, 2053, 1031, 521, 257, 131, 67, 31, 17, 7, 3, 1)
)
SPEC = made_up.spec(points=POINTS, n_samples=53, batch_size=4, block_samples=24)
PIECES = (1, 5, 2, 16)
"""Samples that are appended at a time."""


def pieces_of(point: PointSpec, block: Block) -> list[NDArray[np.float32]]:
    samples = made_up.activations(point, block.start, block.stop)
    return [piece for piece in np.split(samples, np.cumsum(PIECES)) if len(piece)]


def append_point(writer: BlockWriter, point: PointSpec, block: Block) -> None:
    for piece in pieces_of(point, block):
        writer.append({point.name: piece})


def slab_by_slab(cache: Cache, writer: BlockWriter, block: Block) -> None:
    """As the recorder does: threads share the points of a slab, and all are done before the next slab."""
    with ThreadPoolExecutor(N_THREADS) as pool:
        for start in range(block.start, block.stop, 5):
            stop = min(start + 5, block.stop)

            def append(point: PointSpec, start: int = start, stop: int = stop) -> None:
                writer.append({point.name: made_up.activations(point, start, stop)})

            list(pool.map(append, cache.spec.points))


Fill = Callable[[Cache, BlockWriter, Block], None]


def serially(cache: Cache, writer: BlockWriter, block: Block) -> None:
    for point in cache.spec.points:
        append_point(writer, point, block)


def by_threads(cache: Cache, writer: BlockWriter, block: Block) -> None:
    with ThreadPoolExecutor(N_THREADS) as pool:
        list(pool.map(lambda point: append_point(writer, point, block), cache.spec.points))


def write(folder: Path, codec: str, fill: Fill) -> dict[str, bytes]:
    with Cache.create_or_resume(folder, replace(SPEC, codec=codec)) as cache:
        for block in cache.blocks:
            with cache.write(block) as writer:
                fill(cache, writer, block)
                writer.commit(made_up.sketches(cache, block))
        assert cache.verify().problems == ()
        made_up.check(cache)
    return contents(folder)


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_points_appended_by_threads_give_the_bytes_of_one_thread(tmp_path: Path, codec: str) -> None:
    expected = write(tmp_path / "serial", codec, serially)

    for n in range(3):
        assert write(tmp_path / f"threads {n}", codec, by_threads) == expected
        assert write(tmp_path / f"slabs {n}", codec, slab_by_slab) == expected


def test_leaving_waits_for_an_append_under_way_and_refuses_later_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the memory of a chunk would go to the next block while a thread still fills it."""
    began, may_go_on = threading.Event(), threading.Event()
    really_write = LocalFolder.write

    def slow_write(store: LocalFolder, key: str, parts: Sequence[object]) -> None:
        began.set()
        assert may_go_on.wait(60)
        really_write(store, key, parts)

    with Cache.create_or_resume(tmp_path / "cache", SPEC) as cache, ThreadPoolExecutor(2) as pool:
        block = cache.blocks[0]
        writer = cache.write(block)
        monkeypatch.setattr(LocalFolder, "write", slow_write)
        samples = made_up.activations(POINTS[0], block.start, block.stop)
        append = pool.submit(writer.append, {POINTS[0].name: samples})
        assert began.wait(60)
        leave = pool.submit(writer.__exit__, None, None, None)
        with pytest.raises(TimeoutError):
            leave.result(timeout=0.05)
        may_go_on.set()
        append.result()
        leave.result()

        with pytest.raises(InputError, match="the writer of block 0 has been left"):
            append_point(writer, POINTS[1], block)


def test_a_block_of_which_a_chunk_was_not_written_cannot_be_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Cache.create_or_resume(tmp_path / "cache", SPEC) as cache:
        block = cache.blocks[0]
        with cache.write(block) as writer:
            for point in POINTS[1:]:
                append_point(writer, point, block)
            with monkeypatch.context() as patch:
                patch.setattr(LocalFolder, "write", refused)
                with pytest.raises(StorageError, match="refused"):
                    append_point(writer, POINTS[0], block)
            with pytest.raises(InputError, match="could not write point 'point 4099'"):
                writer.commit(made_up.sketches(cache, block))

        assert cache.missing() == cache.blocks


def refused(store: LocalFolder, key: str, parts: Sequence[object]) -> None:
    raise StorageError("refused")


def test_a_writer_holds_one_chunk_of_each_point_that_is_being_filled(tmp_path: Path) -> None:
    """Of a block in several slabs: large chunks are filled by one, small ones by all of them."""
    large = tuple(PointSpec(name=f"large {n}", shape=(4000 + n,), chunk_samples=4) for n in (2, 1, 0))
    small = tuple(PointSpec(name=f"small {n}", shape=(n,)) for n in range(1, 14))
    spec = made_up.spec(points=large + small, n_samples=48, batch_size=4, block_samples=24)
    # One large chunk at a time, and all the small ones.
    most = 4 * (4 * large[0].n_values + 24 * sum(point.n_values for point in small))
    with Cache.create_or_resume(tmp_path / "cache", spec) as cache:
        for block in cache.blocks:
            with cache.write(block) as writer:
                for start in range(block.start, block.stop, 4):
                    for point in spec.points:
                        for first in (start, start + 2):
                            samples = made_up.activations(point, first, first + 2)
                            writer.append({point.name: samples})
                            held = [column.buffer for column in writer._columns.values()]

                            assert sum(buffer.nbytes for buffer in held if buffer is not None) <= most
                writer.commit(made_up.sketches(cache, block))
        made_up.check(cache)
        assert cache.verify().problems == ()
