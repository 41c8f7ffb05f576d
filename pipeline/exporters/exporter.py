"""What an exporter gets, and what it gives back.

Knows no target and writes no file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ...storage import Cache
from ...storage.errors import InputError
from ..events import OnEvent, ignore_event
from ..factors.factors_file import Factors
from ..factors.ties import Ties
from ..folder.folder import RunFolder, check_output, replacing
from ..settings.job_settings import FactorSettings, JobSettings, ModelSettings
from ..sketch import Digest, PointSketch

__all__ = [
    "ExportRequest",
    "Exported",
    "Exporter",
    "RangeRow",
    "RecordedRun",
    "check_export_places",
    "hashes_of",
]


class RecordedRun(Protocol):
    """The part of :class:`~..results.run.Run` that exporters use."""

    folder: RunFolder
    settings: JobSettings
    asked_model: ModelSettings

    @property
    def cache(self) -> Cache:
        """The Zarr cache, open for reading."""

    @property
    def sketches(self) -> Mapping[str, PointSketch]:
        """The merged sketch of each point."""

    @property
    def points(self) -> tuple[str, ...]:
        """Names of the recorded points, in model order."""

    @property
    def ties(self) -> Ties:
        """Which points share a scale."""

    def statistics(self) -> dict[str, dict[str, Any]]:
        """Return counts, extremes, mean and standard deviation of each point."""

    def normalized_key(self) -> str | None:
        """Return the key of the normalised network; None if there is none that is up to date and certified."""

    def digest(self, point: str, *, nonzero: bool = ...) -> Digest:
        """Return the t-digest of one point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """A finished run, and how its ranges are chosen."""

    run: RecordedRun
    settings: FactorSettings
    """The run's table ``[factors]`` with the changes that were asked for."""
    factors_of: Callable[[], Factors]
    """Gives the scale factors; computed only if the target needs them."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the target: only names in `Exporter.options`, and no None."""
    on_event: OnEvent = ignore_event
    """Gets the progress of what takes long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeRow:
    """One line of the table: which range a tensor of the target got."""

    tensor: str
    """Its name in the target."""
    point: str | None
    """The recorded point whose range it has; None if it is no point."""
    lo: float
    hi: float
    source: str
    """Where the range came from, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A whole export in memory."""

    content: str | Callable[[Path], None]
    """The text of the file, or what writes the file at a path that is free."""
    rows: tuple[RangeRow, ...] = ()
    """Empty for targets that know only our own points: their file is the table."""
    warnings: tuple[str, ...] = ()
    file_name: str
    """Name of the file where only a folder is given."""
    beside: Mapping[str, bytes] = field(default_factory=dict)
    """Endings and contents of files that are written too, under the name of the file without its ending.

    One that is there already is replaced only if its hash, of `hashes_of`, stands in the file that is replaced too: no
    other is known to be of an earlier export.
    """
    given: tuple[Path, ...] = ()
    """Files that it was made from, which it never replaces."""

    def write(self, path: Path) -> None:
        """Write the file and those that lie beside it, all of them whole or none.

        Raises
        ------
        InputError
            If a file belongs to a run, was given, or is there already and not from an earlier export; see `beside`.
        """
        check_export_places(path, beside=self.beside, given=self.given)
        others = {path.with_suffix(ending): content for ending, content in self.beside.items()}
        with ExitStack() as files:  # each takes its place when all are written
            for other, content in others.items():
                files.enter_context(replacing(other)).write_bytes(content)
            partial = files.enter_context(replacing(path))
            if isinstance(self.content, str):
                partial.write_text(self.content, encoding="utf-8")
            else:
                self.content(partial)


def hashes_of(beside: Mapping[str, bytes]) -> dict[str, str]:
    """Return the hash of each file by its ending."""
    return {ending: _hash(content) for ending, content in beside.items()}


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def check_export_places(path: Path, *, beside: Iterable[str], given: Iterable[Path]) -> None:
    """Refuse an export that would replace what is not its own.

    Parameters
    ----------
    path : path
        The file to write.
    beside : iterable of str
        Endings of the files that are written beside it.
    given : iterable of path
        Files that are read for it.

    Raises
    ------
    InputError
        If one of them belongs to a run, was given, or is there already and not from an earlier export to this file.
    """
    others, given = [path.with_suffix(ending) for ending in beside], list(given)
    for each in (path, *others):
        check_output(each, given=given)
    for other in others:
        if other.name.casefold() == path.name.casefold():  # one file on some systems
            raise InputError(
                f"{other.name!r} is the name of the network that is written beside the output: choose another ending "
                "for --output",
                path=str(path),
            )
        if other.exists() and not _is_of_earlier_export(other, path):
            raise InputError(
                f"{str(other)!r} is there already and not from an earlier export to {path.name!r}: move it away, "
                f"give it with --{other.suffix[1:]} if it is this network, or choose another name with --output",
                path=str(other),
            )


def _is_of_earlier_export(other: Path, path: Path) -> bool:
    if not (other.is_file() and path.is_file()):
        return False
    return _hash(other.read_bytes()).encode() in path.read_bytes()


@dataclass(frozen=True, slots=True, kw_only=True)
class Exporter:
    """A target, as the entry-point group ``actisketch.exporters`` names them."""

    about: str
    """What the target reads, for the help of the command line."""
    make: Callable[[ExportRequest], Exported]
    """Raises InputError, with one sentence, for what the target cannot hold. Writes nothing."""
    options: tuple[str, ...] = ()
    """Names of the options that ``make`` understands."""
    takes_factors: bool = True
    """Whether settings of factors (percentile, exact, ...) change the export."""
    takes_channels: bool = True
    """Whether ``factors.per_channel`` is for it; otherwise it has one range for each tensor."""
    opens_network: bool = False
    """Whether it loads the network of the run, which takes seconds."""
    beside: Mapping[str, str] = field(default_factory=dict)
    """Endings of the files that are written beside, each with the option that leaves it out."""
    file_name: str = ""
    """`Exported.file_name` where it is always the same; with ``beside`` it has to be."""
    only_into_folder: str = ""
    """Why the target needs a folder rather than a file; empty if it does not."""
    note: str = ""
    """What the target does with the ranges, a sentence that is printed below the table of them."""
