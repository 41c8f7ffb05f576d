"""What every request passes before anything is answered: host, origin, size, sign-in; and what every response carries.

Knows HTTP and secrets. Does not know runs.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode

from fastapi import Request
from fastapi.responses import RedirectResponse, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..settings.visible import visible
from .access import SESSION_S, Access
from .metrics import Metrics
from .problems import problem_of, problem_response, respond

__all__ = ["Guard", "is_allowed_host"]

access_log = logging.getLogger("actisketch.access")

# Health checks come from machines without a token, and tell nothing of the runs.
OPEN_PATHS = ("/healthz", "/readyz")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# No question has a body; a job's settings have a few kilobytes.
LARGEST_BODY_NBYTES = 256 * 2**10
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
    access : Access
    cookie : str
        Name of the cookie. Browsers keep the cookies of all ports of a host together.
    hosts : sequence of str
        Names that requests may use beside addresses and ``localhost``.
    metrics : Metrics
        Counts requests.
    on_sign_in : callable
        Told when a browser has signed in, and its key is used up.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        access: Access,
        cookie: str,
        hosts: Sequence[str],
        metrics: Metrics,
        on_sign_in: Callable[[], None],
    ) -> None:
        self._app, self._access, self._cookie = app, access, cookie
        self._hosts, self._metrics, self._on_sign_in = hosts, metrics, on_sign_in

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["actisketch_request_id"] = request_id = secrets.token_hex(8)
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

        request = Request(scope, receive)
        try:
            refusal = self._refusal(request)
            if refusal is not None:
                await refusal(scope, receive, send_on)
            else:
                await self._app(scope, receive, send_on)
        except Exception as error:
            if status:
                raise
            await problem_response(request, error)(scope, receive, send_on)
        finally:
            elapsed_s = time.perf_counter() - started_s
            _log(request, request_id, status, nbytes, elapsed_s)
            self._metrics.count(_method(request), _route(scope), status, elapsed_s)

    def _refusal(self, request: Request) -> Response | None:
        """Return the answer to a request that goes no further; None for all others."""
        headers = request.headers
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
            return self._problem(
                request, 413, "too-large", f"a request has at most {LARGEST_BODY_NBYTES} bytes"
            )
        if request.method not in SAFE_METHODS and not _is_own_origin(headers):
            return self._problem(request, 403, "origin", "the request comes from a page of another origin")
        # Not that of `request.url`, which leaves characters out that the router does not.
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        if path in OPEN_PATHS:
            return None
        if path == "/" and "key" in request.query_params and request.method == "GET":
            return self._signed_in(request)
        return None if self._is_known(headers) else self._unknown(request)

    def _signed_in(self, request: Request) -> Response:
        session = self._access.exchange(request.query_params["key"])
        if session is None:
            return self._unknown(request)
        self._on_sign_in()
        root = request.scope.get("root_path", "")
        response = RedirectResponse(f"{root}/", status_code=303)
        response.set_cookie(
            self._cookie,
            session,
            max_age=SESSION_S,
            path=root or "/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return response

    def _is_known(self, headers: Headers) -> bool:
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind:
            return kind.lower() == "bearer" and self._access.is_token(token.strip())
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return False
        return cookie is not None and self._access.is_session(cookie.value)

    def _unknown(self, request: Request) -> Response:
        scripts = (
            "a script sends the header Authorization: Bearer and a token"
            if self._access.has_tokens
            else "for scripts the operator starts it with --token-file"
        )
        detail = f"sign in first: open the address that the service printed when it started; {scripts}"
        response = self._problem(request, 401, "unauthorized", detail)
        response.headers["www-authenticate"] = "Bearer"
        return response

    def _problem(self, request: Request, status: int, kind: str, detail: str) -> Response:
        titles = {401: "Not signed in", 403: "Forbidden", 413: "Too large", 421: "Misdirected"}
        return respond(request, problem_of(request, status, detail, kind=kind, title=titles[status]))


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
