"""A run that is killed: records made-up activations and notes each block that it begins.

Usage: python record_until_killed.py CACHE NOTES SLEEP_S N_MOST; run by test_kill.py, killed by it at any moment.
Before block N_MOST + 1 it waits for that: on a busy machine a kill comes late.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from actisketch.pipeline.record.producer import Consumer
from actisketch.pipeline.record.recorder import record_missing
from actisketch.pipeline.sketch import SketchSpec
from actisketch.storage import Cache, CacheSpec, PointSpec

if TYPE_CHECKING:
    from . import made_up
else:  # run as a script: its folder is where imports are looked for
    import made_up

N_BLOCKS = 44
POINTS = (
    PointSpec(name="conv/1", shape=(13, 11, 7)),
    # Its chunks are written past the page cache.
    PointSpec(name="conv/2", shape=(64, 64, 17)),
    PointSpec(name="all zero", shape=(10,)),
)


def spec() -> CacheSpec:
    """Return a cache of 44 blocks of 2 batches of 3 samples, the last one cut."""
    return made_up.spec(points=POINTS, n_samples=N_BLOCKS * 6 - 2, batch_size=3, block_samples=6)


class NotingProducer(made_up.MadeUpProducer):
    """Writes down which block is begun, before it is."""

    notes: int
    sleep_s: float = 0.0
    n_most: int = N_BLOCKS
    n_begun: int = 0

    def hand_over(self, start: int, stop: int, consumer: Consumer) -> None:
        """Hand over the activations, slowly."""
        while self.n_begun == self.n_most:
            time.sleep(0.1)
        object.__setattr__(self, "n_begun", self.n_begun + 1)
        os.write(self.notes, f"{start}\n".encode())
        for first in range(start, stop, self.batch_size):
            super().hand_over(first, min(first + self.batch_size, stop), consumer)
            time.sleep(self.sleep_s)


def main(cache_path: str, notes_path: str, sleep_s: str, n_most: str) -> None:
    """Record what is missing."""
    producer = NotingProducer(POINTS, 3)
    object.__setattr__(producer, "notes", os.open(Path(notes_path), os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    object.__setattr__(producer, "sleep_s", float(sleep_s))
    object.__setattr__(producer, "n_most", int(n_most))
    os.write(1, b"go\n")
    with Cache.create_or_resume(cache_path, spec()) as cache:
        record_missing(cache, producer, sketch=SketchSpec(bits=16))
    os.write(1, b"done\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
