"""The JSON files of a run. Each contains a hash of its own content, which is checked when it is read.

Without it, a file with a changed digit would still be valid JSON, and be taken for a result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...storage.files import open_to_read
from ...storage.parsing import LARGEST_NBYTES, parse_json

__all__ = ["CONTENT_HASH", "content_key", "read_document", "sealed"]

CONTENT_HASH = "content_hash"


def content_key(*parts: Any) -> str:
    """Return a hash of JSON values: equal values have equal hashes."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def sealed(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with the hash of its content added.

    Raises
    ------
    ValueError
        If it contains NaN or an infinity.
    """
    body = {name: value for name, value in tree.items() if name != CONTENT_HASH}
    # Hash it as it will be read: with lists for tuples, and text for keys.
    return {**body, CONTENT_HASH: content_key(json.loads(json.dumps(body, allow_nan=False)))}


def read_document(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file without its hash. A file of version 0.1 has none and is not checked.

    Raises
    ------
    OSError
        If the file does not exist or cannot be read.
    ValueError
        If it is damaged, or was changed since it was written; the message says how, in a few words.
    """
    with open(path, "rb", opener=open_to_read) as file:
        tree = parse_json(file.read(LARGEST_NBYTES + 1))
    if not isinstance(tree, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004  # the file is wrong, not an argument
    noted = tree.pop(CONTENT_HASH, None)
    if noted is not None and noted != content_key(tree):
        raise ValueError(f"its content is not what was written (its {CONTENT_HASH!r} differs)")
    return tree
