"""Refuse to write a cache where something else lies.

Knows keys. Does not know what a cache holds.
"""

from __future__ import annotations

from itertools import islice

from .documents import is_document_of
from .errors import MismatchError
from .keys import DOCUMENT, PRIVATE, parse_chunk_key
from .spec import CacheSpec
from .stores import Store

__all__ = ["refuse_foreign", "refuse_linked_arrays"]


def refuse_foreign(store: Store) -> None:
    """Refuse a place with other things in it and no cache."""
    if store.read(DOCUMENT) is not None:
        return
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
