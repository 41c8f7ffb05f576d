"""The list of runs, from their manifests alone: paged, sorted, filtered.

Knows small files. Opens no cache.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ...storage.claim import writer_of
from ...storage.files import open_to_read
from ...storage.parsing import LARGEST_NBYTES
from ...storage.record_names import n_samples_named, records_changed_ns
from ..folder.progress_file import read_progress
from ..results.saved import RunStatus
from ..settings.visible import visible
from .run_root import MANIFEST, PROGRESS, SETTLED_NS, Folder, RunRoot, id_of

__all__ = [
    "SORT_KEYS",
    "Catalogue",
    "CatalogueRow",
    "RunState",
    "checked_state",
    "chosen_rows",
    "wanted_stages",
]

RunState = Literal["running", "complete", "stopped", "damaged"]
"""``stopped``: something is left to do, and nobody does it; running the job again resumes it."""

# Several requests in a row see the same folders.
FRESH_S = 1.0
# A row takes less than a kilobyte.
MOST_ROWS = 200_000

Signature = tuple[int, int, int]
# Of no file: what could not be read is read again.
UNREAD: Signature = (-1, -1, -1)
DAMAGED: Mapping[str, Any] = {
    "model": "",
    "n_samples": None,
    "percentile": None,
    "cache": None,
    "stages": None,
    "wanted": frozenset(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueRow:
    """What a list says of a run."""

    id: str
    name: str
    """Its path below the root."""
    model: str
    state: RunState
    n_samples: int | None
    percentile: float | None
    has_own_cache: bool
    """Whether its cache is a folder beside its manifest."""
    changed_s: float
    """When its manifest was written, seconds since 1970."""


SORT_KEYS: Mapping[str, Callable[[CatalogueRow], Any]] = {
    "name": lambda row: row.name,
    "model": lambda row: (row.model, row.name),
    "state": lambda row: (row.state, row.name),
    "samples": lambda row: (row.n_samples or 0, row.name),
    "changed": lambda row: (row.changed_s, row.name),
}


class Catalogue:
    """The runs under a root. A manifest is read again only when it has changed; may be asked from several threads."""

    def __init__(self, root: RunRoot) -> None:
        self._root, self._lock = root, threading.Lock()
        self._read: dict[str, tuple[Signature, Mapping[str, Any]]] = {}
        self._folders: dict[str, Folder] = {}
        self._recorded: dict[str, tuple[int, int]] = {}
        self._rows: list[CatalogueRow] = []
        self._walked_s, self._is_cut = float("-inf"), False

    def rows(self) -> tuple[list[CatalogueRow], bool]:
        """Return a row for each run, in no order, and whether there are too many files to look at all."""
        with self._lock:
            if time.monotonic() - self._walked_s > FRESH_S:
                found = list(self._root.walk(self._folders))
                self._is_cut = "" in found or len(found) > MOST_ROWS
                self._rows = [row for path in found[:MOST_ROWS] if path and (row := self.row(path))]
                self._read = {row.name: self._read[row.name] for row in self._rows}
                self._recorded = {
                    row.name: known for row in self._rows if (known := self._recorded.get(row.name))
                }
                self._walked_s = time.monotonic()
            return self._rows, self._is_cut

    def row(self, path: str) -> CatalogueRow | None:
        """Return the row of one run; None if there is none at this path below the root."""
        folder = f"{self._root.path}/{path}"
        manifest = f"{folder}/{MANIFEST}"
        try:
            at = os.lstat(manifest)
        except OSError:  # deleted meanwhile
            return None
        signature = (at.st_mtime_ns, at.st_size, at.st_ino)
        known = self._read.get(path)
        if known is None or known[0] != signature:
            try:
                known = (signature, _facts(manifest, at.st_size))
            except FileNotFoundError:
                return None
            except OSError:  # perhaps not the next time
                known = (UNREAD, DAMAGED)
            self._read[path] = known
        facts = known[1]
        return CatalogueRow(
            id=id_of(path),
            name=path,
            model=facts["model"],
            state=self._state(path, facts, at.st_mtime_ns),
            n_samples=facts["n_samples"],
            percentile=facts["percentile"],
            has_own_cache=facts["cache"] is None,
            changed_s=at.st_mtime,
        )

    def _state(self, path: str, facts: Mapping[str, Any], changed_ns: int) -> RunState:
        folder = f"{self._root.path}/{path}"
        if facts["stages"] is None:
            return "damaged"
        url = facts["cache"]
        told_ns = _changed_ns(f"{folder}/{PROGRESS}")
        if told_ns is not None:
            progress = read_progress(folder)
            if progress is not None and progress.is_alive:
                return "running"
            # Left by a job that came to no good end, perhaps with other settings than the results; what was noted
            # since then is from a verb that checks what it goes on from.
            if progress is not None and told_ns >= changed_ns:
                return "stopped"
        # A cache elsewhere is not looked at here: it may be a mount that hangs.
        cache = f"{folder}/cache"
        is_here = url is None and not os.path.islink(cache)
        if is_here and writer_of(cache) is not None:
            return "running"
        if not facts["wanted"] <= facts["stages"]:
            return "stopped"
        is_whole = not is_here or self._is_recorded(path, cache, facts["n_samples"])
        return "complete" if is_whole else "stopped"

    def _is_recorded(self, path: str, cache: str, n_samples: int | None) -> bool:
        """Whether every sample has a record, as far as their names tell."""
        changed_ns = records_changed_ns(cache)
        if changed_ns is None or n_samples is None:  # it is not known here
            return True
        known = self._recorded.get(path)
        if known is None or known[0] != changed_ns:
            known = (changed_ns, n_samples_named(cache))
            if time.time_ns() - changed_ns > SETTLED_NS:
                self._recorded[path] = known
        return known[1] >= n_samples


def _changed_ns(path: str) -> int | None:
    try:
        return os.lstat(path).st_mtime_ns
    except OSError:
        return None


def _facts(path: str, nbytes: int) -> Mapping[str, Any]:
    """Return what a list needs of a manifest. It may come from anybody: what is not as expected counts as damaged."""
    try:
        # Depth is not checked, as for other documents: only what lies near the top is looked at.
        tree = json.loads(_content(path, nbytes))
        settings, n_samples = tree.get("settings", {}), tree.get("n_samples")
        percentile = settings.get("factors", {}).get("percentile")
        wanted = wanted_stages(settings)
        if not isinstance(tree["actisketch_run"], int):
            return DAMAGED
        return {
            "model": visible(str(tree.get("model", {}).get("name", "")))[:200],
            "n_samples": n_samples if isinstance(n_samples, int) else None,
            "percentile": float(percentile) if isinstance(percentile, int | float) else None,
            "cache": settings.get("cache", {}).get("url"),
            # Of those that an early version noted without the hashes of their files, nothing is known.
            "stages": {name for name, made in tree.get("stages", {}).items() if "results" in made},
            "wanted": wanted,
        }
    except (ValueError, AttributeError, TypeError, KeyError, OverflowError, RecursionError):
        return DAMAGED


def checked_state(state: RunState, look: Callable[[], RunStatus]) -> RunState:
    """Return the state of a run after a look at its results: the list looks at names only, and at no cache elsewhere.

    A report that another version of this program has drawn, or of other settings, leaves nothing to do: it is told as
    out of date.
    """
    if state != "complete":
        return state
    status = look()
    has_report = status.has_report or "report" in status.out_of_date
    return "complete" if replace(status, has_report=has_report).is_complete else "stopped"


def wanted_stages(settings: Mapping[str, Any]) -> set[str]:
    """Return the stages that a run with these settings ends with."""
    chosen = {stage for stage in ("normalize", "report") if settings.get(stage, {}).get("enabled", True)}
    return {"factors"} | chosen


def _content(path: str, nbytes: int) -> bytes:
    """Return a small file, whole; ten thousand of them are read in less than a second."""
    if nbytes > LARGEST_NBYTES:
        raise ValueError(f"it has {nbytes:,} bytes")
    descriptor = open_to_read(path)
    try:
        return os.read(descriptor, nbytes)
    finally:
        os.close(descriptor)


def chosen_rows(
    rows: Iterable[CatalogueRow], *, name: str | None, model: str | None, state: str | None, sort: str
) -> list[CatalogueRow]:
    """Return the rows that fit, sorted; ``name`` and ``model`` are parts in any case, ``sort`` may begin with ``-``."""
    name, model = (name or "").casefold(), (model or "").casefold()
    fitting = [
        row
        for row in rows
        if (not name or name in row.name.casefold())
        and (not model or model in row.model.casefold())
        and (state is None or row.state == state)
    ]
    return sorted(fitting, key=SORT_KEYS[sort.removeprefix("-")], reverse=sort.startswith("-"))
