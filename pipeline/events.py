"""What a long job reports while it works: plain values for a progress bar, a log or a web page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "BlockDone",
    "Event",
    "OnEvent",
    "Remark",
    "SamplesDone",
    "StageDone",
    "StageName",
    "StageStarted",
    "counted",
    "ignore_event",
]


StageName = Literal["record", "input", "factors", "normalize", "certify", "report", "export"]
"""The stages of a job; ``input`` measures the factor of the network's input. ``export`` comes after jobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted:
    """A stage begins."""

    stage: StageName
    n_total: int = 0
    """Units of work in this stage; 0 if they are not counted."""
    n_done: int = 0
    """Units that an earlier run finished."""
    unit: str = ""
    """Plural, as ``samples``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDone:
    """A block was committed to the cache."""

    block: int
    n_samples: int
    nbytes: int
    """Bytes of activations before compression."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplesDone:
    """More samples passed through the network, though their block may not be committed yet."""

    n_done: int
    """Since the stage began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageDone:
    """A stage is finished."""

    stage: StageName
    message: str
    """One sentence for a person."""
    reloaded: bool = False
    """True if nothing had to be computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Something that a person should know and that belongs to no stage."""

    topic: str
    """As ``data`` or ``cluster``."""
    message: str


def counted(n: int, noun: str) -> str:
    """Return a number of things in words.

    Examples
    --------
    >>> counted(1, "block"), counted(1200, "block")
    ('1 block', '1,200 blocks')
    """
    return f"{n:,} {noun if n == 1 else noun + 's'}"


Event = StageStarted | BlockDone | SamplesDone | StageDone | Remark
OnEvent = Callable[[Event], None]


def ignore_event(event: Event) -> None:
    """Do nothing: for callers who want no events."""
