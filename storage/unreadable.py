"""Distinguish an object that cannot be read from a store that is away.

A chunk on a bad sector is damage, a network that is down is not. Knows stores and the key of the description.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from .errors import StorageError
from .keys import DOCUMENT
from .stores import Store

__all__ = ["read_or_error", "read_or_none", "refuse_if_away"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


def read_or_error(store: Store, read: Callable[[], T]) -> T | StorageError:
    """Return what `read` gives, or its error if it concerns this one object.

    Parameters
    ----------
    store : Store
    read : callable
        Reads one object of the cache; called again if it fails, because an outage may end in between. A remote
        store tries each time as often as it always does.

    Raises
    ------
    StorageError
        If the description of the cache cannot be read either: the store is away.
    """
    try:
        return read()
    except StorageError as error:
        refuse_if_away(store, error)
    try:
        return read()
    except StorageError as error:
        logger.warning("one object cannot be read, others can: %s", error)
        return error


def read_or_none(store: Store, key: str) -> bytes | None:
    """Return the bytes of a key, or None if there is no such key or it alone cannot be read."""
    found = read_or_error(store, lambda: store.read(key))
    return None if isinstance(found, StorageError) else found


def refuse_if_away(store: Store, cause: StorageError | None = None) -> None:
    """Raise StorageError if the description of the cache cannot be read or is gone: so is the store then."""
    if store.read(DOCUMENT) is not None:
        return
    raise StorageError(
        f"{store.url!r} has no {DOCUMENT!r} any more: is the file system still mounted? The cache can be "
        "checked when it is back",
        place=store.url,
    ) from cause
