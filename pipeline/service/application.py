"""The ASGI application: the addresses, their errors, the guard in front of them.

FastAPI, because the OpenAPI document, the checks of what is asked and the documentation of each follow from the types
that the code has anyway, and pydantic is needed for the settings already.
"""

from __future__ import annotations

import importlib.metadata
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from .access import Access
from .catalogue import Catalogue
from .desk import Desk
from .guard import Guard
from .jobs.job_answers import settings_schemas
from .jobs.job_desk import JobDesk
from .jobs.job_queue import JobQueue
from .jobs.job_routes import make_job_router
from .live import Live
from .metrics import MEDIA_TYPE, Metrics
from .open_runs import FRESH_S, OpenRuns
from .pages import make_page_router
from .problems import ERROR_KINDS, problem_response
from .routes import make_router
from .run_root import RunRoot
from .sign_in import SignIn
from .workers import Workers

__all__ = ["ServiceSettings", "make_application"]

# Each takes seconds, and as much memory as TensorFlow.
N_PLANS_WAITING = 8
PROGRAM = importlib.metadata.version("actisketch")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """How much a service may take."""

    memory_limit: int = 2**30
    """Bytes for sketches of runs that were asked."""
    time_limit_s: float = 120.0
    """For one question."""
    n_threads: int = 4
    """For answers from sketches."""
    n_long_threads: int = 2
    """For answers that read activations."""
    n_waiting: int = 1000
    """Questions that may wait for a thread."""
    n_long_waiting: int = 16
    fresh_s: float = FRESH_S
    """How old an answer may be."""
    hosts: Sequence[str] = ()
    """Names that requests may use beside addresses and localhost."""


def make_application(
    root: RunRoot,
    access: Access,
    *,
    settings: ServiceSettings | None = None,
    jobs: JobQueue | None = None,
    cookie: str = "actisketch",
    on_sign_in: Callable[[], None] = lambda: None,
    stopping: threading.Event | None = None,
) -> ASGIApp:
    """Return the application that serves the runs under a root.

    Parameters
    ----------
    root : RunRoot
    access : Access
        Who may ask.
    settings : ServiceSettings, optional
    jobs : JobQueue, optional
        Entered; without it no job can be started.
    cookie : str
        Name of the cookie of a browser that has signed in.
    on_sign_in : callable
        Told when a browser has signed in with the key, which is used up.
    stopping : threading.Event, optional
        Set before the service stops, so that streams of events end.
    """
    settings = settings or ServiceSettings()
    limit_s = settings.time_limit_s
    workers = partial(Workers, limit_s=limit_s, begin=root.check_files_of_thread)
    quick = workers("quick", n_threads=settings.n_threads, n_waiting=settings.n_waiting)
    long = workers("long", n_threads=settings.n_long_threads, n_waiting=settings.n_long_waiting)
    # On a disk that hangs, a run takes a thread for as long: others have their own, and so has the list.
    opening = workers("open", n_threads=8, n_waiting=settings.n_waiting)
    listing = workers("list", n_threads=1, n_waiting=settings.n_waiting)
    planning = Workers("plan", n_threads=1, n_waiting=N_PLANS_WAITING, limit_s=limit_s)
    runs = OpenRuns(root, opening, limit_nbytes=settings.memory_limit, fresh_s=settings.fresh_s)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        for workers in (quick, long, planning, opening, listing):
            workers.close()

    api = FastAPI(
        title="actisketch",
        version=PROGRAM,
        summary="Activation statistics of Keras networks, with a guaranteed interval for every number.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # their pages load scripts from other machines
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    # A handler of Exception itself would be called last, and let the error go on.
    for kind in (*(kind for kind, *_ in ERROR_KINDS), HTTPException, RequestValidationError):
        api.add_exception_handler(kind, _as_problem)
    catalogue = Catalogue(root)
    desk = Desk(root, runs, catalogue, quick=quick, long=long, listing=listing)
    live = Live(root, catalogue, opening, stopping or threading.Event())
    api.include_router(make_router(desk, live))
    api.include_router(make_job_router(JobDesk(root, jobs, quick=quick, planning=planning)))
    api.include_router(make_page_router())
    _add_schemas(api)
    _add_health(api, root)
    metrics = Metrics()
    metrics.watch("open_runs", "Runs whose sketches are in memory.", lambda: len(runs))
    metrics.watch("open_runs_bytes", "Memory of these sketches, roughly.", lambda: runs.nbytes)
    metrics.watch("event_streams", "Clients that follow a run.", lambda: live.n_streams)
    metrics.watch("questions", "Questions that wait or are answered.", lambda: quick.n_held)
    metrics.watch("long_questions", "The same, of those that read activations.", lambda: long.n_held)
    if jobs is not None:
        table = jobs.table
        metrics.watch("jobs_working", "Jobs that have a process.", lambda: len(table.working()))
        metrics.watch("jobs_queued", "Jobs that wait.", lambda: table.n_in("queued"))
    _add_metrics(api, metrics)
    sign_in = SignIn(access, cookie=cookie, on_key_used=on_sign_in)
    return Guard(api, sign_in=sign_in, hosts=settings.hosts, metrics=metrics)


async def _as_problem(request: Request, error: Exception) -> Response:
    return problem_response(request, error)


def _add_schemas(api: FastAPI) -> None:
    """Add what bodies refer to that are read by the service's own hands."""
    describe = api.openapi

    def described() -> dict[str, Any]:
        document = describe()
        document["components"]["schemas"].update(settings_schemas())
        return document

    api.openapi = described  # type: ignore[method-assign]  # as FastAPI's documentation does


def _add_metrics(api: FastAPI, metrics: Metrics) -> None:
    @api.get(
        "/metrics",
        summary="Counts for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    def counts() -> Response:
        """Return requests by address and status, their times, and how much is held in memory."""
        return Response(metrics.text(), media_type=MEDIA_TYPE)


def _add_health(api: FastAPI, root: RunRoot) -> None:
    """Add what a load balancer asks."""

    @api.get("/healthz", summary="Whether the process answers", response_model=dict[str, str])
    async def healthz() -> Response:
        """Answer as long as the process lives."""
        return JSONResponse({"status": "ok"})

    @api.get("/readyz", summary="Whether runs can be read", response_model=dict[str, str])
    def readyz() -> Response:
        """Answer 503 while the folder that is served is away, as after a mount was lost."""
        if root.path.is_dir():
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "the folder that is served is away"}, 503)
