"""Say in what two caches differ.

Knows specs. Does not know where they are stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .spec import CacheSpec

__all__ = ["called", "differences"]


def differences(stored: CacheSpec, asked: CacheSpec) -> list[str]:
    """Return one line for each setting that differs and must not: ``setting: the cache has x, this run has y``.

    Points that one of them lacks share a line. A setting is called as ``asked.names`` says.
    """
    left, right = stored._fixed(), asked._fixed()
    names, asked_names = set(left["points"]), set(right["points"])
    lines = []
    if names != asked_names:
        here, there = (_listed(side) for side in (names - asked_names, asked_names - names))
        lines.append(f"points: only the cache has {here}, only this run has {there}")
        for side in (left, right):
            # Where one is missing, all behind it have another position.
            side["points"] = {
                name: {key: value for key, value in point.items() if key != "position"}
                for name, point in side["points"].items()
                if name in names & asked_names
            }
    left, right = _leaves(left), _leaves(right)
    for path in sorted(left.keys() | right.keys()):
        if left.get(path, _Absent) != right.get(path, _Absent):
            here, there = (_shown(side.get(path, _Absent)) for side in (left, right))
            lines.append(f"{called(asked, path)}: the cache has {here}, this run has {there}")
    return lines


_N_LISTED = 5


def called(asked: CacheSpec, path: str) -> str:
    """Return what messages call a part of a spec."""
    return asked.names.get(path, path.removeprefix("identity.").removeprefix("settings."))


def _listed(names: set[str]) -> str:
    more = ", ..." if len(names) > _N_LISTED else ""
    return ", ".join(map(repr, sorted(names)[:_N_LISTED])) + more or "nothing"


class _Absent:
    """Stands for a leaf that one side lacks."""


def _shown(value: object) -> str:
    if value is _Absent:
        return "nothing"
    text = repr(value)
    return text if len(text) <= 72 else f"{text[:69]}..."


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        return {
            k: v for key, part in value.items() for k, v in _leaves(part, f"{path}.{key}".lstrip(".")).items()
        }
    if isinstance(value, list | tuple) and any(isinstance(part, Mapping) for part in value):
        return _leaves({str(index): part for index, part in enumerate(value)}, path)
    return {path: value}
