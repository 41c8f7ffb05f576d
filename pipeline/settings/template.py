"""Texts on settings, and the commented job file that ``actisketch init`` writes: both from the settings' docstrings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from .job_settings import JobSettings

__all__ = ["job_template", "setting_text"]

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


def job_template() -> str:
    """Return a job file in which every setting is explained."""
    lines = [_HEAD, *_explained(JobSettings, "output", "output")]
    for name in JobSettings.model_fields:
        if name != "output":
            table = _table(JobSettings, name)
            lines += ["", f"[{name}]"]
            lines += [line for key in table.model_fields for line in _explained(table, key, f"{name}.{key}")]
    return "\n".join(lines) + "\n"


def _table(model: type[BaseModel], name: str) -> type[BaseModel]:
    table = model.model_fields[name].annotation
    assert isinstance(table, type)
    assert issubclass(table, BaseModel)
    return table


def _first_line(model: type[BaseModel], name: str) -> str:
    return (model.model_fields[name].description or "").partition("\n")[0]


def _explained(model: type[BaseModel], name: str, key: str) -> Iterator[str]:
    """Yield the lines on a setting: its value, and what it is."""
    field = model.model_fields[name]
    value = field.examples[0] if field.examples else field.get_default(call_default_factory=True)
    setting = f"{'' if key in _NEEDED else '#'}{name} = {_toml(value)}"
    text = _first_line(model, name)
    if len(line := f"{setting:<31} # {text}") <= _WIDTH:
        yield line
    else:
        yield from (f"# {text}", setting)


def _toml(value: Any) -> str:
    """Return a value as TOML, which writes texts, numbers and truth as JSON does."""
    if isinstance(value, Mapping):
        pairs = (f"{key if key.isidentifier() else json.dumps(key)} = {_toml(v)}" for key, v in value.items())
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)
