"""Open the place that a URL names, and say what every such place can do.

A store maps keys to bytes. A write happens whole or not at all; a missing key reads as None.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from .errors import InputError

__all__ = ["Lock", "Store", "is_url", "open_store", "path_of"]

SCHEMES = {"file", "memory", "s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss", "http", "https"}
"""Of the URLs that `open_store` takes."""

Part = Any  # bytes or a contiguous uint8 array: what the buffer protocol offers


class Lock(Protocol):
    """The right to write, held until `release` or the end of the process."""

    def check(self) -> None:
        """Raise BusyError if another process has taken the lock over."""

    def release(self) -> None:
        """Release the lock; may be called twice."""


class Store(Protocol):
    """A place for keys and their bytes; all methods may be called from several threads."""

    url: str
    is_remote: bool

    def read(self, key: str) -> bytes | None:
        """Return all bytes of a key, or None if there is no such key."""

    def read_into(self, key: str, memory: memoryview) -> bytes | memoryview | None:
        """Return what `read` does; the bytes may lie in ``memory``, which is written to, if they fit there."""

    def read_start(self, key: str, nbytes: int) -> tuple[bytes, int] | None:
        """Return the first bytes of a key and its whole length, or None if there is no such key."""

    def write(self, key: str, parts: Sequence[Part]) -> None:
        """Put the parts, one after the other, under a key: whole, or not at all. Durable after `sync`."""

    def write_durably(self, key: str, parts: Sequence[Part]) -> None:
        """Put the parts under a key so that a power cut at any moment leaves all of them or none."""

    def sync(self, keys: Sequence[str]) -> None:
        """Return when these keys would survive a power cut."""

    def delete(self, key: str) -> None:
        """Remove a key durably; a missing one is no error."""

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield (key, length in bytes) of everything under a folder, in no order."""

    def linked_folders(self) -> Sequence[str]:
        """Return the keys at the top that are links to folders elsewhere."""

    def lock(self, key: str) -> Lock:
        """Take the lock; BusyError says who holds it and since when."""

    def clean(self) -> None:
        """Remove what dead processes left half-written."""


def is_url(place: str) -> bool:
    """Return whether a place is named by a URL, otherwise by a path.

    Raises
    ------
    InputError
        If it is a URL that lacks a slash: a folder ``s3:`` would be filled in the place of a bucket.
    """
    scheme, _, rest = place.partition(":")
    if scheme.lower() in SCHEMES and not rest.startswith("//"):
        slashes = ":///" if scheme.lower() == "file" else "://"
        raise InputError(
            f"{place!r} is no URL: give {scheme}{slashes}{rest.lstrip('/')}, or ./{place} for a path of that name",
            place=place,
        )
    return "://" in place


def open_store(url: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> Store:
    """Return the store at a path or URL; nothing is created yet.

    Parameters
    ----------
    url : str or path
        A local path, ``file:///path`` (percent-encoded), ``memory://name`` (lives as long as the process), or the
        URL of an object store that obstore knows: ``s3://bucket/prefix``, ``gs://``, ``az://``.
    storage_options : mapping, optional
        Passed to ``obstore.store.from_url`` (``endpoint``, ``access_key_id``, ``region``,
        ``client_options``...).

    Raises
    ------
    InputError
        If the URL's scheme is unknown or lacks a slash, a ``file://`` URL says more than a path, or an option does not
        exist.
    """
    text = os.fspath(url)
    if not text:
        raise InputError("the place of the cache is empty: give a folder or a URL")
    scheme = urlsplit(text).scheme if is_url(text) else ""
    if scheme in ("", "file"):
        if storage_options:
            raise InputError(
                f"storage_options {sorted(storage_options)} were given for the local folder "
                f"{text!r}: leave them out"
            )
        from .local import LocalFolder

        return LocalFolder(Path(path_of(text) if scheme else text).absolute())
    from .objects import open_bucket

    return open_bucket(text, storage_options or {})


def path_of(url: str) -> str:
    """Return the path that a ``file://`` URL names; InputError if it says anything that a path does not."""
    parts = urlsplit(url)
    if parts.netloc.lower() not in ("", "localhost"):
        raise InputError(
            f"{url!r} names the host {parts.netloc!r}, files are on this one: give file:///path with three "
            "slashes, or the plain path",
            place=url,
        )
    if "?" in url or "#" in url:
        raise InputError(
            f"{url!r} has a '?' or '#', which end the path of a URL: percent-encode them (%3F for '?', %23 for "
            "'#', %25 for '%'), or give the plain path",
            place=url,
        )
    if not parts.path:
        raise InputError(f"{url!r} has no path: give file:///path, or the plain path", place=url)
    return unquote(parts.path)
