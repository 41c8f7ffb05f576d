"""The three figures of one point: its activations, its weights, the largest activation of each sample.

Each shows the original above and the normalised network below, each on its own scale, because they differ
by the factor, which may be in the thousands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..sketch import Sketch
from .bars import LABEL_PLACE, Mark, paint_bars, paint_legend, paint_marks, paint_nothing
from .canvas import COLOURS, draw_png, legible, tick_text
from .contents import PointReport
from .histogram import histogram, share_above
from .numbers import count_text, factor_text, number_text, share_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PointFigure", "point_figures"]

WIDTH_IN, HEIGHT_IN = 4.4, 4.4
UPPER, LOWER = (0.185, 0.575, 0.79, 0.245), (0.185, 0.1, 0.79, 0.245)

Paint = Callable[["Axes", "Axes", PointReport], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PointFigure:
    """One picture of one point."""

    kind: str
    """``"activations"``, ``"weights"`` or ``"maxima"``."""
    png: bytes
    caption: str
    alt: str
    """What the picture shows, with numbers, for those who cannot see it."""


def point_figures(point: PointReport, *, nonzero: bool) -> Iterator[PointFigure]:
    """Yield the figures of one point for which there are data; call within `figure_style`.

    Parameters
    ----------
    point : PointReport
    nonzero : bool
        Whether the percentile is taken over the non-zero activations only.
    """
    yield PointFigure(
        kind="activations",
        png=_png(point, "activations", _paint_activations),
        caption="Activations, original and normalised",
        alt=_activations_alt(point, nonzero),
    )
    if point.weights_before is not None:
        yield PointFigure(
            kind="weights",
            png=_png(point, "weights", _paint_weights),
            caption="Weights, original and normalised",
            alt=_weights_alt(point),
        )
    if point.before.maxima.n:
        yield PointFigure(
            kind="maxima",
            png=_png(point, "largest activation of each sample", _paint_maxima),
            caption="Largest activation of each sample",
            alt=_maxima_alt(point),
        )


def _png(point: PointReport, what: str, paint: Paint) -> bytes:
    def both(figure: Figure) -> None:
        figure.text(0.015, 0.985, legible(point.name, limit=48), va="top", fontsize=10, fontweight="bold")
        figure.text(0.015, 0.94, what, va="top", fontsize=9, color=COLOURS["soft"])
        paint(figure.add_axes(UPPER), figure.add_axes(LOWER), point)

    return draw_png(WIDTH_IN, HEIGHT_IN, both)


def _paint_activations(upper: Axes, lower: Axes, point: PointReport) -> None:
    layer, percentile = point.before.layer, point.percentile
    factor = point.factors[0] if len(point.factors) == 1 else None
    is_factor = factor is not None and abs(factor - percentile.value) <= 1e-3 * factor
    marks = [
        Mark(
            value=percentile.value,
            label=f"{point.label}{' = factor' if is_factor else ''} {number_text(percentile.value)}",
            kind="percentile",
            band=(percentile.lo, percentile.hi),
        )
    ]
    if layer.n:
        marks.append(Mark(value=layer.maximum, label=f"max {number_text(layer.maximum)}", kind="max"))
    if factor is not None and not is_factor:
        marks.append(Mark(value=factor, label=f"factor {number_text(factor)}", kind="factor"))
    _paint(upper, layer, "original", marks=marks, colour="before", unit="activation")
    _paint_activations_after(lower, point)


def _paint_activations_after(axes: Axes, point: PointReport) -> None:
    if point.after is not None:
        sketch, divisor, title = point.after.layer, 1.0, "normalised, measured"
    elif len(point.factors) == 1:
        sketch, divisor, title = point.before.layer, point.factors[0], "normalised, computed"
    else:
        paint_nothing(axes, "normalised", "not measured (one factor per channel)")
        return
    marks = [Mark(value=1.0, label="one (threshold)", kind="factor")]
    if sketch.n:
        largest = sketch.maximum / divisor
        marks.append(Mark(value=largest, label=f"max {number_text(largest)}", kind="max"))
    _paint(axes, sketch, title, marks=marks, colour="after", unit="activation / factor", divisor=divisor)


def _paint_weights(upper: Axes, lower: Axes, point: PointReport) -> None:
    for axes, sketch, title, colour in (
        (upper, point.weights_before, "original", "before"),
        (lower, point.weights_after, "normalised", "after"),
    ):
        if sketch is None or not sketch.n:
            paint_nothing(axes, title, "no weights given")
            continue
        marks = [
            Mark(value=sketch.minimum, label=f"min {number_text(sketch.minimum)}", kind="max"),
            Mark(value=sketch.maximum, label=f"max {number_text(sketch.maximum)}", kind="max"),
        ]
        _paint(axes, sketch, title, marks=marks, colour=colour, unit="weight", noun="weights")


def _paint_maxima(upper: Axes, lower: Axes, point: PointReport) -> None:
    maxima = point.before.maxima
    marks = [Mark(value=maxima.maximum, label=f"max {number_text(maxima.maximum)}", kind="max")]
    if len(point.factors) == 1:
        marks.insert(
            0, Mark(value=point.factors[0], label=f"factor {number_text(point.factors[0])}", kind="factor")
        )
    _paint(upper, maxima, "original", marks=marks, colour="before", unit="largest activation", noun="samples")
    if len(point.factors) > 1:
        paint_nothing(lower, "samples that exceed the factor", "not drawn (one factor per channel)")
        return
    _paint_exceedance(lower, maxima, factor=point.factors[0])


def _paint_exceedance(axes: Axes, maxima: Sketch, *, factor: float) -> None:
    places, shares = share_above(maxima)
    above = float(np.interp(factor, places, shares)) if factor <= maxima.maximum else 0.0
    # All samples are at or above the smallest, and none above the largest.
    stairs_x = np.concatenate([[min(0.0, maxima.minimum)], places, [maxima.maximum] * 2]) / factor
    stairs_y = np.concatenate([[1.0], shares, [shares[-1], 0.0]])
    axes.plot(stairs_x, stairs_y, color=COLOURS["after"], linewidth=1.8, drawstyle="steps-pre")
    axes.set_ylim(0.0, 1.04)
    axes.xaxis.set_major_formatter(tick_text)
    axes.set_xlabel("x = largest activation / factor")
    axes.set_ylabel("share of samples\nat or above x", fontsize=8)
    axes.yaxis.set_label_coords(LABEL_PLACE, 0.5)
    axes.grid(color=COLOURS["grid"], linewidth=0.6)
    left, right = min(0.0, maxima.minimum / factor), max(1.0, maxima.maximum / factor)
    axes.set_xlim(left - (right - left) * 0.015, right + (right - left) * 0.03)
    label = f"one (threshold): {share_text(above)} of samples reach it"
    paint_marks(axes, [Mark(value=1.0, label=label, kind="factor")])
    paint_legend(axes, "samples that exceed the factor")


def _paint(
    axes: Axes,
    sketch: Sketch,
    title: str,
    *,
    marks: list[Mark],
    colour: str,
    unit: str,
    divisor: float = 1.0,
    noun: str = "values",
) -> None:
    if not sketch.n:
        paint_nothing(axes, title, f"no {noun} recorded")
        return
    paint_bars(axes, histogram(sketch, divisor=divisor), colour=COLOURS[colour], unit=unit, share_of=noun)
    paint_marks(axes, marks if sketch.n > sketch.n_zeros else [])
    paint_legend(axes, f"{title}: {count_text(sketch.n)} {noun}")


def _activations_alt(point: PointReport, nonzero: bool) -> str:
    sketch = point.before.layer
    if not sketch.n:
        return f"No activations of {point.name} were recorded."
    text = (
        f"Histogram of the {sketch.n} activations of {point.name}: "
        f"{share_text(sketch.n_zeros / sketch.n)} zeros, "
        f"{point.label} of {'non-zero' if nonzero else 'all'} values {number_text(point.percentile.value)}, "
        f"maximum {number_text(sketch.maximum)}, factor {factor_text(point.factors)}."
    )
    if point.after is None or not point.after.layer.n:
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
        f"Histogram of the largest activation of each of {maxima.n} samples at {point.name}, "
        f"from {number_text(maxima.minimum)} to {number_text(maxima.maximum)}; "
        "below, the share of samples above the factor."
    )
