"""Say what was meant where a path of another kind was given, as a run in the place of a job file."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path

from ...storage.errors import InputError

__all__ = ["check_is_job", "check_is_run"]

_NETWORKS = {".keras", ".h5", ".hdf5", ".onnx", ".pt", ".pth", ".tflite", ".pb"}
_SAMPLES = {".npz", ".npy", ".zarr", ".tfrecord", ".csv", ".zip"}
_MANIFEST = "run.json"


def check_is_job(path: Path, verb: str) -> None:
    """Refuse a path that is no job file, if it shows what it is.

    Raises
    ------
    InputError
        With the command that was probably meant.
    """
    quoted = shlex.quote(str(path))
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
                f"(`actisketch {verb} --model NETWORK --data {quoted}`)"
            )
    kind = path.suffix.lower()
    if kind in _NETWORKS:
        raise InputError(
            f"{str(path)!r} is a network, not a job file: `actisketch {verb} --model {quoted} --data SAMPLES`"
        )
    if kind in _SAMPLES:
        raise InputError(
            f"{str(path)!r} are samples, not a job file: `actisketch {verb} --model NETWORK --data {quoted}`"
        )


def check_is_run(path: Path, verb: str) -> None:
    """Refuse a path that is no folder of a run, if it shows what it is.

    Raises
    ------
    InputError
        With the command that was probably meant.
    """
    if path.is_file() and path.suffix.lower() == ".toml":
        run = _output_of(path)
        raise InputError(
            f"{str(path)!r} is a job file, not a run; its run is {str(run)!r}: `actisketch {verb} "
            f"{shlex.quote(str(run))}`"
        )
    if (
        (path.parent / _MANIFEST).is_file()
        and (path.is_file() or not (path / _MANIFEST).exists())
        and path.exists()
    ):
        raise InputError(
            f"{str(path)!r} belongs to the run {str(path.parent)!r}: `actisketch {verb} "
            f"{shlex.quote(str(path.parent))}`"
        )


def _output_of(job: Path) -> Path:
    """Return the folder of a job's run, as far as it can be read."""
    from ..settings.job_settings import JobSettings

    try:
        output = tomllib.loads(job.read_text(encoding="utf-8-sig")).get("output")
    except (OSError, ValueError):
        output = None
    return job.parent / str(output or JobSettings.model_fields["output"].default)
