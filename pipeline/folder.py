"""The folder of a run: which files it has, what they were made from, and that nothing is half-written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..storage.errors import FormatError, InputError, StorageError

__all__ = ["RunFolder", "content_key", "open_folder", "replacing", "write_json"]

FORMAT_VERSION = 1


def content_key(*parts: Any) -> str:
    """Return a short name for JSON values: equal values, equal name."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def write_json(path: Path, tree: Any) -> None:
    """Write JSON, whole or not at all.

    Raises
    ------
    StorageError
        If the disk is full or the folder may not be written.
    """
    text = json.dumps(tree, indent=1, allow_nan=False) + "\n"
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write to, which takes its place when all went well."""
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, path)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            f"{str(path)!r} cannot be written: {error.strerror or error}; free space or choose another folder, "
            "then run again to resume",
            path=str(path),
        ) from error
    finally:
        partial.unlink(missing_ok=True)


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
        """Where the cache lies unless the settings say otherwise."""
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
        """``sketches.npz``: the merged sketch of each point; made again when it is missing."""
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

    def check_claim(self) -> None:
        """Refuse a place that is not free for a run and holds none.

        Raises
        ------
        InputError
            If the path is a file, or a folder with other things in it.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"the output {str(self.path)!r} is a file: choose a folder", path=str(self.path))
        if self.path.is_dir() and not self.manifest_path.exists():
            foreign = sorted(
                p.name for p in self.path.iterdir() if not p.name.startswith(".") and p != self.log_path
            )
            # A crash before the manifest leaves at most the cache behind: that is ours.
            if foreign and foreign != [self.cache_path.name]:
                raise InputError(
                    f"the output folder {str(self.path)!r} holds other things ({', '.join(foreign[:5])}) and no run of "
                    "actisketch: choose another or an empty folder",
                    path=str(self.path),
                )

    def check_side_results(self) -> None:
        """Refuse a folder that holds anything but an earlier network, its certificate and its factors.

        Raises
        ------
        InputError
            With what is there.
        """
        ours = {self.factors_path, self.network_path, self.certificate_path, self.sketches_path}
        foreign = (
            [path.name for path in sorted(self.path.iterdir()) if path not in ours]
            if self.path.is_dir()
            else []
        )
        if foreign or self.path.is_file():
            raise InputError(
                f"the folder {str(self.path)!r} holds other things ({', '.join(foreign[:5]) or 'it is a file'}): "
                "choose another or an empty one with --output",
                path=str(self.path),
            )

    def manifest(self) -> dict[str, Any]:
        """Return the manifest; an empty one when there is none yet.

        Raises
        ------
        FormatError
            If it is damaged or of a newer format.
        """
        try:
            tree = json.loads(self.manifest_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise FormatError(
                f"{str(self.manifest_path)!r} is damaged: {error}; delete that file and run the job again: "
                "the cache is kept"
            ) from None
        version = tree.get("actisketch_run") if isinstance(tree, dict) else None
        if not isinstance(version, int):
            raise FormatError(
                f"{str(self.manifest_path)!r} is not the manifest of a run: choose another folder"
            )
        if version > FORMAT_VERSION:
            raise FormatError(
                f"the run is of format {version}, this program reads {FORMAT_VERSION}: update actisketch"
            )
        return dict(tree)

    def update_manifest(self, changes: Mapping[str, Any]) -> None:
        """Replace top-level keys of the manifest."""
        write_json(self.manifest_path, {**self.manifest(), **changes, "actisketch_run": FORMAT_VERSION})

    def is_made_from(self, stage: str, key: str, *results: Path) -> bool:
        """Return whether the results of a stage exist and were made from what ``key`` names."""
        stages = self.manifest().get("stages", {})
        return stages.get(stage) == key and all(path.exists() for path in results)

    def mark_made(self, stage: str, key: str) -> None:
        """Note what the results of a stage were made from, after they were written."""
        self.update_manifest({"stages": {**self.manifest().get("stages", {}), stage: key}})


def open_folder(path: str | Path) -> RunFolder:
    """Return the folder of a run that exists.

    Raises
    ------
    InputError
        If there is no run.
    """
    folder = RunFolder(Path(path))
    if not folder.manifest_path.exists():
        raise InputError(f"no run in {str(path)!r}: start one with `actisketch run job.toml`", path=str(path))
    return folder
