"""Let one process at a time write to a bucket: a lock object kept alive by heartbeats.

Every change is a conditional PUT, so only one of two processes gets the lock. A holder is alive while its object
changes: clocks of two hosts are never compared to take a lock over.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import threading
import time
from dataclasses import dataclass
from typing import Any

import obstore
from obstore.exceptions import NotSupportedError

from .connection import MISSING, TAKEN, Connection
from .errors import StorageError
from .locks import Holder, busy
from .parsing import parse_json

__all__ = ["BEAT_S", "LEASE_S", "Lease"]

logger = logging.getLogger(__name__)

LEASE_S = 60.0
"""A lock whose object has not changed for this long may be taken over."""
BEAT_S = 15.0
"""Four beats in a lease: three may be lost to a slow store or a busy processor."""

_RELEASED = b'{"released": true}'


@dataclass(frozen=True, slots=True)
class _Seen:
    """The lock object as it was read."""

    body: bytes
    version: dict[str, str]

    @property
    def holder(self) -> Holder | None:
        return Holder.parse(self.body)

    @property
    def beat_s(self) -> float:
        """When its holder last wrote it, by the holder's clock."""
        with contextlib.suppress(ValueError, TypeError, AttributeError):
            return float(parse_json(self.body).get("beat_s", 0.0))
        return 0.0


class Lease:
    """A lock object in a bucket, held and kept alive by this process."""

    def __init__(self, connection: Connection, key: str, *, lease_s: float, beat_s: float) -> None:
        self._connection = connection
        self._key = key
        self._lease_s = lease_s
        self._beat_s = beat_s
        self._me = Holder.me()
        self._token = secrets.token_hex(8)
        self._version: dict[str, str] = {}
        self._lost = False
        self._renewed_s = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="actisketch-lease", daemon=True)

    @classmethod
    def acquire(
        cls, connection: Connection, key: str, *, lease_s: float = LEASE_S, beat_s: float = BEAT_S
    ) -> Lease:
        """Take the lock, also from a holder that has fallen silent; BusyError if one is alive.

        May wait for `lease_s` seconds to see whether a holder on another host is alive.
        """
        lease = cls(connection, key, lease_s=lease_s, beat_s=beat_s)
        while not lease._take():
            pass
        lease._check_enforced()
        lease._thread.start()
        return lease

    def _take(self) -> bool:
        """Try once; True if the lock is ours, False to try again."""
        try:
            self._version = self._put("create")
        except TAKEN:
            pass
        else:
            return True
        seen = self._look()
        if seen is None:
            return False
        if self._token in seen.body.decode(errors="replace"):  # our own PUT, whose answer was lost
            self._version = seen.version
            return True
        if seen.body != _RELEASED:
            self._wait_until_silent(seen)
        try:
            self._version = self._put(seen.version)
        except TAKEN:
            return False
        return True

    def _wait_until_silent(self, seen: _Seen) -> None:
        """Return when the holder is dead; BusyError as soon as it shows that it is not."""
        holder = seen.holder
        if holder is not None and holder.is_here and holder.is_dead:
            logger.warning("taking over %s from process %d, which is dead", self._connection.url, holder.pid)
            return
        # A fresh beat by nearly equal clocks: no need to wait for the next one.
        if abs(time.time() - seen.beat_s) < self._beat_s:
            raise busy(self._connection.url, holder)
        logger.info("the lock of %s is held: watching it for %g s", self._connection.url, self._lease_s)
        end_s = time.monotonic() + self._lease_s
        while time.monotonic() < end_s:
            time.sleep(min(1.0, self._lease_s / 10))
            now = self._look()
            if now is None or now.body == _RELEASED:
                return
            if now.version != seen.version:
                raise busy(self._connection.url, now.holder)
        logger.warning("taking over %s: its holder was silent for %g s", self._connection.url, self._lease_s)

    def _look(self) -> _Seen | None:
        try:
            found = self._connection.attempt(
                "read", self._key, lambda: obstore.get(self._connection.obstore, self._key)
            )
            return _Seen(bytes(found.bytes()), _version(found.meta))
        except MISSING:
            return None

    def _put(self, mode: Any, body: bytes | None = None) -> dict[str, str]:
        if body is None:
            facts = {**json.loads(self._me.encode()), "token": self._token, "beat_s": time.time()}
            body = json.dumps(facts).encode()
        store, key = self._connection.obstore, self._key
        return _version(
            self._connection.attempt("lock", key, lambda: obstore.put(store, key, body, mode=mode))
        )

    def _check_enforced(self) -> None:
        """Warn if the server ignores conditions: the lock then keeps nobody out."""
        try:
            self._version = self._put("create")
        except TAKEN:
            return
        except (NotSupportedError, StorageError):
            pass
        logger.warning(
            "%s ignores conditional writes: two runs on this cache at once would not be noticed",
            self._connection.url,
        )

    def _beat(self) -> None:
        while not self._stop.wait(self._beat_s):
            try:
                self._renew()
            except (
                Exception
            ) as error:  # whatever it is: without beats the lock is lost, and the next may succeed
                logger.warning("could not renew the lock of %s: %s", self._connection.url, error)
            if self._lost:
                return

    def _renew(self) -> None:
        # The store may have written it at any time of the request: whoever watches it counts from then.
        began_s = time.monotonic()
        try:
            self._version = self._put(self._version)
        except TAKEN:
            seen = self._look()
            if seen is not None and self._token in seen.body.decode(errors="replace"):
                self._version = seen.version  # of our own PUT, whose answer was lost
            else:
                self._lost = True
        else:
            self._renewed_s = began_s

    def check(self) -> None:
        """Raise BusyError if another process may have taken the lock over."""
        is_old = time.monotonic() - self._renewed_s > self._lease_s
        if self._lost or (is_old and not self._stop.is_set()):
            seen = self._look()
            if seen is None or self._token not in seen.body.decode(errors="replace"):
                raise busy(self._connection.url, seen.holder if seen else None)

    def release(self) -> None:
        """Mark the lock free, if it is still ours; may be called twice."""
        if self._stop.is_set():
            return
        self._stop.set()
        if self._me.pid != os.getpid():
            return
        if self._thread.is_alive():
            self._thread.join()
        if not self._lost:
            # If this fails the lock is taken over when it has been silent for a lease.
            with contextlib.suppress(*TAKEN, StorageError):
                self._put(self._version, _RELEASED)


def _version(meta: Any) -> dict[str, str]:
    """Return the condition for the next PUT: of e_tag and version those that the store gives."""
    return {name: meta[name] for name in ("e_tag", "version") if meta.get(name)}
