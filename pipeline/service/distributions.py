"""The distribution of a point or of a channel, as numbers or as a picture.

Knows runs and figures. Does not know HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...storage.errors import NotFoundError
from ..report.histogram import Histogram, histogram
from ..report.numbers import number_text, plain
from ..report.panel import LOWER, WIDTH, Mark, draw_histogram, draw_nothing
from ..report.picture import Picture
from ..report.rendered import render_png, rendering
from ..results.run import Run
from ..settings.percents import percent_text
from ..sketch import Sketch
from ..stages.after_sketches import AfterSketches
from .answers import DistributionAnswer, PercentileAnswer
from .open_runs import OpenRun
from .questions import is_nonzero, percentile_in, recorded_of

__all__ = ["DistributionQuestion", "Subject", "distribution_of", "distribution_picture"]

# The height of the two lines above the panel, and of the picture.
HEAD = 36.0
HEIGHT = HEAD + LOWER

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
    part = (
        ""
        if recorded.is_complete
        else f"; {recorded.n_blocks_done} of {recorded.n_blocks} blocks, not all samples"
    )
    damage = "; DAMAGED blocks are left out" if recorded.damage else ""

    picture = Picture(
        WIDTH, HEIGHT, label=f"Histogram of the {asked.of} of {plain(where)}: {sketch.n:,} values"
    )
    picture.words(8, 16, plain(where, limit=58), size=12, is_bold=True)
    picture.words(8, 31, f"{recorded.n_samples_done:,} samples{part}{damage}", size=10, ink="soft")
    if sketch.n:
        draw_histogram(
            picture,
            HEAD,
            bars,
            _marks(sketch, percentile),
            title=f"{asked.of}: {sketch.n:,} values",
            ink="after" if "normalised" in asked.of else "before",
            unit="weight" if "weights" in asked.of else "activation",
        )
    else:
        draw_nothing(picture, HEAD, asked.of, "no values recorded")
    if kind == "svg":
        return picture.svg_file()
    with rendering():
        return render_png(picture)


def _marks(sketch: Sketch, percentile: PercentileAnswer) -> list[Mark]:
    marks = [Mark(value=sketch.maximum, label=f"max {number_text(sketch.maximum)}", kind="max")]
    value, lo, hi = percentile.value, percentile.lo, percentile.hi
    if value is not None and lo is not None and hi is not None:
        label = f"p{percent_text(percentile.q)} {number_text(value)}"
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
