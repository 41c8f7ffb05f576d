"""Show results as tables and lines, for people."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ..events import counted
from ..settings.percents import percent_text
from ..settings.sizes import format_bytes
from ..settings.visible import visible
from .session import Session
from .wide_tables import add_row, print_table, room, table_of

if TYPE_CHECKING:  # what a verb shows it has loaded, and nothing else
    from ...storage import VerifyReport
    from ..certifier import Certificate
    from ..exporters import RangeRow
    from ..factors.factors_file import Factors
    from ..factors.quantisation_noise import LayerNoise
    from ..factors.saturation import Saturation
    from ..job import JobResult
    from ..planning.plan import Plan
    from ..results.percentile_rows import PercentileRow
    from ..results.run import Run
    from ..results.saved import RunStatus
    from ..results.sweeping import SweptPoint
    from ..stages.describe import DataDescription

__all__ = [
    "factor_table",
    "noise_table",
    "normalised_table",
    "percentile_table",
    "plan_table",
    "print_result",
    "range_table",
    "result_table",
    "status_lines",
    "sweep_table",
    "swept_points_table",
    "verify_lines",
]


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.6g}"


def plan_table(session: Session, plan: Plan, data: DataDescription) -> None:
    """Print what a job would need, and what its data look like."""
    table = table_of("point", "layer", ">shape", ">parameters", ">on disk")
    for point in plan.points:
        shape = "x".join(map(str, point.shape)) or "1"
        add_row(table, point.name, point.layer_type, shape, f"{point.n_params:,}", format_bytes(point.nbytes))
    print_table(session.out, table)
    m = plan.memory
    session.print("")
    session.print(
        f"{counted(plan.n_samples, 'sample')} in {counted(plan.n_blocks, 'block')} of {plan.block_samples:,} "
        f"(batches of {plan.batch_size:,})"
    )
    kept = (
        f"activations {format_bytes(plan.activations_nbytes)} before compression, "
        if plan.activations_nbytes
        else ""
    )
    disk = f"up to {format_bytes(plan.disk_nbytes)} ({kept}sketches {format_bytes(plan.records_nbytes)})"
    session.print(f"disk: {disk}, about {plan.n_files:,} files")
    for setting, nbytes in plan.savings.items():
        session.print(f"  sketches {format_bytes(nbytes)} with {setting}")
    session.print(
        f"memory: {format_bytes(m.total)} of {format_bytes(plan.memory_limit)} allowed, beyond Python and TensorFlow "
        f"({m.by_cause()})"
    )
    if plan.default_limit is not None:
        session.print(
            f"  the limit is {plan.default_limit.sentence()}: record.memory_limit (--memory-limit) sets another"
        )
    session.print(f"data: {data.sentence()}")
    for warning in data.warnings:
        session.print(f"warning: {warning}")


def print_result(session: Session, run: Run, result: JobResult, *, as_json: bool) -> None:
    """Print the results of a job: the table of the layers, the accuracy, and where the files are."""
    certificate = run.certificate()
    if as_json:
        tree = {
            "output": str(run.folder.path),
            "n_blocks": result.n_blocks,
            "n_blocks_computed": result.n_blocks_computed,
            "statistics": run.statistics(),
            "factors": result.factors.to_dict(),
            "certificate": certificate,
        }
        session.print_json(tree)
        return
    from ..report import layer_table
    from ..results.report import report_data

    data = report_data(run)
    print_table(session.out, layer_table(data, width=room(session.out)))
    session.print("")
    if data.accuracy_before is not None and data.accuracy_after is not None:
        session.print(
            f"accuracy: {data.accuracy_before:.2%} before, {data.accuracy_after:.2%} after normalisation"
        )
    for note in (certificate or {}).get("notes", ()):
        session.print(note)
    if certificate is not None:
        divided = {point["name"] for point in certificate["points"]}
        n_left = sum(point.name not in divided for point in data.points)
        if n_left:
            session.print(
                f"{counted(n_left, 'point')} inside other layers: nothing in the network is divided by these factors"
            )
    if result.certificate is not None:
        session.print(f"certificate: {result.certificate.summary()}")
    if result.is_reloaded:
        n = result.n_blocks
        blocks = "the only block was" if n == 1 else f"all {n} blocks were"
        session.print(f"nothing was recomputed: {blocks} reloaded from the cache")
    for line in _places(run):
        session.print(line)


def _places(run: Run) -> Iterator[str]:
    folder, out_of_date = run.folder, run.status().out_of_date
    places: list[tuple[str, str | Path]] = [
        ("activations and sketches", run.cache.url),
        ("statistics", folder.statistics_path),
        ("factors", folder.factors_path),
        ("normalised network", folder.network_path),
        ("certificate", folder.certificate_path),
        ("report", folder.report_path / "index.html"),
        ("log", folder.log_path),
    ]
    width = max(len(what) for what, _ in places)
    for what, place in places:
        if isinstance(place, str) or place.exists():
            remark = "  (out of date)" if what.removeprefix("normalised ") in out_of_date else ""
            yield f"{what:<{width}}  {place}{remark}"


def status_lines(status: RunStatus, going_on: str = "run the job again to resume") -> Iterator[str]:
    """Yield the lines of ``status``; ``going_on`` says what to do if it is not complete."""
    state = "complete" if status.is_complete else f"not complete: {going_on}"
    yield f"{status.output}: {state}"
    yield (
        f"blocks       {status.n_blocks_done:,} of {status.n_blocks:,} "
        f"({counted(status.n_samples, 'sample')}, {counted(status.n_points, 'point')})"
    )
    yield f"cache        {status.cache}, {format_bytes(status.cache_nbytes)}"
    if status.random_layers:
        yield f"random       recorded once; another run would differ: {', '.join(map(repr, status.random_layers))}"
    yield f"factors      {_is_there(status, 'factors', status.has_factors, True)}"
    if status.certificate_passed is None:
        yield f"certificate  {_is_there(status, 'certificate', False, status.wants_network)}"
    else:
        yield f"certificate  {'passed' if status.certificate_passed else 'FAILED'}"
    yield f"network      {_is_there(status, 'network', status.has_network, status.wants_network)}"
    yield f"report       {_is_there(status, 'report', status.has_report, status.wants_report)}"


def _is_there(status: RunStatus, name: str, has: bool, wanted: bool) -> str:
    if name in status.out_of_date:
        return "out of date: made with other settings or samples, or changed since"
    return "yes" if has else "not yet" if wanted else "not asked for"


def percentile_table(session: Session, rows: Sequence[PercentileRow]) -> None:
    """Print percentiles with their intervals."""
    per_channel = any(row.channel is not None for row in rows)
    channel = [">channel"] if per_channel else []
    table = table_of("point", *channel, ">q", ">value", ">lo", ">hi")
    for row in rows:
        # Exact values are shown to the last bit: repr gives the shortest text that reads back as the same number.
        show = repr if row.exact and not math.isnan(row.value) else _number
        cells = [row.point, percent_text(row.q), show(row.value), show(row.lo), show(row.hi)]
        if per_channel:
            cells.insert(1, str(row.channel))
        add_row(table, *cells)
    print_table(session.out, table)


def result_table(session: Session, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of texts; ``">"`` before the name of a column aligns it to the right."""
    table = table_of(*columns)
    for row in rows:
        add_row(table, *row)
    print_table(session.out, table)


