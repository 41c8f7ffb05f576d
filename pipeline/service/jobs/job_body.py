"""Read the settings in the body of a request: JSON or TOML, of bounded depth.

Knows HTTP. Does not know what the settings mean. Size was bounded before.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ....storage.errors import InputError
from ....storage.parsing import DEEPEST, parse_json
from ..workers import Gone

__all__ = ["InThread", "read_tree"]

InThread = Callable[[Callable[[], dict[str, Any]]], Awaitable[dict[str, Any]]]
"""Has something done in a thread, under the time limit of requests."""

KINDS = ("application/json", "application/toml")
# Comments, strings of several lines, strings (also without their end, where TOML stops too), points, and what ends a
# key. Each alternative takes all it can, so that a text is passed through once.
_PARTS = re.compile(
    r"#[^\n]*+"
    r'|"""(?:[^\\"]|\\.|"(?!""))*+(?:"{3,5})?+'
    r"|'''(?:[^']|'(?!''))*+(?:'{3,5})?+"
    r'|"(?:[^"\\\n]|\\.)*+"?+'
    r"|'[^'\n]*+'?+"
    r"|\."
    r"|[,=\n\[\]{}]",
    re.DOTALL,
)


async def read_tree(
    request: Request, in_thread: InThread, *, kinds: tuple[str, ...] = KINDS
) -> dict[str, Any]:
    """Return the tables in the body of a request.

    Raises
    ------
    InputError
        If it is not what its content type says.
    HTTPException
        415: of another type.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in kinds:
        raise HTTPException(415, f"send a body of type {' or '.join(kinds)}, found {kind[:100] or 'none'!r}")
    try:
        body = await request.body()
    except ClientDisconnect:
        raise Gone from None
    return await in_thread(lambda: _parsed(body, kind))


def _parsed(body: bytes, kind: str) -> dict[str, Any]:
    try:
        text = body.decode()
        if kind == "application/toml":
            _check_keys(text)
            # Its depth is checked as that of JSON, and a date becomes a text, which no setting is.
            text = json.dumps(tomllib.loads(text), default=str)
        tree = parse_json(text, object_of=_keys_once)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"the body is not {kind.partition('/')[2].upper()}: {str(error)[:300]}") from None
    if not isinstance(tree, dict):
        raise InputError('the body is not a table of settings, as {"output": ..., "model": {"path": ...}}')
    return tree


def _check_keys(text: str) -> None:
    """Refuse keys of many parts, as a.b.c: tomllib takes time and memory by the square of their number."""
    n_points = 0
    for part in _PARTS.finditer(text):
        if part[0] == ".":
            n_points += 1
            if n_points > DEEPEST:
                raise ValueError(f"a key has more than {DEEPEST} parts")
        elif part[0] in ",=\n[]{}":
            n_points = 0


def _keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in pairs:
        if name in tree:
            raise InputError(f"the body has the key {name[:100]!r} twice in one table: give it once")
        tree[name] = value
    return tree
