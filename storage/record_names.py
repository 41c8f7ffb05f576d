"""How much of a cache in a local folder is recorded, by the names of its records: for lists of many caches.

Knows names of files. Opens none, and follows no link.
"""

from __future__ import annotations

import os
import stat

from .keys import COMMITS, PRIVATE, parse_record_key

__all__ = ["n_samples_named", "records_changed_ns"]


def records_changed_ns(folder: str) -> int | None:
    """Return when a record was added to or removed from the cache in a folder; None if that lies behind a link.

    Returns
    -------
    int or None
        Nanoseconds since 1970; -1 if there are no records.
    """
    for name in (PRIVATE, COMMITS):
        try:
            at = os.lstat(f"{folder}/{name}")
        except OSError:
            return -1
        if stat.S_ISLNK(at.st_mode):
            return None
    return at.st_mtime_ns


def n_samples_named(folder: str) -> int:
    """Return how many samples, from the first on, have a record; whether the records are sound is not looked at."""
    try:
        places = [parse_record_key(f"{COMMITS}/{name}") for name in os.listdir(f"{folder}/{COMMITS}")]
    except OSError:
        return 0
    n_samples = 0
    for _, start, stop in sorted(place for place in places if place is not None):
        if start > n_samples:
            break
        n_samples = max(n_samples, stop)
    return n_samples
