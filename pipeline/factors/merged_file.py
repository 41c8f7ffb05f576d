"""Keep the merged sketches of a finished run, so that asking it does not merge its blocks again.

Nothing here is a source of truth: the file is made from the commit records, names what it was made from, and is
left aside when that differs.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import zipfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ...storage import Block, Cache
from ...storage.errors import FormatError
from ...storage.files import open_to_read
from ...storage.keys import record_key
from ...storage.parsing import parse_json
from ...storage.record import PREFIX_NBYTES, RecordPrefix
from ..folder.folder import content_key, replacing
from ..sketch import PointSketch

__all__ = ["load_merged", "merged_key", "save_merged"]

logger = logging.getLogger(__name__)


# A record's prefix and header for about a hundred points: one read in most cases.
HEAD_NBYTES = 16 * 2**10
# Requests to an object store that are under way at once: 10,000 records take seconds and not minutes.
REMOTE_READERS = 32


def merged_key(cache: Cache) -> str:
    """Return what the merged sketches of a complete cache follow from: its identity, and what was committed.

    Of each record the header is read, which holds the checksums of the block's sketches and chunks: a block that was
    computed again from other samples gives another key. Nothing of the records is held.
    """
    hasher = hashlib.blake2b(digest_size=16)
    if cache.store.is_remote:
        with ThreadPoolExecutor(REMOTE_READERS, thread_name_prefix="actisketch-head") as pool:
            for head in pool.map(lambda block: _record_head(cache, block), cache.blocks):
                hasher.update(head)
    else:
        for block in cache.blocks:
            hasher.update(_record_head(cache, block))
    return content_key(cache.spec.digest, cache.spec.n_samples, hasher.hexdigest(), "merged sketches 2")


def _record_head(cache: Cache, block: Block) -> bytes:
    """Return the prefix and the header of a record; nothing where there is none that can be read."""
    key = record_key(block.index, block.start, block.stop)
    head, _ = cache.store.read_start(key, HEAD_NBYTES) or (b"", 0)
    try:
        nbytes = PREFIX_NBYTES + RecordPrefix.decode(head).header_nbytes
    except FormatError:
        return b""
    if nbytes > len(head):
        head, _ = cache.store.read_start(key, nbytes) or (b"", 0)
    return head[:nbytes]


def save_merged(path: Path, key: str, sketches: Mapping[str, PointSketch]) -> None:
    """Write the sketches as plain ``.npz`` (bytes, no pickle), whole or not at all."""
    index = json.dumps({"key": key, "points": list(sketches)}).encode()
    arrays: dict[str, Any] = {
        str(i): np.frombuffer(s.to_bytes(), np.uint8) for i, s in enumerate(sketches.values())
    }
    with replacing(path) as partial:
        np.savez(partial, index=np.frombuffer(index, np.uint8), **arrays)


def load_merged(path: Path, key: str, points: Iterable[str]) -> dict[str, PointSketch] | None:
    """Return the sketches of these points; None if there are none, of something else, or damaged."""
    try:
        with open(path, "rb", opener=open_to_read) as file, zipfile.ZipFile(file) as archive:
            index = parse_json(_member(archive, "index"))
            if index["key"] != key:
                return None
            places = {name: str(i) for i, name in enumerate(index["points"])}
            return {name: PointSketch.from_bytes(_member(archive, places[name])) for name in points}
    except FileNotFoundError:
        return None
    # What a damaged zip raises has no end (EOFError, RuntimeError, zlib.error ...), and the records have it all.
    except Exception as error:
        logger.warning("%s is left aside, the blocks are merged again: %s", path, error)
        return None


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return the bytes of an array; read whole, as zipfile compares the checksum then and np.load does not."""
    if archive.getinfo(f"{name}.npy").compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name!r} is compressed, and may be of any size")
    array: Any = np.load(io.BytesIO(archive.read(f"{name}.npy")), allow_pickle=False)
    return bytes(array)
