"""Verbs that read an existing run: status, percentiles, factors, sweep, sensitivity, verify; without TensorFlow."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import click

from ...storage import VerifyReport
from ...storage.errors import FormatError, IncompleteError
from ..events import counted
from ..factors.merge import how_to_go_on
from ..folder.folder import check_output, write_json
from ..folder.progress_file import read_progress
from ..results.run import Run, open_run
from ..results.saved import RunStatus
from ..settings.loading import given_files
from .completing import offered_points
from .flags import check_folder_of, json_option, quantile_option, range_options, run_argument, trust_options
from .meant import given_command
from .session import Session
from .show import (
    factor_table,
    noise_table,
    percentile_table,
    status_lines,
    sweep_table,
    swept_points_table,
    verify_lines,
)

__all__ = ["factors", "percentiles", "sensitivity", "status", "sweep", "verify"]

# An archive that was unpacked in the wrong place leaves thousands.
_NAMED_KEYS = 5

_ACCEPT_ROUNDING = click.option(
    "--accept-rounding", is_flag=True, help="With --exact: accept activations that a float16 cache rounded."
)
_NONZERO = click.option(
    "--nonzero/--all-values",
    default=None,
    help="Use the activations that are not zero, or all of them.  [default: as the run]",
)


@click.command(short_help="Show how far a run has come and what it holds.")
@run_argument
@json_option
@click.pass_obj
def status(session: Session, run: Path, as_json: bool) -> None:
    """Show how far RUN has come and what it holds.

    \b
    Example:
      actisketch status runs/vgg
    """
    chosen = open_run(run)
    found = chosen.status()
    if as_json:
        session.print_json({**dataclasses.asdict(found), "is_complete": found.is_complete})
    else:
        for line in status_lines(found, _going_on(chosen, found)):
            session.print(line)


@click.command(short_help="Print any percentile of any layer, certified or exact.")
@run_argument
@quantile_option("Percentile from 0 to 100; may be given several times.", default=(50.0, 99.0, 99.9, 100.0))
@click.option(
    "--point",
    "points",
    multiple=True,
    shell_complete=offered_points(),
    help="Only this point, or a pattern ('res*'); may be given several times.",
)
@click.option(
    "--exact", is_flag=True, help="Compute exact percentiles from the cached activations, in one pass."
)
@click.option("--per-channel", is_flag=True, help="Print a row for each channel.")
@_NONZERO
@_ACCEPT_ROUNDING
@json_option
@click.pass_obj
def percentiles(
    session: Session,
    run: Path,
    qs: tuple[float, ...],
    points: tuple[str, ...],
    exact: bool,
    per_channel: bool,
    nonzero: bool | None,
    accept_rounding: bool,
    as_json: bool,
) -> None:
    """Print any percentile of any layer of RUN, with an interval guaranteed to contain the exact value.

    \b
    Example:
      actisketch percentiles runs/vgg -q 99.9 -q 99.99
      actisketch percentiles runs/vgg -q 99.9 --point conv1 --exact
      actisketch percentiles runs/vgg --point 'block_*' --point fc1
    """
    chosen = open_run(run)
    rows = chosen.percentiles(
        qs,
        points=points or None,
        nonzero=chosen.settings.factors.nonzero if nonzero is None else nonzero,
        exact=exact,
        per_channel=per_channel,
        accept_rounding=accept_rounding,
    )
    if as_json:
        session.print_json([dataclasses.asdict(row) for row in rows])
    else:
        percentile_table(session, rows)


@click.command(short_help="Compute scale factors for another percentile or schedule.")
@run_argument
@click.option("--percentile", type=float, metavar="X", help="In percent; 100 is the maximum.")
@range_options
@click.option(
    "--schedule",
    type=float,
    metavar="X",
    help="Lower the percentile by this much per layer, in percentage points.",
)
@click.option("--exact", is_flag=True, default=None, help="Refine to the exact percentiles from the cache.")
@click.option("--per-channel", is_flag=True, default=None, help="Compute a factor for each channel.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Also write the factors to this file, for `normalize --factors`.",
)
@_NONZERO
@_ACCEPT_ROUNDING
@json_option
@click.pass_obj
def factors(
    session: Session, /, run: Path, output: Path | None, accept_rounding: bool, as_json: bool, **flags: Any
) -> None:
    """Compute scale factors for another percentile or schedule, in milliseconds, without model and data.

    \b
    Example:
      actisketch factors runs/vgg --percentile 99
      actisketch factors runs/vgg --percentile 100 --output max.json
      actisketch factors runs/vgg --method mse --bits 8
    """
    if output is not None:
        check_folder_of(output)
    chosen = open_run(run)
    if output is not None:
        check_output(output, given=given_files(chosen.settings))
    started = time.perf_counter()
    changes = {key: value for key, value in flags.items() if value is not None}
    with session.warnings():
        found = chosen.factors(accept_rounding=accept_rounding, **changes)
    elapsed_s = time.perf_counter() - started
    if output is not None:
        write_json(output, found.to_dict())
    if as_json:
        session.print_json(found.to_dict())
    else:
        factor_table(session, found)
        session.print(f"{len(found.points)} factors in {elapsed_s * 1e3:.0f} ms")
        if output is not None:
            session.print(f"wrote {output}")


@click.command(short_help="Show what other percentiles would do: factors and saturation.")
@run_argument
@quantile_option("Percentile of the factors; may be given several times.", default=(99.0, 99.9, 99.99, 100.0))
@click.option(
    "--point",
    "points",
    multiple=True,
    shell_complete=offered_points(),
    help="A row for each of these points, or of those that a pattern means ('res*'); may be given several times.",
)
@json_option
@click.pass_obj
def sweep(session: Session, run: Path, qs: tuple[float, ...], points: tuple[str, ...], as_json: bool) -> None:
    """Show which factors other percentiles would give RUN, and which share of the activations would saturate.

    A line for each percentile: the smallest and the largest factor, the share of all activations that are larger than
    the factor of their layer, and the layer where that share is largest. Computed from the sketches, without model and
    data.

    \b
    Example:
      actisketch sweep runs/vgg
      actisketch sweep runs/vgg --point 'conv*' -q 99 -q 99.99
      actisketch normalize runs/vgg --percentile 99.99     (with the one that was chosen)
    """
    from ..results.sweeping import sweep as sweep_run

    chosen = open_run(run)
    with session.warnings():
        rows = sweep_run(chosen, qs, points=points or None)
    if as_json:
        session.print_json([dataclasses.asdict(row) for row in rows])
    elif points:
        swept_points_table(session, rows)
    else:
        sweep_table(session, rows, {name: sketch.layer.n for name, sketch in chosen.sketches.items()})


@click.command(short_help="Show how well each layer survives low precision.")
@run_argument
@click.option("--bits", type=int, default=8, show_default=True, metavar="N", help="Of the whole numbers.")
@click.option("--symmetric", is_flag=True, help="Levels on both sides of zero, as signed integers have.")
@json_option
@click.pass_obj
def sensitivity(session: Session, run: Path, bits: int, symmetric: bool, as_json: bool) -> None:
    """Print the signal-to-quantisation-noise ratio of each layer of RUN, in dB, worst first.

    For each method of choosing a range; computed from the sketches, without model and data. "best" is the method with
    the largest ratio, lo and hi are the ends of the range that it chooses.

    \b
    Example:
      actisketch sensitivity runs/vgg --bits 8
    """
    rows = open_run(run).sensitivity(bits=bits, symmetric=symmetric)
    if as_json:
        session.print_json([dataclasses.asdict(row) for row in rows])
    else:
        noise_table(session, rows)


@click.command(short_help="Read the whole cache and name what is damaged.")
@run_argument
@click.option(
    "--repair", is_flag=True, help="Compute the damaged blocks again; needs the model and the data."
)
@trust_options
@json_option
@click.pass_obj
def verify(
    session: Session,
    run: Path,
    repair: bool,
    custom_objects: Path | None,
    unsafe_model: bool,
    accept_versions: bool,
    as_json: bool,
) -> None:
    """Read the whole cache of RUN and name every damaged, missing or foreign chunk.

    Exit code 0: sound. 4: damaged, or contains foreign files. 9: sound, but not all blocks are recorded.
    """
    chosen = open_run(run)
    if repair:
        session.say_loading()
        from ..rerun import repair_run

        with session.job(run, resume=given_command()) as on_event:
            n_repaired = repair_run(
                chosen,
                custom_objects=custom_objects,
                safe_mode=not unsafe_model,
                accept_versions=accept_versions,
                on_event=on_event,
            )
        if not as_json:
            session.print(f"computed {counted(n_repaired, 'damaged block')} again")
        chosen = open_run(run)
    report = chosen.cache.verify()
    if as_json:
        session.print_json(
            {**dataclasses.asdict(report), "is_sound": report.is_sound, "is_complete": report.is_complete}
        )
    else:
        for line in verify_lines(report):
            session.print(line)
    if not report.is_sound:
        raise FormatError(_advice(run, _repairing(given_command()), chosen.cache.url, report))
    if not report.is_complete:
        session.err.print(
            f"not recorded yet: {report.n_blocks - report.n_committed:,} of {counted(report.n_blocks, 'block')}, "
            f"{how_to_go_on(chosen.cache)}",
            markup=False,
            highlight=False,
        )
        click.get_current_context().exit(IncompleteError.exit_code)


def _going_on(run: Run, status: RunStatus) -> str:
    """Return what to do about a run that is not complete: nothing, if a process works on it."""
    if not status.is_recorded:
        return how_to_go_on(run.cache)
    progress = read_progress(run.folder.path)
    if progress is None or not progress.is_alive:
        return "run the job again to resume"
    holder = progress.holder
    return f"process {holder.pid} on {holder.host} works on it ({progress.stage})"


def _repairing(given: str) -> str:
    """Return the command that repairs, with the flags that were given."""
    return given if "--repair" in given.split() else f"{given} --repair"


def _advice(run: Path, repairing: str, cache_url: str, report: VerifyReport) -> str:
    """Return what is wrong with a cache, and what to do about each."""
    sentences = []
    if report.damaged:
        sentences.append(
            f"damaged: {counted(len(report.damaged), 'block')} of {str(run)!r}: "
            f"`{repairing}` computes what is damaged again"
        )
    if report.documents:
        sentences.append(
            f"damaged: {counted(len(report.documents), 'document')} of Zarr in {str(run)!r}: "
            f"`{repairing}` writes what is damaged again"
        )
    if report.foreign:
        keys = ", ".join(map(repr, report.foreign[:_NAMED_KEYS]))
        more = ", ..." if len(report.foreign) > _NAMED_KEYS else ""
        sentences.append(
            f"{cache_url!r} contains {counted(len(report.foreign), 'foreign file')}, which you have to remove "
            f"(--repair deletes only files of the cache): {keys}{more}"
        )
    return "\n".join(sentences)