def factor_table(session: Session, factors: Factors) -> None:
    """Print scale factors and where they come from."""
    table = table_of("point", ">factor", "rule", ">percentile", ">lo", ">hi")
    for p in factors.points:
        if isinstance(p.factor, tuple):
            factor = f"{min(p.factor):.6g} to {max(p.factor):.6g} ({len(p.factor)} channels)"
        else:
            factor = f"{p.factor:.6g}"
        q = "-" if p.percentile is None else percent_text(p.percentile)
        add_row(table, p.name, factor, p.rule, q, _number(p.lo), _number(p.hi))
    print_table(session.out, table)


def sweep_table(session: Session, rows: Sequence[SweptPoint], n_values: Mapping[str, int]) -> None:
    """Print a line for each percentile: the factors, what saturates of all values, and where most does."""
    from ..report.numbers import certain_text, factor_text

    table = table_of(">q", ">factors", ">saturation", ">largest", "at")
    for q in dict.fromkeys(row.q for row in rows):
        of_q = [row for row in rows if row.q == q]
        factors = [
            f for row in of_q for f in (row.factor if isinstance(row.factor, tuple) else (row.factor,))
        ]
        filled = [row for row in of_q if n_values[row.point]]
        total = max(1, sum(n_values[row.point] for row in filled))
        ends = (
            100 * sum(getattr(row.saturation, end) * n_values[row.point] for row in filled) / total
            for end in ("lo", "hi")
        )
        cells = [percent_text(q), factor_text(factors), f"{certain_text(*ends)} %"]
        worst = max(filled, key=lambda row: row.saturation.value, default=None)
        if worst is None or not worst.saturation.value:
            cells += ["-", "-"]
        else:
            cells += [_percent(worst.saturation), worst.point]
        add_row(table, *cells)
    print_table(session.out, table)


