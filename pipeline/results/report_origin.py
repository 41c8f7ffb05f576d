"""What a report says of its run beside the layers: the data, the date, versions, files, and how to make it again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING
from urllib.parse import quote

from ..events import counted
from ..folder.timings import StageTiming, read_timings
from ..report import ReportData, WorkRow
from ..settings.sizes import format_bytes
from ..settings.template import job_text

if TYPE_CHECKING:
    from ..settings.job_settings import JobSettings
    from .run import Run

__all__ = ["asked_settings", "with_origin"]

# In the order of a job.
STAGES = ("input", "record", "factors", "normalize", "certify")
VERSIONS = {"actisketch": "actisketch", "tensorflow": "TensorFlow", "keras": "Keras", "python": "Python"}
COMMAND = "actisketch run job.toml --output again"
IN_PYTHON = """\
# The network and the samples were given from Python.
import tomllib
from actisketch.pipeline import run
run(model, samples, output="again", settings=tomllib.load(open("job.toml", "rb")))"""


def asked_settings(run: Run) -> JobSettings:
    """Return the settings as the folder of a run has them, to show them to the user."""
    return run.settings.model_copy(update={"model": run.asked_model})


def with_origin(data: ReportData, run: Run, place: Path) -> ReportData:
    """Return the data of a report in the folder ``place`` with where it came from, and links to files of the run."""
    settings, timings = asked_settings(run), read_timings(run.folder)
    samples = counted(data.n_samples, "sample")
    path = settings.data.path
    versions = run.folder.manifest().get("versions", {})
    about = {
        "network": _with_file(data.model_name, settings.model.path),
        "data": samples if path is None else f"{PurePath(path).name}, {samples}",
        "date": next((timings[stage].began for stage in STAGES if stage in timings), "")
        .replace("T", " ")
        .replace("+00:00", " UTC"),
        "versions": ", ".join(
            f"{title} {versions[name]}" for name, title in VERSIONS.items() if name in versions
        ),
    }
    again = settings.model_dump(mode="json", exclude_none=True, exclude_defaults=True, exclude={"output"})
    on_data = "" if path is None else f" on {PurePath(path).name}"
    what = "Activation statistics" if data.certificate is None else data.title
    is_in_files = settings.model.path is not None and path is not None
    return replace(
        data,
        title=f"{what}: {data.model_name}{on_data}",
        about={name: value for name, value in about.items() if value},
        work=tuple(_work_row(stage, timings[stage]) for stage in STAGES if stage in timings),
        command=COMMAND if is_in_files else IN_PYTHON,
        links=dict(_links(run, place)),
        downloads={
            "job.toml": job_text(again),
            "factors.csv": run.export("csv", factors=run.written_factors()),
        },
    )


def _with_file(name: str, path: str | None) -> str:
    return name if path is None else f"{name} ({PurePath(path).name})"


def _work_row(stage: str, timing: StageTiming) -> WorkRow:
    return WorkRow(
        stage=stage,
        began=timing.began.replace("T", " ").replace("+00:00", " UTC"),
        wall=_duration(timing.wall_s),
        cpu=_duration(timing.cpu_s),
        memory=format_bytes(timing.peak_nbytes) if timing.peak_nbytes else "-",
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.0f} min" if minutes < 120 else f"{hours:.1f} h"


def _links(run: Run, place: Path) -> Iterator[tuple[str, str]]:
    """Yield the files of a run that are there, relative to the page."""
    folder = run.folder
    paths = [
        folder.factors_path,
        folder.statistics_path,
        folder.certificate_path,
        folder.network_path,
        folder.manifest_path,
        folder.log_path,
    ]
    for path in paths:
        if path.is_file():
            try:
                yield path.name, quote(Path(os.path.relpath(path, place)).as_posix())
            except ValueError:
                # On another drive of Windows no path leads there.
                return
