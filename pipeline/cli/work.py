"""Verbs that compute: init, plan, run, demo, normalize, report."""

from __future__ import annotations

import glob
import shlex
from pathlib import Path
from typing import Any

import click

from ...storage import is_url
from ...storage.errors import InputError
from ...storage.partial import no_empty_folder
from ..demo import demo_settings
from ..folder.folder import RunFolder, check_output, replacing
from ..settings.job_settings import JobSettings
from ..settings.loading import given_files
from ..settings.percents import percent_text
from ..settings.template import job_template
from .flags import check_folder_of, job_options, json_option, run_argument, settings_from, trust_options
from .meant import given_command
from .session import Session
from .show import normalised_table, plan_table, print_result

__all__ = ["demo", "init", "normalize", "plan", "report", "run"]


@click.command(short_help="Write a commented job file to start from.")
@click.argument("path", type=click.Path(path_type=Path), default=Path("job.toml"))
@click.option("--model", metavar="PATH", help="The network, to be filled in.")
@click.option("--data", metavar="PATH", help="The samples, to be filled in.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.pass_obj
def init(session: Session, path: Path, model: str | None, data: str | None, force: bool) -> None:
    """Write a commented job file to start from; default: job.toml.

    \b
    Example:
      actisketch init job.toml     then edit it, then
      actisketch plan job.toml     to see what it would need
      actisketch init --model network.keras --data images.npz     (then nothing has to be edited)
    """
    if path.exists() and not force:
        raise InputError(f"{str(path)!r} is there already: choose another name, or replace it with --force")
    check_folder_of(path)
    check_output(path)
    named = {"model.path": model, "data.path": data}
    given = {key: _from_folder_of(path, each) for key, each in named.items() if each is not None}
    with replacing(path) as partial:
        partial.write_text(job_template(given), encoding="utf-8")
    for key, each in named.items():
        if each is not None and not _is_there(each):
            session.err.print(
                f"warning: {key} = {each!r} is not there yet: correct it in {path}, if it is a typing error",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
    missing = " and ".join(key for key in named if key not in given)
    step = f"set {missing} in it, then " if missing else ""
    session.print(f"wrote {path}: {step}`actisketch plan {shlex.quote(str(path))}`")


def _is_there(given: str) -> bool:
    """Whether a path or a glob means something; what a URL means is asked by the job."""
    path = Path(given).expanduser()
    return is_url(given) or path.exists() or any(glob.iglob(str(path)))


def _from_folder_of(job: Path, given: str) -> str:
    """Return a path as the job file names it: from its own folder, if it is below."""
    if is_url(given):
        return given
    place, folder = Path(given).expanduser().absolute(), job.absolute().parent
    return str(place.relative_to(folder) if place.is_relative_to(folder) else place)


@click.command(short_help="Show what a job would need, before anything runs.")
@job_options
@json_option
@click.pass_obj
def plan(session: Session, /, job: Path | None, as_json: bool, **flags: Any) -> None:
    """Show what a job would need: layers, blocks, disk space and memory. Nothing is run or written.

    \b
    Example:
      actisketch plan job.toml
      actisketch plan --model net.keras --data x.npz --batch-size 64
    """
    settings = settings_from(job, flags)
    session.say_loading()
    from ..job import plan_job
    from ..stages.describe import describe_data

    with session.warnings():
        prepared = plan_job(settings)
        data = describe_data(prepared)
    if as_json:
        session.print_json({**prepared.plan.to_dict(), "data": data.to_dict()})
    else:
        plan_table(session, prepared.plan, data)
    prepared.check_budget()


@click.command(short_help="Run a job, or resume one.")
@job_options
@click.option(
    "--performance-report",
    type=click.Path(path_type=Path),
    help="Write Dask's report of a run on a cluster to this HTML file.",
)
@json_option
@click.pass_obj
def run(
    session: Session, /, job: Path | None, as_json: bool, performance_report: Path | None, **flags: Any
) -> None:
    """Run a job, or resume one: record, compute factors, normalise, certify, report.

    What an earlier run finished is reloaded; a killed run continues at its last block. Flags override the
    job file.

    \b
    Example:
      actisketch run job.toml
      actisketch run job.toml --percentile 100 --output runs/max
      actisketch run --model net.keras --data x.npz --divide-by 255
      actisketch run job.toml --workers 4
      actisketch run job.toml --scheduler tcp://head:8786
    """
    settings = settings_from(job, flags)
    if performance_report is not None:
        check_output(performance_report, given=given_files(settings))
    _run(session, settings, as_json=as_json, performance_report=performance_report)


@click.command(short_help="Run the whole flow on the digits and the network that come with actisketch.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("actisketch-demo"),
    show_default=True,
    help="Folder of the run.",
)
@json_option
@click.pass_obj
def demo(session: Session, output: Path, as_json: bool) -> None:
    """Run the whole flow on 1,797 handwritten digits and a small trained network, both included.

    Takes under a minute. A second run reloads everything and computes nothing.
    """
    _run(session, demo_settings(output), as_json=as_json)


def _run(
    session: Session,
    settings: JobSettings,
    *,
    as_json: bool,
    performance_report: Path | None = None,
) -> None:
    session.say_loading()
    from ..job import run_job
    from ..results.run import open_run

    with session.job(Path(settings.output), resume=given_command()) as on_event:
        result = run_job(settings, performance_report=performance_report, on_event=on_event)
    run = open_run(settings.output, storage_options=settings.cache.storage_options)
    print_result(session, run, result, as_json=as_json)


@click.command(short_help="Rewrite and certify the network of a run.")
@run_argument
@click.option(
    "--factors", type=click.Path(path_type=Path), help="File of factors to use instead of the run's own."
)
@click.option(
    "--percentile",
    type=float,
    metavar="X",
    help="Use the factors of this percentile instead; 100 is the maximum.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Folder for the results; default: RUN, RUN/with-NAME for the factors of NAME.json, RUN/with-p99 for those of "
    "percentile 99.",
)
@click.option("--model", "model_path", help="The network, if it has been moved.")
@click.option("--data", "data_path", help="The samples for the certificate, if they have been moved.")
@click.option("--workers", type=int, default=0, metavar="N", help="Certify with this many local processes.")
@click.option("--scheduler", help="Certify on a running Dask cluster: tcp://host:8786 or its scheduler file.")
@click.option(
    "--weights-h5",
    type=click.Path(path_type=Path),
    help="Also write the weights to this .h5 file, to be loaded into the network's model.json of Keras 2.",
)
@trust_options
@json_option
@click.pass_obj
def normalize(
    session: Session,
    run: Path,
    factors: Path | None,
    percentile: float | None,
    output: Path | None,
    model_path: str | None,
    data_path: str | None,
    workers: int,
    scheduler: str | None,
    custom_objects: Path | None,
    unsafe_model: bool,
    weights_h5: Path | None,
    accept_versions: bool,
    as_json: bool,
) -> None:
    """Rewrite the network of RUN with its factors, and certify that it still computes the same.

    Writes normalized.keras (plain Keras layers) and certificate.json into RUN. With other factors it writes a folder of
    their own, so that the files in RUN still belong together.

    \b
    Example:
      actisketch normalize runs/vgg --percentile 99        (writes runs/vgg/with-p99/)
      actisketch factors runs/vgg --method mse --output f99.json
      actisketch normalize runs/vgg --factors f99.json     (writes runs/vgg/with-f99/)
    """
    from ..factors.factors_file import Factors
    from ..rerun import normalize_run
    from ..results.run import open_run
    from ..stages.weights_h5 import check_weights_path

    if weights_h5 is not None:
        check_weights_path(weights_h5)
        check_folder_of(weights_h5)
        check_output(weights_h5)
    if factors is not None and percentile is not None:
        raise InputError("--factors and --percentile are two choices of the factors: give one of them")
    chosen = open_run(run)
    others = None
    if percentile is not None:
        with session.warnings():
            others = chosen.factors(percentile=percentile)
    session.say_loading()
    if output is None and (factors is not None or percentile is not None):
        name = "" if percentile is None else f"p{percent_text(percentile)}"
        output = run / f"with-{name if factors is None else factors.stem}"
    with no_empty_folder(output or run), session.job(run, resume=given_command()) as on_event:
        certificate = normalize_run(
            chosen,
            factors=others,
            factors_path=factors,
            output=output,
            model_path=model_path,
            data_path=data_path,
            workers=workers,
            scheduler=scheduler,
            custom_objects=custom_objects,
            safe_mode=not unsafe_model,
            weights_h5=weights_h5,
            accept_versions=accept_versions,
            on_event=on_event,
        )
    folder = chosen.folder if output is None else RunFolder(output)
    if as_json:
        session.print_json(certificate.to_dict())
    else:
        normalised_table(session, certificate, Factors.load(folder.factors_path))
        session.print(f"certificate: {certificate.summary()}")
        session.print(f"wrote {folder.network_path} and {folder.certificate_path}")
        if weights_h5 is not None:
            session.print(f"wrote {weights_h5}: weights for the network's model.json of Keras 2")


@click.command(short_help="Draw the plots and the page of a run again.")
@run_argument
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the report; default: RUN/report.")
@click.pass_obj
def report(session: Session, run: Path, output: Path | None) -> None:
    """Draw the plots of RUN and the page that explains it, without model and data.

    \b
    Example:
      actisketch report runs/vgg     then open runs/vgg/report/index.html
    """
    from ..results.report import draw_report
    from ..results.run import open_run

    chosen = open_run(run)
    folder = output or chosen.folder.report_path
    other = RunFolder(folder.absolute().parent)
    if (
        folder.name == other.report_path.name
        and other.manifest_path.exists()
        and not other.path.samefile(run)
    ):
        raise InputError(
            f"{str(folder)!r} is the report of another run, {str(other.path)!r}: choose another folder"
        )
    with session.job(run, resume=given_command()) as on_event:
        page = draw_report(chosen, folder, on_event=on_event)
    session.print(f"wrote {page}")
