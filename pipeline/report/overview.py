"""One figure of all points: factors, percentiles and maxima; zeros; noise of low precision; residuals.

Up to 40 points are named under the axis. More are numbered as in the page's table, so that no
labels touch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .canvas import COLOURS, decade_ticks, draw_png, legible, tick_text
from .contents import PointReport, ReportData
from .point_row import percentile_head

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["overview_png"]

MOST_NAMED = 40
WIDTH_IN = 10.0
NAME_LIMIT = 26
# In inches: the margins around the panels, and the heights of the panels.
HEAD_IN, FOOT_IN, GAP_IN = 0.72, 0.5, 0.3
SCALES_IN, ZEROS_IN, NOISE_IN, RESIDUALS_IN = 2.6, 1.0, 1.4, 1.0
NOISE_COLOURS = {"percentile": "percentile", "max": "max", "mse": "factor", "entropy": "after"}
NOISE_MARKERS = {"percentile": "o", "max": "^", "mse": "D", "entropy": "x"}


def overview_png(report: ReportData) -> bytes:
    """Return the overview as a PNG file; call within `figure_style`.

    Parameters
    ----------
    report : ReportData
        With at least one point.
    """
    points = report.points
    names = [legible(point.name, limit=NAME_LIMIT) for point in points] if len(points) <= MOST_NAMED else []
    foot_in = FOOT_IN + max(map(_length_in, names), default=0.0)
    panels: list[tuple[float, Callable[[Axes], None]]] = [
        (SCALES_IN, lambda axes: _paint_scales(axes, points, q_text=percentile_head(report))),
        (ZEROS_IN, lambda axes: _paint_zeros(axes, points)),
    ]
    if any(point.noise for point in points):
        panels.append((NOISE_IN, lambda axes: _paint_noise(axes, points, bits=report.noise_bits)))
    if any(point.residual is not None for point in points):
        tolerance = (report.certificate or {}).get("tolerance")
        panels.append((RESIDUALS_IN, lambda axes: _paint_residuals(axes, points, tolerance=tolerance)))
    panels_in = [panel_in for panel_in, _ in panels]
    height_in = HEAD_IN + foot_in + sum(panels_in) + GAP_IN * (len(panels_in) - 1)

    def paint(figure: Figure) -> None:
        head = legible(report.title, limit=90)
        figure.text(0.012, 1 - 0.12 / height_in, head, va="top", fontsize=11, fontweight="bold")
        top_in, all_axes = height_in - HEAD_IN, []
        for panel_in in panels_in:
            bottom_in = top_in - panel_in
            all_axes.append(figure.add_axes((0.085, bottom_in / height_in, 0.9, panel_in / height_in)))
            top_in = bottom_in - GAP_IN
        for axes, (_, paint_panel) in zip(all_axes, panels, strict=True):
            paint_panel(axes)
        for axes in all_axes:
            _number(axes, len(points), last=axes is all_axes[-1], names=names)

    return draw_png(WIDTH_IN, height_in, paint)


def _length_in(name: str) -> float:
    """Return how many inches `name` needs as a tick label."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    path = TextPath((0, 0), name, size=8, prop=FontProperties(family="DejaVu Sans"))
    return float(path.get_extents().width) / 72 if name.strip() else 0.0


def _paint_scales(axes: Axes, points: Sequence[PointReport], *, q_text: str) -> None:
    places = np.arange(1, len(points) + 1)
    size = 5.0 if len(points) <= MOST_NAMED else 3.0
    values = np.array([_positive(point.percentile.value) for point in points])
    low = np.array([_positive(point.percentile.lo) for point in points])
    high = np.array([_positive(point.percentile.hi) for point in points])
    maxima = np.array([_positive(point.uncached().before.layer.maximum) for point in points])
    smallest = np.array([min(point.factors) for point in points])
    largest = np.array([max(point.factors) for point in points])

    axes.vlines(places, values, maxima, color="#c9d2dc", linewidth=1.0)
    dots: dict[str, Any] = {"linestyle": "none", "markersize": size}
    axes.plot(places, maxima, **dots, marker="^", color=COLOURS["max"], label="max")
    errors = np.nan_to_num(np.vstack([np.maximum(values - low, 0), np.maximum(high - values, 0)]))
    axes.errorbar(
        places,
        values,
        yerr=errors,
        **dots,
        marker="o",
        color=COLOURS["percentile"],
        elinewidth=1.2,
        label=f"{q_text} with its interval",
    )
    # A range where there is a factor for each channel, a dash where there is one for the layer.
    axes.vlines(places, smallest, largest, color="#8fc7ad", linewidth=size * 0.7)
    for place_values, label in ((smallest, "factor"), (largest, None)):
        axes.plot(
            places,
            place_values,
            linestyle="none",
            marker="_",
            markersize=size * 2.2,
            markeredgewidth=1.5,
            color=COLOURS["factor"],
            label=label,
        )
    _log_height(axes, np.concatenate([values, maxima, smallest, largest]))
    axes.set_ylabel("activation, log")
    axes.legend(ncols=3, loc="lower left", bbox_to_anchor=(0.0, 1.02))


