"""Show the events of a job: a bar on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
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
)
from rich.text import Text

from ..events import BlockDone, Event, Remark, SamplesDone, StageDone, StageName, StageStarted
from ..folder.pace import Pace
from ..settings.sizes import format_bytes
from ..settings.visible import visible

__all__ = ["STAGE_LABELS", "JobProgress"]

# Plain lines go to log files and batch systems: frequent enough to show progress, rare enough to read.
PLAIN_INTERVAL_S = 10.0

STAGE_LABELS: dict[StageName, str] = {
    "record": "recording activations",
    "input": "measuring the input",
    "factors": "computing scale factors",
    "normalize": "rewriting the network",
    "certify": "certifying",
    "report": "drawing the report",
    "export": "measuring tensors that are no points",
}


class _RateColumn(ProgressColumn):
    """Samples per second and bytes written, as the events report them."""

    def render(self, task: Task) -> Text:
        return Text(" ".join(_rate_and_size(task.fields["pace"], task.fields["unit"], task.fields["nbytes"])))


class _LeftColumn(ProgressColumn):
    """Time left."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        left_s = task.fields["pace"].left_s(time.monotonic())
        return Text("-:--:--" if left_s is None else str(timedelta(seconds=round(left_s))))


def _rate_and_size(pace: Pace, unit: str, nbytes: int) -> Iterator[str]:
    rate = pace.per_second
    if rate is not None and unit == "samples":
        yield f"{rate:,.0f} samples/s"
    if nbytes:
        yield format_bytes(nbytes)


class JobProgress:
    """Shows events while it is entered; call it with each event, from any thread.

    Parameters
    ----------
    console : Console
        Where events are shown; standard error.
    quiet : bool
        Show nothing.
    """

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console, self._quiet = console, quiet
        self._lock = threading.Lock()
        self._bar: Progress | None = None
        self._task: Any = None
        self._stage = StageStarted(stage="record")
        self._pace = Pace()
        self._shown = 0.0
        # Samples pass through the network before their block is committed; a cluster reports its blocks only.
        self._n_passed, self._n_committed, self._nbytes = 0, 0, 0

    def __enter__(self) -> JobProgress:
        if self._console.is_terminal and not self._console.is_dumb_terminal and not self._quiet:
            # Below 100 columns the line would wrap: the least important columns are left out.
            roomy = self._console.width >= 100
            self._bar = Progress(
                TextColumn("{task.description}"),
                *((BarColumn(bar_width=None),) if self._console.width >= 60 else ()),
                MofNCompleteColumn(),
                *((_RateColumn(), TimeElapsedColumn()) if roomy else ()),
                TextColumn("left"),
                _LeftColumn(),
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
            elif isinstance(event, Remark):
                self._print(f"{event.topic}: {event.message}")
            else:
                self._advance(event)

    def _start(self, event: StageStarted) -> None:
        self._stage = event
        self._shown = time.monotonic()
        self._pace = Pace(event.n_total, event.n_done)
        self._n_passed, self._n_committed, self._nbytes = 0, 0, 0
        self._remove_task()
        if self._bar is not None:
            self._task = self._bar.add_task(
                STAGE_LABELS[event.stage],
                total=event.n_total or None,
                completed=event.n_done,
                unit=event.unit,
                pace=self._pace,
                nbytes=0,
            )
        elif event.n_total > event.n_done:
            left = event.n_total - event.n_done
            unit = event.unit.removesuffix("s") if event.n_total == 1 else event.unit
            self._print(f"{STAGE_LABELS[event.stage]}: {left:,} of {event.n_total:,} {unit} to do")

    def _advance(self, event: BlockDone | SamplesDone) -> None:
        if isinstance(event, BlockDone):
            self._n_committed += event.n_samples
            self._nbytes += event.nbytes
        else:
            self._n_passed = event.n_done
        now_s, n_done = time.monotonic(), self._stage.n_done + max(self._n_passed, self._n_committed)
        if n_done > self._pace.n_done:
            self._pace.mark(n_done, now_s)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=n_done, nbytes=self._nbytes)
        elif now_s - self._shown >= PLAIN_INTERVAL_S:
            self._shown = now_s
            self._print(self._line(now_s))

    def _line(self, now_s: float) -> str:
        stage, doing = self._stage, STAGE_LABELS[self._stage.stage]
        left_s = self._pace.left_s(now_s)
        parts = [
            f"{doing}: {self._pace.n_done:,}/{stage.n_total:,} {stage.unit}",
            *_rate_and_size(self._pace, stage.unit, self._nbytes),
            *([] if left_s is None else [f"about {left_s:,.0f} s left"]),
        ]
        return ", ".join(parts)

    def _finish(self, event: StageDone) -> None:
        self._remove_task()
        self._print(f"{event.stage}: {event.message}")

    def _remove_task(self) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None

    def _print(self, line: str) -> None:
        self._console.print(visible(line, kept="\n"), markup=False, highlight=False, soft_wrap=True)
