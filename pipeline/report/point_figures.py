"""The pictures of one point: its activations, its weights, the largest activation of each sample, its channels.

Each shows the original above and the normalised network below, each on its own scale, because they differ
by the factor, which may be in the thousands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..sketch import Sketch
from .channel_figure import channel_picture
from .contents import PointReport
from .histogram import histogram, share_above
from .numbers import factor_text, number_text, plain, share_text
from .panel import (
    ACROSS,
    LOWER,
    TWO_PANELS,
    UPPER,
    WIDTH,
    Axes,
    Mark,
    draw_axes,
    draw_histogram,
    draw_legend,
    draw_marks,
    draw_nothing,
    upright,
)
from .picture import Picture
from .scale import Scale

__all__ = ["PointFigure", "point_figures"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PointFigure:
    """One picture of one point."""

    kind: str
    """``"activations"``, ``"weights"``, ``"maxima"`` or ``"channels"``."""
    picture: Picture


def point_figures(point: PointReport, *, nonzero: bool) -> Iterator[PointFigure]:
    """Yield the pictures of one point for which there are data.

    Parameters
    ----------
    point : PointReport
    nonzero : bool
        Whether the percentile is taken over the non-zero activations only.
    """
    yield PointFigure(kind="activations", picture=_activations(point, nonzero))
    if point.before.maxima.n:
        yield PointFigure(kind="maxima", picture=_maxima(point))
    if point.weights_before is not None and point.weights_before.n:
        yield PointFigure(kind="weights", picture=_weights(point))
    if point.before.channels is not None and point.before.layer.n:
        yield PointFigure(kind="channels", picture=channel_picture(point, nonzero=nonzero))


def _activations(point: PointReport, nonzero: bool) -> Picture:
    picture = Picture(WIDTH, TWO_PANELS, label=_activations_label(point, nonzero))
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
    _draw(picture, UPPER, layer, "Activations", marks=marks, ink="before", unit="activation")
    _activations_after(picture, point)
    return picture


def _activations_after(picture: Picture, point: PointReport) -> None:
    if point.after is not None:
        sketch, divisor, title = point.after.layer, 1.0, "Normalised, measured"
    elif len(point.factors) == 1:
        sketch, divisor, title = point.before.layer, point.factors[0], "Normalised, computed"
    else:
        draw_nothing(picture, LOWER, "Normalised", "not measured (one factor per channel)")
        return
    marks = [Mark(value=1.0, label="one (threshold)", kind="factor")]
    if sketch.n:
        largest = sketch.maximum / divisor
        marks.append(Mark(value=largest, label=f"max {number_text(largest)}", kind="max"))
    _draw(
        picture, LOWER, sketch, title, marks=marks, ink="after", unit="activation / factor", divisor=divisor
    )


def _weights(point: PointReport) -> Picture:
    parts = [
        f"{title} {sketch.n:,} from {number_text(sketch.minimum)} to {number_text(sketch.maximum)}"
        for title, sketch in (("original:", point.weights_before), ("normalised:", point.weights_after))
        if sketch is not None and sketch.n
    ]
    picture = Picture(
        WIDTH, TWO_PANELS, label=f"Histogram of the weights of {plain(point.name)}; {'; '.join(parts)}."
    )
    for top, sketch, title, ink in (
        (UPPER, point.weights_before, "Weights", "before"),
        (LOWER, point.weights_after, "Normalised weights", "after"),
    ):
        if sketch is None or not sketch.n:
            draw_nothing(picture, top, title, "no weights given")
            continue
        marks = [
            Mark(value=sketch.minimum, label=f"min {number_text(sketch.minimum)}", kind="max"),
            Mark(value=sketch.maximum, label=f"max {number_text(sketch.maximum)}", kind="max"),
        ]
        _draw(picture, top, sketch, title, marks=marks, ink=ink, unit="weight", noun="weights")
    return picture


def _maxima(point: PointReport) -> Picture:
    maxima = point.before.maxima
    picture = Picture(
        WIDTH,
        TWO_PANELS,
        label=f"Histogram of the largest activation of each of {maxima.n:,} samples at {plain(point.name)}, "
        f"from {number_text(maxima.minimum)} to {number_text(maxima.maximum)}; below, the share of samples above the "
        "factor.",
    )
    marks = [Mark(value=maxima.maximum, label=f"max {number_text(maxima.maximum)}", kind="max")]
    if len(point.factors) == 1:
        factor = point.factors[0]
        marks.insert(0, Mark(value=factor, label=f"factor {number_text(factor)}", kind="factor"))
    _draw(
        picture,
        UPPER,
        maxima,
        "Largest of each sample",
        marks=marks,
        ink="before",
        unit="largest activation",
        noun="samples",
    )
    if len(point.factors) > 1:
        draw_nothing(picture, LOWER, "Samples that exceed the factor", "not drawn (one factor per channel)")
    else:
        _exceedance(picture, maxima, factor=point.factors[0])
    return picture


def _exceedance(picture: Picture, maxima: Sketch, *, factor: float) -> None:
    places, shares = share_above(maxima)
    above = float(np.interp(factor, places, shares)) if factor <= maxima.maximum else 0.0
    left, right = min(0.0, maxima.minimum / factor), max(1.0, maxima.maximum / factor)
    room = (right - left) * 0.015
    axes = Axes(
        picture=picture,
        top=LOWER,
        x=Scale(low=left - room, high=right + 2 * room, ends=ACROSS),
        y=Scale(low=0.0, high=1.04, ends=upright(LOWER)),
    )
    draw_axes(
        axes,
        title="Samples that exceed the factor",
        x_label="x = largest activation / factor",
        y_label="share at or above x",
    )
    # All samples are at or above the smallest, and none above the largest.
    across = axes.x.place(np.concatenate([[left * factor], places, [maxima.maximum]]) / factor)
    up = axes.y.place(np.concatenate([[1.0], shares, [0.0]]))
    corners = np.stack([np.repeat(across, 2)[1:], np.repeat(up, 2)[:-1]], axis=1)
    picture.stroke(_thinned(corners), ink="after", width=1.8)
    label = f"one (threshold): {share_text(above)} of samples reach it"
    draw_legend(axes, draw_marks(axes, [Mark(value=1.0, label=label, kind="factor")]))


def _thinned(corners: NDArray[np.float64]) -> list[tuple[float, float]]:
    """Return a falling line with a step in each unit across at most: thousands of samples are no larger a picture."""
    across = np.round(corners[:, 0])
    is_new = np.append(True, across[1:] != across[:-1])
    is_kept = is_new | np.append(is_new[1:], True)
    return list(zip(across[is_kept].tolist(), corners[is_kept, 1].tolist(), strict=True))


def _draw(
    picture: Picture,
    top: float,
    sketch: Sketch,
    title: str,
    *,
    marks: list[Mark],
    ink: str,
    unit: str,
    divisor: float = 1.0,
    noun: str = "values",
) -> None:
    if not sketch.n:
        draw_nothing(picture, top, title, f"no {noun} recorded")
        return
    draw_histogram(
        picture,
        top,
        histogram(sketch, divisor=divisor),
        marks if sketch.n > sketch.n_zeros else [],
        title=f"{title}: {sketch.n:,} {noun}" if noun != "weights" else f"{title}: {sketch.n:,}",
        ink=ink,
        unit=unit,
        share_of=noun,
    )


def _activations_label(point: PointReport, nonzero: bool) -> str:
    sketch, name = point.before.layer, plain(point.name)
    if not sketch.n:
        return f"No activations of {name} were recorded."
    text = (
        f"Histogram of the {sketch.n:,} activations of {name}: "
        f"{share_text(sketch.n_zeros / sketch.n)} zeros, "
        f"{point.label} of {'non-zero' if nonzero else 'all'} values {number_text(point.percentile.value)}, "
        f"maximum {number_text(sketch.maximum)}, factor {factor_text(point.factors)}."
    )
    if point.after is None or not point.after.layer.n:
        return text
    return f"{text} Below, of the normalised network: maximum {number_text(point.after.layer.maximum)}."
