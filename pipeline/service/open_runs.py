"""Runs that were asked, with their merged sketches in memory, up to a limit; read again when more is recorded.

Knows runs. Does not know requests.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..folder.folder import content_key
from ..results.run import Run, open_run
from ..results.so_far import SoFar, recorded_so_far
from ..sketch import PointSketch
from .run_root import RunRoot
from .workers import Stop, TooLong, Workers

__all__ = ["OpenRun", "OpenRuns"]

# Answers may be so much older than what is recorded.
FRESH_S = 1.0
# Looking whether something has changed takes at most this share of the time.
CHECK_SHARE = 0.05
# The ladders that a sketch makes when it is asked take twice as much as its counts.
ASKED_FACTOR = 3
# Of a run without any sketch: its manifest and the description of its cache.
SMALLEST_NBYTES = 100_000


@dataclass(frozen=True, kw_only=True)
class OpenRun:
    """A run as it was at one moment."""

    id: str
    folder: Path
    so_far: SoFar
    manifest: dict[str, Any]
    key: str
    """Equal keys, equal answers to the same question."""
    nbytes: int
    """Memory, roughly."""
    good_until_s: float

    @property
    def run(self) -> Run:
        """Answers from what is recorded."""
        return self.so_far.run


class OpenRuns:
    """Opens runs and keeps them, the last asked longest. Belongs to one event loop.

    Parameters
    ----------
    root : RunRoot
    workers : Workers
        Threads that read.
    limit_nbytes : int
        Memory for all runs together; the run that was asked last is kept even if it takes more.
    fresh_s : float
        How old an answer may be.
    """

    def __init__(
        self, root: RunRoot, workers: Workers, *, limit_nbytes: int, fresh_s: float = FRESH_S
    ) -> None:
        self._root, self._workers = root, workers
        self._limit_nbytes, self._fresh_s = limit_nbytes, fresh_s
        self._held: OrderedDict[str, OpenRun] = OrderedDict()
        self._loading: dict[str, asyncio.Task[OpenRun]] = {}

    def __len__(self) -> int:
        return len(self._held)

    @property
    def nbytes(self) -> int:
        """Memory of all runs that are kept, roughly."""
        return sum(held.nbytes for held in self._held.values())

    async def get(self, run_id: str) -> OpenRun:
        """Return a run as it is now, at most `FRESH_S` ago.

        Raises
        ------
        NotFoundError
            If there is none.
        InputError
            If it would have files outside of the root read.
        FormatError, StorageError
            If it cannot be read.
        TooLong
            If that takes longer than a question may: it goes on, for those who ask again.
        """
        held = self._held.get(run_id)
        if held is not None and time.monotonic() < held.good_until_s:
            self._held.move_to_end(run_id)
            return held
        task = self._loading.get(run_id)
        if task is None:
            # One task for all who ask at the same time; it goes on if one of them leaves.
            task = asyncio.create_task(self._load(run_id))
            self._loading[run_id] = task
            task.add_done_callback(lambda done: self._loaded(run_id, done))
        await asyncio.wait([task], timeout=self._workers.limit_s)
        if not task.done():
            raise TooLong
        return task.result()

    async def _load(self, run_id: str) -> OpenRun:
        held = self._held.get(run_id)
        opened = await self._workers.run(lambda stop: self._open(run_id, held, stop), goes_on=True)
        self._held[run_id] = opened
        self._held.move_to_end(run_id)
        while len(self._held) > 1 and self.nbytes > self._limit_nbytes:
            self._held.popitem(last=False)
        return opened

    def _loaded(self, run_id: str, task: asyncio.Task[OpenRun]) -> None:
        del self._loading[run_id]
        if task.cancelled() or task.exception() is not None:
            self._held.pop(run_id, None)

    def _open(self, run_id: str, before: OpenRun | None, stop: Stop) -> OpenRun:
        started_s = time.monotonic()
        folder = self._root.folder_of(run_id)
        self._root.check_inside(folder, None, with_arrays=False)
        run = open_run(folder)
        cache = run.settings.cache
        self._root.check_inside(folder, cache.url, options=cache.storage_options, check=stop.check)
        so_far = recorded_so_far(run, None if before is None else before.so_far)
        manifest = run.folder.manifest()
        # Those that the answers are from: a job may have written others since.
        settings = run.settings.model_dump(mode="json", exclude={"output"})
        ended_s = time.monotonic()
        if before is not None and so_far.key == before.so_far.key:
            nbytes = before.nbytes
        else:
            nbytes = SMALLEST_NBYTES + sum(map(_nbytes, so_far.run.sketches.values()))
        took_s = ended_s - started_s
        return OpenRun(
            id=run_id,
            folder=folder,
            so_far=so_far,
            manifest=manifest,
            key=content_key(so_far.key, so_far.damage, settings, manifest, _seen(run)),
            nbytes=nbytes,
            good_until_s=ended_s + max(self._fresh_s, took_s / CHECK_SHARE if self._fresh_s else 0),
        )


def _nbytes(sketch: PointSketch) -> int:
    channels = 0 if sketch.channels is None else sketch.channels.nbytes
    return ASKED_FACTOR * (sketch.layer.nbytes + sketch.maxima.nbytes) + channels


def _seen(run: Run) -> list[tuple[int, int] | None]:
    """Return size and date of each result in the folder: a change shows whether it is damaged."""
    folder = run.folder
    results = (folder.statistics_path, folder.factors_path, folder.certificate_path, folder.network_path)
    return [_stat(path) for path in (*results, folder.sketches_path, folder.report_path / "index.html")]


def _stat(path: Path) -> tuple[int, int] | None:
    try:
        at = os.stat(path)
    except OSError:
        return None
    return at.st_size, at.st_mtime_ns
