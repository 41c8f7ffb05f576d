"""The verb that compares two runs. It never loads TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np

from ...storage.errors import InputError
from ..folder.folder import check_output, replacing
from ..report.numbers import certain_text, change_text, factor_text, number_text, share_text
from ..results.compared_runs import ComparedPoint, Measure, RunComparison
from ..results.compared_runs import compare as compare_runs
from ..results.percentile_rows import as_percents, percent_label
from ..results.run import open_run
from ..settings.loading import given_files
from .completing import offered_points
from .flags import check_folder_of, checked_run, json_option, quantile_option
from .numbers_given import NumberFrom
from .session import Session
from .show import result_table

__all__ = ["compare"]

EXIT_APART = 10
_NAMED_LAYERS = 3
_SHOWN_CHANNELS = 50
_QS = (50.0, 99.0, 99.9, 100.0)
_WORDS = {
    "ks": "Kolmogorov-Smirnov",
    "wasserstein": "1-Wasserstein, relative to the mean size of RUN_A's values",
}


@click.command(short_help="Show how far the layers of two runs are apart.")
@click.argument("run_a", type=click.Path(path_type=Path), callback=checked_run)
@click.argument("run_b", type=click.Path(path_type=Path), callback=checked_run)
@click.option(
    "--points",
    metavar="TEXT",
    shell_complete=offered_points("run_a"),
    help="Names or patterns of layers of RUN_A, as 'conv*,fc1'.  [default: all]",
)
@click.option(
    "--by",
    "measure",
    type=click.Choice(["ks", "wasserstein"]),
    default="ks",
    show_default=True,
    help="The distance that layers are ordered by, and that --fail-above is about. ks: Kolmogorov-Smirnov, the largest "
    "difference of the shares of values below any number, 0 to 1. wasserstein: how far values have to be moved on "
    "average, divided by the mean size of RUN_A's values.",
)
@click.option(
    "--nonzero/--all-values",
    default=None,
    help="Order by the activations that are not zero, or by all; --fail-above is about the same.  [default: as the "
    "factors of RUN_A]",
)
@quantile_option(
    "Percentile to show, 0 to 100; may be given several times.  [default: that of RUN_A's factors]"
)
@click.option(
    "--per-channel",
    is_flag=True,
    help="Also a row for each channel, where both runs have sketches of them; otherwise a remark says why not.",
)
@click.option(
    "--fail-above",
    type=NumberFrom(0),
    metavar="X",
    help="End with exit code 10 if the distance (--by) of a layer is certainly larger: its lower bound is. Layers that "
    "only one run has do not count; a layer without such values in one run alone does. What is recorded is judged, "
    "also of a run that is not complete or is damaged: a remark says so.",
)
@click.option(
    "--html", type=click.Path(path_type=Path), help="Also write a page with the distributions to this file."
)
@json_option
@click.pass_obj
def compare(
    session: Session,
    run_a: Path,
    run_b: Path,
    points: str | None,
    measure: Measure,
    nonzero: bool | None,
    qs: tuple[float, ...],
    per_channel: bool,
    fail_above: float | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Show how far the activations of two runs are apart, layer by layer, those that differ most first.

    Of two checkpoints, two data sets, or a network before and after quantisation. From the sketches alone, with
    intervals that contain the distances of the values themselves. Layers are matched by name, then by place. Runs that
    still go on are compared as far as they are recorded.

    \b
    Example:
      actisketch compare runs/monday runs/tuesday
      actisketch compare runs/float runs/int8 --points 'conv*' --by wasserstein
      actisketch compare runs/reference runs/new --fail-above 0.05     (for CI)
    """
    if html is not None:
        check_folder_of(html)
    first, second = open_run(run_a), open_run(run_b)
    if html is not None:
        check_output(html, given=[*given_files(first.settings), *given_files(second.settings)])
    shown = as_percents(qs or (first.settings.factors.percentile,))
    found = compare_runs(
        first,
        second,
        points=None if points is None else _patterns(points),
        qs=(*shown, *(() if qs else _QS)),
        measure=measure,
        nonzero=nonzero,
        per_channel=per_channel,
    )
    if html is not None:
        from ..results.compared_page import comparison_page

        with replacing(html) as partial:
            partial.write_text(comparison_page(found), encoding="utf-8")
    if as_json:
        session.print_json(found.to_dict())
    else:
        _show(session, found, shown)
        if html is not None:
            session.print(f"wrote {html}")
    if fail_above is not None:
        _judge(session, found, fail_above)


