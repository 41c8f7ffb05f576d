"""Show the events of a job: a bar on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ..events import BlockDone, Event, SamplesDone, StageDone, StageStarted
from ..sizes import format_bytes

__all__ = ["JobProgress"]

# Plain lines go to log files and batch systems: often enough to see life, seldom enough to read.
PLAIN_INTERVAL_S = 10.0

_DOING = {
    "record": "recording activations",
    "reduce": "merging sketches",
    "factors": "scale factors",
    "normalize": "rewriting the network",
    "certify": "certifying",
    "report": "drawing the report",
}


class _RateColumn(ProgressColumn):
    """Samples per second and bytes, from what the events said."""

    def render(self, task: Task) -> Text:
        n_samples, nbytes = task.fields.get("n_samples", 0), task.fields.get("nbytes", 0)
        elapsed = task.elapsed or 0.0
        parts = []
        if n_samples and elapsed > 0 and task.fields.get("unit") in {"blocks", "samples"}:
            parts.append(f"{n_samples / elapsed:,.0f} samples/s")
        if nbytes:
            parts.append(format_bytes(nbytes))
        return Text(" ".join(parts))


class JobProgress:
    """Shows events while it is entered; call it with each event, from any thread.

    Parameters
    ----------
    console : Console
        Where to; standard error.
    quiet : bool
        Show nothing.
    """

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console, self._quiet = console, quiet
        self._lock = threading.Lock()
        self._bar: Progress | None = None
        self._task: Any = None
        self._stage = StageStarted(stage="")
        self._started, self._shown, self._n_done, self._n_samples, self._nbytes = 0.0, 0.0, 0, 0, 0

    def __enter__(self) -> JobProgress:
        if self._console.is_terminal and not self._console.is_dumb_terminal and not self._quiet:
            # Below 100 columns the line would wrap; what is left out is the least missed.
            roomy = self._console.width >= 100
            self._bar = Progress(
                TextColumn("{task.description}"),
                *((BarColumn(bar_width=None),) if self._console.width >= 60 else ()),
                MofNCompleteColumn(),
                *((_RateColumn(), TimeElapsedColumn()) if roomy else ()),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
                expand=True,
            )
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if self._quiet:
            return
        with self._lock:
            if isinstance(event, StageStarted):
                self._start(event)
            elif isinstance(event, StageDone):
                self._finish(event)
            else:
                self._advance(event)

    def _start(self, event: StageStarted) -> None:
        self._stage = event
        self._started = self._shown = time.monotonic()
        self._n_done, self._n_samples, self._nbytes = event.n_done, 0, 0
        self._remove_task()
        if self._bar is not None:
            self._task = self._bar.add_task(
                _DOING.get(event.stage, event.stage),
                total=event.n_total or None,
                completed=event.n_done,
                unit=event.unit,
            )
        elif event.n_total > event.n_done:
            left = event.n_total - event.n_done
            unit = event.unit.removesuffix("s") if event.n_total == 1 else event.unit
            self._print(f"{_DOING.get(event.stage, event.stage)}: {left:,} of {event.n_total:,} {unit} to do")

    def _advance(self, event: BlockDone | SamplesDone) -> None:
        if isinstance(event, BlockDone):
            self._n_done += 1
            self._n_samples += event.n_samples
            self._nbytes += event.nbytes
        else:
            self._n_done = self._n_samples = event.n_done
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task, completed=self._n_done, n_samples=self._n_samples, nbytes=self._nbytes
            )
        elif time.monotonic() - self._shown >= PLAIN_INTERVAL_S:
            self._shown = time.monotonic()
            self._print(self._line())

    def _line(self) -> str:
        elapsed = max(time.monotonic() - self._started, 1e-9)
        total, done_here = self._stage.n_total, self._n_done - self._stage.n_done
        left = (total - self._n_done) * elapsed / done_here if done_here and total else 0.0
        unit = self._stage.unit
        rate = f", {self._n_samples / elapsed:,.0f} samples/s" if unit in {"blocks", "samples"} else ""
        size = f", {format_bytes(self._nbytes)}" if self._nbytes else ""
        doing = _DOING.get(self._stage.stage, self._stage.stage)
        return f"{doing}: {self._n_done:,}/{total:,} {unit}{rate}{size}, about {left:,.0f} s left"

    def _finish(self, event: StageDone) -> None:
        self._remove_task()
        self._print(f"{event.stage}: {event.message}")

    def _remove_task(self) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
