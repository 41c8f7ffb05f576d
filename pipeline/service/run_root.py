"""The folder that is served: which runs lie in it, under which ids, and that nothing outside of it is opened.

Knows paths. Does not know requests or results.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

from ...storage import is_url
from ...storage.errors import InputError, NotFoundError, StorageError
from ...storage.files import check_opened
from ...storage.options import StorageOptions, variables_of
from ...storage.stores import path_of

__all__ = ["Folder", "RunRoot", "check_steering", "id_of", "is_below_url", "path_in_id"]

MANIFEST, PROGRESS = "run.json", "progress.json"
# Runs are kept in folders by project and date, hardly deeper.
DEEPEST = 8
# A data set beside the runs may have millions of files: a listing ends, and says so.
MOST_ENTRIES = 2_000_000
SETTLED_NS = 2 * 10**9
LONGEST_ID = 1000


def id_of(path: str) -> str:
    """Return the id of a run in URLs: its path below the root, with ``~1`` for each slash (RFC 6901).

    Examples
    --------
    >>> id_of("vgg/first"), id_of("a~b")
    ('vgg~1first', 'a~0b')
    """
    return path.replace("~", "~0").replace("/", "~1")


def path_in_id(run_id: str) -> str:
    """Return the path below the root that an id stands for.

    Raises
    ------
    NotFoundError
        If no folder below the root can have that path.
    """
    parts = [part.replace("~0", "~") for part in run_id.split("~1")]
    is_path = all(part and part not in (".", "..") and "/" not in part and "\\" not in part for part in parts)
    if not is_path or "\0" in run_id or len(run_id) > LONGEST_ID or len(parts) > DEEPEST:
        raise _no_run(run_id)
    return "/".join(parts)


def _no_run(run_id: str) -> NotFoundError:
    return NotFoundError(f"there is no run {run_id[:200]!r} here: GET /api/v1/runs lists the runs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder below the root as it was listed."""

    changed_ns: int
    """Of its list of names; -1: list it again."""
    n_entries: int
    inner: tuple[str, ...]
    """Names of the folders in it that are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRoot:
    """The folder that is served.

    Parameters
    ----------
    path : Path
        Resolved.
    allowed : sequence of str
        Folders and URLs outside of the root in which caches of its runs may lie.
    """

    path: Path
    allowed: Sequence[str] = ()

    @classmethod
    def of(cls, path: str | Path, allowed: Sequence[str] = ()) -> RunRoot:
        """Return the root at a path; InputError if that is no folder."""
        resolved = Path(path).resolve()
        if not resolved.is_dir():
            raise InputError(f"there is no folder {str(path)!r} to serve: create it, or name another")
        if (resolved / MANIFEST).exists():
            raise InputError(f"{str(path)!r} is a run: serve the folder above it, {str(resolved.parent)!r}")
        return cls(path=resolved, allowed=tuple(allowed))

    def walk(self, known: dict[str, Folder] | None = None) -> Iterator[str]:
        """Yield the path below the root of each run, in no order; a last empty one if there are too many files.

        Links are not followed. Nothing below a run, a cache or a hidden folder is looked at.

        Parameters
        ----------
        known : dict, optional
            What an earlier walk has found, by path: only folders that were changed since are listed. It is brought up
            to date.

        Raises
        ------
        StorageError
            If the root itself cannot be read.
        """
        self._check_root()
        before, found = dict(known or {}), {} if known is None else known
        found.clear()
        pending, n_seen = [("", 0)], 0
        while pending:
            below, depth = pending.pop()
            place = os.path.join(self.path, below) if below else str(self.path)
            folder = _listed(place, before.get(below), MOST_ENTRIES - n_seen)
            n_seen += folder.n_entries
            if n_seen >= MOST_ENTRIES:
                yield ""
                return
            found[below] = folder
            for name in folder.inner:
                path = f"{below}/{name}" if below else name
                if _is_kind(f"{place}/{name}/{MANIFEST}", stat.S_ISREG):
                    yield path
                elif depth + 1 < DEEPEST:
                    pending.append((path, depth + 1))

    def folder_of(self, run_id: str) -> Path:
        """Return the folder of a run.

        Raises
        ------
        NotFoundError
            If there is none under the root, or a link leads to it.
        StorageError
            If the root itself cannot be read.
        """
        path = self.path
        self._check_root()
        for part in path_in_id(run_id).split("/"):
            path = path / part
            if part.startswith(".") or not _is_nameable(part) or not _is_kind(path, stat.S_ISDIR):
                raise _no_run(run_id)
        if not _is_kind(path / MANIFEST, stat.S_ISREG):
            raise _no_run(run_id)
        return path

    def _check_root(self) -> None:
        try:
            os.scandir(self.path).close()
        except OSError as error:
            raise StorageError(
                f"the folder that is served cannot be read ({error.strerror}): ask again when it is back, or ask the "
                "operator whether its disk is there and its permissions allow it"
            ) from error

    def check_inside(
        self,
        folder: Path,
        cache_url: str | None,
        *,
        with_arrays: bool = True,
        options: Mapping[str, Any] = MappingProxyType({}),
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Refuse a run that would have files elsewhere read: through a link, or in a cache that its manifest names.

        Parameters
        ----------
        folder : Path
        cache_url : str, optional
            As in the manifest; default: the cache beside it.
        options : mapping
            Those of an object store, as in the manifest.
        with_arrays : bool
            Also look at each recorded chunk; otherwise at what a list reads.
        check : callable
            Called before each folder: what it raises ends the look.

        Raises
        ------
        InputError
            The message says what the operator can allow.
        """
        for place in (folder, folder / "report"):
            self._check_entries(place)
        path = str(folder / "cache")
        if cache_url is not None and is_url(cache_url) and not cache_url.startswith("file:"):
            if not any(is_below_url(cache_url, prefix) for prefix in self.allowed):
                raise InputError(
                    f"the cache of this run lies in an object store, {cache_url!r}, which this service may not open: "
                    "the operator can start it with --allow and that URL, or one above it"
                )
            check_steering(cache_url, options, self.allowed, flag="--allow")
            return
        if cache_url is not None:
            path = path_of(cache_url) if is_url(cache_url) else cache_url
            self._check_place(path, "the cache of this run")
        self._check_cache(path, with_arrays=with_arrays, check=check)

    def _check_cache(self, path: str, *, with_arrays: bool, check: Callable[[], None]) -> None:
        """Refuse links out of a cache, and out of the folders inside that links in it lead to."""
        private = os.path.join(path, ".actisketch")
        self._check_entries(path)
        for place in self._check_entries(private):  # that of the records
            self._check_entries(place)
        # Without its description nothing else is read, and it may be any folder.
        pending, seen = [path] if with_arrays and os.path.lexists(private) else [], set[str]()
        while pending:
            check()
            place = os.path.realpath(pending.pop())
            if place not in seen:
                seen.add(place)
                pending += self._check_entries(place)

    def _check_entries(self, place: str | Path) -> list[str]:
        """Refuse links out of a folder; return the paths of the folders in it."""
        folders = []
        for entry in _entries(place):
            if entry.is_symlink():
                self._check_place(entry.path, f"the link {entry.name!r}")
                if os.path.isdir(entry.path):
                    folders.append(entry.path)
            elif _is_folder(entry):
                folders.append(entry.path)
        return folders

    def check_files_of_thread(self) -> None:
        """From now on, refuse files outside that this thread opens: also through links that are made while it looks."""
        check_opened(self._check_opened)

    def _check_opened(self, path: str) -> None:
        if not self._is_inside(path):
            raise PermissionError(errno.EACCES, "it leads out of the folder that is served", path)

    def _is_inside(self, path: str) -> bool:
        places = [str(self.path), *(os.path.realpath(each) for each in self.allowed if not is_url(each))]
        return any(path == place or path.startswith(place.rstrip("/") + "/") for place in places)

    def _check_place(self, path: str, what: str) -> None:
        try:
            path = os.path.realpath(path)
        except ValueError:  # a character NUL, or half of a pair of code units
            raise InputError(f"{what} has a path that no file can have, {path!r}") from None
        if not self._is_inside(path):
            raise InputError(
                f"{what} leads out of the folder that is served: the operator can start the service with --allow and "
                "the folder where it leads"
            )


