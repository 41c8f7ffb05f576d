"""Which settings a request may choose: everything lies below the folder that is served, and no code of others runs.

Knows settings and paths. Does not know requests or processes.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ....storage import is_url
from ....storage.errors import InputError
from ...settings.job_settings import JobSettings
from ...settings.loading import PATH_SETTINGS, validate_job, with_settings
from ..run_root import DEEPEST, MANIFEST, RunRoot, is_below_url

__all__ = [
    "Permissions",
    "anchored",
    "check_output_place",
    "check_places",
    "given_places",
    "kept_settings",
    "requested",
]

LONGEST_PATH = 1000
# What is written: nothing on the way there may be a link.
WRITTEN = ("output", "cache.url")


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """What the operator allows in jobs from requests."""

    urls: Sequence[str] = ()
    """Of stores: at or below these, networks, samples and caches may lie."""
    schedulers: Sequence[str] = ()
    """Dask schedulers that jobs may use."""
    code: bool = False
    """Whether a job may run code of its own: ``model.custom_objects``, ``model.safe_mode = false``."""
    most_workers: int = os.cpu_count() or 1


def requested(tree: Mapping[str, Any], root: RunRoot, allowed: Permissions) -> JobSettings:
    """Return the settings of a request, with absolute paths, after everything was checked that can be from here.

    Parameters
    ----------
    tree : mapping
        As a job file; its relative paths start at the folder that is served.
    root : RunRoot
    allowed : Permissions

    Raises
    ------
    InputError
        For the first setting that is refused; the message says what the operator could allow.
    """
    try:
        json.dumps(tree, ensure_ascii=False, default=str, allow_nan=False).encode()
    except ValueError as error:
        if not isinstance(error, UnicodeEncodeError):
            raise InputError("the job: a number is not finite, which no setting can be") from None
        raise InputError(
            "the job: a text contains half of a pair of code units, which is no character"
        ) from None
    settings = validate_job(tree, origin="the job")
    for key in ("output", "model.path", "data.path"):
        if key not in dict(given_places(settings)):
            raise InputError(f"the job: {key} is missing: name it, as a path below the folder that is served")
    _check_trust(settings, allowed)
    settings = anchored(settings, root)
    check_places(settings, root, allowed)
    return settings


def kept_settings(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a request chose, and no defaults, as JSON values."""
    return validate_job(tree).model_dump(mode="json", exclude_unset=True)


def anchored(settings: JobSettings, root: RunRoot) -> JobSettings:
    """Return settings whose paths start at the root of the file system.

    Raises
    ------
    InputError
        If a path does not say a place below the folder that is served.
    """
    tree = settings.model_dump(exclude_unset=True)
    places = {
        key: value if is_url(value) else str(root.path / _relative(key, value))
        for key, value in given_places(settings)
    }
    return validate_job(with_settings(tree, places), origin="the job")


def check_places(settings: JobSettings, root: RunRoot, allowed: Permissions) -> None:
    """Refuse settings, with absolute paths, that would have anything outside of the root read or written.

    Raises
    ------
    InputError
        The message names the setting.
    """
    for key, place in given_places(settings):
        if is_url(place):
            _check_url(key, place, allowed)
        elif key in WRITTEN:
            _check_written(key, place, root)
        else:
            _check_read(key, (_steady_part(place), *_found(place)), root)
    output, cache = Path(settings.output), settings.cache.url
    check_output_place(output, root)
    root.check_inside(output, None if cache is not None and is_url(cache) else cache)


def check_output_place(output: Path, root: RunRoot) -> None:
    """Refuse the folder of a run inside of another run."""
    for folder in output.parents:
        if folder == root.path:
            return
        if os.path.lexists(folder / MANIFEST):
            name = str(folder.relative_to(root.path))
            raise InputError(f"output lies inside of another run, {name!r}: choose a folder beside it")


def given_places(settings: JobSettings) -> Iterator[tuple[str, str]]:
    """Yield each place that was named: its key and its path or URL."""
    for key in PATH_SETTINGS:
        *tables, last = key.split(".")
        table: Any = getattr(settings, tables[0]) if tables else settings
        value = getattr(table, last)
        if value is not None and last in table.model_fields_set:
            yield key, value


