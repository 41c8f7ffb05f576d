"""The JSON documents of a run: each carries a hash of its own content, which is compared when it is read.

A digit that was exchanged is JSON as before, and would be taken for a result.
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
    """Return a short name for JSON values: equal values, equal name."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def sealed(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with the hash of its content.

    Raises
    ------
    ValueError
        If it holds NaN or an infinity.
    """
    body = {name: value for name, value in tree.items() if name != CONTENT_HASH}
    # As it will be read: tuples are lists then, and keys are text.
    return {**body, CONTENT_HASH: content_key(json.loads(json.dumps(body, allow_nan=False)))}


def read_document(path: Path) -> dict[str, Any]:
    """Return a document, without its hash. One of an earlier program has none, and is taken as it is.

    Raises
    ------
    OSError
        If it is not there or cannot be read.
    ValueError
        If it is damaged, or was changed since it was written: what is wrong, in a few words.
    """
    with open(path, "rb", opener=open_to_read) as file:
        tree = parse_json(file.read(LARGEST_NBYTES + 1))
    if not isinstance(tree, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004  # of the file, not of an argument
    noted = tree.pop(CONTENT_HASH, None)
    if noted is not None and noted != content_key(tree):
        raise ValueError(f"its content is not what was written (its {CONTENT_HASH!r} is another)")
    return tree
