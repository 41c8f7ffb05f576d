"""The flags that override a job file, and the settings that result from both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from ...storage import is_url
from ...storage.errors import InputError
from ..settings.job_settings import JobSettings, PointChoice
from ..settings.loading import PATH_SETTINGS, load_job, validate_job, with_settings
from ..settings.sizes import parse_bytes
from ..settings.template import setting_text
from .completing import methods, words_of_points
from .meant import check_is_job, check_is_run

__all__ = [
    "JOB_FLAGS",
    "JOB_SWITCHES",
    "UNSAFE",
    "check_folder_of",
    "checked_run",
    "code_options",
    "job_options",
    "json_option",
    "quantile_option",
    "range_options",
    "run_argument",
    "settings_from",
    "trust_options",
]

Command = TypeVar("Command", bound=Callable[..., Any])

UNSAFE = "Load a model that contains code. Only for files that you trust."
"""Help of --unsafe-model."""

# Flag, dotted key, type, and what the flag alone says. The type is click's; the setting's own limits are checked with
# the rest.
JOB_FLAGS: tuple[tuple[str, str, Any, str], ...] = (
    ("--model", "model.path", str, ""),
    ("--custom-objects", "model.custom_objects", str, ""),
    ("--data", "data.path", str, ""),
    ("--inputs", "data.inputs", str, " Separate several with commas."),
    ("--labels", "data.labels", str, ""),
    ("--num-samples", "data.num_samples", int, ""),
    ("--divide-by", "data.divide_by", float, ""),
    ("--preprocessing", "data.preprocessing", str, ""),
    ("--output", "output", str, ""),
    ("--cache", "cache.url", str, ""),
    ("--points", "record.points", str, " Separate patterns with commas."),
    ("--batch-size", "record.batch_size", int, ""),
    ("--memory-limit", "record.memory_limit", str, " As '4 GiB'."),
    ("--disk-limit", "record.disk_limit", str, " As '100 GB'."),
    ("--workers", "record.workers", int, ""),
    ("--scheduler", "record.scheduler", str, ""),
    ("--percentile", "factors.percentile", float, ""),
    ("--method", "factors.method", str, ""),
    ("--bits", "factors.bits", int, ""),
    ("--schedule", "factors.schedule", float, ""),
)
# What the shell offers behind a flag.
_OFFERS = {"--points": words_of_points, "--method": methods}
# Switch, and the settings that it turns on and off.
JOB_SWITCHES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("--activations/--sketch-only", ("record.activations",)),
    ("--nonzero/--all-values", ("factors.nonzero",)),
    ("--exact/--from-sketch", ("factors.exact",)),
    ("--normalize/--no-normalize", ("normalize.enabled",)),
    ("--accept-versions/--same-versions", ("record.accept_versions",)),
    ("--report/--no-report", ("report.enabled",)),
    ("--symmetric/--affine", ("factors.symmetric",)),
    ("--per-channel", ("factors.per_channel", "sketch.per_channel")),
)


def job_options(command: Command) -> Command:
    """Add the job file and the flags that override it."""
    command = click.option("--unsafe-model", is_flag=True, default=None, help=UNSAFE)(command)
    for flag, keys in reversed(JOB_SWITCHES):
        command = click.option(flag, is_flag=True, default=None, help=setting_text(keys[0]))(command)
    for flag, key, kind, more in reversed(JOB_FLAGS):
        text = setting_text(key) + more
        offer = _OFFERS.get(flag)
        command = click.option(flag, type=kind, help=text, metavar=_metavar(kind), shell_complete=offer)(
            command
        )
    return click.argument("job", type=click.Path(path_type=Path), required=False, callback=_checked_job)(
        command
    )


def _metavar(kind: Any) -> str:
    return {int: "N", float: "X"}.get(kind, "TEXT")


def json_option(command: Command) -> Command:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for a script.")(command)


def quantile_option(text: str, *, default: tuple[float, ...] = ()) -> Callable[[Command], Command]:
    """Return what adds ``-q``, of which there may be several; without a default, the text tells it."""
    return click.option(
        "-q",
        "--quantile",
        "qs",
        type=float,
        multiple=True,
        default=default,
        show_default=bool(default),
        help=text,
    )


def trust_options(command: Command) -> Command:
    """Add what a run's folder never decides for the user: to run code of a network, and to mix versions."""
    text = setting_text("record.accept_versions")
    return code_options(click.option("--accept-versions", is_flag=True, help=text)(command))


def code_options(command: Command) -> Command:
    """Add what allows code of a network to run."""
    command = click.option("--unsafe-model", is_flag=True, help=UNSAFE)(command)
    text = setting_text("model.custom_objects")
    return click.option("--custom-objects", type=click.Path(path_type=Path), help=text)(command)


def range_options(command: Command) -> Command:
    """Add how the ranges of a finished run are chosen, other than by a percentile."""
    is_symmetric = click.option("--symmetric/--affine", default=None, help=setting_text("factors.symmetric"))
    bits = click.option("--bits", type=int, metavar="N", help=setting_text("factors.bits"))
    method = click.option(
        "--method", metavar="TEXT", help=setting_text("factors.method"), shell_complete=methods
    )
    return method(bits(is_symmetric(command)))


def run_argument(command: Command) -> Command:
    """Add the folder of an existing run."""
    return click.argument("run", type=click.Path(path_type=Path), callback=checked_run)(command)


def checked_run(context: click.Context, _: click.Parameter, path: Path) -> Path:
    """Return the folder of a run; InputError where something else was named that shows what was meant."""
    check_is_run(path, context)
    return path


def _checked_job(context: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    if path is not None:
        check_is_job(path, context)
    return path


def check_folder_of(path: Path) -> None:
    """Refuse a file in a folder that does not exist: a typing error should not create folders.

    Raises
    ------
    InputError
        With the folder.
    """
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {str(path.parent)!r} to write to: create it first")


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
        value = flags.get(_argument(flag))
        if value is not None:
            if value == "":
                raise InputError(f"{flag} is empty: give a value, or leave it out")
            found.append((key, _parsed(flag, key, value)))
    for flag, keys in JOB_SWITCHES:
        value = flags.get(_argument(flag))
        if value is not None:
            found += [(key, value) for key in keys]
    if flags.get("unsafe_model"):
        found.append(("model.safe_mode", False))
    return found


def _argument(flag: str) -> str:
    """Return the name by which click hands a flag on."""
    return flag.partition("/")[0].removeprefix("--").replace("-", "_")


def _parsed(flag: str, key: str, value: Any) -> Any:
    if key in PATH_SETTINGS and not is_url(value):
        return str(Path(value).expanduser().absolute())
    is_list = key == "record.points" and value not in get_args(PointChoice)
    if is_list or (key == "data.inputs" and "," in value):
        return [part.strip() for part in value.split(",") if part.strip()]
    if key.endswith("_limit"):
        try:
            return parse_bytes(value)
        except ValueError as error:
            raise InputError(f"{flag} {value!r} is refused: {error}") from None
    return value
