"""Give points that share a scale the same factor."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..normalizer import tied_scales
from ..settings.job_settings import FactorSettings
from ..sketch import PointSketch, Sketch
from .factors_file import PointFactor, Rule
from .ranges import chosen_range
from .ties import Ties

__all__ = ["tied_factors"]


def tied_factors(
    points: Sequence[PointFactor],
    ties: Ties,
    settings: FactorSettings,
    *,
    dead: Mapping[str, NDArray[np.bool_]],
    sketches: Mapping[str, PointSketch],
) -> Iterator[PointFactor]:
    """Yield the points with the factors that the graph leaves them.

    Parameters
    ----------
    points : sequence of PointFactor
        With their own factors.
    ties : Ties
        Which of them share a scale.
    settings : FactorSettings
        Whether a group takes its largest factor or the percentile of all its values.
    dead : mapping of str to ndarray of bool
        Channels of points that claim no scale.
    sketches : mapping of str to PointSketch
        The merged sketch of each point.
    """
    numbers = (
        ties.channel if settings.per_channel else {name: [number] for name, number in ties.layer.items()}
    )
    claims, spare = [], []
    for p in points:
        if p.name in numbers and p.rule not in ("dead", "pinned"):
            is_dead, factor = np.broadcast_arrays(dead.get(p.name, False), p.factor)
            claims.append((np.asarray(numbers[p.name]), np.where(is_dead, np.nan, factor)))
            # Channels that are dead in their whole group still need one factor for all of it.
            spare.append((np.asarray(numbers[p.name]), np.where(is_dead, factor, np.nan)))
    merged = _merged(points, ties, sketches, settings) if settings.groups == "merged" else {}
    scales = tied_scales(spare) | tied_scales(claims, fixed={**merged, **ties.fixed})
    joined = ties.joined_channel if settings.per_channel else ties.joined
    for p in points:
        if p.name in joined:
            held = [max(scales.get(number, 1.0) for number in channel) for channel in joined[p.name]]
            yield replace(p, factor=tuple(held) if len(held) > 1 else held[0], rule="joined")
        elif p.name in numbers:
            yield _with_scales(p, numbers[p.name], scales, fixed=ties.fixed)
        else:
            yield p


def _with_scales(
    p: PointFactor, numbers: Sequence[int], scales: Mapping[int, float], *, fixed: Mapping[int, float]
) -> PointFactor:
    # One number stands for all channels where they share a scale, one factor where they have the same.
    columns = np.broadcast_arrays(np.asarray(numbers), np.asarray(p.factor, dtype=np.float64))
    by_channel, own = (np.atleast_1d(column).tolist() for column in columns)
    used = [scales.get(number, factor) for number, factor in zip(by_channel, own, strict=True)]
    if used == own:
        return p
    rule: Rule = "pinned" if all(number in fixed for number in numbers) else "tied"
    is_vector = isinstance(p.factor, tuple) or len(used) > 1
    return replace(p, factor=tuple(used) if is_vector else used[0], rule=rule)


def _merged(
    points: Sequence[PointFactor], ties: Ties, sketches: Mapping[str, PointSketch], settings: FactorSettings
) -> dict[int, float]:
    """Return what the method finds in all values of each group of points, where the user fixed no factor in it."""
    groups: dict[int, list[PointFactor]] = {}
    for p in points:
        if p.name in ties.layer:
            groups.setdefault(ties.layer[p.name], []).append(p)
    found = {}
    for number, members in groups.items():
        if len(members) < 2 or number in ties.fixed or any(p.rule == "override" for p in members):
            continue
        # Of the layers alone: points that share a scale may have other numbers of channels.
        layer = functools.reduce(Sketch.merge, [sketches[p.name].layer for p in members])
        if layer.n == (layer.n_zeros if settings.nonzero else 0):
            continue
        if settings.method in ("mse", "entropy"):
            value = chosen_range(layer, settings).size.value
        else:
            q = max(p.percentile or settings.percentile for p in members)
            value = layer.percentile(q, nonzero=settings.nonzero).value
        if value >= settings.floor:
            found[number] = value
    return found
