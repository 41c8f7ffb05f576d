"""What a long job tells while it works: plain values for a progress bar, a log or a web page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = [
    "BlockDone",
    "Event",
    "OnEvent",
    "Remark",
    "SamplesDone",
    "StageDone",
    "StageStarted",
    "counted",
    "ignore_event",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted:
    """A stage begins."""

    stage: str
    """``record``, ``reduce``, ``factors``, ``normalize``, ``certify`` or ``report``."""
    n_total: int = 0
    """Units of work in it: samples for ``record`` and ``certify``; 0 when not counted."""
    n_done: int = 0
    """Units that an earlier run did already."""
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDone:
    """A block was committed to the cache."""

    block: int
    n_samples: int
    nbytes: int
    """Bytes of activations before compression."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplesDone:
    """So many samples went through, since the stage began.

    While recording in this process it is told of each batch, before the block of these samples is done.
    """

    n_done: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StageDone:
    """A stage is finished."""

    stage: str
    message: str
    """One sentence for a person."""
    reloaded: bool = False
    """True when nothing had to be computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Something that a person wants to know, and no stage."""

    topic: str
    """As ``"data"``."""
    message: str


def counted(n: int, noun: str) -> str:
    """Return a number of things as a person says it.

    Examples
    --------
    >>> counted(1, "block"), counted(1200, "block")
    ('1 block', '1200 blocks')
    """
    return f"{n} {noun if n == 1 else noun + 's'}"


Event = StageStarted | BlockDone | SamplesDone | StageDone | Remark
OnEvent = Callable[[Event], None]


def ignore_event(event: Event) -> None:
    """Do nothing: for callers who do not listen."""
