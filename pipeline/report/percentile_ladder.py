"""What other percentiles would do to a layer: the value of each, and how much of the activations it would saturate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..sketch import Percentile, Sketch
from ..sketch.ladder import parse_percent, virtual_ranks

__all__ = ["LADDER", "Rung", "ladder"]

LADDER = (99.0, 99.9, 99.99, 100.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One percentile of a layer."""

    q: float
    percentile: Percentile
    saturation: float
    """Share of all activations above it, zeros included, 0 to 1."""


def ladder(sketch: Sketch, *, nonzero: bool, more: float | None = None) -> Iterator[Rung]:
    """Yield the percentiles of `LADDER`, and ``more``, in ascending order; nothing without values.

    Parameters
    ----------
    sketch : Sketch
        Of all activations of a layer.
    nonzero : bool
        Percentiles of the activations that are not zero, unless all are.
    """
    if not sketch.n:
        return
    is_nonzero = nonzero and sketch.n > sketch.n_zeros
    for q in sorted({*LADDER, *(() if more is None else (more,))}):
        found = sketch.percentile(q, nonzero=is_nonzero)
        yield Rung(q=q, percentile=found, saturation=_share_above(sketch, q, found, nonzero=is_nonzero))


def _share_above(sketch: Sketch, q: float, found: Percentile, *, nonzero: bool) -> float:
    """Return the share of all values above a percentile.

    Exact, but for equal values within the bucket of the percentile that are not all of its values: the rank tells how
    many values are not below the percentile, and the buckets how many are surely above.
    """
    lowest, highest, _, counts = sketch.spans(nonzero)
    n = int(counts.sum())
    ranked = n - 1 - int(virtual_ranks(parse_percent(q), np.array([n])).previous[0])
    # A bucket whose values are all one number is above as a whole, or not at all.
    is_one = lowest == highest
    surely = int(counts[np.where(is_one, lowest > found.value, lowest > found.hi)].sum())
    perhaps = int(counts[~is_one & (lowest <= found.hi) & (highest >= found.lo)].sum())
    return float(np.clip(ranked, surely, surely + perhaps)) / sketch.n
