"""Read the settings of a job from a TOML file, flags or keywords.

Opens nothing but the job file itself.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ...storage import is_url
from ...storage.errors import InputError
from .job_settings import JobSettings
from .refusals import refusal

__all__ = ["PATH_SETTINGS", "given_files", "load_job", "validate_job", "with_settings"]

PATH_SETTINGS = (
    "output",
    "model.path",
    "model.custom_objects",
    "data.path",
    "data.labels_path",
    "cache.url",
)


def given_files(settings: JobSettings) -> list[Path]:
    """Return the user's own files that a job reads, which nothing that is written may replace."""
    model, data = settings.model, settings.data
    paths = (model.path, model.custom_objects, data.path, data.labels_path)
    return [Path(path) for path in paths if path is not None and Path(path).is_file()]


def validate_job(tree: Mapping[str, Any], *, origin: str = "the settings") -> JobSettings:
    """Return the settings of a tree, as parsed from a job file.

    Parameters
    ----------
    tree : mapping
        Tables of settings.
    origin : str
        What messages call the source of the tree.

    Raises
    ------
    InputError
        For the first unknown key, wrong type or impossible value: with the key, the value and what is allowed.
    """
    try:
        return JobSettings.model_validate(tree)
    except ValidationError as error:
        raise InputError(refusal(error, origin), origin=origin) from None


def load_job(path: str | Path, *, overrides: Mapping[str, Any] | None = None) -> JobSettings:
    """Return the settings of a TOML job file, with overrides; its relative paths start at its folder.

    Parameters
    ----------
    path : path
        The job file.
    overrides : mapping of str to object, optional
        Dotted keys, as ``{"factors.percentile": 99.0}``; relative paths in it start at the working directory.

    Raises
    ------
    InputError
        If the file is missing, is not TOML or holds a setting that is refused.
    """
    path = Path(path)
    try:
        # Some editors begin a file with a byte order mark.
        tree = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"no job file {str(path)!r}: write one with `actisketch init {path}`") from None
    except OSError as error:
        raise InputError(f"the job file {str(path)!r} cannot be read: {error.strerror}") from None
    except ValueError as error:  # also of other than TOML: no UTF-8, or a number of thousands of digits
        raise InputError(f"{str(path)!r} is not a TOML file: {error}") from None
    validate_job(tree, origin=str(path))  # before the flags, so that a message names the right place
    _anchor_paths(tree, path.resolve().parent)
    return validate_job(with_settings(tree, overrides or {}), origin=f"{path} and the flags")


def with_settings(tree: dict[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tree of settings in which those with dotted keys, as ``"factors.percentile"``, are set too."""
    for key, value in chosen.items():
        *tables, last = key.split(".")
        table = tree
        for name in tables:
            table = table.setdefault(name, {})
        table[last] = value
    return tree


def _anchor_paths(tree: dict[str, Any], folder: Path) -> None:
    """Make the relative paths of a job file relative to its folder."""
    tree.setdefault("output", JobSettings.model_fields["output"].default)
    for key in (*PATH_SETTINGS, "record.scheduler"):
        *names, last = key.split(".")
        table = tree.get(names[0], {}) if names else tree
        path = table.get(last)
        # A scheduler that is no file has an address, with or without `tcp://`.
        is_path = key in PATH_SETTINGS or str(path).endswith(".json")
        if isinstance(path, str) and is_path and not is_url(path):
            table[last] = str(folder / path)
