"""Check the type and the size of values of parsed JSON."""

from __future__ import annotations

from typing import Any

from .errors import FormatError

__all__ = ["flag", "items", "table", "text", "whole"]

_SHOWN = 60
LONGEST_TEXT = 4096


def whole(value: Any, what: str, *, least: int = 0, most: int = 2**63 - 1) -> int:
    """Return a whole number within bounds."""
    if type(value) is not int or not least <= value <= most:
        raise FormatError(f"{what} is {_shown(value)}, not a whole number from {least} to {most}")
    return value


def text(value: Any, what: str) -> str:
    """Return text that is no longer than names may be, and can be written in UTF-8."""
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        raise FormatError(f"{what} is {_shown(value)}, not text of at most {LONGEST_TEXT} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise FormatError(f"{what} is {_shown(value)}, which is not Unicode text") from None
    return value


def flag(value: Any, what: str) -> bool:
    """Return true or false."""
    if not isinstance(value, bool):
        raise FormatError(f"{what} is {_shown(value)}, not true or false")
    return value


def table(value: Any, what: str) -> dict[str, Any]:
    """Return an object of JSON."""
    if not isinstance(value, dict):
        raise FormatError(f"{what} is {_shown(value)}, not a table")
    return value


def items(value: Any, what: str, *, most: int) -> list[Any]:
    """Return a list of at most `most` items."""
    if not isinstance(value, list) or len(value) > most:
        raise FormatError(f"{what} is {_shown(value)}, not a list of at most {most} items")
    return value


def _shown(value: Any) -> str:
    # Not the whole value: it may be huge.
    if isinstance(value, list | dict):
        return f"a {type(value).__name__} of {len(value)} items"
    if isinstance(value, str):
        value = value[:_SHOWN]
    shown = repr(value) if not isinstance(value, int) or abs(value) < 2**200 else "a huge number"
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 3]}..."
