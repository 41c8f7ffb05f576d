"""Draw one histogram with its marks on one pair of axes.

Knows histograms and axes. Does not know points, factors or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .canvas import COLOURS, decade_ticks, tick_text
from .histogram import Histogram
from .numbers import share_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["LABEL_PLACE", "Mark", "paint_bars", "paint_legend", "paint_marks", "paint_nothing"]

# Place of the label of the vertical axis, in widths of the axes.
LABEL_PLACE = -0.15
# Bars whose heights differ more than this can only be compared on a logarithmic axis.
RATIO_FOR_LOG = 50.0
# Space for the bar of the zeros left of a log axis, as a share of its length.
ROOM_FOR_ZEROS = 0.07

DASHES = {"percentile": (0, (5, 2)), "max": (0, (1, 1.2)), "factor": "solid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A vertical line, and the band of its interval if that is wide enough to be visible."""

    value: float
    label: str
    kind: str
    """``"percentile"``, ``"max"`` or ``"factor"``: determines colour and dash."""
    band: tuple[float, float] | None = None


def paint_bars(axes: Axes, bars: Histogram, *, colour: str, unit: str, share_of: str = "values") -> None:
    """Draw `bars` as a filled outline with the zeros as a bar of their own, and label both axes."""
    shares = bars.shares
    zero_share = bars.n_zeros / max(bars.n, 1)
    is_log = _fit_height(axes, shares, zero_share=zero_share, n=bars.n)
    axes.stairs(shares, bars.edges, fill=True, color=colour, baseline=axes.get_ylim()[0], linewidth=0)
    zero_place = _fit_width(axes, bars)
    if bars.n_zeros:
        axes.vlines(
            zero_place,
            axes.get_ylim()[0],
            zero_share,
            color=COLOURS["zeros"],
            linewidth=3.0,
            label=f"zeros {share_text(zero_share)}",
        )
    axes.set_ylabel(f"share of {share_of}\nper bar" + (" (log)" if is_log else ""), fontsize=8)
    # A fixed place, however long the tick labels are.
    axes.yaxis.set_label_coords(LABEL_PLACE, 0.5)
    below = f"; {share_text(bars.n_below / bars.n)} below it" if bars.n_below else ""
    axes.set_xlabel(unit + ("" if bars.scale == "linear" else f" ({bars.scale} axis{below})"))
    axes.grid(axis="y", color=COLOURS["grid"], linewidth=0.6)


def paint_marks(axes: Axes, marks: Sequence[Mark]) -> None:
    """Draw the lines of `marks` over the bars, and widen the axis to show them all."""
    left, right = axes.get_xlim()
    for mark in marks:
        colour = COLOURS[mark.kind]
        if mark.band is not None and mark.band[1] - mark.band[0] > (right - left) / 500:
            axes.axvspan(*mark.band, color=colour, alpha=0.18, linewidth=0)
        axes.axvline(mark.value, color=colour, linestyle=DASHES[mark.kind], linewidth=1.6, label=mark.label)
        right = max(right, mark.value * 1.02)
    axes.set_xlim(left, right)


def paint_legend(axes: Axes, title: str) -> None:
    """Write the title and the legend above the axes, where they cover no data."""
    handles, labels = axes.get_legend_handles_labels()
    # Four entries do not fit side by side.
    n_rows = 0 if not handles else 1 if len(handles) <= 3 else 2
    axes.set_title(title, pad=(6, 19, 31)[n_rows], fontweight="bold")
    if handles:
        axes.legend(
            handles, labels, ncols=3 if n_rows == 1 else 2, loc="lower left", bbox_to_anchor=(0.0, 1.02)
        )


def paint_nothing(axes: Axes, title: str, reason: str) -> None:
    """Write why there is no picture, in its place."""
    axes.set_title(title, pad=6, fontweight="bold")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, reason, ha="center", va="center", transform=axes.transAxes, color="#52606d")


def _fit_height(axes: Axes, shares: NDArray[np.float64], *, zero_share: float, n: int) -> bool:
    """Choose a linear or a logarithmic height; return whether it is logarithmic."""
    heights = np.append(shares[shares > 0], zero_share if zero_share > 0 else [])
    top = float(heights.max()) if len(heights) else 1.0
    # A bar with a fraction of one bucket is less than one value high: the axis need not reach it.
    bottom = max(float(heights.min()), 1.0 / max(n, 1)) if len(heights) else 1.0
    if top < bottom * RATIO_FOR_LOG:
        axes.set_ylim(0.0, top * 1.08)
        axes.yaxis.set_major_formatter(tick_text)
        return False
    axes.set_yscale("log")
    axes.set_ylim(bottom / 1.6, top * 1.6)
    _set_ticks(axes, "y", decade_ticks(*axes.get_ylim(), limit=5))
    return True


def _fit_width(axes: Axes, bars: Histogram) -> float:
    """Choose the axis of the values; return the place of the bar of the zeros."""
    low, high = float(bars.edges[0]), float(bars.edges[-1])
    if bars.scale == "linear":
        room = (high - low) * 0.015
        axes.set_xlim(low - room, high + room)
        axes.xaxis.set_major_formatter(tick_text)
        return 0.0
    if bars.scale == "log":
        axes.set_xscale("log")
        reach = high / low
        place: float = low / reach**ROOM_FOR_ZEROS
        axes.set_xlim(place / reach**0.015, high * reach**0.015)
        ticks = decade_ticks(low, high)
        _set_ticks(axes, "x", [place, *ticks] if bars.n_zeros else ticks, first="0" if bars.n_zeros else None)
        return place
    axes.set_xscale("symlog", linthresh=bars.linear_width)
    axes.set_xlim(low * (1.3 if low < 0 else 0.7), high * 1.3)
    above = decade_ticks(bars.linear_width, high, limit=4)
    below = decade_ticks(bars.linear_width, -low, limit=4) if -low > bars.linear_width else []
    _set_ticks(axes, "x", [*(-place for place in reversed(below)), 0.0, *above])
    return 0.0


def _set_ticks(axes: Axes, which: str, places: Sequence[float], *, first: str | None = None) -> None:
    from matplotlib.ticker import NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    labels = [tick_text(place) for place in places]
    if first is not None:
        labels[0] = first
    axis.set_ticks(list(places), labels)
    axis.set_minor_locator(NullLocator())
