"""What other percentiles would do: the factor of each layer, and how much of its activations that would saturate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..factors.saturation import Saturation, saturation_of
from .matched_points import meant_points
from .percentile_rows import as_percents
from .run import Run, open_run

__all__ = ["SweptPoint", "sweep"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptPoint:
    """One point at one percentile."""

    q: float
    """In percent."""
    point: str
    factor: float | tuple[float, ...]
    rule: str
    """As :attr:`~..factors.factors_file.PointFactor.rule`: pinned and tied points have the factor that they get."""
    saturation: Saturation
    """Share of the activations above the factor."""


def sweep(
    run: Run | str | Path,
    qs: float | Sequence[float] = (99.0, 99.9, 99.99, 100.0),
    *,
    points: str | Iterable[str] | None = None,
) -> list[SweptPoint]:
    """Return the factors of a finished run at several percentiles, with the saturation that each would give.

    From the sketches: no model, no data, in milliseconds.

    Parameters
    ----------
    run : Run or path
    qs : float or sequence of float
        In percent; 100 is the maximum. What is given twice is answered once, as with ``points``.
    points : str or iterable of str, optional
        Names or patterns (``"conv*"``); default: all.

    Returns
    -------
    list of SweptPoint
        By percentile, then in model order.

    Examples
    --------
    >>> [(row.point, row.factor) for row in sweep("digits", [99.9])]  # doctest: +SKIP
    [('conv1', 3.8), ('conv2', 5.4), ...]
    """
    ranks = as_percents(qs)
    run = run if isinstance(run, Run) else open_run(run)
    chosen = set(run.points if points is None else meant_points(points, run.points))
    return [
        SweptPoint(
            q=q,
            point=p.name,
            factor=p.factor,
            rule=p.rule,
            saturation=saturation_of(run.sketches[p.name], p.factor),
        )
        for q in ranks
        for p in run.factors(percentile=q, exact=False).points
        if p.name in chosen
    ]
