"""The flags that override a job file, and the settings that result from both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ...storage.errors import InputError
from ..settings.job import JobSettings
from ..settings.loading import PATH_SETTINGS, load_job, validate_job, with_settings
from ..settings.sizes import parse_bytes

__all__ = [
    "JOB_FLAGS",
    "check_folder_of",
    "job_options",
    "json_option",
    "run_argument",
    "settings_from",
    "trust_options",
]

Command = TypeVar("Command", bound=Callable[..., Any])

# Flag, dotted key, type, help. The type is click's; the setting's own limits are checked with the rest.
JOB_FLAGS: tuple[tuple[str, str, Any, str], ...] = (
    ("--model", "model.path", str, "The network: a .keras or .h5 file."),
    ("--custom-objects", "model.custom_objects", str, "Python file with the model's own layers. It is run."),
    ("--data", "data.path", str, "The samples: .npz, .npy, zarr, image folder, TFRecord files."),
    ("--inputs", "data.inputs", str, "Name of the array in the data; several with commas."),
    ("--labels", "data.labels", str, "Name of the array with the classes."),
    ("--num-samples", "data.num_samples", int, "Use the first so many samples."),
    ("--divide-by", "data.divide_by", float, "Divide each value by this, as 255."),
    ("--preprocessing", "data.preprocessing", str, "Keras preprocessing by name, as vgg16."),
    ("--output", "output", str, "Folder of the run."),
    ("--cache", "cache.url", str, "Where the cache lies: a folder or s3://bucket/prefix."),
    ("--points", "record.points", str, "neurons, parameters, all, or patterns with commas."),
    ("--batch-size", "record.batch_size", int, "Samples that go through the network together."),
    ("--memory-limit", "record.memory_limit", str, "As '4 GiB'; beyond what TensorFlow itself takes."),
    ("--disk-limit", "record.disk_limit", str, "As '100 GB'; default: what is free."),
    ("--workers", "record.workers", int, "Processes of a local Dask cluster; 0: in this process."),
    (
        "--scheduler",
        "record.scheduler",
        str,
        "A running Dask cluster: tcp://host:8786 or its scheduler file.",
    ),
    ("--percentile", "factors.percentile", float, "In percent; 100 is the maximum."),
    ("--schedule", "factors.schedule", float, "Percent points taken off per layer."),
)


def job_options(command: Command) -> Command:
    """Add the job file and the flags that override it."""
    for flag, _, kind, text in reversed(JOB_FLAGS):
        command = click.option(flag, type=kind, help=text, metavar=_metavar(kind))(command)
    switches = (
        ("--activations/--sketch-only", "Keep the activations, or their sketches only."),
        ("--nonzero/--all-values", "Percentiles over activations that are not zero, or over all."),
        ("--exact/--from-sketch", "Refine percentiles to the exact ones from the cache."),
        ("--normalize/--no-normalize", "Rewrite the network, or stop at the factors."),
        (
            "--accept-versions/--same-versions",
            "Resume with another TensorFlow or Keras than the run was begun with.",
        ),
        ("--report/--no-report", "Draw the plots and the page, or leave that to `actisketch report`."),
    )
    for flag, text in reversed(switches):
        command = click.option(flag, default=None, help=text)(command)
    command = click.option(
        "--per-channel", is_flag=True, default=None, help="Sketches and factors for each channel."
    )(command)
    command = click.option(
        "--unsafe-model",
        is_flag=True,
        default=None,
        help="Load models that carry code. Only files you trust.",
    )(command)
    return click.argument("job", type=click.Path(path_type=Path), required=False)(command)


def _metavar(kind: Any) -> str:
    return {int: "N", float: "X"}.get(kind, "TEXT")


def json_option(command: Command) -> Command:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for a script.")(command)


def trust_options(command: Command) -> Command:
    """Add what a run's folder never decides for the user: to run code of a network, and to mix versions."""
    text = "Continue with other versions of TensorFlow or Keras than the run was made with."
    command = click.option("--accept-versions", is_flag=True, help=text)(command)
    text = "Load a model that contains code. Only for files that you trust."
    command = click.option("--unsafe-model", is_flag=True, help=text)(command)
    text = "Python file that defines the model's own layers; it is executed."
    return click.option("--custom-objects", type=click.Path(path_type=Path), help=text)(command)


def run_argument(command: Command) -> Command:
    """Add the folder of an existing run."""
    return click.argument("run", type=click.Path(path_type=Path))(command)


def check_folder_of(path: Path) -> None:
    """Refuse a file in a folder that does not exist: a typing error should not create folders.

    Raises
    ------
    InputError
        With the folder.
    """
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {str(path.parent)!r} to write to: create it first")


_SWITCH_KEYS = {
    "activations": ("record.activations",),
    "nonzero": ("factors.nonzero",),
    "exact": ("factors.exact",),
    "normalize": ("normalize.enabled",),
    "report": ("report.enabled",),
    "accept_versions": ("record.accept_versions",),
    "per_channel": ("sketch.per_channel", "factors.per_channel"),
}


def settings_from(job: Path | None, flags: dict[str, Any]) -> JobSettings:
    """Return the settings of the job file, overridden by the flags that were given.

    Raises
    ------
    InputError
        If there is neither a job file nor a model and data, or a setting is refused.
    """
    overrides = dict(_overrides(flags))
    if job is not None:
        return load_job(job, overrides=overrides)
    if "model.path" not in overrides or "data.path" not in overrides:
        raise InputError(
            "nothing to run: name a job file (`actisketch init job.toml` writes one), or give --model and --data"
        )
    return validate_job(with_settings({}, overrides), origin="the flags")


def _overrides(flags: dict[str, Any]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for flag, key, _, _ in JOB_FLAGS:
        value = flags.get(flag.removeprefix("--").replace("-", "_"))
        if value is not None:
            if value == "":
                raise InputError(f"{flag} is empty: give a value, or leave it out")
            found.append((key, _parsed(flag, key, value)))
    for name, keys in _SWITCH_KEYS.items():
        if flags.get(name) is not None:
            found += [(key, flags[name]) for key in keys]
    if flags.get("unsafe_model"):
        found.append(("model.safe_mode", False))
    return found


def _parsed(flag: str, key: str, value: Any) -> Any:
    if key in PATH_SETTINGS and "://" not in value:
        return str(Path(value).expanduser().absolute())
    if key == "record.points" and value not in {"neurons", "parameters", "all"}:
        return [part.strip() for part in value.split(",") if part.strip()]
    if key == "data.inputs" and "," in value:
        return [part.strip() for part in value.split(",") if part.strip()]
    if key.endswith("_limit"):
        try:
            return parse_bytes(value)
        except ValueError as error:
            raise InputError(f"{flag} {value!r} is refused: {error}") from None
    return value
