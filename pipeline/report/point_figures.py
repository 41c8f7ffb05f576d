"""The three figures of one point: its activations, its weights, the largest activation of each sample.

Each shows the original above and the normalised network below, each on its own scale: the two differ
by the factor, which may be thousands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..sketch import Sketch
from .bars import Mark, paint_bars, paint_legend, paint_marks, paint_nothing
from .canvas import COLOURS, draw_png, legible, tick_text
from .contents import PointReport
from .histogram import histogram, share_above
from .numbers import count_text, factor_text, number_text, share_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PointFigure", "point_figures"]

WIDTH_IN, HEIGHT_IN = 4.4, 4.4


@dataclass(frozen=True, slots=True, kw_only=True)
class PointFigure:
    """One picture of one point."""

    kind: str
    """``"activations"``, ``"weights"`` or ``"maxima"``."""
    png: bytes
    caption: str
    alt: str
    """What the picture shows, for those who cannot see it: with the numbers."""


def point_figures(point: PointReport, *, nonzero: bool) -> Iterator[PointFigure]:
    """Yield the figures of one point, those for which there are data; call within `figure_style`.

    Parameters
    ----------
    point : PointReport
    nonzero : bool
        Whether the percentile is of the non-zero activations only.
    """
    yield _figure("activations", _paint_activations, point, nonzero, _activations_alt(point, nonzero))
    if point.weights_before is not None:
        yield _figure("weights", _paint_weights, point, nonzero, _weights_alt(point))
    if point.before.maxima.n:
        yield _figure("maxima", _paint_maxima, point, nonzero, _maxima_alt(point))


_CAPTIONS = {
    "activations": "Activations, original and normalised",
    "weights": "Weights, original and normalised",
    "maxima": "Largest activation of each sample",
}


def _figure(
    kind: str, paint: Callable[[Axes, Axes, PointReport, bool], None], point: PointReport, nonzero: bool, alt: str
) -> PointFigure:
    def both(figure: Figure) -> None:
        name = legible(point.name, limit=36)
        figure.text(0.015, 0.985, f"{name}: {kind}", va="top", fontsize=10, fontweight="bold")
        upper = figure.add_axes((0.185, 0.575, 0.79, 0.245))
        lower = figure.add_axes((0.185, 0.1, 0.79, 0.245))
        paint(upper, lower, point, nonzero)

    return PointFigure(kind=kind, png=draw_png(WIDTH_IN, HEIGHT_IN, both), caption=_CAPTIONS[kind], alt=alt)


def percentile_name(q: float | None, *, nonzero: bool) -> str:
    """Return ``"p99.9 of non-zero values"``, for legends and column heads."""
    which = "percentile" if q is None else f"p{q:g}"
    return f"{which} of {'non-zero' if nonzero else 'all'} values"


def _paint_activations(upper: Axes, lower: Axes, point: PointReport, nonzero: bool) -> None:
    _paint_sketch(upper, point.before.layer, "original", colour="before", unit="activation")
    short = "percentile" if point.q is None else f"p{point.q:g}"
    is_factor = len(point.factors) == 1 and _close(point.factors[0], point.percentile.value)
    marks = [
        Mark(
            value=point.percentile.value,
            label=f"{short}{' = factor' if is_factor else ''} {number_text(point.percentile.value)}",
            kind="percentile",
            band=(point.percentile.lo, point.percentile.hi),
        ),
        Mark(value=point.before.layer.maximum, label=f"max {number_text(point.before.layer.maximum)}", kind="max"),
    ]
    if len(point.factors) == 1 and not is_factor:
        marks.append(Mark(value=point.factors[0], label=f"factor {number_text(point.factors[0])}", kind="factor"))
    _finish(upper, point.before.layer, marks if point.before.layer.n > point.before.layer.n_zeros else [])
    _paint_activations_after(lower, point)


def _paint_activations_after(axes: Axes, point: PointReport) -> None:
    unit = "activation / factor"
    if point.after is not None:
        sketch, divisor, title = point.after.layer, 1.0, "normalised, measured"
    elif len(point.factors) == 1:
        sketch, divisor, title = point.before.layer, point.factors[0], "normalised, computed: original / factor"
    else:
        paint_nothing(axes, "normalised", "not measured (one factor per channel)")
        return
    _paint_sketch(axes, sketch, title, colour="after", unit=unit, divisor=divisor)
    largest = sketch.maximum / divisor
    marks = [
        Mark(value=1.0, label="one (threshold)", kind="factor"),
        Mark(value=largest, label=f"max {number_text(largest)}", kind="max"),
    ]
    _finish(axes, sketch, marks if sketch.n > sketch.n_zeros else [], title=title)


def _paint_weights(upper: Axes, lower: Axes, point: PointReport, nonzero: bool) -> None:
    for axes, sketch, title, colour in (
        (upper, point.weights_before, "original", "before"),
        (lower, point.weights_after, "normalised", "after"),
    ):
        if sketch is None or not sketch.n:
            paint_nothing(axes, title, "no weights given")
            continue
        _paint_sketch(axes, sketch, title, colour=colour, unit="weight", noun="weights")
        marks = [
            Mark(value=sketch.minimum, label=f"min {number_text(sketch.minimum)}", kind="max"),
            Mark(value=sketch.maximum, label=f"max {number_text(sketch.maximum)}", kind="max"),
        ]
        _finish(axes, sketch, marks, title=title, noun="weights")


def _paint_maxima(upper: Axes, lower: Axes, point: PointReport, nonzero: bool) -> None:
    maxima = point.before.maxima
    _paint_sketch(upper, maxima, "original", colour="before", unit="largest activation", noun="samples")
    marks = [Mark(value=maxima.maximum, label=f"max {number_text(maxima.maximum)}", kind="max")]
    if len(point.factors) == 1:
        factor = Mark(value=point.factors[0], label=f"factor {number_text(point.factors[0])}", kind="factor")
        marks.insert(0, factor)
    _finish(upper, maxima, marks, noun="samples")
    if len(point.factors) > 1:
        paint_nothing(lower, "samples that exceed the factor", "not drawn (one factor per channel)")
        return
    _paint_exceedance(lower, maxima, factor=point.factors[0])


def _paint_exceedance(axes: Axes, maxima: Sketch, *, factor: float) -> None:
    places, shares = share_above(maxima)
    above = float(np.interp(factor, places, shares)) if len(places) else 0.0
    above = above if factor <= maxima.maximum else 0.0
    # All samples are at or above the least, and none above the largest.
    stairs_x = np.concatenate([[min(0.0, maxima.minimum)], places, [maxima.maximum, maxima.maximum]]) / factor
    stairs_y = np.concatenate([[1.0], shares, [shares[-1], 0.0]])
    axes.plot(stairs_x, stairs_y, color=COLOURS["after"], linewidth=1.8, drawstyle="steps-pre")
    axes.set_ylim(0.0, 1.04)
    axes.xaxis.set_major_formatter(tick_text)
    axes.set_xlabel("x = largest activation / factor")
    axes.set_ylabel("share of samples\nat or above x", fontsize=8)
    axes.yaxis.set_label_coords(-0.15, 0.5)
    axes.grid(color=COLOURS["grid"], linewidth=0.6)
    left, right = min(0.0, maxima.minimum / factor), max(1.0, maxima.maximum / factor)
    axes.set_xlim(left - (right - left) * 0.015, right + (right - left) * 0.03)
    paint_marks(axes, [Mark(value=1.0, label=f"one: {share_text(above)} of samples exceed it", kind="factor")])
    paint_legend(axes, "samples that exceed the factor")


def _paint_sketch(
    axes: Axes, sketch: Sketch, title: str, *, colour: str, unit: str, divisor: float = 1.0, noun: str = "values"
) -> None:
    if not sketch.n:
        paint_nothing(axes, title, f"no {noun} recorded")
        return
    paint_bars(axes, histogram(sketch, divisor=divisor), colour=COLOURS[colour], unit=unit, share_of=noun)


def _finish(
    axes: Axes, sketch: Sketch, marks: list[Mark], *, title: str = "original", noun: str = "values"
) -> None:
    if not sketch.n:
        return
    paint_marks(axes, marks)
    paint_legend(axes, f"{title}: {count_text(sketch.n)} {noun}")


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-3 * max(abs(a), abs(b))


def _activations_alt(point: PointReport, nonzero: bool) -> str:
    sketch, percentile = point.before.layer, point.percentile
    text = (
        f"Histogram of the {sketch.n} activations of {point.name}: {share_text(sketch.sparsity)} zeros, "
        f"{percentile_name(point.q, nonzero=nonzero)} {number_text(percentile.value)}, "
        f"maximum {number_text(sketch.maximum)}, factor {factor_text(point.factors)}."
    )
    if point.after is None:
        return text
    return f"{text} Below, of the normalised network: maximum {number_text(point.after.layer.maximum)}."


def _weights_alt(point: PointReport) -> str:
    parts = [
        f"{title} {sketch.n} weights from {number_text(sketch.minimum)} to {number_text(sketch.maximum)}"
        for title, sketch in (("original:", point.weights_before), ("normalised:", point.weights_after))
        if sketch is not None and sketch.n
    ]
    return f"Histogram of the weights of {point.name}; {'; '.join(parts)}."


def _maxima_alt(point: PointReport) -> str:
    maxima = point.before.maxima
    return (
        f"Histogram of the largest activation of each of {maxima.n} samples at {point.name}, from "
        f"{number_text(maxima.minimum)} to {number_text(maxima.maximum)}, and the share of samples above the factor."
    )
