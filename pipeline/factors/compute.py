"""Compute scale factors from statistics: pure numbers, no model and no files.

The factor of a point is what its activations are divided by. It is a percentile of the recorded
activations [1]_, over those that are not zero by default, as SNN toolbox takes it.

References
----------
.. [1] Rueckauer et al., "Conversion of Continuous-Valued Deep Networks to Efficient Event-Driven
   Networks for Image Classification", Front. Neurosci. 11:682 (2017).
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage import PointSpec
from ...storage.errors import InputError
from ..settings.job_settings import FactorSettings, InputFactor, OverrideSettings
from ..sketch import Percentile, PointSketch
from .exact_source import ExactSource
from .factors_file import Factors, PointFactor, Rule
from .packed_sketches import packed_in
from .ranges import chosen_range
from .tied import tied_factors
from .ties import Ties

__all__ = ["asked_of_points", "compute_factors", "scheduled_percentile"]


def scheduled_percentile(percentile: float, index: int, *, schedule: float) -> float:
    """Return the percentile of the point at ``index``: ``percentile - index * schedule``.

    Parameters
    ----------
    percentile : float
        In percent, of the first point.
    index : int
        Place of the point in model order, from 0.
    schedule : float
        Percent points per point.

    Raises
    ------
    InputError
        If nothing is left of the percentile.

    Notes
    -----
    SNN toolbox truncates the result to a whole number, which makes 99.9 to 99 at the first layer already;
    this does not. The function to the letter is ``conversion.apply_normalization_schedule``.
    """
    # Rounded so that 99.9 - 3 * 0.02 is 99.84 and not 99.83999999999999 in files and messages.
    scheduled = round(percentile - index * schedule, 9)
    if scheduled <= 0:
        raise InputError(
            f"schedule {schedule} takes percentile {percentile} to {scheduled} at point {index}: "
            "choose a smaller schedule"
        )
    return scheduled


def compute_factors(
    points: Sequence[PointSpec],
    sketches: Mapping[str, PointSketch],
    settings: FactorSettings,
    *,
    input_factor: InputFactor = 1.0,
    model: Mapping[str, Any] | None = None,
    exact: ExactSource | None = None,
    ties: Ties | None = None,
) -> Factors:
    """Return the factor of every point: what the normalised network is really divided by.

    Parameters
    ----------
    points : sequence of PointSpec
        In model order. ``meta["pinned"]`` marks points whose scale must stay 1 (softmax and the like).
    sketches : mapping of str to PointSketch
        The merged sketch of each point.
    settings : FactorSettings
        Percentile, non-zero or all values, schedule, overrides, floor.
    input_factor : float or mapping of str to float or list of float
        Scale of the network's input, or of each of its inputs.
    model : mapping, optional
        Fingerprint of the recorded network, kept with the factors.
    exact : ExactSource, optional
        Where every percentile comes from when ``settings.exact`` is set.
    ties : Ties, optional
        Points that share a scale get the largest factor of their group; by default none do.

    Raises
    ------
    InputError
        If an override names no point, or the schedule leaves nothing of the percentile.
    """
    asked = asked_of_points([point.name for point in points], settings)
    chosen: list[PointFactor] = []
    dead: dict[str, NDArray[np.bool_]] = {}
    for point, given in zip(points, asked, strict=True):
        if isinstance(given, float):
            chosen.append(PointFactor(name=point.name, factor=given, rule="override"))
        else:
            values = _Values(point.name, sketches[point.name], given, exact if settings.exact else None)
            found, dead[point.name] = _point_factor(point, values)
            chosen.append(replace(found, sketch=_content_hash(packed_in(sketches, point.name))))
    return Factors(
        points=tuple(tied_factors(chosen, ties or Ties(), settings, dead=dead, sketches=sketches)),
        nonzero=settings.nonzero,
        input_factor=input_factor,
        per_channel=settings.per_channel,
        model=dict(model or {}),
    )


def asked_of_points(names: Sequence[str], settings: FactorSettings) -> list[FactorSettings | float]:
    """Return for each point the settings that choose its factor, or its fixed factor; the first override wins.

    Raises
    ------
    InputError
        If an override matches no point, or the schedule leaves nothing of a percentile.
    """
    chosen = _overrides_by_point(names, settings.overrides)
    return [_asked(settings, index, chosen.get(name)) for index, name in enumerate(names)]


def _asked(settings: FactorSettings, index: int, override: OverrideSettings | None) -> FactorSettings | float:
    if override is not None and override.factor is not None:
        return override.factor
    if override is not None:
        # A percentile of its own, whatever the method of the other points.
        return settings.model_copy(update={"method": "percentile", "percentile": override.percentile})
    if settings.method != "percentile":
        return settings
    percentile = scheduled_percentile(settings.percentile, index, schedule=settings.schedule)
    return settings.model_copy(update={"percentile": percentile})


def _overrides_by_point(
    names: Sequence[str], overrides: Mapping[str, OverrideSettings]
) -> dict[str, OverrideSettings]:
    chosen: dict[str, OverrideSettings] = {}
    for pattern, override in overrides.items():
        matches = [name for name in names if name == pattern or fnmatch.fnmatchcase(name, pattern)]
        if not matches:
            raise InputError(
                f"factors.overrides names {pattern!r}, which is not a recorded point: {_listed(names)}",
                point=pattern,
            )
        for name in matches:
            chosen.setdefault(name, override)
    return chosen


def _listed(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return "there are " + ", ".join(repr(name) for name in names[:most]) + more


@dataclass(frozen=True, slots=True)
class _Values:
    """The statistics of one point: all of them exact, or all of them from its sketch."""

    point: str
    sketch: PointSketch
    settings: FactorSettings
    """Its own: with the percentile after schedule and overrides."""
    exact: ExactSource | None

    @property
    def q(self) -> float | None:
        """The percentile that makes the factor; None if no percentile does."""
        return {"percentile": self.settings.percentile, "max": 100.0}.get(self.settings.method)

    def found(self) -> Percentile:
        """Return what the method finds."""
        return (
            self.percentile(self.q)
            if self.q is not None
            else chosen_range(self.sketch.layer, self.settings).size
        )

    def percentile(self, q: float) -> Percentile:
        nonzero = self.settings.nonzero
        if self.exact is None:
            return self.sketch.layer.percentile(q, nonzero=nonzero)
        (value,) = self.exact.percentiles(self.point, [q], nonzero=nonzero)
        return Percentile(value, value, value)

    def found_in_channels(self) -> NDArray[np.float64]:
        """Return what the method finds in each channel, in its size; NaN for a channel without values."""
        if self.q is None:
            channels = self.sketch.channels
            assert channels is not None  # the caller looked
            each = (channels.channel(i) for i in range(channels.n_channels))
            return np.array([chosen_range(channel, self.settings).size.value for channel in each])
        found = self.channel_percentile(self.q)
        if np.any(found <= 0):
            found = np.where(found > 0, found, np.maximum(-found, -self.channel_percentile(100 - self.q)))
        return found

    def channel_percentile(self, q: float) -> NDArray[np.float64]:
        """Return the percentile of each channel, NaN for a channel without values."""
        if self.exact is not None:
            (values,) = self.exact.channel_percentiles(self.point, [q], nonzero=self.settings.nonzero)
            return np.asarray(values)
        assert self.sketch.channels is not None  # the caller looked
        return np.asarray(
            self.sketch.channels.percentile(q, nonzero=self.settings.nonzero)[0], dtype=np.float64
        )


def _point_factor(point: PointSpec, values: _Values) -> tuple[PointFactor, NDArray[np.bool_]]:
    """Return the factor of a point, and which of its channels are dead (one element: all of them or none)."""
    none = np.zeros(1, dtype=bool)
    layer, settings, q = values.sketch.layer, values.settings, values.q
    answer: dict[str, Any] = {"name": point.name, "percentile": q}
    if layer.n - (layer.n_zeros if settings.nonzero else 0) == 0:
        rule: Rule = "pinned" if point.meta.get("pinned") else "dead"
        return PointFactor(**answer, factor=1.0, rule=rule), none
    found = values.found()
    answer |= {"value": found.value, "lo": found.lo, "hi": found.hi}
    if values.exact is not None:
        answer["exact"] = True
    if point.meta.get("pinned"):
        return PointFactor(**answer, factor=1.0, rule="pinned"), none
    value, rule = found.value, settings.method
    if value <= 0 and q is not None:
        # A linear layer may be negative there; a negative factor would flip signs, so its size counts.
        value, rule = max(-value, -values.percentile(100 - q).value), "magnitude"
    if value < settings.floor:
        return PointFactor(**answer, factor=1.0, rule="dead"), none
    if settings.per_channel and values.sketch.channels is not None:
        factors, dead = _channel_factors(values, settings.floor, fallback=value)
        return PointFactor(**answer, factor=factors, rule=rule, n_dead_channels=int(dead.sum())), dead
    return PointFactor(**answer, factor=value, rule=rule), none


def _content_hash(packed: bytes) -> str:
    return hashlib.blake2b(packed, digest_size=16).hexdigest()


def _channel_factors(
    values: _Values, floor: float, *, fallback: float
) -> tuple[tuple[float, ...], NDArray[np.bool_]]:
    """Return a factor for each channel, and which are dead; these get the layer's, so that none blows up weights."""
    found = values.found_in_channels()
    dead = ~(found >= floor)  # NaN, the answer of a channel without values, counts as dead
    return tuple(np.where(dead, fallback, found).tolist()), dead
