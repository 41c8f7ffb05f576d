"""Chunks of recorded activations are read ahead: once, into memory that is used again, and not after Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from actisketch.pipeline.certifier.recorded import RecordedSamples
from actisketch.storage import Cache, CacheSpec, PointSpec


def made_up(
    folder: Path, *, n_samples: int, block_samples: int
) -> tuple[Cache, dict[str, NDArray[np.float32]]]:
    shapes = {"wide": (64, 64, 70), "one": (1,), "flat": (50,)}
    rng = np.random.default_rng(29)
    values = {name: rng.random((n_samples, *shape), dtype=np.float32) for name, shape in shapes.items()}
    points = tuple(PointSpec(name=name, shape=shape, channel_axis=-1) for name, shape in shapes.items())
    spec = CacheSpec(
        points=points, n_samples=n_samples, batch_size=8, block_samples=block_samples, identity={}
    )
    with Cache.create_or_resume(folder, spec) as cache:
        for block in cache.blocks:
            with cache.write(block) as writer:
                writer.append({name: array[block.start : block.stop] for name, array in values.items()})
                writer.commit(dict.fromkeys(shapes, b""))
    return cache, values


@pytest.mark.parametrize("order", [["wide", "one", "flat"], ["flat", "one", "wide"]])
@pytest.mark.parametrize(
    "steps", [[(0, 8), (8, 16), (16, 24), (24, 30)], [(0, 3), (3, 17), (17, 30)], [(8, 24)]]
)
def test_chunks_are_read_once_whatever_batches_ask_for(
    steps: list[tuple[int, int]], order: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, values = made_up(tmp_path / "c", n_samples=30, block_samples=16)
    read: list[tuple[str, int]] = []
    read_chunk = Cache.read_chunk

    def counted(self: Cache, point: str, index: int, **options: Any) -> NDArray[np.float32]:
        read.append((point, index))
        return read_chunk(self, point, index, **options)

    monkeypatch.setattr(Cache, "read_chunk", counted)
    # Announced in one order, and asked for in another.
    with RecordedSamples(cache, ["wide", "one", "flat"], steps) as samples:
        for start, stop in steps:
            for name in order:
                found = np.concatenate([part.copy() for part in samples.parts(name, start, stop)])
                np.testing.assert_array_equal(found, values[name][start:stop])

    assert len(read) == len(set(read))


def tiny_chunks(folder: Path, n_chunks: int) -> Cache:
    point = PointSpec(name="tiny", shape=(7,), channel_axis=-1)
    spec = CacheSpec(points=(point,), n_samples=2 * n_chunks, batch_size=2, block_samples=2, identity={})
    with Cache.create_or_resume(folder, spec) as cache:
        for block in cache.blocks:
            with cache.write(block) as writer:
                writer.append({"tiny": np.full((2, 7), block.index, np.float32)})
                writer.commit({"tiny": b""})
    return cache


def test_the_memory_of_chunks_of_less_than_a_page_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, addresses = tiny_chunks(tmp_path / "c", 61), []
    read_chunk = Cache.read_chunk

    def noted(self: Cache, *key: Any, memory: memoryview) -> NDArray[np.float32]:
        addresses.append(np.frombuffer(memory, np.uint8).ctypes.data)
        return read_chunk(self, *key, memory=memory)

    monkeypatch.setattr(Cache, "read_chunk", noted)
    monkeypatch.setattr("actisketch.pipeline.certifier.recorded.AHEAD_NBYTES", 0)  # one chunk
    steps = [(start, start + 2) for start in range(0, 122, 2)]
    with RecordedSamples(cache, ["tiny"], steps) as samples:
        for index, step in enumerate(steps):
            for part in samples.parts("tiny", *step):
                np.testing.assert_array_equal(part, np.full((2, 7), index))

    assert len(addresses) == 61
    assert len(set(addresses)) <= 3  # what is compared, and what two threads read


@pytest.mark.parametrize("n_times", [1, 3])
def test_ctrl_c_while_chunks_are_read_ahead_leaves_no_thread_that_reads(
    n_times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, leaving, begun, ended = tiny_chunks(tmp_path / "c", 13), threading.Event(), [], []
    pressed, is_interruptible = threading.Event(), True

    def handle(number: int, frame: Any) -> None:
        if is_interruptible:  # a late one would end all tests
            signal.default_int_handler(number, frame)

    def slow(self: Cache, name: str, index: int, memory: memoryview) -> NDArray[np.float32]:
        begun.append(index)
        leaving.wait(60)
        if index == 0:
            for _ in range(n_times):
                time.sleep(0.05)
                os.kill(os.getpid(), signal.SIGINT)
            pressed.set()
        time.sleep(0.3)
        ended.append(index)
        return np.zeros((2, 7), np.float32)

    monkeypatch.setattr(Cache, "read_chunk", slow)

    def interrupted() -> None:
        with RecordedSamples(cache, ["tiny"], [(0, 26)]):
            leaving.set()
            raise KeyboardInterrupt

    previous = signal.signal(signal.SIGINT, handle)
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        n_ended = len(ended)
    finally:
        is_interruptible = False
        pressed.wait(60)
        signal.signal(signal.SIGINT, previous)

    assert n_ended == len(begun) <= 2  # the threads; what waited was not begun
    assert not [each.name for each in threading.enumerate() if each.name.startswith("actisketch-recorded")]