def _paint_zeros(axes: Axes, points: Sequence[PointReport]) -> None:
    places = np.arange(1, len(points) + 1)
    shares = [100 * point.before.layer.n_zeros / max(point.before.layer.n, 1) for point in points]
    axes.bar(places, shares, width=0.7, color=COLOURS["zeros"])
    axes.set_ylim(0, 100)
    axes.set_yticks([0, 50, 100])
    axes.set_ylabel("zeros, %")


def _paint_noise(axes: Axes, points: Sequence[PointReport], *, bits: int | None) -> None:
    """Draw the ratio of each method; infinite ones, where nothing is lost, stand on the upper edge."""
    found = {method: [point.noise.get(method, np.nan) for point in points] for method in NOISE_COLOURS}
    ratios = np.array(list(found.values()))
    finite = ratios[np.isfinite(ratios)]
    top = float(finite.max()) + 6.0 if finite.size else 60.0
    bottom = min(float(finite.min()) - 3.0, 0.0) if finite.size else 0.0
    axes.set_ylim(bottom, top)
    shift = {method: 0.12 * (place - 1.5) for place, method in enumerate(found)}
    for method, values in found.items():
        places = np.arange(1, len(points) + 1) + shift[method]
        axes.plot(
            places,
            np.clip(values, bottom, top),
            linestyle="none",
            marker=NOISE_MARKERS[method],
            markersize=4.0 if len(points) <= MOST_NAMED else 2.5,
            color=COLOURS[NOISE_COLOURS[method]],
            label=method,
            clip_on=False,
        )
    axes.set_ylabel(f"SQNR at {bits} bits, dB")
    axes.legend(ncols=4, loc="lower right", bbox_to_anchor=(1.0, 1.02))


def _paint_residuals(axes: Axes, points: Sequence[PointReport], *, tolerance: float | None) -> None:
    places = np.arange(1, len(points) + 1)
    given = np.array([np.nan if point.residual is None else point.residual for point in points])
    residuals = np.where(np.isfinite(given) & (given > 0), given, np.nan)
    none_left = places[given == 0]
    bound = float(tolerance) if tolerance else None
    allowed = np.array([point.allowed or np.nan for point in points])
    _log_height(axes, np.concatenate([residuals, allowed, [bound or np.nan]]))
    bottom = axes.get_ylim()[0]
    axes.vlines(places, bottom, residuals, color="#c9d2dc", linewidth=1.0)
    dots: dict[str, Any] = {"linestyle": "none", "markersize": 3.0, "color": COLOURS["after"]}
    axes.plot(places, residuals, marker="o", **dots)
    # Infinite residuals stand on the upper edge, residuals of 0 on the lower one.
    not_finite = places[np.isinf(given)]
    axes.plot(not_finite, [axes.get_ylim()[1]] * len(not_finite), marker="x", clip_on=False, **dots)
    axes.plot(none_left, [bottom] * len(none_left), marker="v", **dots)
    if np.isfinite(allowed).any():
        dash: dict[str, Any] = {"linestyle": "none", "marker": "_", "color": COLOURS["percentile"]}
        axes.plot(places, allowed, **dash, markersize=5.0, label="allowed")
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0))
    elif bound:
        axes.axhline(bound, color=COLOURS["percentile"], linestyle=(0, (5, 2)), linewidth=1.2)
        axes.annotate(
            f"tolerance {tick_text(bound)}",
            (1.0, bound),
            xycoords=("axes fraction", "data"),
            xytext=(0, -3),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=8,
            color=COLOURS["percentile"],
        )
    axes.set_ylabel("residual, log")


def _positive(value: float) -> float:
    """Return `value`, or NaN, which is not drawn, if a log axis cannot show it."""
    return value if value > 0 else float("nan")


def _log_height(axes: Axes, values: NDArray[np.float64]) -> None:
    from matplotlib.ticker import NullLocator

    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.5, 2.0)
    axes.set_yscale("log")
    axes.set_ylim(low / 1.6, high * 1.6)
    ticks = decade_ticks(low / 1.6, high * 1.6, limit=5)
    axes.yaxis.set_ticks(ticks, [tick_text(tick) for tick in ticks])
    axes.yaxis.set_minor_locator(NullLocator())


def _number(axes: Axes, n_points: int, *, last: bool, names: Sequence[str]) -> None:
    axes.set_xlim(0.3, n_points + 0.7)
    axes.grid(axis="y", color=COLOURS["grid"], linewidth=0.6)
    if names:
        axes.set_xticks(range(1, n_points + 1), names if last else [""] * n_points, rotation=90)
        return
    step = next(step for step in (10, 20, 50, 100, 200, 500, 1000, 10_000, n_points) if n_points / step <= 25)
    ticks = [1, *range(step, n_points + 1, step)]
    axes.set_xticks(ticks, [str(tick) for tick in ticks] if last else [""] * len(ticks))
    if last:
        axes.set_xlabel("number of the layer, as in the table")
