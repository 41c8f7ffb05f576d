"""The folder of a run: which files it has and what they were made from."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...storage.claim import holds_cache
from ...storage.errors import FormatError, IncompleteError, InputError, OverBudgetError
from ...storage.files import open_to_read
from ...storage.options import StorageOptions
from ...storage.parsing import LARGEST_NBYTES
from ...storage.partial import is_partial, remove_leftovers, replacing
from .json_file import content_key, read_document, sealed
from .manifest import check_manifest

__all__ = [
    "RunFolder",
    "check_output",
    "content_key",
    "open_folder",
    "refuse_link",
    "replacing",
    "write_json",
]

FORMAT_VERSION = 1
# Smaller files are hashed faster than anybody notices.
REMEMBERED_NBYTES = 16 * 2**20


def _size_and_hash(path: Path) -> dict[str, Any] | None:
    """Return the size and the hash of a file; None if there is none.

    The bytes are read, not the date: a damaged or restored file may keep its size and its date. The largest
    result is the network, and blake2b takes a second for a gigabyte. A process reads it only once, although a run that
    reloads asks several times.
    """
    try:
        at = path.stat()
        if not stat.S_ISREG(at.st_mode):
            return None
        seen = (at.st_size, at.st_mtime_ns, at.st_ctime_ns, at.st_ino)
        is_large = at.st_size >= REMEMBERED_NBYTES
        return {"nbytes": at.st_size, "blake2b": _remembered_hash(path, *seen) if is_large else _hash(path)}
    except OSError:
        return None


def _hash(path: Path) -> str:
    with open(path, "rb", opener=open_to_read) as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


@lru_cache(maxsize=64)
def _remembered_hash(path: Path, *_seen: int) -> str:
    return _hash(path)


def write_json(path: Path, tree: Mapping[str, Any]) -> None:
    """Write a JSON file with the hash of its content, whole or not at all.

    Raises
    ------
    StorageError
        If the disk is full or the folder is not writable.
    OverBudgetError
        If it is larger than the files that are read.
    """
    text = json.dumps(sealed(tree), indent=1, allow_nan=False) + "\n"
    if len(text) > LARGEST_NBYTES:
        raise OverBudgetError(
            f"{str(path)!r} would have {len(text):,} bytes, at most {LARGEST_NBYTES:,} are read again: record fewer "
            "points, or set sketch.per_channel = false"
        )
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A folder with the results of one run."""

    path: Path

    @property
    def manifest_path(self) -> Path:
        """``run.json``: settings, versions, and what each result was made from."""
        return self.path / "run.json"

    @property
    def cache_path(self) -> Path:
        """The cache, unless the settings name another place."""
        return self.path / "cache"

    @property
    def statistics_path(self) -> Path:
        """``statistics.json``."""
        return self.path / "statistics.json"

    @property
    def factors_path(self) -> Path:
        """``factors.json``."""
        return self.path / "factors.json"

    @property
    def network_path(self) -> Path:
        """``normalized.keras``."""
        return self.path / "normalized.keras"

    @property
    def certificate_path(self) -> Path:
        """``certificate.json``."""
        return self.path / "certificate.json"

    @property
    def merged_path(self) -> Path:
        """``sketches.npz``: the merged sketch of each point, made again if it is missing."""
        return self.path / "sketches.npz"

    @property
    def sketches_path(self) -> Path:
        """``normalized-sketches.json``: sketches of the normalised activations, for the report."""
        return self.path / "normalized-sketches.json"

    @property
    def report_path(self) -> Path:
        """Folder ``report`` with ``index.html``."""
        return self.path / "report"

    @property
    def log_path(self) -> Path:
        """``run.log``."""
        return self.path / "run.log"

    @property
    def progress_path(self) -> Path:
        """``progress.json``: how far the job is that works here, or has failed here."""
        return self.path / "progress.json"

    @property
    def timings_path(self) -> Path:
        """``timings.json``: what the stages took."""
        return self.path / "timings.json"

    def owns(self, path: Path) -> bool:
        """Return whether a path is a file of this run, or lies in its cache or its report."""
        files = (
            self.manifest_path,
            self.statistics_path,
            self.factors_path,
            self.network_path,
            self.certificate_path,
            self.merged_path,
            self.sketches_path,
            self.log_path,
            self.progress_path,
            self.timings_path,
        )
        return path in files or any(path.is_relative_to(at) for at in (self.cache_path, self.report_path))

    def check_claim(self) -> None:
        """Refuse a path that holds anything else than a run.

        Raises
        ------
        InputError
            If the path is a file, or a folder with foreign files.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"the output {str(self.path)!r} is a file: choose a folder", path=str(self.path))
        refuse_link(self.report_path)
        if self.path.is_dir() and not self.manifest_path.exists():
            foreign = sorted(
                p.name
                for p in self.path.iterdir()
                if not p.name.startswith(".")
                and p not in (self.log_path, self.progress_path, self.timings_path)
            )
            if foreign and not self._holds_a_run():
                raise InputError(
                    f"the output folder {str(self.path)!r} contains foreign files ({', '.join(foreign[:5])}) and no "
                    "run: choose another or an empty folder",
                    path=str(self.path),
                )

    def _holds_a_run(self) -> bool:
        """Whether a run without a manifest lies here: it crashed early, or its damaged manifest was deleted."""
        if holds_cache(self.cache_path) or set(self.path.iterdir()) == {self.cache_path}:
            return True
        try:
            return "actisketch_factors" in read_document(self.factors_path)
        except (OSError, ValueError):
            return False

    def clean(self) -> None:
        """Remove half-written files of killed processes."""
        for folder in (self.path, self.report_path):
            if not folder.is_symlink() or folder == self.path:
                remove_leftovers(folder)

    def check_side_results(self) -> None:
        """Refuse a folder that contains anything but a network, its certificate and its factors.

        Raises
        ------
        InputError
            The message names the other files.
        """
        remove_leftovers(self.path)
        ours = {self.factors_path, self.network_path, self.certificate_path, self.sketches_path}
        foreign = (
            [p.name for p in sorted(self.path.iterdir()) if p not in ours and not is_partial(p.name)]
            if self.path.is_dir()
            else []
        )
        if foreign or self.path.is_file():
            raise InputError(
                f"the folder {str(self.path)!r} contains foreign files ({', '.join(foreign[:5]) or 'it is a file'}): "
                "choose another or an empty one with --output",
                path=str(self.path),
            )

    def manifest(self) -> dict[str, Any]:
        """Return the manifest; an empty one if there is none yet.

        Raises
        ------
        FormatError
            If it is damaged or has a newer format.
        """
        try:
            tree = read_document(self.manifest_path)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise FormatError(
                f"{str(self.manifest_path)!r} is damaged: {error}; delete that file and run the job again: "
                "the cache is kept"
            ) from None
        version = tree.get("actisketch_run")
        if not isinstance(version, int):
            raise FormatError(
                f"{str(self.manifest_path)!r} is not the manifest of a run: choose another folder"
            )
        if version > FORMAT_VERSION:
            raise FormatError(
                f"the run has format {version}, this program reads {FORMAT_VERSION}: update actisketch"
            )
        try:
            check_manifest(tree)
        except ValueError as error:
            raise FormatError(
                f"{str(self.manifest_path)!r} is not as this program writes it: {error}; choose another folder"
            ) from None
        return tree

    def update_manifest(self, changes: Mapping[str, Any]) -> None:
        """Replace top-level keys of the manifest."""
        tree = {**self.manifest(), **changes, "actisketch_run": FORMAT_VERSION}
        write_json(self.manifest_path, _without_secrets(tree))

    def made_from(self, stage: str) -> str | None:
        """Return the key that the results of a stage were made from; None if none is noted."""
        made = self._made(stage)
        return None if made is None else str(made["key"])

    def is_made_from(self, stage: str, key: str, *results: Path) -> bool:
        """Return whether a stage made these results from what ``key`` names, and none has changed since.

        Every file that the stage wrote is read and compared with the hash that was noted then.
        """
        made = self._made(stage)
        if made is None or made["key"] != key:
            return False
        noted = made["results"]
        return all(self._name(path) in noted for path in results) and all(
            self._is_own(name) and _size_and_hash(self.path / name) == found for name, found in noted.items()
        )

    def mark_made(self, stage: str, key: str, *results: Path) -> None:
        """Note, after the results of a stage were written, what they were made from and their hashes."""
        made = {"key": key, "results": {self._name(path): _size_and_hash(path) for path in results}}
        self.update_manifest({"stages": {**self.manifest().get("stages", {}), stage: made}})

    def forget(self, stage: str) -> None:
        """Note that the results of a stage are about to be replaced: if that is interrupted, they count as not made."""
        stages = self.manifest().get("stages", {})
        if stage in stages:
            self.update_manifest({"stages": {name: made for name, made in stages.items() if name != stage}})

    def _made(self, stage: str) -> dict[str, Any] | None:
        stages = self.manifest().get("stages", {})
        made = stages.get(stage) if isinstance(stages, dict) else None
        # Version 0.1 noted keys without hashes: whether its files are whole is unknown.
        if not isinstance(made, dict) or "key" not in made or not isinstance(made.get("results"), dict):
            return None
        return made

    def _is_own(self, name: str) -> bool:
        # A manifest from others may name any file of this machine.
        return ".." not in Path(name).parts and self.owns(self.path / name)

    def _name(self, path: Path) -> str:
        # Relative: the folder may be moved.
        return path.relative_to(self.path).as_posix() if path.is_relative_to(self.path) else str(path)


def _without_secrets(tree: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest without the secrets that version 0.1 kept; their names stay, to ask for them."""
    settings = tree.get("settings", {})
    options = StorageOptions(settings.get("cache", {}).get("storage_options", {}))
    if not (secrets := options.secrets()):
        return tree
    cache = {**settings["cache"], "storage_options": options.public()}
    return {**tree, "settings": {**settings, "cache": cache}, "withheld": sorted(secrets)}


