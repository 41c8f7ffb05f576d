"""One line of progress in a notebook: it moves, goes from stage to stage, and ends as a summary.

It is a display of IPython that is updated in place, which Jupyter, VS Code and Colab all show without widgets.
"""

from __future__ import annotations

import html
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from ..events import BlockDone, Event, OnEvent, SamplesDone, StageDone, StageStarted
from ..folder.pace import Pace
from ..settings.visible import visible

__all__ = ["NotebookProgress", "is_notebook", "progress_shown"]

# Faster than anybody reads, and slow enough that the messages to the browser cost nothing.
INTERVAL_S = 0.2
STYLE = "white-space:nowrap;overflow:hidden;text-overflow:ellipsis"


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook. Imports nothing."""
    interactive = sys.modules.get("IPython")
    shell = None if interactive is None else interactive.get_ipython()
    return getattr(shell, "kernel", None) is not None


@contextmanager
def progress_shown(progress: bool | None, on_event: OnEvent) -> Iterator[OnEvent]:
    """Show the events of a job while this context lasts; yield what to tell them to.

    Parameters
    ----------
    progress : bool, optional
        Show them; default: only in a notebook.
    on_event : callable
        Told of them too.
    """
    shown: Any = None
    if is_notebook() and progress is not False:
        shown = NotebookProgress()
    elif progress:
        from rich.console import Console

        from .job_progress import JobProgress

        shown = JobProgress(Console(stderr=True))
    if shown is None:
        yield on_event
        return

    def both(event: Event) -> None:
        shown(event)
        on_event(event)

    with shown:
        yield both


class NotebookProgress:
    """Shows events while it is entered; call it with each event, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun_s = self._shown_s = time.monotonic()
        self._stage: StageStarted | None = None
        self._pace = Pace()
        self._n_passed = self._n_committed = 0
        self._done: list[str] = []
        self._display: Any = None

    def __enter__(self) -> NotebookProgress:
        self._show("loading ...")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        took = f"{time.monotonic() - self._begun_s:,.1f} s"
        with self._lock:
            if kind is None:
                self._show("; ".join([*self._done, took]))
            else:
                where = "" if self._stage is None else f" in {self._line(time.monotonic())}"
                self._show(f"stopped{where} after {took} ({kind.__name__})")

    def __call__(self, event: Event) -> None:
        """Show an event."""
        with self._lock:
            now_s = time.monotonic()
            if isinstance(event, StageStarted):
                self._stage, self._pace = event, Pace(event.n_total, event.n_done)
                self._n_passed = self._n_committed = 0
            elif isinstance(event, StageDone):
                self._done.append(f"{event.stage}: {event.message}")
                self._stage = None
            elif isinstance(event, BlockDone | SamplesDone):
                self._advance(event, now_s)
                if now_s - self._shown_s < INTERVAL_S:
                    return
            if self._stage is not None:
                self._show(self._line(now_s), share=self._share())
            self._shown_s = now_s

    def _advance(self, event: BlockDone | SamplesDone, now_s: float) -> None:
        # Samples pass through the network before their block is committed; a cluster reports its blocks only.
        if isinstance(event, BlockDone):
            self._n_committed += event.n_samples
        else:
            self._n_passed = event.n_done
        begun = 0 if self._stage is None else self._stage.n_done
        n_done = begun + max(self._n_passed, self._n_committed)
        if n_done > self._pace.n_done:
            self._pace.mark(n_done, now_s)

    def _share(self) -> float | None:
        stage = self._stage
        return self._pace.n_done / stage.n_total if stage is not None and stage.n_total else None

    def _line(self, now_s: float) -> str:
        from .job_progress import STAGE_LABELS

        assert self._stage is not None  # the callers looked
        parts = [STAGE_LABELS[self._stage.stage]]
        if self._stage.n_total:
            parts.append(f"{self._pace.n_done:,}/{self._stage.n_total:,} {self._stage.unit}")
        if self._pace.per_second is not None:
            parts.append(f"{self._pace.per_second:,.0f} {self._stage.unit}/s")
        left_s = self._pace.left_s(now_s)
        return ", ".join([*parts, *([] if left_s is None else [f"about {left_s:,.0f} s left"])])

    def _show(self, line: str, *, share: float | None = None) -> None:
        from IPython.display import display

        bar = "" if share is None else f'<progress value="{share:.4f}" max="1"></progress> '
        text = visible(line)
        shown = {"text/plain": text, "text/html": f'<div style="{STYLE}">{bar}{html.escape(text)}</div>'}
        if self._display is None:
            self._display = display(shown, raw=True, display_id=True)
        elif self._display:
            self._display.update(shown, raw=True)