def _listed(place: str, before: Folder | None, most: int) -> Folder:
    """Return what is in a folder, of at most so many entries; without listing it if it is as it was."""
    try:
        changed_ns = os.stat(place, follow_symlinks=False).st_mtime_ns
        if before is not None and before.changed_ns == changed_ns:
            return before
        # The clock of a file system is coarse: what has changed just now may change again at the same time.
        is_old = time.time_ns() - changed_ns > SETTLED_NS
        n_entries, inner, is_cache = 0, [], False
        with os.scandir(place) as entries:
            for entry in entries:
                n_entries += 1
                if n_entries >= most:
                    break
                name = entry.name
                is_cache = is_cache or name == ".actisketch"
                if not name.startswith(".") and _is_folder(entry) and _is_nameable(name):
                    inner.append(name)
    except OSError:
        return Folder(changed_ns=-1, n_entries=0, inner=())
    return Folder(
        changed_ns=changed_ns if is_old else -1, n_entries=n_entries, inner=() if is_cache else tuple(inner)
    )


def _is_nameable(name: str) -> bool:
    """Whether the name of a folder can be part of a URL and of JSON: it is text."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return "\\" not in name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _is_kind(path: str | Path, is_kind: Callable[[int], bool]) -> bool:
    """Whether there is something of this kind, and no link to it."""
    try:
        return is_kind(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def _entries(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    with suppress(OSError), os.scandir(folder) as entries:
        yield from entries


def check_steering(url: str, options: Mapping[str, Any], allowed: Sequence[str], *, flag: str) -> None:
    """Refuse options from a manifest that would have a server asked which the operator has not named.

    It would be asked with the credentials of the service.
    """
    for name, value in StorageOptions(options).steering().items():
        variables = variables_of(name, url)
        is_named = any(os.environ.get(each) == value for each in variables) or any(
            is_url(prefix) and is_below_url(value, prefix) for prefix in allowed
        )
        if not is_named:
            environment = f"with {variables[0]} in its environment, or " if variables else ""
            raise InputError(
                f"cache.storage_options.{name} of this run may have another server asked for its cache, with the "
                f"credentials of this service: the operator can name the same {environment}with {flag}"
            )


def is_below_url(url: str, prefix: str) -> bool:
    """Whether a URL is the prefix or below it; ``..`` in it is not below anything, however it is written.

    A store reads ``%2e%2e`` as ``..`` too, and leaves out tabs, line ends, and spaces around the URL.
    """
    plain = unquote(url)
    is_plain = plain.isprintable() and plain == plain.strip() and ".." not in re.split(r"[/\\]", plain)
    return is_plain and (url == prefix or url.startswith(prefix.rstrip("/") + "/"))
