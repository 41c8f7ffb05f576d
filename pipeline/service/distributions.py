"""The distribution of a point or of a channel, as numbers or as a picture.

Knows runs and figures. Does not know HTTP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ..report.bars import Mark, paint_bars, paint_legend, paint_marks, paint_nothing
from ..report.canvas import COLOURS, draw_png, draw_svg, figure_style, legible
from ..report.histogram import Histogram, histogram
from ..report.numbers import count_text, number_text
from ..sketch import Sketch
from .answers import DistributionAnswer, PercentileAnswer
from .open_runs import OpenRun
from .questions import is_nonzero, percentile_answer, recorded_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["distribution_of", "distribution_picture"]

WIDTH_IN, HEIGHT_IN = 6.4, 3.6
PLACE = (0.13, 0.16, 0.84, 0.6)


def distribution_of(
    opened: OpenRun,
    point: str,
    *,
    channel: int | None,
    bins: int | None,
    q: float | None,
    nonzero: bool | None,
) -> DistributionAnswer:
    """Return the histogram of a point or of a channel."""
    bars, _, percentile = _found(opened, point, channel=channel, bins=bins, q=q, nonzero=nonzero)
    return DistributionAnswer(
        run=opened.id,
        recorded=recorded_of(opened),
        point=point,
        channel=channel,
        scale=bars.scale,
        edges=bars.edges.tolist(),
        counts=bars.counts.tolist(),
        n_values=bars.n,
        n_zeros=bars.n_zeros,
        n_below=bars.n_below,
        percentile=percentile,
    )


def distribution_picture(
    opened: OpenRun,
    point: str,
    *,
    kind: Literal["png", "svg"],
    channel: int | None,
    bins: int | None,
    q: float | None,
    nonzero: bool | None,
) -> bytes:
    """Return the histogram of a point or of a channel as a file."""
    bars, sketch, percentile = _found(opened, point, channel=channel, bins=bins, q=q, nonzero=nonzero)
    recorded = recorded_of(opened)
    where = point if channel is None else f"{point}, channel {channel}"
    part = (
        ""
        if recorded.is_complete
        else f"; {recorded.n_blocks_done} of {recorded.n_blocks} blocks, not all samples"
    )
    damage = "; DAMAGED blocks are left out" if recorded.damage else ""

    def paint(figure: Figure) -> None:
        figure.text(0.015, 0.975, legible(where, limit=70), va="top", fontsize=10, fontweight="bold")
        told = f"{count_text(recorded.n_samples_done)} samples{part}{damage}"
        figure.text(0.015, 0.915, told, va="top", fontsize=8, color=COLOURS["soft"])
        axes = figure.add_axes(PLACE)
        if not sketch.n:
            paint_nothing(axes, "activations", "no values recorded")
            return
        paint_bars(axes, bars, colour=COLOURS["before"], unit="activation")
        paint_marks(axes, _marks(sketch, percentile))
        paint_legend(axes, f"{count_text(sketch.n)} values")

    with figure_style():
        return (draw_png if kind == "png" else draw_svg)(WIDTH_IN, HEIGHT_IN, paint)


def _marks(sketch: Sketch, percentile: PercentileAnswer) -> list[Mark]:
    marks = [Mark(value=sketch.maximum, label=f"max {number_text(sketch.maximum)}", kind="max")]
    value, lo, hi = percentile.value, percentile.lo, percentile.hi
    if value is not None and lo is not None and hi is not None:
        label = f"p{percentile.q:g} {number_text(value)}"
        marks.insert(0, Mark(value=value, label=label, kind="percentile", band=(lo, hi)))
    return marks if sketch.n > sketch.n_zeros else []


def _found(
    opened: OpenRun,
    point: str,
    *,
    channel: int | None,
    bins: int | None,
    q: float | None,
    nonzero: bool | None,
) -> tuple[Histogram, Sketch, PercentileAnswer]:
    run = opened.run
    sketch = run.sketch(point, channel=channel)
    asked = run.settings.factors.percentile if q is None else q
    percentile = percentile_answer(run, point, asked, nonzero=is_nonzero(run, nonzero), channel=channel)
    return histogram(sketch, n_bars=bins), sketch, percentile
