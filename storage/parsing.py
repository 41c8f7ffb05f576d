"""Parse JSON that anybody may have written: its size and depth are bounded."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["DEEPEST", "LARGEST_NBYTES", "parse_json"]

LARGEST_NBYTES = 64 * 2**20
"""Parsed in about two seconds; a manifest of 2,000,000 channels is as large."""
DEEPEST = 60
"""Our own documents nest 8 deep, what users keep beside them a little more."""


def parse_json(text: bytes | str) -> Any:
    """Return what a JSON text holds.

    Raises
    ------
    ValueError
        If it is too large, too deep or not JSON.
    """
    if len(text) > LARGEST_NBYTES:
        raise ValueError(f"it has {len(text):,} bytes, at most {LARGEST_NBYTES:,} are read")
    try:
        tree = json.loads(text)
    except RecursionError:
        raise ValueError(_too_deep()) from None
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    _check_depth(tree)
    return tree


def _check_depth(tree: Any) -> None:
    level = [tree]
    for _ in range(DEEPEST):
        level = [
            part
            for each in level
            if isinstance(each, dict | list)
            for part in (each.values() if isinstance(each, dict) else each)
            if isinstance(part, dict | list)
        ]
        if not level:
            return
    raise ValueError(_too_deep())


def _too_deep() -> str:
    return f"it is nested more than {DEEPEST} deep"