def refuse_link(folder: Path) -> None:
    """Refuse a link in place of a folder of a run, through which files elsewhere would be replaced.

    Raises
    ------
    InputError
        The message says where the link leads.
    """
    if folder.is_symlink():
        raise InputError(
            f"{str(folder)!r} is a link to {os.readlink(folder)!r}, and the files of a run are not written through a "
            "link: remove it, or name that folder with `actisketch report --output`",
            path=str(folder),
        )


def check_output(path: Path, *, given: Iterable[Path] = ()) -> None:
    """Refuse to write to a file that belongs to a run in any folder, which would destroy that run's results.

    ``given`` are the user's own files, such as the network, which are not replaced either.

    Raises
    ------
    InputError
        The message names the run.
    """
    resolved = path.resolve()
    for folder in map(RunFolder, resolved.parents):
        if folder.manifest_path.is_file() and folder.owns(resolved):
            raise InputError(
                f"{str(path)!r} belongs to a run, {str(folder.path)!r}: choose another name with --output",
                path=str(path),
            )
    if any(path.exists() and file.exists() and path.samefile(file) for file in given):
        raise InputError(
            f"{str(path)!r} is a file that this is made from, and would be replaced: choose another name",
            path=str(path),
        )


def open_folder(path: str | Path) -> RunFolder:
    """Return the folder of an existing run.

    Raises
    ------
    InputError
        If there is no run.
    IncompleteError
        If a job has begun there, and stopped before it wrote ``run.json``.
    """
    folder = RunFolder(Path(path))
    if not folder.manifest_path.exists():
        if folder.progress_path.is_file() or holds_cache(folder.cache_path):
            raise IncompleteError(
                f"nothing is recorded of {str(path)!r} yet, or its run.json was deleted: run the job again to resume",
                path=str(path),
            )
        raise InputError(f"no run in {str(path)!r}: start one with `actisketch run job.toml`", path=str(path))
    return folder
