"""One line of progress: shown in a kernel and nowhere else unless asked, updated in place, whole at the end."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from actisketch.pipeline.display import notebook_progress
from actisketch.pipeline.display.notebook_progress import progress_shown
from actisketch.pipeline.events import BlockDone, SamplesDone, StageDone, StageStarted


class Kernel:
    """The part of IPython that is used: what a page would show now, and how often that changed."""

    def __init__(self) -> None:
        self.displays: list[list[dict[str, str]]] = []

    def display(self, shown: dict[str, str], *, raw: bool, display_id: bool) -> Any:
        assert raw and display_id  # noqa: PT018
        states = [shown]
        self.displays.append(states)
        return SimpleNamespace(update=lambda shown, *, raw: states.append(shown))


@pytest.fixture
def kernel(monkeypatch):
    found = Kernel()
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=found.display))
    monkeypatch.setattr(notebook_progress, "INTERVAL_S", 0.0)
    return found


def work(told):
    told(StageStarted(stage="record", n_total=1000, n_done=200, unit="samples"))
    told(SamplesDone(n_done=300))
    told(BlockDone(block=0, n_samples=400, nbytes=7))
    told(StageDone(stage="record", message="computed 2 blocks"))
    told(StageStarted(stage="factors"))
    told(StageDone(stage="factors", message="5 points"))


def test_a_job_is_one_line_that_ends_as_its_summary(kernel):
    events = []
    with progress_shown(None, events.append) as told:
        work(told)

    (states,) = kernel.displays
    lines = [state["text/plain"] for state in states]
    assert any("500/1,000 samples" in line for line in lines)
    assert any("600/1,000 samples" in line for line in lines)
    assert any('<progress value="0.6000"' in state["text/html"] for state in states)
    assert lines[-1].startswith("record: computed 2 blocks; factors: 5 points; ")
    assert all("\n" not in line for line in lines)
    assert all(state["text/html"].count("<div") == 1 for state in states)
    assert len(events) == 6


def test_a_job_that_fails_says_where(kernel):
    def interrupted() -> None:
        with progress_shown(None, lambda _: None) as told:
            told(StageStarted(stage="record", n_total=1000, unit="samples"))
            told(SamplesDone(n_done=64))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    last = kernel.displays[0][-1]["text/plain"]
    assert last.startswith("stopped in recording activations, 64/1,000 samples")
    assert last.endswith("(KeyboardInterrupt)")


def test_names_are_escaped(kernel):
    with progress_shown(None, lambda _: None) as told:
        told(StageDone(stage="record", message="<script>\x1b[2J"))

    assert "<script" not in kernel.displays[0][-1]["text/html"]
    assert "\x1b" not in kernel.displays[0][-1]["text/html"]


def test_false_shows_nothing(kernel):
    with progress_shown(False, lambda _: None) as told:
        work(told)

    assert kernel.displays == []


@pytest.mark.parametrize("shell", [None, SimpleNamespace()], ids=["no shell", "a terminal"])
def test_outside_of_a_kernel_nothing_is_shown_unless_asked(monkeypatch, capsys, shell):
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    events = []
    with progress_shown(None, events.append) as told:
        assert told.__self__ is events
    assert capsys.readouterr() == ("", "")

    with progress_shown(True, events.append) as told:
        work(told)
    assert "record: computed 2 blocks" in capsys.readouterr().err
    assert len(events) == 6
