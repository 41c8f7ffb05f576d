"""The data of a report, as plain frozen values.

Knows sketches. Does not know Keras, caches, settings, or where the report is written.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...storage.errors import InputError
from ..settings.percents import percent_text
from ..sketch import Percentile, PointSketch, Sketch
from .numbers import number_text

__all__ = ["PointReport", "ReportData", "WorkRow", "certified"]


USUAL_Q = 99.9


@dataclass(frozen=True, slots=True, kw_only=True)
class PointReport:
    """The results for one point of the network.

    Only ``name``, ``shape``, ``before`` and ``percentile`` are needed; the report says what is missing
    where a reader would look for it.
    """

    name: str
    """Any text; it is escaped where it is shown."""
    layer_type: str = ""
    """Class name of the layer, ``"Conv2D"``."""
    activation: str = ""
    """Name of the activation function after which the point was recorded."""
    shape: tuple[int, ...]
    """Shape of one sample, without the samples axis."""
    before: PointSketch
    """The recorded activations of the original network, in its units."""
    after: PointSketch | None = None
    """The activations of the normalised network, measured; dimensionless, one is the percentile."""
    percentile: Percentile
    """The percentile asked for, with an interval guaranteed to contain the exact value."""
    q: float | None = None
    """The percentile's rank in percent; ``None`` if the factor was not made from a percentile."""
    method: str = ""
    """``"mse"`` or ``"entropy"`` if ``percentile`` is a clip that such a method chose."""
    noise: Mapping[str, float] = field(default_factory=dict)
    """Signal-to-quantisation-noise ratio in dB by the method that chose the range; not for a layer without values."""
    is_exact: bool = False
    """Whether ``percentile.value`` is the exact order statistic rather than an estimate in [lo, hi]."""
    factor: float | Sequence[float] = 1.0
    """The divisor of the point's activations: a number, or one per channel."""
    is_pinned: bool = False
    """Whether the factor is one because of the layer's kind (softmax), not because of its values."""
    is_tied: bool = False
    """Whether the factor is that of a group of points that meet in an Add or the like."""
    weights_before: Sketch | None = None
    """Without biases, which ``biases_before`` and ``biases_after`` have."""
    weights_after: Sketch | None = None
    biases_before: Sketch | None = None
    """Empty if the layer has none; None if they are not known apart from the weights."""
    biases_after: Sketch | None = None
    residual: float | None = None
    """Largest |activation * factor - original| / factor over all samples: the certificate's figure."""
    allowed: float | None = None
    """The largest allowed ``residual``."""
    rms_residual: float | None = None
    saturation: float | None = None
    """Share of the normalised activations above one, 0 to 1."""
    n_dead: int | None = None
    """Channels that were zero for every sample."""
    notes: tuple[str, ...] = ()
    """Sentences for the reader, such as why a factor is shared with another point."""

    def __post_init__(self) -> None:
        if not isinstance(self.factor, int | float):
            object.__setattr__(self, "factor", tuple(float(value) for value in self.factor))
        wrong = [value for value in self.factors if not (value > 0 and math.isfinite(value))]
        if wrong or not self.factors:
            raise InputError(
                f"the factor of {self.name!r} must be positive and finite, got {wrong[:3] or 'none'}: "
                "a point without activations keeps factor 1",
                point=self.name,
            )

    @property
    def shown_q(self) -> float:
        """The percentile's rank, or 99.9 where the factor is not made from a percentile."""
        return USUAL_Q if self.q is None else self.q

    @property
    def label(self) -> str:
        """``"p99.9"``, ``"mse clip"``, or ``"percentile"`` if the rank is not known."""
        return (
            f"p{percent_text(self.q)}"
            if self.q is not None
            else f"{self.method} clip"
            if self.method
            else "percentile"
        )

    @property
    def factors(self) -> tuple[float, ...]:
        """The factors as a tuple of length one, or with one factor for each channel."""
        return self.factor if isinstance(self.factor, tuple) else (float(self.factor),)  # type: ignore[arg-type]  # checked in __post_init__

    @property
    def dead_channels(self) -> tuple[int, ...] | None:
        """The channels that were zero for every sample, counted from 0; None without a sketch of each channel."""
        channels = self.before.channels
        if channels is None:
            return None
        is_dead = (channels.n > 0) & (channels.n_zeros == channels.n)
        return tuple(np.flatnonzero(is_dead).tolist())

    def uncached(self) -> PointReport:
        """Return the point with copies of its sketches, which share the counts.

        A sketch keeps what it computes from its counts, which is several times as large. For 150 points that adds
        up, so figures are drawn from a copy that is then dropped.
        """

        def apart(sketch: Sketch | None) -> Sketch | None:
            return None if sketch is None else copy.copy(sketch)

        def point_apart(sketch: PointSketch) -> PointSketch:
            layer, maxima = copy.copy(sketch.layer), copy.copy(sketch.maxima)
            return PointSketch(spec=sketch.spec, layer=layer, channels=sketch.channels, maxima=maxima)

        return replace(
            self,
            before=point_apart(self.before),
            after=None if self.after is None else point_apart(self.after),
            weights_before=apart(self.weights_before),
            weights_after=apart(self.weights_after),
        )

    @property
    def n_values(self) -> int:
        """The number of activations, zeros included."""
        return self.before.layer.n


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkRow:
    """What one stage of a run took, as text."""

    stage: str
    began: str
    wall: str
    cpu: str
    memory: str
    """The most that the process has held until its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """The data of a whole report; see `write_report`."""

    title: str
    model_name: str
    points: tuple[PointReport, ...]
    """In the order of the graph."""
    n_samples: int
    """The number of samples whose activations were recorded."""
    nonzero: bool = True
    """Whether the percentiles are taken over the non-zero activations only."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Nested values that JSON can hold; shown as they are."""
    noise_bits: int | None = None
    """The bits of the whole numbers that ``PointReport.noise`` is of."""
    certificate: Mapping[str, Any] | None = None
    """`Certificate.to_dict`; ``None`` if nothing was normalised. `certified` copies what it says about points
    into ``points``."""
    accuracy_before: float | None = None
    """Share of samples that the original network classifies as labelled, 0 to 1."""
    accuracy_after: float | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    """More to show beside the accuracy, such as ``{"blocks computed": "0 of 12"}``."""
    program: str = "actisketch"
    """Name and version of the program, for the last line of the page."""
    about: Mapping[str, str] = field(default_factory=dict)
    """What stands below the title: the data, the date, versions, by name."""
    groups: tuple[tuple[str, ...], ...] = ()
    """Names of points that share a factor."""
    work: tuple[WorkRow, ...] = ()
    """What the stages of the run took."""
    command: str = ""
    """The command that makes the run again, with ``job.toml`` of ``downloads``."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Files beside the page, relative to it, by what they are."""
    downloads: Mapping[str, str] = field(default_factory=dict)
    """Texts that the page hands out as files, by the name of the file."""

    def __post_init__(self) -> None:
        names = [point.name for point in self.points]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"the points of a report need different names, {twice[:3]} occur more than once")

        if self.certificate is not None:
            object.__setattr__(self, "points", certified(self.points, self.certificate))

    @property
    def passed(self) -> bool | None:
        """Whether the certificate passed; ``None`` when there is none."""
        return None if self.certificate is None else bool(self.certificate.get("passed", False))


