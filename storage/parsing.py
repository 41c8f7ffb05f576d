"""Parse JSON that anybody may have written: its size and depth are bounded."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .errors import InputError

__all__ = ["DEEPEST", "LARGEST_NBYTES", "parse_json"]

LARGEST_NBYTES = 64 * 2**20
"""Parsed in about two seconds; a manifest of 2,000,000 channels is as large."""
DEEPEST = 60
"""Our own documents nest 8 deep, what users keep beside them a little more."""


def parse_json(
    text: bytes | str, *, object_of: Callable[[list[tuple[str, Any]]], dict[str, Any]] | None = None
) -> Any:
    """Return what a JSON text holds.

    Parameters
    ----------
    text : bytes or str
    object_of : callable, optional
        Given the keys and values of an object in order, returns it; without, the last of equal keys counts.

    Raises
    ------
    ValueError
        If it is too large, too deep or not JSON.
    """
    if len(text) > LARGEST_NBYTES:
        raise ValueError(f"it has {len(text):,} bytes, at most {LARGEST_NBYTES:,} are read")
    try:
        tree = json.loads(text, object_pairs_hook=object_of)
    except RecursionError:
        raise ValueError(_too_deep()) from None
    except InputError:  # of object_of
        raise
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