def _relative(key: str, path: str) -> str:
    """Return a path of a request, which starts at the root."""
    parts = path.split("/")
    if path.startswith("/") or (os.name == "nt" and Path(path).is_absolute()):
        raise InputError(f"{key} = {path[:200]!r} is absolute: paths start at the folder that is served")
    if ".." in parts:
        raise InputError(f"{key} = {path[:200]!r} contains '..': paths stay below the folder that is served")
    is_written = all(part and not part.startswith(".") for part in parts) and path.isprintable()
    if not is_written or "\\" in path or len(path) > LONGEST_PATH or len(parts) > 4 * DEEPEST:
        raise InputError(
            f"{key} = {path[:200]!r} is refused: give names with single slashes between, none of them hidden, without "
            "control characters and backslashes"
        )
    if key == "output" and len(parts) > DEEPEST:
        raise InputError(f"output = {path[:200]!r} is too deep: runs are looked for {DEEPEST} folders deep")
    return path


def _check_trust(settings: JobSettings, allowed: Permissions) -> None:
    model, record = settings.model, settings.record
    if not allowed.code:
        for key, is_asked in (
            ("model.custom_objects", model.custom_objects is not None),
            ("model.safe_mode = false", not model.safe_mode),
        ):
            if is_asked:
                raise InputError(
                    f"{key} would run code on this machine and is refused: the operator can allow it with --allow-code"
                )
    if record.scheduler is not None and record.scheduler not in allowed.schedulers:
        raise InputError(
            f"record.scheduler = {record.scheduler[:200]!r} is refused: the operator can allow it with "
            "--allow-scheduler and the same text"
        )
    if record.workers > allowed.most_workers:
        raise InputError(
            f"record.workers = {record.workers} is refused: the service's machine has {allowed.most_workers} processors"
        )
    if settings.cache.storage_options:
        raise InputError(
            "cache.storage_options from a request is refused: the operator sets the options of stores in the "
            "environment of the service"
        )


def _check_url(key: str, url: str, allowed: Permissions) -> None:
    plain = unquote(url)
    is_plain = not any(mark in plain for mark in "\\?#@") and plain.isprintable() and key != "output"
    if url.lower().startswith(("file:", "memory:")) or not is_plain:
        raise InputError(f"{key} = {url[:200]!r} is refused: give a path, or the plain URL of a store")
    if not any(is_below_url(url, prefix) and is_below_url(plain, prefix) for prefix in allowed.urls):
        raise InputError(
            f"{key} = {url[:200]!r} is refused: the operator can allow it with --allow-url and that URL, or one above"
        )


def _check_written(key: str, path: str, root: RunRoot) -> None:
    """Refuse a place to write to that is not below the root, or has a link or a hidden folder on the way."""
    if os.path.realpath(path) != path:
        raise InputError(f"{key} leads through a link: name the folder where it leads, or another one")
    _check_read(key, (path,), root)


def _check_read(key: str, places: Iterable[str], root: RunRoot) -> None:
    """Refuse places outside of the root, also where links lead there, and in hidden folders."""
    for place in places:
        real = os.path.realpath(place)
        if not real.startswith(f"{str(root.path).rstrip('/')}/"):
            raise InputError(f"{key} leads out of the folder that is served: copy it there")
        if any(part.startswith(".") for part in Path(real).relative_to(root.path).parts):
            raise InputError(f"{key} leads to a hidden folder: name another one")


def _steady_part(path: str) -> str:
    """Return the folders of a path before the first pattern in it."""
    if not glob.has_magic(path) or os.path.lexists(path):
        return path
    parts = path.split("/")
    n = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return "/".join(parts[:n]) or "/"


def _found(path: str) -> Iterator[str]:
    """Yield the links in a folder, or what a pattern finds."""
    if glob.has_magic(path) and not os.path.lexists(path):
        yield from glob.iglob(path, recursive=True)
        return
    folders, seen = [path], set[str]()
    while folders:
        folder = os.path.realpath(folders.pop())
        if folder in seen or not os.path.isdir(folder):
            continue
        seen.add(folder)
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        yield entry.path
                        folders.append(entry.path)
                    elif entry.is_dir():
                        folders.append(entry.path)
        except OSError:  # the job itself will say that it cannot be read
            continue
