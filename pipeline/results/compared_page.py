"""The comparison of two runs as one HTML page that loads nothing, with a picture of the distributions of each point."""

from __future__ import annotations

import importlib.metadata
import shlex
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..report.numbers import certain_text, change_text, factor_text, number_text, plain, share_text
from ..report.page import INKS_ON_PAGE, source, template
from ..report.picture import Picture
from ..report.scale import Scale
from ..settings.percents import percent_text
from ..sketch import Sketch
from .compared_runs import ComparedPoint, RunComparison
from .percentile_rows import percent_label
from .so_far import SoFar

__all__ = ["comparison_page"]

_WIDTH, _HEIGHT = 640.0, 200.0
_ACROSS, _UPRIGHT = (40.0, 639.0), (176.0, 4.0)
"""The ends of the two axes."""
_N_PLACES = 257
# The tail beyond would press the rest into a line.
_SHOWN_PERCENTILES = (0.1, 99.9)
_HEADS = ("layer", "KS, all", "KS, nonzero", "W1, all", "W1, nonzero", "zeros", "factor")


def comparison_page(found: RunComparison) -> str:
    """Return the page."""
    first, second = found.first.run.folder.path, found.second.run.folder.path
    which = (("first", found.only_in_first), ("second", found.only_in_second))
    return template("compare.html").render(
        first=_facts(found.first),
        second=_facts(found.second),
        sentence=f"Two runs of actisketch, compared from their sketches: {first} and {second}.",
        remarks=[plain(remark, limit=2000) for remark in found.remarks],
        key_figures=list(_key_figures(found)),
        heads=[*_heads(found)],
        rows=[_row(found, row) for row in found.points],
        alone=[
            f"Only in the {word} run: {plain(', '.join(names), limit=2000)}."
            for word, names in which
            if names
        ],
        program=f"actisketch {importlib.metadata.version('actisketch')}",
        command=plain(
            shlex.join(["actisketch", "compare", str(first), str(second), *_flags(found)]), limit=2000
        ),
        # The only texts that are not escaped are ours: the style, and the pictures, which hold numbers only.
        css=source("page.css") + INKS_ON_PAGE,
    )


def _heads(found: RunComparison) -> Iterator[str]:
    first, *others = _HEADS
    yield first
    if found.measure == "wasserstein":
        yield "W1, relative"
    yield from others
    yield from (percent_label(each.q) for each in found.points[0].percentiles)


def _flags(found: RunComparison) -> Iterator[str]:
    yield from ("--by", found.measure, "--nonzero" if found.nonzero else "--all-values")
    if found.asked_points:
        yield from ("--points", ",".join(found.asked_points))
    for each in found.points[0].percentiles:
        yield from ("-q", percent_text(each.q))


def _facts(so_far: SoFar) -> dict[str, str]:
    return {"name": plain(so_far.run.folder.path.name)}


def _key_figures(found: RunComparison) -> Iterator[tuple[str, str]]:
    worst = found.points[0]
    of = "without zeros" if found.nonzero else "all values"
    apart = found.distance(worst)
    yield "largest distance", f"{certain_text(apart.lo, apart.hi)} at {plain(worst.point)}"
    yield "measure", f"{'KS' if found.measure == 'ks' else 'W1, relative'}, {of}"
    yield "layers compared", str(len(found.points))
    for name, so_far in (
        ("samples of the first run", found.first),
        ("samples of the second run", found.second),
    ):
        done = f"{so_far.n_samples_done:,}"
        yield name, done if so_far.is_complete else f"{done} of {so_far.n_samples:,}"


def _row(found: RunComparison, row: ComparedPoint) -> dict[str, Any]:
    name = row.point if row.point == row.other else f"{row.point} = {row.other}"
    a, b = found.first.run.sketches[row.point].layer, found.second.run.sketches[row.other].layer
    distances = (
        row.every.kolmogorov_smirnov,
        row.nonzero.kolmogorov_smirnov,
        row.every.wasserstein,
        row.nonzero.wasserstein,
    )
    ordering = [found.distance(row)] if found.measure == "wasserstein" else []
    n_first, n_second = row.n_values
    text = f"{n_first:,} values in the first run, {n_second:,} in the second; matched by {row.matched_by}."
    return {
        "name": plain(name),
        "cells": [
            *(certain_text(each.lo, each.hi) for each in (*ordering, *distances)),
            change_text(*(share_text(share) for share in row.zeros)),
            change_text(*(factor_text(np.atleast_1d(p.factor).tolist()) for p in (row.first, row.second))),
            *(
                change_text(number_text(each.first.value), number_text(each.second.value))
                for each in row.percentiles
            ),
        ],
        "curve": _curves(a, b, nonzero=found.nonzero, name=name),
        "text": text,
    }


def _curves(a: Sketch, b: Sketch, *, nonzero: bool, name: str) -> str:
    """Return the two distribution functions as SVG."""
    drawn = [
        (sketch, ink, dash)
        for sketch, ink, dash in ((a, "ink", ()), (b, "after", (6.0, 3.0)))
        if (sketch.n_nonzero if nonzero else sketch.n)
    ]
    if not drawn:
        return ""
    ends = [[s.percentile(q, nonzero=nonzero).value for q in _SHOWN_PERCENTILES] for s, _, _ in drawn]
    lowest, highest = min(end[0] for end in ends), max(end[1] for end in ends)
    if not highest > lowest:
        lowest, highest = lowest - 1.0, highest + 1.0
    x, y = Scale(low=lowest, high=highest, ends=_ACROSS), Scale(low=0.0, high=1.0, ends=_UPRIGHT)
    picture = Picture(_WIDTH, _HEIGHT, label=f"Distribution functions of {plain(name)}")
    picture.stroke(((x.start, y.end), (x.start, y.start), (x.end, y.start)), ink="soft")
    for share, down in ((1, 8.0), (0, 0.0)):
        picture.words(x.start - 6, y.at(share) + down, str(share), size=12, anchor="end")
    picture.words(x.start, _HEIGHT - 6, number_text(lowest), size=12)
    picture.words(x.end, _HEIGHT - 6, number_text(highest), size=12, anchor="end")
    places = np.linspace(lowest, highest, _N_PLACES)
    for sketch, ink, dash in drawn:
        up = y.place(_shares(sketch, places, nonzero=nonzero))
        line = list(zip(x.place(places).tolist(), up.tolist(), strict=True))
        picture.stroke(line, ink=ink, width=2.0, dash=dash)
    return picture.svg()


def _shares(sketch: Sketch, places: NDArray[np.float64], *, nonzero: bool) -> NDArray[np.float64]:
    _, highest, _, counts = sketch.spans(nonzero)
    summed = np.concatenate(([0], np.cumsum(counts)))
    shares: NDArray[np.float64] = summed[np.searchsorted(highest, places, side="right")] / summed[-1]
    return shares
