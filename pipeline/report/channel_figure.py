"""The picture of the channels of one point: percentile and largest value of each, and its share of zeros."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..settings.percents import percent_text
from .contents import PointReport
from .numbers import plain
from .panel import ACROSS, LOWER, TWO_PANELS, UPPER, WIDTH, Axes, draw_axes, draw_legend, upright
from .picture import Picture
from .scale import Scale, log_scale

__all__ = ["channel_picture"]

# A picture has no room for more: neighbours are then drawn together.
MOST_DRAWN = 350


def channel_picture(point: PointReport, *, nonzero: bool) -> Picture:
    """Return the picture; the point has a sketch of each channel, and values."""
    channels = point.before.channels
    assert channels is not None
    n, n_dead = channels.n_channels, len(point.dead_channels or ())
    step = math.ceil(n / MOST_DRAWN)
    maxima = _largest(channels.maximum, step)
    values = _largest(channels.percentile(point.shown_q, nonzero=nonzero)[0], step)
    zeros = _largest(channels.sparsity, step)
    places = np.arange(0, n, step, dtype=np.float64) + (step - 1) / 2
    together = f"; the largest of {step} neighbours" if step > 1 else ""
    picture = Picture(
        WIDTH,
        TWO_PANELS,
        label=f"The {n:,} channels of {plain(point.name)}, {n_dead:,} of them dead: p{percent_text(point.shown_q)} and "
        "maximum of each; below, its share of zeros.",
    )
    x = Scale(low=-0.5 - n / 100, high=n - 0.5 + n / 100, ends=ACROSS)
    y = log_scale([*maxima, *values, *point.factors], upright(UPPER))
    upper = Axes(picture=picture, top=UPPER, x=x, y=y)
    draw_axes(upper, title=f"Channels: {n:,}", x_label=f"channel{together}", y_label="activation (log)")
    width = max(1.0, min(6.0, 240.0 / len(places)))
    _stems(upper, places, values, maxima, ink="max", width=width / 2)
    _stems(upper, places, np.full(len(places), y.low), values, ink="percentile", width=width)
    _factors(upper, point.factors, places, step)
    draw_legend(
        upper,
        [
            ("percentile", f"p{percent_text(point.shown_q)}"),
            ("max", "from it to the maximum"),
            ("factor", "factor"),
        ],
    )
    lower = Axes(
        picture=picture,
        top=LOWER,
        x=x,
        y=Scale(low=0.0, high=1.04, ends=upright(LOWER)),
    )
    draw_axes(lower, title="Zeros of each channel", x_label=f"channel{together}", y_label="share of zeros")
    _stems(lower, places, np.zeros(len(places)), zeros, ink="before", width=width)
    return picture


def _largest(values: NDArray[np.float64], step: int) -> NDArray[np.float64]:
    """Return the largest of each `step` neighbours; NaN where there are none."""
    padded = np.append(values, np.full(-len(values) % step, np.nan)).reshape(-1, step)
    return np.asarray(np.fmax.reduce(padded, axis=1))


def _factors(axes: Axes, factors: tuple[float, ...], places: NDArray[np.float64], step: int) -> None:
    """Draw the factor of the layer as a line, or a dash at each channel where each has its own."""
    if len(factors) == 1:
        up = axes.y.at(factors[0])
        axes.picture.stroke(((axes.x.start, up), (axes.x.end, up)), ink="factor", width=1.6)
        return
    ups = axes.y.place(_largest(np.array(factors), step))
    half = 0.45 * step
    left, right = axes.x.place(places - half), axes.x.place(places + half)
    dashes = (((a, up), (b, up)) for a, b, up in zip(left, right, ups, strict=False))
    axes.picture.stroke(*dashes, ink="factor", width=2.0)


def _stems(
    axes: Axes,
    places: NDArray[np.float64],
    lows: NDArray[np.float64],
    highs: NDArray[np.float64],
    *,
    ink: str,
    width: float,
) -> None:
    """Draw vertical lines from low to high, where both are on the axis."""
    is_shown = np.isfinite(highs) & (highs > 0)
    across, down, up = (
        axes.x.place(places),
        axes.y.place(np.nan_to_num(lows)),
        axes.y.place(np.nan_to_num(highs)),
    )
    lines = (
        ((a, b), (a, c))
        for a, b, c, shown in zip(across, down, up, is_shown, strict=True)
        if shown and b - c > 0.05
    )
    axes.picture.stroke(*lines, ink=ink, width=width)