def swept_points_table(session: Session, rows: Sequence[SweptPoint]) -> None:
    """Print the factor and the saturation of each point at each percentile."""
    from ..report.numbers import factor_text

    table = table_of("point", ">q", ">factor", "rule", ">saturation")
    for row in sorted(rows, key=lambda row: [r.point for r in rows].index(row.point)):
        factors = row.factor if isinstance(row.factor, tuple) else (row.factor,)
        add_row(
            table, row.point, percent_text(row.q), factor_text(factors), row.rule, _percent(row.saturation)
        )
    print_table(session.out, table)


def _percent(share: Saturation) -> str:
    from ..report.numbers import certain_text

    return "-" if math.isnan(share.lo) else f"{certain_text(100 * share.lo, 100 * share.hi)} %"


def normalised_table(session: Session, certificate: Certificate, factors: Factors) -> None:
    """Print what a certificate says of each point, the accuracies, and its notes (as on damaged chunks)."""
    from ..report.numbers import factor_text, number_text, share_text

    rules = {p.name: p for p in factors.points}
    table = table_of("point", ">factor", "rule", ">percentile", ">residual", ">saturation")
    for point in certificate.points:
        p = rules[point.name]
        used = p.factor if isinstance(p.factor, tuple) else (p.factor,)
        q = "-" if p.percentile is None else percent_text(p.percentile)
        residual = number_text(point.max_residual, digits=2)
        add_row(table, p.name, factor_text(used), p.rule, q, residual, share_text(point.saturation))
    print_table(session.out, table)
    if certificate.accuracy_before is not None and certificate.accuracy_after is not None:
        session.print(
            f"accuracy: {certificate.accuracy_before:.2%} before, {certificate.accuracy_after:.2%} after normalisation"
        )
    for note in certificate.notes:
        session.print(note)


def noise_table(session: Session, rows: Sequence[LayerNoise]) -> None:
    """Print the signal-to-quantisation-noise ratio of each layer, in dB, by method."""
    methods = list(dict.fromkeys(method for row in rows for method in row.methods))
    table = table_of("point", *(f">{method}" for method in methods), "best", ">lo", ">hi")
    for row in rows:
        best = max(row.methods, key=lambda method: row.methods[method].sqnr)
        cells = [f"{row.methods[method].sqnr:.2f}" if method in row.methods else "-" for method in methods]
        add_row(table, row.point, *cells, best, _number(row.methods[best].lo), _number(row.methods[best].hi))
    print_table(session.out, table)


def range_table(console: Console, rows: Sequence[RangeRow], note: str = "") -> None:
    """Print which range each tensor of a target got, and where it came from; below it, what the target does with it."""
    table = table_of("tensor", "point", ">lo", ">hi", "from")
    for row in rows:
        add_row(table, row.tensor, row.point or "-", _number(row.lo), _number(row.hi), row.source)
    print_table(console, table)
    if note:
        console.print(visible(note), markup=False, highlight=False)


def verify_lines(report: VerifyReport) -> Iterator[str]:
    """Yield a line for each problem, then the summary."""
    for problem in report.problems:
        if problem.kind == "uncommitted":
            continue  # counted in the summary: blocks to come are no damage
        point = f", point {problem.point!r}" if problem.point is not None else ""
        block = f" block {problem.block.index}" if problem.block is not None else ""
        yield visible(f"{problem.kind}{block}{point}: {problem.key}: {problem.detail}")
    verdict = (
        "sound" if report.is_sound else "DAMAGED" if report.damaged or report.documents else "FOREIGN FILES"
    )
    yield (
        f"{report.n_committed:,} of {counted(report.n_blocks, 'block')}, {format_bytes(report.nbytes)} read and "
        f"checked: {verdict}"
    )
