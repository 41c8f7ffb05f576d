"""One connection of a client: closed when it takes a place without using it, so that there is room for others.

Knows HTTP/1.1 and time. Does not know what is asked.
"""

from __future__ import annotations

import asyncio
import resource
from contextlib import suppress
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from .guard import NO_ROOM

__all__ = ["BoundedProtocol", "most_connections"]

# For a whole request; a client that sends it byte by byte takes a connection no longer.
REQUEST_S = 15.0
# For reading what was sent: at most 256 KiB, so 4 KB a second are enough.
READING_S = 60.0

MOST_CONNECTIONS = 2000
# More than these are told that there is no room, up to so many at a time.
MOST_TOLD = 100
# Descriptors for the files of runs, and for clients that are told that there is no room.
RESERVED_DESCRIPTORS = 256


def most_connections() -> int:
    """Return how many connections this process can hold; raises its own limit of open files as far as it may."""
    wanted = MOST_CONNECTIONS + RESERVED_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # a container may forbid it
            most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return MOST_CONNECTIONS
    return max(soft - RESERVED_DESCRIPTORS, soft // 2)


class BoundedProtocol(H11Protocol):
    """uvicorn's connection with limits: for how long a client may send and read, and for how many there are.

    When all places are taken, the connection that has asked nothing for longest makes room for a new one; if all of
    them are waiting for answers, a request is told so (503).
    """

    _late: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _idle_since_s = 0.0

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._most = self.config.limit_concurrency or MOST_CONNECTIONS
        self.limit_concurrency = None  # uvicorn's own answer says nothing

    def connection_made(self, transport: Any) -> None:
        """Expect a request, and make room for it."""
        super().connection_made(transport)
        self._idle_since_s = self.loop.time()
        self._wait()
        if len(self.connections) > self._most:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """Take a part of a request."""
        super().data_received(data)
        if self._is_receiving:
            self._wait()
        elif self._late is not None:
            self._late.cancel()
            self._late = None

    def handle_events(self) -> None:
        """Answer what has arrived, or say that there is no room."""
        self.app = self.config.loaded_app if len(self.connections) <= self._most else self._no_room
        super().handle_events()

    def on_response_complete(self) -> None:
        """Expect that the answer is read."""
        self._idle_since_s = self.loop.time()
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self._expect_reading()

    def pause_writing(self) -> None:
        """Wait until the client has read some of the answer."""
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all clocks."""
        for timer in (self._late, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    @property
    def _is_idle(self) -> bool:
        """Whether no request is being answered; uvicorn sets the cycle to None before the first."""
        cycle: Any = self.cycle
        return cycle is None or bool(cycle.response_complete)

    @property
    def _is_receiving(self) -> bool:
        return self._is_idle or bool(self.cycle.more_body)

    def _wait(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(REQUEST_S, self._give_up)

    def _give_up(self) -> None:
        self._late = None
        if self._is_receiving:
            self.transport.close()

    def _expect_reading(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
        self._unread = self.loop.call_later(READING_S, self._drop_unread)

    def _drop_unread(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _make_room(self) -> None:
        others = [each for each in self.connections if isinstance(each, BoundedProtocol) and each is not self]
        idle = [each for each in others if each._is_idle and not each.transport.is_closing()]
        if idle:
            min(idle, key=lambda each: each._idle_since_s).transport.close()
        elif len(self.connections) > self._most + MOST_TOLD:
            self.transport.abort()

    async def _no_room(self, scope: Any, receive: Any, send: Any) -> None:
        await self.config.loaded_app({**scope, NO_ROOM: True}, receive, send)
