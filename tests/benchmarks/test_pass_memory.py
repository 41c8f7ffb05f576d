"""What recording takes in memory beyond the bare network, over some samples and over 16 times as many.

``pytest tests/benchmarks/test_pass_memory.py --benchmark-enable -s`` prints the peaks of three processes for
MobileNetV2 at 96 px: the bare network, sketches only, and sketches only of 16 times the samples. Asked for are 400 MiB
beyond the bare network, and that more samples take no more: a sketch grows by one power of two with each doubling of
its values. Without the option the network and its data are small.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

BATCH_SIZE = 32
MOST_BEYOND = 400
"""MiB."""


def own_mib() -> float:
    """Return the memory of this process that is no file's: samples are mapped from one."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def measure(way: str, size: int, n_samples: int, folder: Path) -> None:
    """Print the peak of a pass over the samples in MiB."""
    import keras
    import tensorflow as tf

    from actisketch.pipeline import run

    images = np.load(folder / "images.npy", mmap_mode="r")
    model = keras.applications.MobileNetV2(input_shape=(size, size, 3), weights=None, classes=10)
    bare = tf.function(lambda x: model(x, training=False), autograph=False)
    peak, is_over = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_over.wait(0.005):
            peak = max(peak, own_mib())

    watching = threading.Thread(target=watch)
    watching.start()
    if way == "bare":
        for first in range(0, n_samples, BATCH_SIZE):
            memoryview(bare(tf.constant(images[first : first + BATCH_SIZE])))
    else:
        run(
            model,
            images,
            output=folder / f"{time.perf_counter_ns()}",
            batch_size=BATCH_SIZE,
            num_samples=n_samples,
            normalize=False,
            settings={"record": {"activations": False}, "report": {"enabled": False}},
        )
    is_over.set()
    watching.join()
    print(peak)


def peak_mib(*arguments: object) -> float:
    """Return what `measure` prints in a process of its own."""
    command = [sys.executable, "-m", __name__, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-2000:]
    return float(done.stdout.splitlines()[-1])


@pytest.mark.alone
def test_sketches_take_little_memory_however_many_samples(tmp_path: Path, *, is_measured: bool) -> None:
    size, n_samples = (96, 1024) if is_measured else (32, 64)
    shape = (16 * n_samples, size, size, 3)
    images = np.lib.format.open_memmap(tmp_path / "images.npy", "w+", np.float32, shape)
    draw = np.random.default_rng(3)
    for first in range(0, len(images), BATCH_SIZE):
        images[first : first + BATCH_SIZE] = draw.random((BATCH_SIZE, *shape[1:]), dtype=np.float32)
    images.flush()

    bare, once, more = (
        peak_mib(way, size, n, tmp_path)
        for way, n in (("bare", n_samples), ("sketches", n_samples), ("sketches", 16 * n_samples))
    )
    print(
        f"\nMobileNetV2 at {size} px, peaks: {bare:.0f} MiB the bare network, {once:.0f} with sketches of "
        f"{n_samples:,} samples, {more:.0f} of {16 * n_samples:,}: {once - bare:.0f} and {more - bare:.0f} MiB beyond "
        f"the bare network, {more / once:.3f} x"
    )

    assert max(once, more) - bare < MOST_BEYOND
    assert more < 1.15 * once


if __name__ == "__main__":
    measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
