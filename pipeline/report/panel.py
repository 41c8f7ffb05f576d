"""Draw one pair of axes: a histogram with its marks, or a falling line. A picture has one or two of them.

Knows histograms and pictures. Does not know points, factors or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .histogram import Histogram
from .numbers import share_text
from .picture import Picture
from .scale import Scale, tick_text

__all__ = [
    "ACROSS",
    "LOWER",
    "TWO_PANELS",
    "UPPER",
    "WIDTH",
    "Axes",
    "Mark",
    "draw_axes",
    "draw_histogram",
    "draw_legend",
    "draw_marks",
    "draw_nothing",
    "upright",
]

WIDTH = 420.0
LEFT, RIGHT = 56.0, 408.0
# From the top of a panel: the base lines of its title and of its legend, and the axes.
TITLE, LEGEND, TOP, BOTTOM = 12.0, 28.0, 50.0, 154.0
PANEL_HEIGHT = 190.0
# The tops of the two panels of a picture, and its height.
UPPER = 8.0
LOWER = UPPER + PANEL_HEIGHT + 14.0
TWO_PANELS = LOWER + PANEL_HEIGHT
ACROSS = (LEFT, RIGHT)
"""The ends of the horizontal axis of a panel."""
LEGEND_STEP, TEXT_WIDTH = 15.0, 5.6
"""The distance of its lines, and about the width of a character, which is not known before it is shown."""

# Bars whose heights differ more than this can only be compared on a logarithmic axis.
RATIO_FOR_LOG = 50.0
# Space for the bar of the zeros left of a log axis, as a share of its length.
ROOM_FOR_ZEROS = 0.07

DASHES: dict[str, tuple[float, ...]] = {"percentile": (5, 2), "max": (1.5, 1.5), "factor": (), "ink": ()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A vertical line, and the band of its interval if that is wide enough to be visible."""

    value: float
    label: str
    kind: str
    """``"percentile"``, ``"max"`` or ``"factor"``: its colour and dash."""
    band: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """Where a panel is, and its two axes."""

    picture: Picture
    top: float
    x: Scale
    y: Scale


def upright(top: float) -> tuple[float, float]:
    """Return the ends of the vertical axis of the panel at `top`."""
    return top + BOTTOM, top + TOP


def draw_nothing(picture: Picture, top: float, title: str, reason: str) -> None:
    """Write why there is no picture, in its place."""
    _title(picture, top, title)
    picture.stroke(_box(top), ink="grid")
    picture.words((LEFT + RIGHT) / 2, top + (TOP + BOTTOM) / 2, reason, ink="soft", anchor="middle")


def draw_histogram(
    picture: Picture,
    top: float,
    bars: Histogram,
    marks: Sequence[Mark],
    *,
    title: str,
    ink: str,
    unit: str,
    share_of: str = "values",
) -> Axes:
    """Draw `bars` as one area with the zeros as a bar of their own, `marks` over them, and the legend above.

    Returns
    -------
    Axes
        What was drawn on.
    """
    shares, zero_share = bars.shares, bars.n_zeros / max(bars.n, 1)
    y, is_log = _heights(shares, zero_share=zero_share, n=bars.n, top=top)
    x, zero_place = _widths(bars, reach=max([mark.value for mark in marks], default=0.0))
    axes = Axes(picture=picture, top=top, x=x, y=y)
    label = f"share of {share_of}{' (log)' if is_log else ''}"
    below = f"; {share_text(bars.n_below / bars.n)} below it" if bars.n_below else ""
    draw_axes(
        axes,
        title=title,
        x_label=unit + ("" if bars.scale == "linear" else f" ({bars.scale} axis{below})"),
        y_label=label,
        x_ticks=_ticks_with_zero(x, bars),
    )
    picture.area(_outline(axes, bars.edges, shares), ink=ink)
    entries = []
    if bars.n_zeros:
        at, up = x.at(zero_place), y.at(zero_share)
        picture.stroke(((at, y.start), (at, up)), ink="ink", width=3.0)
        entries.append(("ink", f"zeros {share_text(zero_share)}"))
    draw_legend(axes, [*entries, *draw_marks(axes, marks)])
    return axes


def draw_axes(
    axes: Axes,
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_ticks: Sequence[tuple[float, str]] | None = None,
) -> None:
    """Draw grid, ticks and labels."""
    picture, x, y, top = axes.picture, axes.x, axes.y, axes.top
    _title(picture, top, title)
    for tick in y.ticks(5):
        up = y.at(tick)
        picture.stroke(((LEFT, up), (RIGHT, up)), ink="grid")
        picture.words(LEFT - 5, up + 3.5, tick_text(tick), size=10, anchor="end")
    picture.stroke(((LEFT, top + BOTTOM), (RIGHT, top + BOTTOM)), ink="soft")
    ticks = [(tick, tick_text(tick)) for tick in x.ticks(6)] if x_ticks is None else x_ticks
    places = [(x.at(tick), text) for tick, text in ticks]
    picture.stroke(*(((at, top + BOTTOM), (at, top + BOTTOM + 4)) for at, _ in places), ink="soft")
    for at, text in places:
        picture.words(at, top + BOTTOM + 15, text, size=10, anchor="middle")
    picture.words((LEFT + RIGHT) / 2, top + BOTTOM + 29, x_label, ink="soft", size=10, anchor="middle")
    picture.words(11, top + (TOP + BOTTOM) / 2, y_label, ink="soft", size=10, anchor="middle", turn=-90)


