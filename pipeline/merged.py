"""Keep the merged sketches of a finished run, so that asking it does not merge its blocks again.

Nothing here is a source of truth: the file is made from the commit records, names what it was made from, and is
left aside when that differs.
"""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..storage import Cache
from ..storage.errors import ActisketchError
from .folder import content_key, replacing
from .sketch import PointSketch

__all__ = ["load_merged", "merged_key", "save_merged"]

logger = logging.getLogger(__name__)


def merged_key(cache: Cache) -> str:
    """Return what the merged sketches of a complete cache follow from: its identity and its samples."""
    return content_key(cache.spec.digest, cache.spec.n_samples, "merged sketches 1")


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
        with np.load(path, allow_pickle=False) as archive:
            index = json.loads(archive["index"].tobytes())
            if index["key"] != key:
                return None
            places = {name: str(i) for i, name in enumerate(index["points"])}
            return {name: PointSketch.from_bytes(archive[places[name]].tobytes()) for name in points}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, ActisketchError) as error:
        logger.warning("%s is left aside, the blocks are merged again: %s", path, error)
        return None
