"""A run as a table to look at: the verdict, where it lies, and what is known of each point.

Knows the questions of a run.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...storage.errors import ActisketchError
from ..display.shown_table import ShownTable
from ..display.small_pictures import distribution_svg
from ..events import counted
from ..factors.factors_file import PointFactor
from ..report.numbers import axes_text, count_text, factor_text, interval_text, number_text, share_text
from ..sketch import PointSketch
from .percentile_rows import percent_label
from .saved import RunStatus
from .viewed_run import ViewedRun, factors_at_hand

__all__ = ["run_table"]

HEADS = ("point", ">shape", ">values", ">zeros", ">max", ">percentile", "[lo, hi]", ">factor", "rule")


def run_table(run: ViewedRun) -> ShownTable:
    """Return the table of a run, also of one whose blocks are missing or damaged."""
    try:
        return _whole_table(run)
    except (ActisketchError, OSError) as error:
        # A run whose blocks are missing or damaged is shown too, with what is known of it.
        return _table_without_sketches(run, error)


def _whole_table(run: ViewedRun) -> ShownTable:
    factors = factors_at_hand(run)
    sketches, status, certificate = run.sketches, run.status(), run.certificate()
    specs = run.cache.spec.points
    by_name = {p.name: p for p in factors.points}
    of_certificate = {} if certificate is None else {p["name"]: p for p in certificate["points"]}
    # A copy for each, one after the other: what a sketch keeps when it is asked is larger than its counts.
    rows = [_row(spec.name, spec.shape, sketches[spec.name], by_name[spec.name]) for spec in specs]
    columns = {head: [row[i] for row in rows] for i, head in enumerate(HEADS)}
    if any(row[len(HEADS)] != "0" for row in rows):
        columns[">not finite"] = [row[len(HEADS)] for row in rows]
    if of_certificate:
        columns[">residual"] = [_residual(of_certificate.get(spec.name)) for spec in specs]
    return ShownTable(
        title=f"Run {str(run.folder.path)!r}",
        lines=[*_facts(run, status), *_verdict(certificate)],
        columns=columns,
        pictures=[row[-1] for row in rows],
        more="run.table() and run.to_dataframe() have all",
    )


def _row(name: str, shape: Sequence[int], sketch: PointSketch, factor: PointFactor) -> tuple[str, ...]:
    layer = copy.copy(sketch.layer)
    q = "" if factor.percentile is None or factor.value is None else f"{percent_label(factor.percentile)} "
    has_interval = factor.lo is not None and factor.hi is not None
    return (
        name,
        axes_text(shape),
        count_text(layer.n),
        share_text(layer.n_zeros / layer.n if layer.n else None),
        number_text(layer.maximum),
        "-" if factor.value is None else f"{q}{number_text(factor.value, digits=5)}",
        interval_text(factor.lo or 0.0, factor.hi or 0.0) if has_interval else "-",
        factor_text(factor.factors),
        factor.rule,
        count_text(layer.n_nan + layer.n_inf),
        distribution_svg(layer, mark=factor.value),
    )


def _residual(item: Mapping[str, Any] | None) -> str:
    if item is None:
        return "-"
    shown = "not finite" if item["max_residual"] is None else number_text(item["max_residual"], digits=2)
    return shown if item["passed"] else f"{shown} !"


def _verdict(certificate: Mapping[str, Any] | None) -> Iterator[str]:
    if certificate is None:
        yield "no certificate: nothing was normalised"
        return
    passed = "certificate passed" if certificate["passed"] else "certificate FAILED: do not use the network"
    yield f"{passed}, on {counted(certificate['n_samples'], 'sample')}"
    before, after = certificate.get("accuracy_before"), certificate.get("accuracy_after")
    if before is not None and after is not None:
        yield f"accuracy {before:.2%} before, {after:.2%} after normalisation"


def _facts(run: ViewedRun, status: RunStatus) -> Iterator[str]:
    name = run.folder.manifest().get("model", {}).get("name", "network")
    yield f"{name}: {counted(status.n_points, 'point')}, {counted(status.n_samples, 'sample')}"
    if not status.is_recorded:
        yield f"{status.n_blocks_done:,} of {status.n_blocks:,} blocks are recorded: run the job again to resume"
    places = [
        ("report", run.folder.report_path / "index.html", status.has_report),
        ("normalised network", run.folder.network_path, status.has_network),
    ]
    yield "; ".join([f"cache {status.cache}", *(f"{what} {path}" for what, path, has in places if has)])
    if status.out_of_date:
        yield f"out of date: {', '.join(status.out_of_date)}"


def _table_without_sketches(run: ViewedRun, error: Exception) -> ShownTable:
    lines, columns = [str(error)], {}
    try:
        specs = run.cache.spec.points
        lines = [*_facts(run, run.status()), *lines]
        columns = {
            "point": [spec.name for spec in specs],
            ">shape": [axes_text(spec.shape) for spec in specs],
        }
    except (ActisketchError, OSError):
        pass  # the first error says what is wrong
    return ShownTable(title=f"Run {str(run.folder.path)!r}", lines=lines, columns=columns)
