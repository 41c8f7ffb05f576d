"""Refuse to write a cache where something else lies.

Knows keys. Does not know what a cache holds.
"""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

from .documents import is_document_of
from .errors import FormatError, MismatchError
from .files import open_to_read
from .keys import COMMITS, DOCUMENT, LOCK, PRIVATE, parse_chunk_key, parse_record_key
from .locks import Holder
from .spec import CacheSpec
from .stores import Store

__all__ = ["holds_cache", "refuse_foreign", "refuse_linked_arrays", "refuse_lost_description", "writer_of"]

# What a holder writes has about a hundred bytes.
_HOLDER_NBYTES = 4096


def holds_cache(folder: Path) -> bool:
    """Whether a local folder has the description of a cache."""
    return (folder / DOCUMENT).exists()


def writer_of(folder: str | Path) -> Holder | None:
    """Return the process that writes to the cache in a local folder; None if there is none, or it is known to be dead.

    Takes no lock. Whether a process of another host is alive cannot be seen: it counts as it says.
    """
    path = f"{folder}/{LOCK}"
    try:
        if not os.stat(path).st_size:
            return None
        with open(path, "rb", opener=open_to_read) as file:
            holder = Holder.parse(file.read(_HOLDER_NBYTES))
    except OSError:
        return None
    return None if holder is None or holder.is_dead else holder


def refuse_lost_description(store: Store) -> None:
    """Refuse a place that has commit records and no description, which is always written first."""
    if any(parse_record_key(key) for key, _ in store.list(COMMITS)):
        raise FormatError(
            f"the cache {store.url!r} has lost its description {DOCUMENT!r}: restore it or choose another folder",
            place=store.url,
        )


def refuse_foreign(store: Store) -> None:
    """Refuse a place that holds foreign files and no cache."""
    if store.read(DOCUMENT) is not None:
        return
    refuse_lost_description(store)
    foreign = [key for key, _ in islice(store.list(""), 100) if not key.startswith(f"{PRIVATE}/")]
    if foreign:
        raise MismatchError(
            f"{store.url!r} is not empty and holds no cache (it holds {foreign[0]!r}): choose another folder",
            place=store.url,
        )


def refuse_linked_arrays(store: Store, spec: CacheSpec) -> None:
    """Refuse to write an array through a link into a folder that holds anything else."""
    for key in {*spec.keys.values()} & {*store.linked_folders()}:
        names = [name.removeprefix(f"{key}/") for name, _ in store.list(key)]
        foreign = [name for name in names if name != "zarr.json" and parse_chunk_key(f"{key}/{name}") is None]
        document = store.read(f"{key}/zarr.json")
        if foreign or (document is not None and not is_document_of(document, spec, key)):
            raise MismatchError(
                f"{f'{store.url}/{key}'!r} is a link to a folder that holds other things than this array "
                f"({foreign[0] if foreign else 'zarr.json'!r}): remove the link, or link to an empty folder",
                place=store.url,
            )
