"""Plots of a run on axes of matplotlib that one can go on with; the style is the user's.

Knows sketches, factors and axes. Does not know runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..factors.factors_file import Factors, PointFactor
from ..report.histogram import histogram
from ..report.numbers import number_text, plain, share_text
from ..sketch import Percentile, PointSketch, Sketch
from .percentile_rows import percent_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_distribution", "draw_factors", "given_or_new_axes"]

NAME_LIMIT = 40


def given_or_new_axes(ax: Axes | None, *, width_in: float | None = None) -> Axes:
    """Return the given axes, or those of a new figure of pyplot, which a notebook shows."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    size = None if width_in is None else (width_in, plt.rcParams["figure.figsize"][1])
    return plt.subplots(figsize=size, layout="constrained")[1]


def draw_distribution(
    axes: Axes,
    sketch: Sketch,
    *,
    name: str,
    marks: Mapping[str, Percentile],
    factor: float | None,
    style: Any,
) -> None:
    """Draw the distribution of the values that are not zero, with percentiles and a factor as lines.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    sketch : Sketch
    name : str
        Of the point.
    marks : mapping of str to Percentile
        By label; an interval that can be seen is shaded.
    factor : float or None
    style : mapping
        Of ``Axes.stairs``.
    """
    zeros = share_text(sketch.n_zeros / sketch.n if sketch.n else None)
    axes.set_title(f"{_text(name)}: {sketch.n:,} values, {zeros} zeros")
    axes.set_xlabel("activation")
    axes.set_ylabel("share of values per bar")
    if not sketch.n_nonzero:
        axes.text(0.5, 0.5, "no values but zeros", ha="center", va="center", transform=axes.transAxes)
        return
    bars = histogram(sketch)
    axes.stairs(bars.shares, bars.edges, **{"fill": True, "alpha": 0.7, **style})
    axes.set_yscale("log")
    if bars.scale != "linear":
        axes.set_xscale(bars.scale, **({"linthresh": bars.linear_width} if bars.scale == "symlog" else {}))
    for i, (label, found) in enumerate(marks.items()):
        colour = f"C{i + 1}"
        axes.axvline(
            found.value, color=colour, linestyle="--", label=f"{label} {number_text(found.value, digits=5)}"
        )
        axes.axvspan(found.lo, found.hi, color=colour, alpha=0.2, linewidth=0)
    if factor is not None:
        text_colour = axes.xaxis.label.get_color()  # seen on dark styles too
        axes.axvline(
            factor, color=text_colour, linestyle=":", label=f"factor {number_text(factor, digits=5)}"
        )
    if marks or factor is not None:
        axes.legend()


def draw_factors(axes: Axes, factors: Factors, sketches: Mapping[str, PointSketch]) -> None:
    """Draw the factor of each point beside its largest activation and the percentile or clip that made it."""
    points = factors.points
    places = np.arange(len(points))
    axes.plot(
        places,
        [_positive(sketches[p.name].layer.maximum) for p in points],
        linestyle="none",
        marker="^",
        alpha=0.6,
        label="largest activation",
    )
    values = np.array([_positive(p.value) for p in points])
    ends = np.array([[_positive(p.lo), _positive(p.hi)] for p in points]).reshape(-1, 2)
    spread = np.nan_to_num(np.abs(ends - values[:, None]).T)
    axes.errorbar(
        places, values, yerr=spread, linestyle="none", marker="o", alpha=0.6, label=_made_by(points)
    )
    smallest = [min(p.factors) for p in points]
    largest = [max(p.factors) for p in points]
    axes.vlines(places, smallest, largest, color="C2", linewidth=3, alpha=0.5)
    axes.plot(places, largest, linestyle="none", marker="_", markersize=14, color="C2", label="factor")
    axes.plot(places, smallest, linestyle="none", marker="_", markersize=14, color="C2")
    axes.set_yscale("log")
    axes.set_ylabel("activation")
    axes.set_xticks(places, [_text(p.name) for p in points], rotation=90)
    axes.legend()


def _made_by(points: tuple[PointFactor, ...]) -> str:
    qs = {p.percentile for p in points if p.percentile is not None}
    return (
        f"{percent_label(qs.pop())} with its interval"
        if len(qs) == 1
        else "what the method finds, with its interval"
    )


def _positive(value: float | None) -> float:
    """Return a value, or NaN, which is not drawn, where a logarithmic axis cannot show it."""
    return value if value is not None and value > 0 else float("nan")


def _text(name: str) -> str:
    """Return a name that matplotlib draws as it is: between two dollar signs it would read mathematics."""
    return plain(name, limit=NAME_LIMIT).replace("$", r"\$")