def _patterns(text: str) -> list[str]:
    patterns = [part.strip() for part in text.split(",") if part.strip()]
    if not patterns:
        raise InputError("--points is empty: give a value, or leave it out")
    return patterns


def _show(session: Session, found: RunComparison, qs: tuple[float, ...]) -> None:
    of = "the activations that are not zero" if found.nonzero else "all activations"
    session.print(f"first {found.first.run.folder.path}, second {found.second.run.folder.path}")
    session.print(f"ordered by the distance ({_WORDS[found.measure]}) of {of}")
    heads = [">KS all", ">KS nonzero", ">W1 all", ">W1 nonzero", ">zeros"]
    rows = [[*_distances(row), *_changes(row, qs)] for row in found.points]
    if found.measure == "wasserstein":
        # Layers are ordered by it and fail by it; the others are in the units of the activations.
        heads = [">W1 relative", *heads]
        apart = [found.distance(row) for row in found.points]
        rows = [[certain_text(each.lo, each.hi), *row] for each, row in zip(apart, rows, strict=True)]
    names = [row.point if row.point == row.other else f"{row.point} = {row.other}" for row in found.points]
    result_table(
        session,
        ["point", *heads, *(f">{percent_label(q)}" for q in qs), ">factor"],
        [[name, *cells] for name, cells in zip(names, rows, strict=True)],
    )
    if any(row.channels is not None for row in found.points):
        _show_channels(session, found)
    for which, alone in (("first", found.only_in_first), ("second", found.only_in_second)):
        if alone:
            session.print(f"only in the {which} run: {', '.join(alone)}")
    for remark in found.remarks:
        session.print(remark)


def _distances(row: ComparedPoint) -> Iterator[str]:
    for distances in (
        (row.every.kolmogorov_smirnov, row.nonzero.kolmogorov_smirnov),
        (row.every.wasserstein, row.nonzero.wasserstein),
    ):
        for each in distances:
            yield certain_text(each.lo, each.hi)


def _changes(row: ComparedPoint, qs: tuple[float, ...]) -> Iterator[str]:
    """Yield what was and what is: zeros, percentiles, factor."""
    yield change_text(*(share_text(share) for share in row.zeros))
    for each in row.percentiles:
        if each.q in qs:
            yield change_text(number_text(each.first.value), number_text(each.second.value))
    yield change_text(*(factor_text(np.atleast_1d(p.factor).tolist()) for p in (row.first, row.second)))


def _show_channels(session: Session, found: RunComparison) -> None:
    """Print the channels that are furthest apart."""
    rows: list[tuple[str, int, tuple[float, ...]]] = []
    for row in found.points:
        if row.channels is not None:
            of = row.channels[found.nonzero]
            columns = (
                of.kolmogorov_smirnov_lo,
                of.kolmogorov_smirnov_hi,
                of.wasserstein_lo,
                of.wasserstein_hi,
            )
            numbers = zip(*(column.tolist() for column in columns), strict=True)
            rows += [(row.point, channel, each) for channel, each in enumerate(numbers)]
    place = 0 if found.measure == "ks" else 2
    rows.sort(key=lambda row: -1.0 if math.isnan(row[2][place]) else row[2][place], reverse=True)
    cells = [
        [name, str(channel), certain_text(*each[:2]), certain_text(*each[2:])]
        for name, channel, each in rows[:_SHOWN_CHANNELS]
    ]
    session.print("")
    result_table(session, ["point", ">channel", ">KS", ">W1"], cells)
    if len(rows) > _SHOWN_CHANNELS:
        session.print(f"{len(rows) - _SHOWN_CHANNELS:,} more channels: --json has them all")


def _judge(session: Session, found: RunComparison, limit: float) -> None:
    """End with a code of its own if a layer is certainly further apart than ``limit``."""
    above = found.above(limit)
    if not above:
        return
    named = ", ".join(f"{row.point!r} ({found.distance(row).lo:.4g})" for row in above[:_NAMED_LAYERS])
    more = f" and {len(above) - _NAMED_LAYERS} more" if len(above) > _NAMED_LAYERS else ""
    session.err.print(
        f"actisketch: {len(above)} of {len(found.points)} layers are further apart than --fail-above {limit:g}: "
        f"{named}{more}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    click.get_current_context().exit(EXIT_APART)
