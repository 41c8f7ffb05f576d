"""Tell others how far a job is, whoever started it: a small file in its folder, replaced about once a second.

It is there while the job works, and after it has failed. A job that ends well removes it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ...storage.errors import ActisketchError
from ...storage.files import open_to_read, put_in_place
from ...storage.locks import Holder
from ...storage.parsing import parse_json
from ...storage.partial import partial_name
from ..events import BlockDone, Event, OnEvent, Remark, SamplesDone, StageDone, StageStarted
from .folder import RunFolder
from .pace import Pace

__all__ = ["Progress", "progress_told", "read_progress"]

FORMAT_VERSION = 1
INTERVAL_S = 1.0
# What others have said to a person; the log has all of it.
MOST_MESSAGES = 20
# A process of another host or container cannot be seen: it counts as dead when it has told nothing for so long.
SILENT_S = 900.0
LARGEST_NBYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a job is."""

    holder: Holder
    """The process that works."""
    stage: str = ""
    unit: str = ""
    """Plural of what is counted, as ``samples``; empty if nothing is."""
    n_done: int = 0
    n_total: int = 0
    """0 if nothing is counted."""
    n_blocks: int = 0
    """Committed by this job, since the stage began."""
    nbytes: int = 0
    """Of activations before compression, of these blocks."""
    per_second: float | None = None
    left_s: float | None = None
    """Until the end of the stage."""
    updated_s: float = 0.0
    """Seconds since 1970."""
    messages: tuple[str, ...] = ()
    """The last ones for a person."""
    error: str | None = None
    """Why the job has ended; None while it works."""

    @property
    def is_alive(self) -> bool:
        """Whether the job works, as far as this can be seen from here."""
        if self.error is not None or self.holder.is_dead:
            return False
        return self.holder.is_here or time.time() - self.updated_s < SILENT_S


_PROGRESS = TypeAdapter(Progress)


def read_progress(folder: str | Path) -> Progress | None:
    """Return how far the job is that works in a folder, or has failed there; None if there is none."""
    try:
        with open(RunFolder(Path(folder)).progress_path, "rb", opener=open_to_read) as file:
            tree = parse_json(file.read(LARGEST_NBYTES))
        if tree.pop("actisketch_progress") != FORMAT_VERSION:
            return None
        return _PROGRESS.validate_python(tree)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


@contextmanager
def progress_told(folder: RunFolder, on_event: OnEvent) -> Iterator[OnEvent]:
    """Yield a listener that hands events on and keeps the file while the job works.

    Parameters
    ----------
    folder : RunFolder
        Of the job. Nothing is written before it exists.
    on_event : callable
        Told about every event first.
    """
    writer = _ProgressWriter(folder.progress_path)

    def listen(event: Event) -> None:
        on_event(event)
        writer(event)

    try:
        yield listen
    except BaseException as error:
        is_known = isinstance(error, ActisketchError)
        said = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
        writer.fail(said if is_known or said == "interrupted" else f"{type(error).__name__}: {error}")
        raise
    writer.remove()


class _ProgressWriter:
    """Writes the file. A disk that refuses does not stop a job: it will say so itself."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._now = Progress(holder=Holder.me())
        self._pace, self._written_s, self._began = Pace(), float("-inf"), 0
        self._n_passed, self._n_committed = 0, 0

    def __call__(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, StageStarted):
                self._start(event)
            elif isinstance(event, BlockDone | SamplesDone):
                self._advance(event)
            else:
                self._say(event)
            if not isinstance(event, BlockDone | SamplesDone) or self._is_due():
                self._write()

    def _start(self, event: StageStarted) -> None:
        self._pace, self._began = Pace(event.n_total, event.n_done), event.n_done
        self._n_passed, self._n_committed = 0, 0
        self._now = dataclasses.replace(
            self._now,
            stage=event.stage,
            unit=event.unit,
            n_done=event.n_done,
            n_total=event.n_total,
            n_blocks=0,
            nbytes=0,
            per_second=None,
            left_s=None,
        )

    def _advance(self, event: BlockDone | SamplesDone) -> None:
        if isinstance(event, SamplesDone):
            self._n_passed = event.n_done
        else:
            self._n_committed += event.n_samples
            self._now = dataclasses.replace(
                self._now, n_blocks=self._now.n_blocks + 1, nbytes=self._now.nbytes + event.nbytes
            )
        n_done, now_s = self._began + max(self._n_passed, self._n_committed), time.monotonic()
        if n_done > self._pace.n_done:
            self._pace.mark(n_done, now_s)
        self._now = dataclasses.replace(
            self._now, n_done=n_done, per_second=self._pace.per_second, left_s=self._pace.left_s(now_s)
        )

    def _say(self, event: StageDone | Remark) -> None:
        about = event.stage if isinstance(event, StageDone) else event.topic
        said = (*self._now.messages, f"{about}: {event.message}")[-MOST_MESSAGES:]
        self._now = dataclasses.replace(self._now, messages=said)

    def _is_due(self) -> bool:
        return time.monotonic() - self._written_s >= INTERVAL_S

    def _write(self) -> None:
        if not self._path.parent.is_dir():
            return
        self._written_s = time.monotonic()
        tree: dict[str, Any] = {"actisketch_progress": FORMAT_VERSION, **dataclasses.asdict(self._now)}
        partial = self._path.with_name(partial_name(self._path.stem, self._path.suffix))
        with suppress(OSError):
            # Not flushed to the disk: after a power cut nobody works here.
            partial.unlink(missing_ok=True)
            with open(partial, "x", encoding="utf-8") as file:
                json.dump({**tree, "updated_s": time.time()}, file)
            put_in_place(partial, self._path)

    def fail(self, why: str) -> None:
        """Note that the job has ended, and why."""
        with self._lock:
            self._now = dataclasses.replace(self._now, error=why, left_s=None)
            if self._written_s > float("-inf"):
                self._write()

    def remove(self) -> None:
        """Remove the file: the results say that the job has ended."""
        with self._lock, suppress(OSError):
            os.unlink(self._path)