def draw_marks(axes: Axes, marks: Sequence[Mark]) -> list[tuple[str, str]]:
    """Draw lines from top to bottom; return what the legend says of them."""
    picture, x, y = axes.picture, axes.x, axes.y
    for mark in marks:
        if mark.band is not None:
            left, right = x.place(mark.band)
            if right - left > 0.7:
                picture.rect(left, y.end, right - left, y.start - y.end, ink=mark.kind, opacity=0.2)
        at = x.at(mark.value)
        picture.stroke(((at, y.start), (at, y.end)), ink=mark.kind, width=1.6, dash=DASHES[mark.kind])
    return [(mark.kind, mark.label) for mark in marks]


def _title(picture: Picture, top: float, title: str) -> None:
    picture.words(LEFT, top + TITLE, title, size=12, is_bold=True)


def _box(top: float) -> tuple[tuple[float, float], ...]:
    up, down = top + LEGEND, top + BOTTOM
    return ((LEFT, up), (RIGHT, up), (RIGHT, down), (LEFT, down), (LEFT, up))


def draw_legend(axes: Axes, entries: Sequence[tuple[str, str]]) -> None:
    """Write what each line is above the axes, where it covers no data."""
    at, down = LEFT, axes.top + LEGEND
    for ink, label in entries:
        needed = 26 + TEXT_WIDTH * len(label)
        if at > LEFT and at + needed > RIGHT + 12:
            at, down = LEFT, down + LEGEND_STEP
        axes.picture.stroke(((at, down - 3.5), (at + 14, down - 3.5)), ink=ink, width=2.0, dash=DASHES[ink])
        axes.picture.words(at + 18, down, label, size=10.5)
        at += needed


def _outline(
    axes: Axes, edges: NDArray[np.float64], shares: NDArray[np.float64]
) -> list[tuple[float, float]]:
    """Return the corners of all bars together."""
    base = axes.y.start
    across = np.repeat(axes.x.place(edges), 2)
    # A log axis has no place for an empty bar: it stays on the base line.
    up = np.where(shares > 0, axes.y.place(np.where(shares > 0, shares, axes.y.low)), base)
    heights = np.concatenate([[base], np.repeat(up, 2), [base]])
    return list(zip(across.tolist(), heights.tolist(), strict=True))


def _heights(shares: NDArray[np.float64], *, zero_share: float, n: int, top: float) -> tuple[Scale, bool]:
    """Return a linear or a logarithmic axis for the heights, and whether it is logarithmic."""
    heights = np.append(shares[shares > 0], zero_share if zero_share > 0 else [])
    highest = float(heights.max()) if len(heights) else 1.0
    # A bar with a fraction of one bucket is less than one value high: the axis need not reach it.
    lowest = max(float(heights.min()), 1.0 / max(n, 1)) if len(heights) else 1.0
    if highest < lowest * RATIO_FOR_LOG:
        return Scale(low=0.0, high=highest * 1.08, ends=upright(top)), False
    return Scale(low=lowest / 1.6, high=highest * 1.6, ends=upright(top), kind="log"), True


def _widths(bars: Histogram, *, reach: float) -> tuple[Scale, float]:
    """Return the axis of the values, which shows a mark at `reach` too, and the place of the bar of the zeros."""
    low, high = float(bars.edges[0]), float(bars.edges[-1])
    if bars.scale == "linear":
        room = (max(high, reach) - low) * 0.015
        return Scale(low=low - room, high=max(high + room, reach * 1.02), ends=ACROSS), 0.0
    if bars.scale == "log":
        far = high / low
        zero = low / far**ROOM_FOR_ZEROS
        high = max(high * far**0.015, reach * 1.02)
        return Scale(low=zero / far**0.015, high=high, ends=ACROSS, kind="log"), zero
    scale = Scale(
        low=low * (1.3 if low < 0 else 0.7),
        high=max(high * 1.3, reach * 1.02),
        ends=ACROSS,
        kind="symlog",
        linear_width=bars.linear_width,
    )
    return scale, 0.0


def _ticks_with_zero(x: Scale, bars: Histogram) -> list[tuple[float, str]] | None:
    """Return the ticks of a log axis on which the zeros have a place."""
    if bars.scale != "log" or not bars.n_zeros:
        return None
    low = float(bars.edges[0])
    ticks = [tick for tick in x.ticks(6) if tick >= low]
    return [(low / (float(bars.edges[-1]) / low) ** ROOM_FOR_ZEROS, "0"), *((t, tick_text(t)) for t in ticks)]
