"""The distribution of a point or of a channel, as numbers or as a picture.

Knows runs and figures. Does not know HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ...storage.errors import NotFoundError
from ..report.bars import Mark, paint_bars, paint_legend, paint_marks, paint_nothing
from ..report.canvas import COLOURS, draw_png, draw_svg, figure_style, legible
from ..report.histogram import Histogram, histogram
from ..report.numbers import count_text, number_text
from ..results.run import Run
from ..sketch import Sketch
from ..stages.after_sketches import AfterSketches
from .answers import DistributionAnswer, PercentileAnswer
from .open_runs import OpenRun
from .questions import is_nonzero, percentile_in, recorded_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DistributionQuestion", "Subject", "distribution_of", "distribution_picture"]

WIDTH_IN, HEIGHT_IN = 6.4, 3.6
PLACE = (0.19, 0.16, 0.78, 0.6)


Subject = Literal["activations", "normalised", "weights", "normalised-weights"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributionQuestion:
    """Which distribution is asked for."""

    point: str
    of: Subject = "activations"
    channel: int | None = None
    bins: int | None = None
    q: float | None = None
    nonzero: bool | None = None
    is_log: bool = False


def distribution_of(opened: OpenRun, asked: DistributionQuestion) -> DistributionAnswer:
    """Return a histogram.

    Raises
    ------
    NotFoundError
        If the run has no sketches of what is asked for.
    """
    bars, _, percentile = _found(opened, asked)
    return DistributionAnswer(
        run=opened.id,
        recorded=recorded_of(opened),
        point=asked.point,
        of=asked.of,
        channel=asked.channel,
        scale=bars.scale,
        edges=bars.edges.tolist(),
        counts=bars.counts.tolist(),
        n_values=bars.n,
        n_zeros=bars.n_zeros,
        n_below=bars.n_below,
        percentile=percentile,
    )


def distribution_picture(opened: OpenRun, asked: DistributionQuestion, kind: Literal["png", "svg"]) -> bytes:
    """Return a histogram as a file; see `distribution_of`."""
    bars, sketch, percentile = _found(opened, asked)
    recorded = recorded_of(opened)
    where = asked.point if asked.channel is None else f"{asked.point}, channel {asked.channel}"
    unit = "weight" if "weights" in asked.of else "activation"
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
            paint_nothing(axes, asked.of, "no values recorded")
            return
        paint_bars(axes, bars, colour=COLOURS["after" if "normalised" in asked.of else "before"], unit=unit)
        paint_marks(axes, _marks(sketch, percentile))
        paint_legend(axes, f"{asked.of}: {count_text(sketch.n)} values")

    with figure_style():
        return (draw_png if kind == "png" else draw_svg)(WIDTH_IN, HEIGHT_IN, paint)


def _marks(sketch: Sketch, percentile: PercentileAnswer) -> list[Mark]:
    marks = [Mark(value=sketch.maximum, label=f"max {number_text(sketch.maximum)}", kind="max")]
    value, lo, hi = percentile.value, percentile.lo, percentile.hi
    if value is not None and lo is not None and hi is not None:
        label = f"p{percentile.q:g} {number_text(value)}"
        marks.insert(0, Mark(value=value, label=label, kind="percentile", band=(lo, hi)))
    return marks if sketch.n > sketch.n_zeros else []


def _found(opened: OpenRun, asked: DistributionQuestion) -> tuple[Histogram, Sketch, PercentileAnswer]:
    run = opened.run
    sketch = run.sketch(asked.point, channel=asked.channel)
    nonzero = is_nonzero(run, asked.nonzero)
    if asked.of != "activations":
        sketch, nonzero = _other_sketch(run, asked), nonzero and asked.of == "normalised"
    q = run.settings.factors.percentile if asked.q is None else asked.q
    percentile = percentile_in(sketch, asked.point, q, nonzero=nonzero, channel=asked.channel)
    return histogram(sketch, n_bars=asked.bins, is_log=asked.is_log), sketch, percentile


def _other_sketch(run: Run, asked: DistributionQuestion) -> Sketch:
    """Return the sketch of weights, or of the normalised network if its certificate is up to date and passed."""
    certificate = run.certificate()
    after = AfterSketches.load(run.folder.sketches_path) if certificate and certificate["passed"] else None
    found: Sketch | None = None
    if after is not None and asked.channel is None:
        point = after.activations.get(asked.point)
        found = {
            "normalised": None if point is None else point.layer,
            "weights": after.weights_before.get(asked.point),
            "normalised-weights": after.weights_after.get(asked.point),
        }[asked.of]
    if found is None:
        raise NotFoundError(
            f"this run has no sketch of the {asked.of} of {asked.point!r}: it has them of whole layers, where the "
            "network was normalised and its certificate is up to date"
        )
    return found
