"""Chunks that threads write while their caller goes on: the same bytes, in bounded memory, errors where they belong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actisketch.storage import Block, Cache, CacheSpec, PointSpec, WritingThreads
from actisketch.storage.errors import InputError, StorageError

PATIENCE_S = 30
BATCH, BLOCK, N_SAMPLES = 4, 12, 31
POINTS = (
    PointSpec(name="conv", shape=(3, 5), chunk_samples=2),
    PointSpec(name="dense", shape=(7,), chunk_samples=12),
    PointSpec(name="score", shape=(), chunk_samples=6),
)


def new_cache(folder: Path, **changes: Any) -> Cache:
    spec = CacheSpec(
        points=POINTS,
        n_samples=N_SAMPLES,
        batch_size=BATCH,
        block_samples=BLOCK,
        identity={},
        **{"keeps_activations": True, **changes},
    )
    return Cache.create_or_resume(folder, spec)


def values_of(point: PointSpec, start: int, stop: int) -> Any:
    rng = np.random.default_rng([len(point.name), start])
    return rng.standard_normal((stop - start, *point.shape)).astype(np.float32)


def append_all(writer: Any, block: Block) -> None:
    for start in range(block.start, block.stop, BATCH):
        for point in POINTS:
            writer.append({point.name: values_of(point, start, min(start + BATCH, block.stop))})


def write_block(cache: Cache, block: Block, writing: WritingThreads | None) -> None:
    with cache.write(block, writing=writing) as writer:
        append_all(writer, block)
        writer.commit({point.name: b"sketch" for point in POINTS})


def write_all(cache: Cache, writing: WritingThreads | None) -> None:
    for block in cache.blocks:
        write_block(cache, block, writing)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("most_nbytes", [1, 200, 2**20])
@pytest.mark.parametrize("changes", [{}, {"codec": "lz4"}, {"dtype": "float16"}], ids=str)
def test_a_cache_has_the_bytes_that_it_has_without_threads(
    tmp_path: Path, changes: dict[str, Any], most_nbytes: int
) -> None:
    with new_cache(tmp_path / "plain", **changes) as cache:
        write_all(cache, None)
    with (
        new_cache(tmp_path / "threads", **changes) as cache,
        WritingThreads(most_nbytes=most_nbytes) as writing,
    ):
        write_all(cache, writing)
    reopened = Cache.open(tmp_path / "threads")

    assert contents(tmp_path / "plain") == contents(tmp_path / "threads")
    assert reopened.verify().problems == ()


def slow(cache: Cache, monkeypatch: pytest.MonkeyPatch, before: Callable[[str], None]) -> None:
    write = cache.store.write

    def waiting(key: str, parts: Any) -> None:
        before(key)
        write(key, parts)

    monkeypatch.setattr(cache.store, "write", waiting)


def test_whoever_fills_chunks_goes_on_until_too_many_bytes_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk of "conv" has 2 samples, 120 bytes."""
    going, written = threading.Event(), []

    def before(key: str) -> None:
        going.wait(PATIENCE_S)
        written.append(key)

    with new_cache(tmp_path / "c") as cache, WritingThreads(2, most_nbytes=480) as writing:
        slow(cache, monkeypatch, before)
        with cache.write(cache.blocks[0], writing=writing) as writer:
            writer.append({"conv": np.zeros((8, 3, 5), np.float32)})  # four chunks: as many as may wait
            assert not written
            threading.Timer(0.1, going.set).start()
            writer.append({"conv": np.zeros((2, 3, 5), np.float32)})
            assert written  # it waited


def test_memory_of_chunks_is_used_again_and_no_more_is_held_than_was_used_at_once() -> None:
    seen: set[int] = set()
    with WritingThreads(1, most_nbytes=4096) as writing:
        for _ in range(20):
            buffer = writing.buffer((16, 16), np.dtype(np.float32))
            seen.add(buffer.ctypes.data)
            writing.write(buffer.nbytes, partial(writing.give_back, buffer)).result(PATIENCE_S)
        writing.buffer((16, 32), np.dtype(np.float32))
        free = sum(len(shelf) for shelf in writing._free.values())

    assert len(seen) == 1
    assert free == 0  # it made way for the larger one


@pytest.mark.parametrize("n_threads", [1, 4])
def test_a_store_that_refuses_a_chunk_ends_its_block_with_that_error_and_no_other_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_threads: int
) -> None:
    with new_cache(tmp_path / "c") as cache, WritingThreads(n_threads, most_nbytes=2**20) as writing:

        def before(key: str) -> None:
            if "dense" in key and key.endswith("c.1.0"):
                raise StorageError("no space left", path=key)

        slow(cache, monkeypatch, before)
        refusals = {}
        for block in cache.blocks:
            try:
                write_block(cache, block, writing)
            except StorageError as error:
                refusals[block.index] = str(error)
        missing = [block.index for block in cache.missing()]

    assert missing == [1]
    assert list(refusals) == [1]
    assert "no space left" in refusals[1]


def test_the_next_append_after_a_refusal_says_what_the_store_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = threading.Event()

    def before(key: str) -> None:
        refused.set()
        raise StorageError("no space left", path=key)

    with new_cache(tmp_path / "c") as cache, WritingThreads(1, most_nbytes=2**20) as writing:
        slow(cache, monkeypatch, before)
        with cache.write(cache.blocks[0], writing=writing) as writer:
            writer.append({"conv": np.zeros((2, 3, 5), np.float32)})
            assert refused.wait(PATIENCE_S)

            def append_again() -> None:  # the thread notes the refusal in a moment
                for _ in range(1000):
                    writer.append({"dense": np.zeros((0, 7), np.float32)})
                    time.sleep(0.01)

            with pytest.raises(StorageError, match="no space left"):
                append_again()


def test_leaving_a_writer_waits_for_what_is_written_and_leaves_the_rest_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    going, begun, written = threading.Event(), threading.Event(), []

    def before(key: str) -> None:
        begun.set()
        going.wait(PATIENCE_S)
        written.append(key)

    with new_cache(tmp_path / "c") as cache, WritingThreads(1, most_nbytes=2**20) as writing:
        slow(cache, monkeypatch, before)
        with cache.write(cache.blocks[0], writing=writing) as writer:
            writer.append({"conv": np.zeros((8, 3, 5), np.float32)})
            assert begun.wait(PATIENCE_S)
            threading.Timer(0.1, going.set).start()
        n_written = len(written)
        with pytest.raises(InputError, match="has been left"):
            writer.append({"conv": np.zeros((2, 3, 5), np.float32)})

    assert n_written == len(written) == 1
    assert [thread.name for thread in threading.enumerate() if "actisketch-chunk" in thread.name] == []


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), KeyboardInterrupt()], ids=repr)
def test_a_chunk_that_could_not_be_given_to_a_thread_takes_no_room(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    written: list[str] = []

    def refuse(thread: threading.Thread) -> None:
        raise error

    with WritingThreads(1, most_nbytes=100) as writing:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(type(error)):
                writing.write(100, lambda: written.append("refused"))
        following = threading.Thread(
            target=lambda: writing.write(100, lambda: written.append("next")).result(PATIENCE_S), daemon=True
        )
        following.start()
        following.join(PATIENCE_S / 6)

        assert not following.is_alive()
    assert written == ["next"]
