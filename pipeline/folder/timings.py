"""How long the stages of a run took, and how much memory: a small file of its own, so that results do not depend on it.

With ``SOURCE_DATE_EPOCH`` in the environment, by which builds ask for reproducible files, nothing is noted.
"""

from __future__ import annotations

import datetime
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ...storage.errors import ActisketchError
from ..events import Event, OnEvent, StageDone, StageStarted
from .folder import RunFolder, write_json
from .json_file import read_document

__all__ = ["StageTiming", "read_timings", "timed"]

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTiming:
    """What one stage of a run took, in the process that ran the job."""

    began: str
    """Date and time in UTC, ISO 8601; of the first part, if the stage was resumed."""
    wall_s: float
    cpu_s: float
    peak_nbytes: int
    """The most memory that the process has held until the end of the stage; 0 where the system does not tell."""


_TIMINGS = TypeAdapter(dict[str, StageTiming])


def read_timings(folder: RunFolder) -> dict[str, StageTiming]:
    """Return what is known, by stage and in their order; nothing if the file is missing or damaged."""
    try:
        tree = read_document(folder.timings_path)
        return (
            _TIMINGS.validate_python(tree["stages"]) if tree["actisketch_timings"] == FORMAT_VERSION else {}
        )
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return {}


@contextmanager
def timed(folder: RunFolder, on_event: OnEvent) -> Iterator[OnEvent]:
    """Yield a listener that hands events on and notes what the stages take that compute something."""
    clock = _Clock(folder)

    def listen(event: Event) -> None:
        # First: what listeners do is no part of a stage.
        if isinstance(event, StageStarted | StageDone):
            clock(event)
        on_event(event)

    if "SOURCE_DATE_EPOCH" in os.environ:
        yield on_event
        return
    try:
        yield listen
    finally:
        clock.stop()


class _Clock:
    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._stage: StageStarted | None = None
        self._began, self._wall_s, self._cpu_s = "", 0.0, 0.0

    def __call__(self, event: StageStarted | StageDone) -> None:
        if isinstance(event, StageDone):
            if event.reloaded:
                self._stage = None
            self.stop()
            return
        self.stop()
        self._stage = event
        self._began = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._wall_s, self._cpu_s = time.monotonic(), time.process_time()

    def stop(self) -> None:
        """Note the stage that has ended, or was interrupted. A disk that refuses does not stop a job."""
        stage, self._stage = self._stage, None
        # The report cannot tell how long it takes itself.
        if stage is None or stage.stage == "report" or not self._folder.path.is_dir():
            return
        timing = StageTiming(
            began=self._began,
            wall_s=round(time.monotonic() - self._wall_s, 3),
            cpu_s=round(time.process_time() - self._cpu_s, 3),
            peak_nbytes=_peak_nbytes(),
        )
        known = read_timings(self._folder)
        if stage.n_done and stage.stage in known:
            timing = _sum(known[stage.stage], timing)
        stages = {**{name: each for name, each in known.items() if name != stage.stage}, stage.stage: timing}
        with suppress(OSError, ActisketchError):
            write_json(self._folder.timings_path, _tree(stages))


def _tree(stages: Mapping[str, StageTiming]) -> dict[str, Any]:
    return {
        "actisketch_timings": FORMAT_VERSION,
        "stages": {name: asdict(each) for name, each in stages.items()},
    }


def _sum(first: StageTiming, then: StageTiming) -> StageTiming:
    return replace(
        first,
        wall_s=round(first.wall_s + then.wall_s, 3),
        cpu_s=round(first.cpu_s + then.cpu_s, 3),
        peak_nbytes=max(first.peak_nbytes, then.peak_nbytes),
    )


def _peak_nbytes() -> int:
    if sys.platform == "win32":
        return 0
    import resource

    # Kibibytes, but bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
