"""Check that the workers and the coordinator use the same place for the cache.

The coordinator writes a token that nobody else knows. A worker that can read it, and write beside it, is at the same
place. A path that exists on both hosts is no proof: each may have a folder of that name.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .cache import Cache
from .errors import ActisketchError, InputError
from .keys import probe_key
from .options import StorageOptions
from .stores import open_store

__all__ = ["Token", "check_token", "token_in"]

# A file that was written on another host a moment ago may not be seen at once on NFS.
ATTEMPTS, PAUSE_S = 5, 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A secret at a place."""

    url: str
    storage_options: Mapping[str, Any]
    key: str
    content: bytes


@contextmanager
def token_in(cache: Cache, storage_options: Mapping[str, Any]) -> Iterator[Token]:
    """Yield a token that stays in the cache's store until the run ends, because workers may join late."""
    token = Token(
        url=cache.url,
        storage_options=StorageOptions(storage_options),
        key=probe_key(secrets.token_hex(8)),
        content=secrets.token_bytes(16),
    )
    cache.store.write(token.key, [token.content])
    try:
        yield token
    finally:
        cache.store.delete(token.key)


def check_token(token: Token, *, host: str) -> None:
    """Check, in a worker, that the place is the coordinator's and may be written to.

    Raises
    ------
    InputError
        With the place and the host.
    """
    advice = "name a folder on a file system that all hosts share, or an object store (s3://...)"
    try:
        store = open_store(token.url, token.storage_options)
        is_same = any(store.read(token.key) == token.content for _ in _attempts())
        if is_same:
            mine = f"{token.key}-{secrets.token_hex(8)}"
            store.write(mine, [token.content])
            store.delete(mine)
    except (ActisketchError, OSError) as error:
        raise InputError(
            f"the cache {token.url!r} cannot be used from the worker's host {host!r}: {error}; {advice}",
            host=host,
        ) from None
    if not is_same:
        raise InputError(
            f"the cache {token.url!r} is not at the same place on the worker's host {host!r}: {advice}",
            host=host,
        )


def _attempts() -> Iterator[int]:
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE_S)
        yield attempt
