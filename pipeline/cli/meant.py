"""Say what was meant where a path of another kind was given, as a run in the place of a job file.

The commands that are advised have the flags that were given.
"""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path

import click

from ...storage.errors import InputError

__all__ = ["GIVEN", "check_is_job", "check_is_run", "given_command"]

GIVEN = "actisketch.given"
"""Where the group notes the verb and everything behind it."""
_NETWORKS = {".keras", ".h5", ".hdf5", ".onnx", ".pt", ".pth", ".tflite", ".pb"}
_SAMPLES = {".npz", ".npy", ".zarr", ".tfrecord", ".csv", ".zip"}
_MANIFEST = "run.json"


def given_command(context: click.Context | None = None) -> str:
    """Return the command as it was given, for a shell."""
    return shlex.join(["actisketch", *_given(context or click.get_current_context())])


def _given(context: click.Context) -> list[str]:
    return list(context.meta.get(GIVEN, (str(context.info_name),)))


def _instead(context: click.Context, path: Path, *meant: str) -> str:
    """Return the command with something else in the place of a path."""
    given = _given(context)
    at = next((i for i, word in enumerate(given) if i and word == str(path)), None)
    if at is None:
        return shlex.join(["actisketch", str(context.info_name), *meant])
    return shlex.join(["actisketch", *given[:at], *meant, *given[at + 1 :]])


def _with_files(context: click.Context, path: Path, flag: str) -> str:
    """Return the command with a network or samples behind their flag, and the other one named if it is missing."""
    other, word = ("--data", "SAMPLES") if flag == "--model" else ("--model", "NETWORK")
    is_named = any(each == other or each.startswith(f"{other}=") for each in _given(context))
    return _instead(context, path, flag, str(path), *(() if is_named else (other, word)))


def check_is_job(path: Path, context: click.Context) -> None:
    """Refuse a path that is no job file, if it shows what it is.

    Raises
    ------
    InputError
        With the command that was probably meant.
    """
    quoted, verb = shlex.quote(str(path)), context.info_name
    if path.is_dir():
        if (path / _MANIFEST).is_file():
            raise InputError(
                f"{str(path)!r} is the folder of a run, not a job file: `actisketch status {quoted}` shows how far it "
                f"is; `actisketch {verb}` takes the job file that it was made from"
            )
        if (path / "saved_model.pb").is_file():
            raise InputError(
                f"{str(path)!r} is a SavedModel of TensorFlow, not a job file: save the model with "
                f"`model.save('name.keras')`, then `actisketch {verb} --model name.keras --data SAMPLES`"
            )
        if path.suffix.lower() not in _SAMPLES:
            raise InputError(
                f"{str(path)!r} is a folder, not a job file: give it with --data if it has the samples "
                f"(`{_with_files(context, path, '--data')}`)"
            )
    kind = path.suffix.lower()
    if kind in _NETWORKS:
        raise InputError(
            f"{str(path)!r} is a network, not a job file: `{_with_files(context, path, '--model')}`"
        )
    if kind in _SAMPLES:
        raise InputError(
            f"{str(path)!r} are samples, not a job file: `{_with_files(context, path, '--data')}`"
        )


def check_is_run(path: Path, context: click.Context) -> None:
    """Refuse a path that is no folder of a run, if it shows what it is.

    Raises
    ------
    InputError
        With the command that was probably meant.
    """
    if path.is_file() and path.suffix.lower() == ".toml":
        run = _output_of(path)
        raise InputError(
            f"{str(path)!r} is a job file, not a run; its run is {str(run)!r}: "
            f"`{_instead(context, path, str(run))}`"
        )
    kind = path.suffix.lower()
    if kind in _NETWORKS | _SAMPLES and not (path / _MANIFEST).exists():
        # Another verb makes the run: the flags of this one are none of its.
        is_network = kind in _NETWORKS
        quoted = shlex.quote(str(path))
        flags = f"--model {quoted} --data SAMPLES" if is_network else f"--model NETWORK --data {quoted}"
        raise InputError(
            f"{str(path)!r} {'is a network' if is_network else 'are samples'}, not a run: "
            f"`actisketch run {flags}` makes one"
        )
    if (
        (path.parent / _MANIFEST).is_file()
        and (path.is_file() or not (path / _MANIFEST).exists())
        and path.exists()
    ):
        raise InputError(
            f"{str(path)!r} belongs to the run {str(path.parent)!r}: "
            f"`{_instead(context, path, str(path.parent))}`"
        )


def _output_of(job: Path) -> Path:
    """Return the folder of a job's run, as far as it can be read."""
    from ..settings.job_settings import JobSettings

    try:
        output = tomllib.loads(job.read_text(encoding="utf-8-sig")).get("output")
    except (OSError, ValueError):
        output = None
    return job.parent / str(output or JobSettings.model_fields["output"].default)
