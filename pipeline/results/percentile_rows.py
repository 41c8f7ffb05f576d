"""Percentiles of a point or of its channels as rows, from its sketch or exact from the recorded activations.

Knows sketches. Does not know folders or settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from ...storage.errors import InputError
from ..factors.exact_source import ExactSource, channels_of
from ..settings.percents import percent_text
from ..sketch import Percentile, PointSketch

__all__ = [
    "PercentileRow",
    "as_percents",
    "channel_rows",
    "check_percent",
    "is_number",
    "percent_label",
    "point_rows",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PercentileRow:
    """One percentile of one point, or of one channel of it."""

    point: str
    q: float
    """In percent, 0 to 100."""
    value: float
    lo: float
    hi: float
    """The exact order statistics lie within [lo, hi]; lo = hi = value when exact."""
    exact: bool
    channel: int | None = None


def point_rows(
    name: str, sketch: PointSketch, qs: Sequence[float], *, nonzero: bool, source: ExactSource | None
) -> list[PercentileRow]:
    """Return a row for each of ``qs``; ``source`` makes them exact. NaN where there are no values."""
    layer = sketch.layer
    if source is not None and layer.n > (layer.n_zeros if nonzero else 0):
        found = [Percentile(v, v, v) for v in source.percentiles(name, qs, nonzero=nonzero)]
    else:
        found = [layer.percentile(q, nonzero=nonzero) for q in qs]
    return [
        PercentileRow(point=name, q=q, value=p.value, lo=p.lo, hi=p.hi, exact=source is not None)
        for q, p in zip(qs, found, strict=True)
    ]


def channel_rows(
    name: str, sketch: PointSketch, qs: Sequence[float], *, nonzero: bool, source: ExactSource | None
) -> list[PercentileRow]:
    """Return a row for each of ``qs`` and each channel, as `point_rows`."""
    channels = channels_of(sketch, name)
    if source is not None:
        answers = [
            (values, values, values) for values in source.channel_percentiles(name, qs, nonzero=nonzero)
        ]
    else:
        answers = [channels.percentile(q, nonzero=nonzero) for q in qs]
    return [
        PercentileRow(point=name, channel=i, q=q, value=value, lo=lo, hi=hi, exact=source is not None)
        for q, columns in zip(qs, answers, strict=True)
        for i, (value, lo, hi) in enumerate(zip(*(column.tolist() for column in columns), strict=True))
    ]


def as_percents(qs: Any) -> tuple[float, ...]:
    """Return one percentile or several as a tuple, each once; InputError for what is no number from 0 to 100."""
    several = tuple(qs) if isinstance(qs, Iterable) and not isinstance(qs, str) else (qs,)
    for q in several:
        check_percent(q)
    return tuple(dict.fromkeys(map(float, several)))


def percent_label(q: float) -> str:
    """Return ``"p99.9"``: with all digits, as ``p99.99999`` is not the largest value.

    Examples
    --------
    >>> percent_label(50), percent_label(99.9), percent_label(99.99999)
    ('p50', 'p99.9', 'p99.99999')
    """
    return f"p{percent_text(q)}"


def is_number(given: object) -> bool:
    """Whether something is a real number of Python or NumPy; a text of digits is none, and neither is True."""
    return isinstance(given, Real) and not isinstance(given, bool)


def check_percent(q: Any) -> None:
    """Refuse what is not a number from 0 to 100."""
    if not is_number(q) or not 0 <= float(q) <= 100:
        raise InputError(f"percentile {q!r} is refused: a number from 0 to 100")
