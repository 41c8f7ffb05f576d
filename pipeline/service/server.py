"""Listen on an address and serve with uvicorn.

Knows sockets. Does not know what is asked.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace

import uvicorn

from ...storage.errors import InputError
from .access import Access
from .application import ServiceSettings, make_application
from .connections import BoundedProtocol, most_connections
from .jobs.job_queue import JobQueue
from .run_root import RunRoot

__all__ = ["Listening", "serve_runs"]

logger = logging.getLogger(__name__)

KEEP_ALIVE_S = 15
# For answers that are on their way when the service is stopped.
STOP_S = 10
# Of the first line and the headers together.
HEADERS_NBYTES = 32 * 2**10
# Connections that are accepted in one go. Those of four goes are open before the first of them makes room for itself:
# together fewer than descriptors are kept free.
ACCEPTED_AT_ONCE = 32
# Connections that the system keeps until then: more at the same time would wait for a second.
QUEUE = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where the service listens."""

    host: str = "127.0.0.1"
    port: int = 8570
    """0: a free one."""
    root_path: str = ""
    """Where a proxy puts the service, as ``/statistics``."""


def serve_runs(
    root: RunRoot,
    access: Access,
    listening: Listening,
    *,
    settings: ServiceSettings,
    jobs: JobQueue | None = None,
    announce: Callable[[str], None],
) -> None:
    """Serve until the process is told to stop (SIGTERM, SIGINT); answers on their way are finished.

    Parameters
    ----------
    root : RunRoot
    access : Access
    listening : Listening
    settings : ServiceSettings
    jobs : JobQueue, optional
        Worked off while the service runs.
    announce : callable
        Given the address with the key for a browser: at the start, and again when a key was used.

    Raises
    ------
    InputError
        If the address is not this machine's or is taken, or is not a loopback address and there are no tokens.
    BusyError
        If another service works off the jobs.
    """
    _check_root_path(listening.root_path)
    with _bound(listening, has_tokens=access.has_tokens) as bound, jobs or nullcontext():
        address, port = bound.getsockname()[:2]
        host = address
        if ipaddress.ip_address(address).is_unspecified:
            host = socket.gethostname()
            settings = replace(settings, hosts=(*settings.hosts, host))
        shown = f"[{host}]" if ":" in host else host

        def tell() -> None:
            announce(f"http://{shown}:{port}{listening.root_path}/?key={access.new_key()}")

        stopping = threading.Event()
        application = make_application(
            root,
            access,
            settings=settings,
            jobs=jobs,
            cookie=f"actisketch-{port}",
            on_sign_in=tell,
            stopping=stopping,
        )
        config = uvicorn.Config(
            application,
            http=BoundedProtocol,
            ws="none",
            lifespan="on",
            loop="asyncio",
            log_config=None,
            # Ours has no keys in it.
            access_log=False,
            server_header=False,
            root_path=listening.root_path,
            # Whoever is in front of it decides whether cookies are for https only.
            proxy_headers=bool(listening.root_path or settings.hosts),
            limit_concurrency=most_connections(),
            backlog=ACCEPTED_AT_ONCE,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=STOP_S,
            h11_max_incomplete_event_size=HEADERS_NBYTES,
        )
        server = _Announcing(config, tell, stopping)
        # uvicorn raises the signal again that has stopped it; a service that was told to stop has done its work.
        with suppress(KeyboardInterrupt):
            server.run(sockets=[bound])


class _Announcing(uvicorn.Server):
    """Tells the address when requests are answered, not before, and lets streams of events end when it stops."""

    def __init__(self, config: uvicorn.Config, tell: Callable[[], None], stopping: threading.Event) -> None:
        super().__init__(config)
        self._tell, self._stopping = tell, stopping

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping.set()
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            for bound in sockets or []:
                bound.listen(QUEUE)
            self._tell()


@contextmanager
def _bound(listening: Listening, *, has_tokens: bool) -> Iterator[socket.socket]:
    """Yield a socket that listens on the address; other addresses than loopback only with tokens."""
    host, port = listening.host, listening.port
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"--host {host!r} is no address of this machine ({error}): give one, as 127.0.0.1"
        ) from None
    family, _, _, _, address = found[0]
    if not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback and not has_tokens:
        raise InputError(
            f"--host {host} can be reached from other machines: give a token, with --token-file or in the environment "
            "(ACTISKETCH_TOKEN), or leave --host out"
        )
    try:
        bound = listen(str(address[0]), port, family)
    except OSError as error:
        raise InputError(
            f"{host} port {port} cannot be listened on ({error.strerror}): choose another --port, 0 for a free one"
        ) from None
    with bound:
        yield bound


def listen(address: str, port: int, family: int = socket.AF_INET) -> socket.socket:
    """Return a socket that listens; OSError if the system refuses."""
    bound = socket.create_server((address, port), family=family)
    # For each connection: the second part of an answer would wait 40 ms until the client has confirmed the first.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return bound


def _check_root_path(root_path: str) -> None:
    is_path = root_path.startswith("/") and not root_path.endswith("/") and root_path.isascii()
    if root_path and not (is_path and all(c.isalnum() or c in "/-_.~" for c in root_path)):
        raise InputError(
            f"--root-path {root_path!r} is refused: give the path of the proxy, with a slash before and none behind, "
            "as /statistics"
        )
