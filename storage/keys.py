"""Name things inside a cache: points become keys, blocks become records, chunks become objects.

Knows text and whole numbers only. A key is what stands in the store; the true name of a point is an
attribute of its array.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

__all__ = [
    "COMMITS",
    "DOCUMENT",
    "LOCK",
    "PRIVATE",
    "TEMPORARY",
    "array_keys",
    "chunk_key",
    "is_probe_key",
    "parse_chunk_key",
    "parse_record_key",
    "parse_temporary_key",
    "probe_key",
    "record_key",
    "temporary_key",
]

PRIVATE = ".actisketch"
"""The one folder of a cache that is not a Zarr node."""
DOCUMENT = f"{PRIVATE}/cache.json"
COMMITS = f"{PRIVATE}/commits"
LOCK = f"{PRIVATE}/lock"
TEMPORARY = f"{PRIVATE}/tmp"

# 80 of the 255 bytes that file systems allow: a chunk's suffix and a hash still fit.
_LONGEST = 80
# Names that Windows keeps for devices, and the document of a Zarr node.
_TAKEN = frozenset(
    {"con", "prn", "aux", "nul", "zarr.json", *(f"{d}{i}" for d in ("com", "lpt") for i in range(10))}
)
# Whole numbers as they are written: neither "03" nor the digits of another script.
_NUMBER = "(0|[1-9][0-9]*)"
_CHUNK = re.compile(rf"c\.{_NUMBER}(?:\.0)*")
_RECORD = re.compile(rf"{re.escape(COMMITS)}/([0-9]{{8}})\.{_NUMBER}-{_NUMBER}\.block")
_PROBE = re.compile(rf"{re.escape(PRIVATE)}/probe-[0-9a-f]+(?:-[0-9a-f]+)?")


def array_keys(names: Sequence[str]) -> dict[str, str]:
    """Return a safe, unique key for every point.

    Parameters
    ----------
    names : sequence of str
        Distinct names of points, any text.

    Returns
    -------
    dict
        Key by name. A plain name (letters, digits, ``_ . -``) is its own key. In any other name, what is not
        plain becomes ``_``, and ``~`` and six hexadecimal digits of the name's SHA-256 follow. They also follow
        a plain name that differs only in case from one before it: some file systems ignore case.

    Examples
    --------
    >>> array_keys(["conv1", "inner/conv1"])
    {'conv1': 'conv1', 'inner/conv1': 'inner_conv1~1c62da'}
    """
    keys: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        key = _slug(name)
        # No plain name contains "~": what is not plain takes the key of none, wherever the two stand.
        if key != name or key.casefold() in taken:
            key = f"{key}~{hashlib.sha256(name.encode()).hexdigest()[:6]}"
        keys[name] = key
        taken.add(key.casefold())
    if len(taken) != len(keys):
        raise ValueError(f"two of these {len(keys)} names give the same key: {sorted(names)!r}")
    return keys


def _slug(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    # "." and "__" at the start are reserved in Zarr v3 and by us.
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", plain).lstrip("._-").rstrip(".")[:_LONGEST]
    return "point" if not plain or plain.casefold().split(".")[0] in _TAKEN or plain in _TAKEN else plain


def chunk_key(key: str, index: int, n_axes: int) -> str:
    """Return the key of chunk `index` of an array of `n_axes` axes that is only divided along axis 0.

    Examples
    --------
    >>> chunk_key("conv1", 7, 4)
    'conv1/c.7.0.0.0'
    """
    return f"{key}/c.{index}" + ".0" * (n_axes - 1)


def parse_chunk_key(key: str) -> tuple[str, int] | None:
    """Return the array's key and the chunk's index, or None for any other key."""
    array, _, last = key.rpartition("/")
    found = _CHUNK.fullmatch(last)
    return (array, int(found[1])) if found else None


def record_key(index: int, start: int, stop: int) -> str:
    """Return the key of a block's commit record: a listing alone tells what is committed."""
    return f"{COMMITS}/{index:08d}.{start}-{stop}.block"


def parse_record_key(key: str) -> tuple[int, int, int] | None:
    """Return (index, start, stop) of a commit record's key, or None for any other key."""
    found = _RECORD.fullmatch(key)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def probe_key(token: str) -> str:
    """Return the key of a file by which a cluster's workers check that they use the same cache."""
    return f"{PRIVATE}/probe-{token}"


def is_probe_key(key: str) -> bool:
    """Whether a key is one of `probe_key`, or a worker's answer to it."""
    return _PROBE.fullmatch(key) is not None


def temporary_key(host: str, pid: int, n: int) -> str:
    """Return the key of the n-th file that a process writes."""
    return f"{TEMPORARY}/{host}.{pid}.{n}"


def parse_temporary_key(key: str) -> tuple[str, int] | None:
    """Return (host, process id) of the writer of a temporary file, or None for any other key."""
    folder, _, name = key.rpartition("/")
    host, *numbers = name.rsplit(".", 2)
    if folder != TEMPORARY or len(numbers) < 2 or not all(n.isdecimal() and n.isascii() for n in numbers):
        return None
    return host, int(numbers[0])


def dimension_names(key: str, n_axes: int, channel_axis: int | None) -> list[str]:
    """Return one name per axis: ``sample`` is shared, the others are the array's own.

    xarray opens a group in one call only if equal names mean equal lengths.
    """
    names = ["sample", *(f"{key}.{axis}" for axis in range(1, n_axes))]
    if channel_axis is not None:
        names[channel_axis] = f"{key}.channel"
    return names
