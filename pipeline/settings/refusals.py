"""Say in one sentence why a setting was refused.

Knows the words of the validator. Does not know where the settings come from.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ...storage.options import hide_credentials
from .job_settings import JobSettings, OverrideSettings

__all__ = ["refusal"]

_SHOWN = 200
_SHOULD_BE = "Input should be "
# What a setting should be, by the validator's type of error.
_WANTED = {
    "int_type": "a whole number",
    "string_type": "text",
    "bool_type": "true or false",
    "float_type": "a number",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "missing": "given, too: a value is missing",
    "too_long": "at most {max_length} long, not {actual_length}",
    "string_too_short": "a text that is not empty",
    "invalid_key": "called by a text",
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
    # All of them, if they are the alternatives of one setting.
    errors = [each for each in error.errors() if each["loc"][: len(keys)] == first["loc"][: len(keys)]]
    errors = errors if len(errors) == len(error.errors()) else [first]
    message = " or ".join(sorted({_wanted(each) for each in errors}))
    if first["type"] in _WANTED or first["msg"].startswith(_SHOULD_BE):
        message = f"it should be {message}"
    # What is wrong may be a secret, in the wrong place or of the wrong type.
    is_hidden = isinstance(first["input"], Mapping) or "storage_options" in keys
    found = "" if is_hidden else f" = {_short(hide_credentials(repr(first['input'])))}"
    return f"{origin}: {key}{found} is refused: {message}"


def _wanted(error: ErrorDetails) -> str:
    """Return what a setting should be, or what the settings' own check says."""
    said = error["msg"].removeprefix("Value error, ").removeprefix(_SHOULD_BE)
    wanted = _WANTED.get(error["type"])
    return said if wanted is None else wanted.format(**error.get("ctx", {}))


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
