"""Delete a cache that a new one replaces, and nothing that a cache never writes."""

from __future__ import annotations

import shutil
from pathlib import Path

from .errors import MismatchError
from .keys import (
    DOCUMENT,
    LOCK,
    PRIVATE,
    is_probe_key,
    parse_chunk_key,
    parse_record_key,
    parse_temporary_key,
)
from .local import LocalFolder

__all__ = ["remove_cache"]


def remove_cache(folder: Path) -> None:
    """Delete the local cache in a folder.

    Raises
    ------
    MismatchError
        If the folder holds no cache, a link, or a file that a cache never writes: nothing is deleted then.
    BusyError
        If another process writes to the cache.
    """
    store = LocalFolder(folder)
    keys = [key for key, _ in store.list("")]
    is_cache = not folder.is_symlink() and any(key.startswith(f"{PRIVATE}/") for key in keys)
    foreign = [*store.linked_folders(), *(key for key in keys if not (is_cache and _is_of_a_cache(key)))]
    if foreign or folder.is_symlink():
        raise MismatchError(
            f"the cache in {str(folder)!r} would be replaced, but {(foreign or ['the link'])[0]!r} there is not part "
            "of a cache: move it elsewhere, or choose another folder",
            place=str(folder),
        )
    lock = store.lock(LOCK)
    try:
        # The private folder last: what a crash leaves is still known as a cache.
        for path in sorted(folder.iterdir(), key=lambda path: path.name == PRIVATE):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    finally:
        lock.release()


def _is_of_a_cache(key: str) -> bool:
    array, _, name = key.rpartition("/")
    is_of_an_array = "/" not in array and (
        name == "zarr.json" or (array and parse_chunk_key(key) is not None)
    )
    is_private = parse_record_key(key) or parse_temporary_key(key) or is_probe_key(key)
    return bool(key in (DOCUMENT, LOCK) or is_of_an_array or is_private)
