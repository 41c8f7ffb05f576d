"""A block is written from several threads at once, point by point: the same bytes, in bounded memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from actisketch.storage import Block, BlockWriter, Cache, PointSpec
from actisketch.storage.errors import InputError
from actisketch.storage.local import LocalFolder
from actisketch.storage.writer import BufferPool

from . import made_up
from .test_faults import contents

N_THREADS = 4
POINTS = tuple(
    PointSpec(name=f"point {n}", shape=(n,)) for n in (4099, 2053, 1031, 521, 257, 131, 67, 31, 17, 7, 3, 1)
)
SPEC = made_up.spec(points=POINTS, n_samples=53, batch_size=4, block_samples=24)
PIECES = (1, 5, 2, 16)
"""Samples that are appended at a time; a chunk has 24."""


def pieces_of(point: PointSpec, block: Block) -> list[NDArray[np.float32]]:
    samples = made_up.activations(point, block.start, block.stop)
    return [piece for piece in np.split(samples, np.cumsum(PIECES)) if len(piece)]


def append_point(writer: BlockWriter, point: PointSpec, block: Block) -> None:
    for piece in pieces_of(point, block):
        writer.append({point.name: piece})


Fill = Callable[[Cache, BlockWriter, Block], None]


def serially(cache: Cache, writer: BlockWriter, block: Block) -> None:
    for point in cache.spec.points:
        append_point(writer, point, block)


def by_threads(cache: Cache, writer: BlockWriter, block: Block) -> None:
    with ThreadPoolExecutor(N_THREADS) as pool:
        list(pool.map(lambda point: append_point(writer, point, block), cache.spec.points))


def write(folder: Path, codec: str, fill: Fill) -> dict[str, bytes]:
    with Cache.create_or_resume(folder, made_up.spec(**vars_of(codec))) as cache:
        for block in cache.blocks:
            with cache.write(block) as writer:
                fill(cache, writer, block)
                writer.commit(made_up.sketches(cache, block))
        assert cache.verify().problems == ()
        made_up.check(cache)
    return contents(folder)


def vars_of(codec: str) -> dict[str, object]:
    return {"points": POINTS, "n_samples": 53, "batch_size": 4, "block_samples": 24, "codec": codec}


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_points_appended_by_threads_give_the_bytes_of_one_thread(tmp_path: Path, codec: str) -> None:
    expected = write(tmp_path / "serial", codec, serially)

    for n in range(3):
        assert write(tmp_path / f"threads {n}", codec, by_threads) == expected


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
        append = pool.submit(append_point, writer, POINTS[0], block)
        assert began.wait(60)
        leave = pool.submit(writer.__exit__, None, None, None)
        with pytest.raises(TimeoutError):
            leave.result(timeout=0.05)
        may_go_on.set()
        append.result()
        leave.result()

        with pytest.raises(InputError, match="the writer of block 0 has been left"):
            append_point(writer, POINTS[1], block)


class TestBuffers:
    SIZES = sorted((13 * 2**k for k in range(12)), reverse=True)

    def test_of_threads_that_ask_for_the_largest_first_are_the_largest_chunks(self) -> None:
        pool, guard = BufferPool(), threading.Lock()
        most, largest = sum(self.SIZES[:N_THREADS]), N_THREADS * self.SIZES[0]
        seen: list[int] = []

        def fill_chunks(size: int) -> None:
            for _ in range(7):
                buffer = pool.take(size)
                buffer[:] = 1
                with guard:
                    seen.append(pool.nbytes)
                pool.give(buffer)

        with ThreadPoolExecutor(N_THREADS) as threads:
            for _ in range(20):
                list(threads.map(fill_chunks, self.SIZES))

                assert pool.nbytes <= most
        assert max(seen) <= largest

    def test_are_used_again_and_not_made_anew(self) -> None:
        pool = BufferPool()
        made = {id(buffer) for buffer in self._block(pool)}

        for _ in range(5):
            assert {id(buffer) for buffer in self._block(pool)} == made
        assert pool.nbytes == sum(self.SIZES)

    def _block(self, pool: BufferPool) -> list[NDArray[np.uint8]]:
        """Take a buffer for each size at once, as points do whose chunks are filled by several slabs."""
        taken = [pool.take(size) for size in self.SIZES]
        for buffer in taken:
            pool.give(buffer)
        return taken

    def test_that_small_chunks_have_taken_do_not_pile_up(self) -> None:
        """Large, small, large, small ...: each small chunk gets a large buffer and keeps it."""
        pool = BufferPool()
        for _ in range(10):
            small = []
            for _ in range(30):
                pool.give(pool.take(1000))
                small.append(pool.take(1))
            for buffer in small:
                pool.give(buffer)

            assert pool.nbytes <= 1000 + 30

    def test_grow_with_what_is_asked_for_without_keeping_what_is_too_small(self) -> None:
        pool = BufferPool()
        for size in range(1, 1000):
            pool.give(pool.take(size))

            assert pool.nbytes == size
