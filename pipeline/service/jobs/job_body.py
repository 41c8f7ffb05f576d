"""Read the settings in the body of a request: JSON or TOML, of bounded depth.

Knows HTTP. Does not know what the settings mean. Size and time were bounded before.
"""

from __future__ import annotations

import json
import tomllib
from typing import Any

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ....storage.errors import InputError
from ....storage.parsing import parse_json
from ..workers import Gone

__all__ = ["read_tree"]

KINDS = ("application/json", "application/toml")


async def read_tree(request: Request, *, kinds: tuple[str, ...] = KINDS) -> dict[str, Any]:
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
    try:
        tree = tomllib.loads(body.decode()) if kind == "application/toml" else None
        # TOML as well: its depth is checked, and a date becomes a text, which no setting is.
        tree = parse_json(body.decode() if tree is None else json.dumps(tree, default=str))
    except (ValueError, RecursionError) as error:
        raise InputError(f"the body is not {kind.partition('/')[2].upper()}: {str(error)[:300]}") from None
    if not isinstance(tree, dict):
        raise InputError('the body is not a table of settings, as {"output": ..., "model": {"path": ...}}')
    return tree
