"""Sign a browser in, with the key of the printed address or with a token in a form; know who is signed in.

Knows HTTP and secrets. Does not know runs.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import parse_qs, parse_qsl, urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.datastructures import Headers

from .access import SESSION_S, Access
from .problems import problem_of, respond

__all__ = ["ADDRESS", "MAY_ACT", "SignIn"]

ADDRESS = "/sign-in"
# In the scope of a request: whether it may start and end jobs.
MAY_ACT = "actisketch_may_act"
# Where a browser wanted to go; longer ones lead to the list of runs.
LONGEST_QUERY = 8000
POLICY = (
    "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


class SignIn:
    """The way in.

    Parameters
    ----------
    access : Access
    cookie : str
        Name of the cookie. Browsers keep the cookies of all ports of a host together.
    on_key_used : callable
        Told when a browser has signed in with the key, which is void then.
    """

    def __init__(self, access: Access, *, cookie: str, on_key_used: Callable[[], None]) -> None:
        self._access, self._cookie, self._on_key_used = access, cookie, on_key_used

    async def answer(self, request: Request, path: str) -> Response | None:
        """Return the answer to a request about signing in, or from somebody unknown; None for all others."""
        if path == ADDRESS and request.method == "POST":
            return await self._by_form(request)
        is_known = self._is_known(request)
        if path == "/" and "key" in request.query_params and request.method == "GET":
            session = self._session_for_key(request.query_params["key"])
            if session is not None or is_known:
                return self._signed_in(request, session, "")
        if not is_known:
            return self._unknown(request)
        request.scope[MAY_ACT] = self._may_act(request)
        return None

    async def _by_form(self, request: Request) -> Response:
        asked: dict[str, list[str]] = {}
        with suppress(ValueError):  # more fields than the form has
            asked = parse_qs((await request.body()).decode("ascii", "replace"), max_num_fields=10)
        secret, then = asked.get("secret", [""])[0].strip(), asked.get("then", [""])[0]
        if self._access.is_token(secret):
            return self._signed_in(
                request, self._access.new_session(may_act=self._access.is_jobs_token(secret)), then
            )
        session = self._session_for_key(secret)
        if session is not None:
            return self._signed_in(request, session, then)
        return self._form(request, then, told="That is none of its tokens, and not its key.")

    def _session_for_key(self, key: str) -> str | None:
        session = self._access.exchange(key)
        if session is not None:
            self._on_key_used()
        return session

    def _signed_in(self, request: Request, session: str | None, then: str) -> Response:
        """Return the way to the page, where the browser wanted to go; ``session`` is None if it has one already."""
        root = request.scope.get("root_path", "")
        query = urlencode(parse_qsl(then[:LONGEST_QUERY]))
        response = RedirectResponse(f"{root}/{'?' if query else ''}{query}", status_code=303)
        if session is not None:
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

    def _is_known(self, request: Request) -> bool:
        kind, token = _bearer(request.headers)
        if kind:
            return kind == "bearer" and self._access.is_token(token)
        return self._access.is_session(self._session(request))

    def _may_act(self, request: Request) -> bool:
        """Whether somebody who is known may start and end jobs."""
        kind, token = _bearer(request.headers)
        if kind:
            return self._access.is_jobs_token(token)
        return self._access.is_acting_session(self._session(request))

    def _session(self, request: Request) -> str:
        """Return the session in a cookie; an empty text, which is none, without a cookie."""
        # Those of other services on this host come along, and Python's SimpleCookie stops at one that is not to its
        # liking.
        return request.cookies.get(self._cookie, "")

    def _unknown(self, request: Request) -> Response:
        if "text/html" in request.headers.get("accept", "") and request.method in ("GET", "HEAD"):
            asked = [(name, value) for name, value in request.query_params.multi_items() if name != "key"]
            told = "This key was used, or is of another start." if "key" in request.query_params else ""
            return self._form(request, urlencode(asked), told=told)
        scripts = (
            "a script sends the header Authorization: Bearer and a token"
            if self._access.has_tokens
            else "for scripts the operator starts it with --token-file"
        )
        detail = f"sign in first: open the address that the service printed when it started; {scripts}"
        problem = problem_of(request, 401, detail, kind="unauthorized", title="Not signed in")
        return respond(request, problem, {"www-authenticate": "Bearer"})

    def _form(self, request: Request, then: str, *, told: str = "") -> Response:
        root = html.escape(request.scope.get("root_path", ""))
        wanted = (
            "Its token"
            if self._access.has_tokens
            else "The key behind key= in the address that it has printed"
        )
        words = f'<p class="told bad" role="alert">{html.escape(told)}</p>' if told else ""
        page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sign in - actisketch</title><link rel="icon" href="data:,">
<link rel="stylesheet" href="{root}/service.css"></head>
<body><main><h1>Sign in</h1>{words}
<form method="post" action="{root}{ADDRESS}"><input type="hidden" name="then" value="{html.escape(then)}">
<label>{wanted}<input name="secret" type="password" autocomplete="current-password" required autofocus></label>
<button class="act">Sign in</button></form>
<p class="note">Opening the address that the service printed when it started signs you in too. Who runs the service has
the token.</p></main></body></html>
"""
        headers = {
            "content-security-policy": POLICY,
            # Without it browsers do not say from where the form comes.
            "referrer-policy": "same-origin",
            "www-authenticate": "Bearer",
        }
        return HTMLResponse(page, 401, headers=headers)


def _bearer(headers: Headers) -> tuple[str, str]:
    """Return how a request says who it is, in lower case, and its token; an empty text if it does not."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    return kind.lower(), token.strip()
