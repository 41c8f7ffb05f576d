"""What every request passes before anything is answered: host, origin, size, sign-in; and what every response carries.

Knows HTTP and secrets. Does not know runs.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import re
import secrets
import time
from collections.abc import Sequence
from urllib.parse import parse_qsl, quote, urlencode

from fastapi import Request
from fastapi.responses import Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..settings.visible import visible
from .metrics import Metrics
from .problems import LARGEST_BODY_NBYTES, TooLarge, problem_of, problem_response, respond
from .sign_in import SignIn
from .workers import Overloaded

__all__ = ["NO_ROOM", "Guard", "is_allowed_host"]

access_log = logging.getLogger("actisketch.access")

# In the scope of a request that came when all connections were taken.
NO_ROOM = "actisketch_no_room"
# Health checks come from machines without a token, and tell nothing of the runs.
# The form to sign in has the page's look.
OPEN_PATHS = ("/healthz", "/readyz", "/service.css")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# In absolute form, with the scheme and the host.
ABSOLUTE = re.compile(r"https?://(?P<host>[^/]*)(?P<path>.*)", re.DOTALL | re.IGNORECASE)
# One address is logged, not a book.
LONGEST_LOGGED = 1000

HEADERS = {
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


def is_allowed_host(host: str, allowed: Sequence[str]) -> bool:
    """Whether a request may name this host: an address, ``localhost``, or one that the operator allowed.

    A page of somebody else whose name was made to point to this machine (DNS rebinding) sends that name.
    """
    name, _, port = host.rpartition(":") if not host.endswith("]") and ":" in host else (host, "", "")
    if port and not (port.isascii() and port.isdigit()):
        return False
    name = name.removesuffix(".").lower()
    if name == "localhost" or name in {each.lower() for each in allowed}:
        return True
    try:
        ipaddress.ip_address(name[1:-1] if name.startswith("[") and name.endswith("]") else name)
    except ValueError:
        return False
    return True


class Guard:
    """The outermost part of the application.

    Parameters
    ----------
    app : ASGI application
        Behind it.
    sign_in : SignIn
    hosts : sequence of str
        Names that requests may use beside addresses and ``localhost``.
    metrics : Metrics
        Counts requests.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        sign_in: SignIn,
        hosts: Sequence[str],
        metrics: Metrics,
    ) -> None:
        self._app, self._sign_in = app, sign_in
        self._hosts, self._metrics = hosts, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["actisketch_request_id"] = request_id = secrets.token_hex(8)
        scope = _origin_form(scope)
        started_s, status, nbytes = time.perf_counter(), 0, 0

        async def send_on(message: Message) -> None:
            nonlocal status, nbytes
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            else:
                nbytes += len(message.get("body", b""))
            await send(message)

        receive = _bounded(receive)
        request = Request(scope, receive)
        # The same as GET, without the body.
        is_head = request.method == "HEAD"
        inner = {**scope, "method": "GET"} if is_head else scope
        try:
            answer = await self._own_answer(request) or self._app
            if is_head:
                await answer(inner, receive, _without_body(send_on))
            else:
                await answer(inner, receive, send_on)
        except Exception as error:
            if status:
                raise
            await problem_response(request, error)(scope, receive, send_on)
        finally:
            elapsed_s = time.perf_counter() - started_s
            _log(request, request_id, status, nbytes, elapsed_s)
            self._metrics.count(_method(request), _route(inner), status, elapsed_s)

    async def _own_answer(self, request: Request) -> Response | None:
        """Return the answer to a request that goes no further; None for all others."""
        headers = request.headers
        if NO_ROOM in request.scope:
            raise Overloaded
        if len(headers.getlist("host")) != 1 or not is_allowed_host(headers["host"], self._hosts):
            return self._problem(
                request,
                421,
                "host",
                "this service does not answer under that name: use its address, or start it with --allow-host and the "
                "name",
            )
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length[:20]) > LARGEST_BODY_NBYTES:
            raise TooLarge
        if request.method not in SAFE_METHODS and not _is_own_origin(headers):
            return self._problem(request, 403, "origin", "the request comes from a page of another origin")
        # Not that of `request.url`, which leaves characters out that the router does not.
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        return None if path in OPEN_PATHS else await self._sign_in.answer(request, path)

    def _problem(self, request: Request, status: int, kind: str, detail: str) -> Response:
        titles = {403: "Forbidden", 421: "Misdirected"}
        return respond(request, problem_of(request, status, detail, kind=kind, title=titles[status]))


def _bounded(receive: Receive) -> Receive:
    """Refuse a body of too many bytes, also one whose length was not told before."""
    nbytes = 0

    async def receive_on() -> Message:
        nonlocal nbytes
        message = await receive()
        nbytes += len(message.get("body", b""))
        if nbytes > LARGEST_BODY_NBYTES:
            raise TooLarge
        return message

    return receive_on


def _without_body(send: Send) -> Send:
    """Send the start of an answer and its end. What goes on sending notices that nobody listens."""
    is_sent = False

    async def send_on(message: Message) -> None:
        nonlocal is_sent
        if message["type"] == "http.response.start":
            await send(message)
        elif not is_sent:
            is_sent = True
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return send_on


def _origin_form(scope: Scope) -> Scope:
    """Return the request as for an address that begins with a slash; a proxy may send ``GET http://host/path``.

    The host in the address is the one that counts then (RFC 9112, 3.2.2).
    """
    root = scope.get("root_path", "")
    found = ABSOLUTE.match(scope["path"].removeprefix(root))
    if found is None:
        return scope
    path = found["path"] or "/"
    headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
    host = (b"host", found["host"].encode("latin-1", "replace"))
    return {
        **scope,
        "path": root + path,
        "raw_path": quote(root + path).encode(),
        "headers": [host, *headers],
    }


def _route(scope: Scope) -> str:
    """Return the pattern of the address that was asked; one word for all others."""
    return str(getattr(scope.get("route"), "path", "other"))


def _method(request: Request) -> str:
    """Return the method; one word for those that somebody made up."""
    return request.method if request.method in (*SAFE_METHODS, "POST", "PUT", "DELETE", "PATCH") else "other"


def _is_own_origin(headers: Headers) -> bool:
    """Whether a request that changes something comes from this service's own page, or from no page at all."""
    origin = headers.get("origin")
    if origin is None:
        return headers.get("sec-fetch-site", "none") in ("none", "same-origin") and "cookie" not in headers
    return origin.partition("://")[2] == headers["host"]


def _log(request: Request, request_id: str, status: int, nbytes: int, elapsed_s: float) -> None:
    client = request.client
    asked = [(name, "..." if name == "key" else value) for name, value in parse_qsl(request.url.query)]
    line = {
        "time_s": round(time.time(), 3),
        "request_id": request_id,
        "client": client.host if client else None,
        "method": request.method,
        "path": visible(request.scope["path"])[:LONGEST_LOGGED],
        "query": visible(urlencode(asked))[:LONGEST_LOGGED],
        "status": status,
        "nbytes": nbytes,
        "elapsed_s": round(elapsed_s, 6),
    }
    access_log.info("%s", json.dumps(line))