def certified(points: Sequence[PointReport], certificate: Mapping[str, Any]) -> tuple[PointReport, ...]:
    """Return `points` with what the certificate says about each: residuals, saturation, dead channels, pinned.

    Parameters
    ----------
    points : sequence of PointReport
    certificate : mapping
        `Certificate.to_dict` of the normaliser, read back from JSON or fresh. Points that it does not
        name stay as they are; a residual that is not a number (None in JSON) is infinite.

    Notes
    -----
    The certificate has the factor in use, which may differ from the one that was asked for: the inputs of
    an Add share the largest of theirs, a softmax keeps one. A note of the point then names both.
    """
    by_name = {item["name"]: item for item in certificate.get("points", ())}
    return tuple(
        _certified(point, by_name[point.name]) if point.name in by_name else point for point in points
    )


def _certified(point: PointReport, item: Mapping[str, Any]) -> PointReport:
    def number(key: str) -> float:
        value = item[key]
        return math.inf if value is None else float(value)

    factor, note = _factor_in_use(point, item)
    return replace(
        point,
        factor=factor,
        notes=(*point.notes, note) if note and note not in point.notes else point.notes,
        residual=number("max_residual"),
        allowed=number("allowed"),
        rms_residual=number("rms_residual"),
        saturation=None if item["saturation"] is None else float(item["saturation"]),
        n_dead=int(item["n_dead_channels"]),
        is_pinned=bool(item["pinned"]),
    )


def _factor_in_use(point: PointReport, item: Mapping[str, Any]) -> tuple[float | tuple[float, ...], str]:
    """Return the factor that the network was certified with, and a note if another was asked for."""
    used, asked = item.get("factor"), max(point.factors)
    if used is None or math.isclose(float(used), asked, rel_tol=1e-6):
        return point.factors if len(point.factors) > 1 else point.factors[0], ""
    which, what = ("largest factor", "largest") if len(point.factors) > 1 else ("factor", "one")
    note = (
        f"The {which} asked for was {number_text(asked)}, the {what} in use is {number_text(float(used))}: the layer "
        "shares it with others, or another was asked for when the network was normalised."
    )
    return point.factors if len(point.factors) > 1 else float(used), note
