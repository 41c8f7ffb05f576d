"""Files of a run, and results as files for other programs. Each is opened once, without following links, and checked.

Knows runs and files. Does not know HTTP.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...storage.errors import IncompleteError, InputError, NotFoundError
from ...storage.files import open_to_read
from ..exporters import Exported, load_exporter
from .open_runs import OpenRun
from .questions import reading
from .workers import Stop

__all__ = ["OpenFile", "TextFile", "certificate_of", "exported", "network_of"]

# What a slow reader has to take in a minute.
PART_NBYTES = 256 * 2**10
MEDIA_TYPES = {".csv": "text/csv; charset=utf-8", ".json": "application/json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFile:
    """A file that is made for the answer."""

    name: str
    media_type: str
    content: bytes
    remarks: tuple[str, ...] = ()
    """What a person should know beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFile:
    """A file of the run that is open, until `close` is called."""

    name: str
    media_type: str
    file: FileIO
    nbytes: int

    def parts(self) -> Iterator[bytes]:
        """Yield the bytes that the file had when it was opened."""
        left = self.nbytes
        while left and (part := self.file.read(min(left, PART_NBYTES))):
            left -= len(part)
            yield part

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        self.file.close()


def certificate_of(opened: OpenRun) -> dict[str, Any]:
    """Return the certificate; NotFoundError if there is none that is up to date."""
    found = opened.run.certificate()
    if found is None:
        raise _nothing_yet("certificate", opened)
    return found


def network_of(opened: OpenRun) -> OpenFile:
    """Return the file of the normalised network; NotFoundError if there is none that is up to date."""
    run = opened.run
    if run.normalized_key() is None:
        raise _nothing_yet("normalised network", opened)
    try:
        file = FileIO(run.folder.network_path, opener=_without_links)
    except OSError:
        raise _nothing_yet("normalised network", opened) from None
    nbytes = os.fstat(file.fileno()).st_size
    name = f"{_file_name(opened)}-normalized.keras"
    return OpenFile(name=name, media_type="application/octet-stream", file=file, nbytes=nbytes)


def _without_links(path: str, flags: int) -> int:
    return open_to_read(path, flags | os.O_NOFOLLOW)


def exported(
    opened: OpenRun, stop: Stop, *, kind: str, changes: Mapping[str, Any], partial_run: bool
) -> TextFile:
    """Return factors as a file that another program reads, as ``actisketch export`` writes it.

    Raises
    ------
    InputError
        For a target that needs the network itself.
    IncompleteError
        If not all blocks are recorded, which the file could not say, unless ``partial_run``.
    """
    if load_exporter(kind).opens_network:
        # A network and samples lie wherever the run's folder says, and are loaded by TensorFlow.
        raise InputError(
            f"an export as {kind!r} needs the network, which the service never loads: `actisketch export RUN --format "
            f"{kind}` makes it where the network is"
        )
    so_far, suffix = opened.so_far, ""
    if not so_far.is_complete:
        suffix = f"-{so_far.n_blocks_done}-of-{so_far.n_blocks}-blocks"
        if not partial_run:
            raise IncompleteError(
                f"{so_far.n_blocks_done} of {so_far.n_blocks} blocks are recorded, and a file of this format cannot "
                "say so: wait for the run, ask for format=json, or add partial=true"
            )
    made = reading(opened, stop, changes.get("exact")).exported(kind, **changes)
    ending = Path(made.file_name).suffix
    name = f"{_file_name(opened)}-{_plain(kind)}{suffix}{_plain(ending)}"
    return TextFile(
        name=name,
        media_type=MEDIA_TYPES.get(ending, "application/octet-stream"),
        content=_content(made),
        remarks=tuple(made.warnings),
    )


def _content(made: Exported) -> bytes:
    if isinstance(made.content, str):
        return made.content.encode()
    with TemporaryDirectory(prefix="actisketch-") as folder:
        path = Path(folder) / "export"
        made.write(path)
        return path.read_bytes()


def _nothing_yet(what: str, opened: OpenRun) -> NotFoundError:
    return NotFoundError(
        f"the run {opened.id!r} has no {what} that is up to date: `actisketch status {opened.folder}` says what is "
        "missing or out of date, and running the job again makes it"
    )


def _file_name(opened: OpenRun) -> str:
    """Return a name for files of a run that every system takes and no header misreads."""
    return _plain(opened.id.replace("~1", "-")).strip(".-") or "run"


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:80]
