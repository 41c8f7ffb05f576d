"""Say in one sentence why a setting was refused.

Knows the words of the validator. Does not know where the settings come from.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from ...storage.options import hide_credentials
from .job import JobSettings, OverrideSettings

__all__ = ["refusal"]

_SHOWN = 200
_TYPES = {
    "a valid integer": "a whole number",
    "a valid string": "text",
    "a valid boolean": "true or false",
    "a valid number": "a number",
    "a valid list": "a list",
    "a valid dictionary or instance of": "a table:",
    "field required": "a value is missing",
}


def refusal(error: ValidationError, origin: str) -> str:
    """Return one sentence on the first setting that was refused: its key, its value and what is allowed."""
    first = error.errors()[0]
    # Alternatives of a union are reported one by one; the path's last names of types are not keys.
    keys = [str(part) for part in first["loc"] if not _is_alternative(part)]
    key = ".".join(keys) or "the job"
    if first["type"] == "extra_forbidden":
        known = _known_keys(keys[:-1])
        near = difflib.get_close_matches(keys[-1], known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{origin}: unknown key {key!r}; {hint}allowed here: {', '.join(known)}"
    message = first["msg"].removeprefix("Value error, ")
    for word, plain in _TYPES.items():
        message = message.replace(word, plain).replace(word.capitalize(), plain)
    if len(error.errors()) > 1 and all(
        e["loc"][: len(keys)] == first["loc"][: len(keys)] for e in error.errors()
    ):
        options = {e["msg"].removeprefix("Input should be ").replace("valid ", "") for e in error.errors()}
        message = "allowed: " + " or ".join(sorted(options))
    # What is wrong may be a secret, in the wrong place or of the wrong type.
    is_hidden = isinstance(first["input"], Mapping) or "storage_options" in keys
    found = "" if is_hidden else f" = {_short(hide_credentials(repr(first['input'])))}"
    return f"{origin}: {key}{found} is refused: {message[0].lower()}{message[1:]}"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _is_alternative(part: object) -> bool:
    return isinstance(part, str) and bool(
        re.search(r"\[|^(str|int|float|bool|dict|list|tuple|function.*|constrained.*)$", part)
    )


def _known_keys(tables: list[str]) -> list[str]:
    model: Any = JobSettings
    for table in tables:
        field = model.model_fields.get(table)
        is_table = field is not None and isinstance(field.annotation, type)
        # The only settings whose names are free are factors.overrides.
        model = field.annotation if is_table and issubclass(field.annotation, BaseModel) else OverrideSettings
    return sorted(model.model_fields)
