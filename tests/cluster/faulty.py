"""Producers that go wrong on purpose, for the worker processes of the tests: importable there by PYTHONPATH."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actisketch.pipeline.cluster.rehearsal import RehearsalRecipe
from actisketch.pipeline.record.producer import Consumer
from actisketch.storage.errors import StorageError


@dataclass(frozen=True, kw_only=True)
class FaultyRecipe(RehearsalRecipe):
    """Writes down every block it computes; fails, dies or waits where it is told to."""

    folder: str = ""
    """A file for each block that is computed, one line for each time."""
    nan_blocks: tuple[int, ...] = ()
    """First samples of blocks whose values are NaN: wrong data."""
    transient_blocks: Mapping[int, int] | None = None
    """First sample -> how often storage fails before it works."""
    deadly_blocks: tuple[int, ...] = ()
    """First samples of blocks that kill their process."""
    refusing: str = ""
    """A file whose existence makes a worker unable to start; it then says so in there."""

    def make(self, n_threads: int) -> Any:
        if self.refusing and Path(self.refusing).exists():
            Path(self.refusing).write_text("refused")
            raise StorageError("no network here")
        return self

    def hand_over(self, start: int, stop: int, consumer: Consumer) -> None:
        with (Path(self.folder) / f"{start:08d}").open("a") as log:
            log.write(f"{os.getpid()} {time.time()}\n")
        times = len((Path(self.folder) / f"{start:08d}").read_text().splitlines())
        if start in self.deadly_blocks:
            os.kill(os.getpid(), 9)
        if times <= (self.transient_blocks or {}).get(start, 0):
            raise StorageError(f"the store did not answer ({times})")
        super().hand_over(start, stop, _Poisoned(consumer) if start in self.nan_blocks else consumer)


class _Poisoned:
    """Hands NaN on in place of what it takes."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self.end_batch = consumer.end_batch

    def take(self, point: str, values: NDArray[np.float32]) -> None:
        self._consumer.take(point, np.full_like(values, np.nan))


def computed(folder: Path) -> dict[int, int]:
    """First sample of each block -> how often it was computed."""
    return {int(path.name): len(path.read_text().splitlines()) for path in sorted(folder.iterdir())}


def pids(folder: Path) -> set[int]:
    """Of the processes that computed."""
    return {int(line.split()[0]) for path in folder.iterdir() for line in path.read_text().splitlines()}
