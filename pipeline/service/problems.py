"""Errors as answers: what was asked, what was found, what to do (RFC 9457), or a small page for a browser.

Knows errors and HTTP. Does not know questions.
"""

from __future__ import annotations

import html
import logging
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from ...storage.errors import (
    ActisketchError,
    FormatError,
    IncompleteError,
    InputError,
    MismatchError,
    NotFoundError,
    StorageError,
)
from ..settings.visible import visible
from .answers import ProblemAnswer
from .workers import Gone, Overloaded, Stopped, TooLong

__all__ = [
    "ERROR_KINDS",
    "LARGEST_BODY_NBYTES",
    "Forbidden",
    "JobsOff",
    "TooLarge",
    "problem_of",
    "problem_response",
    "respond",
]


class TooLarge(Exception):
    """The body of a request has too many bytes."""


logger = logging.getLogger(__name__)

# No question has a body; a job's settings have a few kilobytes.
LARGEST_BODY_NBYTES = 256 * 2**10
LONGEST_DETAIL = 2000
LONGEST_ASKED = 300
# The client waits before it asks again; the longest questions take longer.
RETRY_S = 5
# nginx's number for a client that has closed the connection: nobody reads it, but the log tells it apart.
CLIENT_GONE = 499


class Forbidden(Exception):
    """Who asks may not do that; the message says who may."""


class JobsOff(Forbidden):
    """Nobody may start jobs here."""


# The first that fits decides.
ERROR_KINDS: tuple[tuple[type[Exception], int, str, str], ...] = (
    (JobsOff, 403, "jobs-off", "This service only reads"),
    (Forbidden, 403, "forbidden", "Forbidden"),
    (NotFoundError, 404, "not-found", "Not found"),
    (InputError, 422, "cannot-be-answered", "The question cannot be answered as it is asked"),
    (IncompleteError, 409, "incomplete", "Not all blocks are recorded"),
    (FormatError, 409, "damaged", "Files of the run are damaged, or newer than this program"),
    (MismatchError, 409, "mismatch", "Files of the run do not belong together"),
    (StorageError, 503, "storage", "The disk or the object store refused"),
    (ActisketchError, 409, "refused", "Refused"),
    (Overloaded, 503, "overloaded", "Too many questions wait"),
    (TooLong, 504, "too-long", "The question takes too long"),
    (Gone, CLIENT_GONE, "client-gone", "The client has gone"),
    (Stopped, 503, "stopped", "The service stops"),
    (TooLarge, 413, "too-large", "Too large"),
)
OWN_DETAILS = {
    "overloaded": f"as many others wait for answers as there is room for: ask again in {RETRY_S} seconds",
    "too-large": f"a request has at most {LARGEST_BODY_NBYTES:,} bytes",
    "too-long": "the time limit for a question is over, and it was stopped: ask for one point, or without exact=true; "
    "a run that was being opened still is, so ask again; the operator can raise the limit with --time-limit",
    "client-gone": "the client has closed the connection, and the question was stopped",
    "stopped": "the service is stopping: ask again when it is back",
}


def problem_of(
    request: Request, status: int, detail: str, *, kind: str, title: str, **facts: Any
) -> ProblemAnswer:
    """Return an error as the answer that describes it."""
    path = request.scope["path"]
    query = f"?{request.url.query}" if request.url.query else ""
    return ProblemAnswer(
        title=title,
        status=status,
        detail=_shown(detail, LONGEST_DETAIL),
        kind=kind,
        asked=_shown(f"{request.method} {path}{query}", LONGEST_ASKED),
        request_id=request.scope.get("actisketch_request_id", ""),
        **facts,
    )


def problem_response(request: Request, error: Exception) -> Response:
    """Return the response for an error; one that is not foreseen is logged and shows nothing of itself."""
    if isinstance(error, RequestValidationError):
        return respond(request, _invalid(request, error))
    if isinstance(error, HTTPException):
        return respond(request, _http(request, error), error.headers)
    for kind_of, status, kind, title in ERROR_KINDS:
        if isinstance(error, kind_of):
            detail = OWN_DETAILS.get(kind) or str(error)
            headers = {"retry-after": str(RETRY_S)} if status in (503, 504) else None
            return respond(request, problem_of(request, status, detail, kind=kind, title=title), headers)
    logger.error("an error that is not foreseen", exc_info=error)
    detail = "this is an error of the service, and its log has the details: tell the operator the request id"
    problem = problem_of(request, 500, detail, kind="internal", title="An error of the service")
    return respond(request, problem)


def _invalid(request: Request, error: RequestValidationError) -> ProblemAnswer:
    told = []
    for each in error.errors()[:5]:
        place = ".".join(str(part) for part in each["loc"][1:]) or str(each["loc"][0])
        told.append(f"{place}: {each['msg']}, found {str(each.get('input'))[:100]!r}")
    detail = f"{'; '.join(told)}: see the description of this address in api/v1/openapi.json"
    return problem_of(request, 422, detail, kind="invalid", title="The question is not understood")


def _http(request: Request, error: HTTPException) -> ProblemAnswer:
    known = {
        404: ("not-found", "there is nothing at this address: api/v1/openapi.json lists the addresses"),
        405: ("method", "this address takes other methods: see the header Allow"),
    }
    kind, detail = known.get(error.status_code, ("refused", str(error.detail)))
    return problem_of(request, error.status_code, detail, kind=kind, title=str(error.detail))


def respond(request: Request, problem: ProblemAnswer, headers: Any = None) -> Response:
    """Return the response that holds a problem: JSON, or a page for a browser."""
    wants_page = "text/html" in request.headers.get("accept", "")
    kept = {**(headers or {}), "cache-control": "no-store"}
    if wants_page:
        return HTMLResponse(_page(problem), problem.status, headers=kept)
    body = problem.model_dump(mode="json")
    return JSONResponse(body, problem.status, headers=kept, media_type="application/problem+json")


def _page(problem: ProblemAnswer) -> str:
    title, detail = html.escape(problem.title), html.escape(problem.detail)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<h1>{title}</h1><p>{detail}</p><p>Request {html.escape(problem.request_id)}</p></html>\n"
    )


def _shown(text: str, limit: int) -> str:
    """Return a text of bounded length that can be printed and be written as UTF-8."""
    cut = text if len(text) <= limit else f"{text[:limit]} ..."
    return visible(cut, kept="\n").encode("utf-8", "backslashreplace").decode()
