"""Keep the merged sketches of a finished run, so that questions do not merge its blocks again.

The commit records are the source of truth: the file holds the key of the records that it was made from and is ignored
when the key differs.
"""

from __future__ import annotations

import io
import json
import logging
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...storage import Cache
from ...storage.files import open_to_read
from ...storage.parsing import parse_json
from ..folder.folder import content_key, replacing
from ..sketch import PointSketch
from .packed_sketches import PackedSketches

__all__ = ["load_merged", "merged_key", "save_merged"]

logger = logging.getLogger(__name__)


def merged_key(cache: Cache) -> str:
    """Return the key of the merged sketches of a complete cache: a hash of its settings and of what was committed.

    A block that was computed again from other samples gives another key.
    """
    return content_key(cache.spec.content_hash, cache.spec.n_samples, cache.commit_key(), "merged sketches 2")


def save_merged(path: Path, key: str, packed: Mapping[str, bytes]) -> None:
    """Write packed sketches as plain ``.npz`` (bytes, no pickle), whole or not at all."""
    index = json.dumps({"key": key, "points": list(packed)}).encode()
    arrays: dict[str, Any] = {str(i): np.frombuffer(each, np.uint8) for i, each in enumerate(packed.values())}
    with replacing(path) as partial:
        np.savez(partial, index=np.frombuffer(index, np.uint8), **arrays)


def load_merged(path: Path, key: str, points: Iterable[str]) -> PackedSketches | None:
    """Return the sketches of these points; None if there are none, of something else, or damaged."""
    try:
        with open(path, "rb", opener=open_to_read) as file, zipfile.ZipFile(file) as archive:
            index = parse_json(_member(archive, "index"))
            if index["key"] != key:
                return None
            places = {name: str(i) for i, name in enumerate(index["points"])}
            packed = {name: _member(archive, places[name]) for name in points}
        for each in packed.values():
            PointSketch.from_bytes(each)  # refuses what is damaged, or newer
    except FileNotFoundError:
        return None
    # A damaged zip raises many kinds of errors (EOFError, zlib.error ...), and the records hold everything.
    except Exception as error:
        logger.warning("%s is ignored, the blocks are merged again: %s", path, error)
        return None
    return PackedSketches(packed)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return the bytes of an array; read whole, as zipfile compares the checksum then and np.load does not."""
    if archive.getinfo(f"{name}.npy").compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name!r} is compressed, and may be of any size")
    array: Any = np.load(io.BytesIO(archive.read(f"{name}.npy")), allow_pickle=False)
    return bytes(array)
