"""Texts on settings, the commented job file that ``actisketch init`` writes from them, and job files of settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from .job_settings import JobSettings

__all__ = ["job_template", "job_text", "setting_text"]

_HEAD = """\
# A job of actisketch. Run it with: actisketch run job.toml
# See first how much disk and memory it takes: actisketch plan job.toml
# Relative paths start at the folder of this file. A line with a single # shows the default of a setting, or an example.
"""
# Without these there is no job.
_NEEDED = {"output", "model.path", "data.path"}
_WIDTH = 120


def setting_text(key: str) -> str:
    """Return the first line on a setting, by its dotted key."""
    *tables, last = key.split(".")
    model: type[BaseModel] = JobSettings
    for table in tables:
        model = _table(model, table)
    return _first_line(model, last)


def job_template(given: Mapping[str, Any] | None = None) -> str:
    """Return a job file in which every setting is explained; those in ``given``, by dotted key, are set."""
    given = given or {}
    lines = [_HEAD, *_explained(JobSettings, "output", "output", given)]
    for name in JobSettings.model_fields:
        if name != "output":
            table = _table(JobSettings, name)
            lines += ["", f"[{name}]"]
            lines += [
                line for key in table.model_fields for line in _explained(table, key, f"{name}.{key}", given)
            ]
    return "\n".join(lines) + "\n"


def job_text(tree: Mapping[str, Any]) -> str:
    """Return settings, as JSON values by table, as a job file; those that are None are left out."""
    given = {name: value for name, value in tree.items() if value is not None}
    lines = [f"{name} = {_toml(value)}" for name, value in given.items() if not isinstance(value, Mapping)]
    for name, table in given.items():
        if isinstance(table, Mapping):
            lines += ["", f"[{name}]"]
            lines += [f"{key} = {_toml(value)}" for key, value in table.items() if value is not None]
    return "\n".join(lines) + "\n"


def _table(model: type[BaseModel], name: str) -> type[BaseModel]:
    table = model.model_fields[name].annotation
    assert isinstance(table, type)
    assert issubclass(table, BaseModel)
    return table


def _first_line(model: type[BaseModel], name: str) -> str:
    return (model.model_fields[name].description or "").partition("\n")[0]


def _explained(model: type[BaseModel], name: str, key: str, given: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines on a setting: its value, and what it is."""
    field = model.model_fields[name]
    value = field.examples[0] if field.examples else field.get_default(call_default_factory=True)
    value = given.get(key, value)
    setting = f"{'' if key in _NEEDED | given.keys() else '#'}{name} = {_toml(value)}"
    text = _first_line(model, name)
    if len(line := f"{setting:<31} # {text}") <= _WIDTH:
        yield line
    else:
        yield from (f"# {text}", setting)


def _toml(value: Any) -> str:
    """Return a value as TOML, which writes texts, whole numbers and truth as JSON does."""
    if isinstance(value, Mapping):
        pairs = (f"{_key(key)} = {_toml(v)}" for key, v in value.items() if v is not None)
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        # TOML has no escape sequences of half a character, and wants one for DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    return repr(value) if isinstance(value, float) else json.dumps(value)


def _key(key: str) -> str:
    return key if key.isascii() and key.isidentifier() else _toml(key)
