"""Keep keys as objects of a bucket, or of memory, through obstore.

Knows obstore. A PUT is atomic and durable there, so there is nothing to sync.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, UnknownConfigurationKeyError
from obstore.store import MemoryStore, from_url

from .connection import MISSING, Connection, first_line
from .credentials import check_credentials
from .errors import InputError
from .leases import Lease
from .options import StorageOptions

__all__ = ["Bucket", "open_bucket"]

_RETRY = {
    "max_retries": 6,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {"base": 2, "init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5)},
}

# Settings of the HTTP client. obstore takes them in their own table; elsewhere it panics.
_OF_CLIENT = re.compile(
    r"(aws_|google_|azure_storage_|azure_)?(allow_http|allow_invalid_certificates|connect_timeout|default_content_type"
    r"|http[12]_\w+|pool_\w+|proxy_\w+|randomize_addresses|read_timeout|timeout|user_agent)"
)

_memories: dict[str, Any] = {}
_memories_guard = threading.Lock()


def open_bucket(url: str, options: Mapping[str, Any]) -> Bucket:
    """Return the store at a URL of an object store."""
    options = StorageOptions(options)
    if urlsplit(url).scheme == "memory":
        if options:
            raise InputError(f"storage_options {sorted(options)} were given for {url!r}: leave them out")
        with _memories_guard:
            return Bucket(url, _memories.setdefault(url.rstrip("/"), MemoryStore()), {})
    misplaced = sorted(name for name in options if _OF_CLIENT.fullmatch(name.lower()))
    if misplaced:
        raise InputError(
            f"storage_options {misplaced} are settings of the HTTP client: give them in the table client_options, as "
            "storage_options = { client_options = { allow_http = true } }"
        )
    try:
        store = from_url(url, **{"retry_config": _RETRY, **options})
    except (UnknownConfigurationKeyError, TypeError, ValueError) as error:
        raise InputError(
            f"storage_options {sorted(options)} do not fit {url!r}: {options.scrub(first_line(error))}"
        ) from None
    except BaseError as error:
        raise InputError(
            f"{url!r} is not a place that this program can open ({options.scrub(first_line(error))}): give a "
            "folder, file://, memory:// or the URL of an object store (s3://, gs://, az://)"
        ) from None
    check_credentials(url, store, options)
    return Bucket(url, store, options)


class Bucket(Connection):
    """Objects under one URL."""

    is_remote = True

    def __reduce__(self) -> tuple[Any, ...]:
        return open_bucket, (self.url, self._options)

    def read(self, key: str) -> bytes | None:
        """Return all bytes of a key, or None if there is no such key."""
        try:
            return self.attempt("read", key, lambda: bytes(obstore.get(self.obstore, key).bytes()))
        except MISSING:
            return None

    def read_into(self, key: str, memory: memoryview) -> bytes | memoryview | None:
        """Return what `read` does, in memory of its own."""
        return self.read(key)

    def read_start(self, key: str, nbytes: int) -> tuple[bytes, int] | None:
        """Return the first bytes of a key and its whole length, or None if there is no such key."""

        def start() -> tuple[bytes, int]:
            found = obstore.get(self.obstore, key, options={"range": (0, nbytes)})
            return bytes(found.bytes()), found.meta["size"]

        try:
            return self.attempt("read", key, start)
        except MISSING:
            return None

    def write(self, key: str, parts: Sequence[Any]) -> None:
        """Put the parts under a key with one request."""
        body = b"".join(
            bytes(part) if isinstance(part, bytes) else memoryview(part).cast("B") for part in parts
        )
        self.attempt(
            "write", key, lambda: obstore.put(self.obstore, key, body, use_multipart=False), len(body)
        )

    def write_durably(self, key: str, parts: Sequence[Any]) -> None:
        """Put the parts under a key with one request, which is durable when it is answered."""
        self.write(key, parts)

    def sync(self, keys: Sequence[str]) -> None:
        """Return at once: an acknowledged PUT is durable."""

    def delete(self, key: str) -> None:
        """Remove a key; a missing one is no error."""
        try:
            self.attempt("delete", key, lambda: obstore.delete(self.obstore, key))
        except MISSING:
            return

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield (key, length) of every object under a folder."""
        listed = self.attempt(
            "list",
            prefix,
            lambda: [
                (str(m["path"]), int(m["size"]))
                for page in obstore.list(self.obstore, prefix or None)
                for m in page
            ],
        )
        yield from listed

    def linked_folders(self) -> Sequence[str]:
        """Return none: a bucket has no links."""
        return ()

    def lock(self, key: str) -> Lease:
        """Take the lock object."""
        return Lease.acquire(self, key)

    def clean(self) -> None:
        """Do nothing: an object is whole or absent."""
