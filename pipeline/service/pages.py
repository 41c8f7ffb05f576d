"""The page: its few files, as they are. It asks the API for everything that it shows.

Knows files of this package. Does not know runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.responses import Response

__all__ = ["make_page_router"]

FILES = {
    "/": ("service.html", "text/html"),
    "/service.css": ("service.css", "text/css"),
    "/service.js": ("service.js", "text/javascript"),
    "/jobs.js": ("jobs.js", "text/javascript"),
    "/drawing.js": ("drawing.js", "text/javascript"),
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def make_page_router() -> APIRouter:
    """Return the addresses of the page's files."""
    router = APIRouter(include_in_schema=False)
    folder = files(__package__) / "page"
    for address, (name, media_type) in FILES.items():
        content = (folder / name).read_bytes()
        router.add_api_route(address, _sender(content, media_type), methods=["GET"])
    return router


def _sender(content: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    etag = f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'
    headers = {"cache-control": "private, no-cache", "etag": etag, "content-security-policy": POLICY}

    async def send(request: Request) -> Response:
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=f"{media_type}; charset=utf-8")

    return send
