"""Ctrl-C while threads write and commit: they end first, and what is computed is committed. Without a model."""

import os
import signal
import sys
import threading
import time

import numpy as np
import pytest

from actisketch.pipeline.record.recorder import record_block, record_missing
from actisketch.pipeline.sketch import SketchSpec
from actisketch.storage import BlockWriter, Cache, CacheSpec

SKETCH = SketchSpec()
PATIENCE_S = 60
BLOCK = 12


def new_cache(folder, producer, **changes):
    spec = CacheSpec(
        points=producer.points,
        n_samples=producer.n_samples,
        batch_size=producer.batch_size,
        block_samples=BLOCK,
        identity={},
        **{"keeps_activations": True, **changes},
    )
    return Cache.create_or_resume(folder, spec)


@pytest.fixture
def interruptible():
    """Have SIGINT raise KeyboardInterrupt while the list is not empty: a late one would end all tests."""
    going = []

    def handle(number, frame):
        if going:
            signal.default_int_handler(number, frame)

    previous = signal.signal(signal.SIGINT, handle)
    yield going
    signal.signal(signal.SIGINT, previous)


def press(n_times, *, pause_s=0.05):
    for _ in range(n_times):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(pause_s)


def wait_until(is_so):
    end = time.monotonic() + PATIENCE_S
    while not is_so() and time.monotonic() < end:
        time.sleep(0.005)


def is_leaving(name):
    """Return whether the main thread is where a ``with`` of the function is left."""
    frame, inner = sys._current_frames()[threading.main_thread().ident], None
    while frame is not None and frame.f_code.co_name != name:
        frame, inner = frame.f_back, frame
    return frame is not None and inner is not None and inner.f_code.co_name == "__exit__"


def threads_at_work():
    """Return those that write and commit; other tests of the process may have left a service's."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(("actisketch-chunk", "actisketch-committer"))]


def interrupted(interruptible, work):
    """Do the work, which Ctrl-C ends; return the threads that are left then."""
    interruptible.append(True)
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
        return threads_at_work()
    finally:
        interruptible.clear()


@pytest.mark.parametrize("n_times", [1, 2, 5])
@pytest.mark.parametrize("keeps", [True, False])
def test_ctrl_c_while_the_last_blocks_are_committed_loses_none_of_them(
    tmp_path, producer, monkeypatch, interruptible, n_times, keeps
):
    commit, begun, ended = BlockWriter.commit, [], []

    def slow(writer, *arguments):
        begun.append(writer.block.index)
        if writer.block.index == 3:  # all five are computed when the main thread waits
            wait_until(lambda: is_leaving("record_missing"))
            press(n_times)
        record = commit(writer, *arguments)
        ended.append(writer.block.index)
        return record

    monkeypatch.setattr(BlockWriter, "commit", slow)
    with new_cache(tmp_path / "c", producer, keeps_activations=keeps) as cache:
        left = interrupted(interruptible, lambda: record_missing(cache, producer, sketch=SKETCH))
        n_ended = len(ended)

    cache = Cache.open(tmp_path / "c")
    assert left == []
    assert begun == ended == [0, 1, 2, 3, 4]
    assert n_ended == 5
    assert cache.missing() == ()
    for name in producer.shapes if keeps else ():
        np.testing.assert_array_equal(np.concatenate(list(cache.chunks(name))), producer.all_values(name))


@pytest.mark.parametrize("n_times", [1, 3])
@pytest.mark.parametrize("of", ["a block", "all"])
def test_ctrl_c_while_a_chunk_is_written_leaves_no_thread_that_writes_to_a_closed_cache(
    tmp_path, make_producer, monkeypatch, interruptible, n_times, of
):
    class Interrupting(make_producer):
        def hand_over(self, start, stop, consumer):
            super().hand_over(start, stop, consumer)
            if start == BLOCK:
                wait_until(lambda: begun)
                press(1)

    producer, begun, ended = Interrupting(), [], []
    with new_cache(tmp_path / "c", producer) as cache:
        write = cache.store.write

        def slow(key, parts):
            if "/c.1." not in key:  # a block is one chunk of each point
                return write(key, parts)
            begun.append(key)
            time.sleep(0.2)  # the first Ctrl-C falls into it, and what it leads to waits
            if key == begun[0]:
                press(n_times - 1)
            time.sleep(0.2)
            write(key, parts)
            ended.append(key)

        monkeypatch.setattr(cache.store, "write", slow)

        def record():
            if of == "all":
                return record_missing(cache, producer, sketch=SKETCH)
            return record_block(cache, producer, cache.blocks[1], sketch=SKETCH)

        left = interrupted(interruptible, record)
        n_ended = len(ended)
    time.sleep(0.4)

    assert left == []
    assert n_ended == len(ended) == len(begun) > 0
    assert 1 in [block.index for block in Cache.open(tmp_path / "c").missing()]
