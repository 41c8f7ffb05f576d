"""The addresses of jobs. Without a queue, or from somebody who may only read, they are refused.

Knows HTTP. Does not know how jobs work.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError

from ....storage.errors import InputError
from ..routes import PROBLEM, refuse_unknown
from .job_answers import (
    AccessAnswer,
    JobAnswer,
    JobsAnswer,
    LogAnswer,
    PlanAnswer,
    RepairQuestion,
    settings_schemas,
)
from .job_body import read_tree
from .job_desk import JobDesk
from .job_table import JobState
from .processes import LONGEST_LOG_NBYTES

__all__ = ["make_job_router"]

MOST_JOBS = 500
JobId = Annotated[int, Path(ge=1, lt=2**63)]
SETTINGS = {"$ref": "#/components/schemas/JobSettings"}
SETTINGS_BODY = {
    "requestBody": {
        "required": True,
        "description": "The settings of a job, as in its job file; paths start at the folder that is served.",
        "content": {
            "application/json": {"schema": SETTINGS},
            "application/toml": {"schema": {"type": "string"}},
        },
    }
}
REPAIR_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": RepairQuestion.model_json_schema()}},
    }
}


def make_job_router(desk: JobDesk) -> APIRouter:
    """Return the addresses, which ask a desk."""
    router = APIRouter(
        prefix="/api/v1",
        dependencies=[Depends(refuse_unknown)],
        responses={"4XX": PROBLEM, "5XX": PROBLEM},
    )
    _add_reading(router, desk)
    _add_acting(router, desk)
    return router


def _add_reading(router: APIRouter, desk: JobDesk) -> None:
    @router.get("/access", response_model=AccessAnswer, summary="What is possible here")
    async def show_access(request: Request) -> AccessAnswer:
        """Return whether there are jobs, and whether who asks may start and end them."""
        return desk.access(request)

    @router.get("/jobs", response_model=JobsAnswer, summary="The jobs")
    async def list_jobs(
        request: Request,
        state: JobState | None = None,
        offset: Annotated[int, Query(ge=0, lt=2**31)] = 0,
        limit: Annotated[int, Query(ge=1, le=MOST_JOBS)] = 100,
    ) -> JobsAnswer:
        """Return one page, newest first."""
        return await desk.asked(request, partial(desk.listed, state, offset=offset, limit=limit))

    @router.get("/jobs/schema", response_model=dict[str, Any], summary="What a job may be asked for")
    async def show_schema() -> dict[str, Any]:
        """Return the JSON schema of the settings by table, each setting with its text; `JobSettings` is the whole."""
        desk.queue  # noqa: B018  # refuses if there is none
        return settings_schemas()

    @router.get("/jobs/{job}", response_model=JobAnswer, summary="One job")
    async def show_job(request: Request, job: JobId) -> JobAnswer:
        """Return a job: its state, its settings, its process, how it ended. What goes on in its run, `/runs` says."""
        return await desk.asked(request, partial(desk.shown, job))

    @router.get("/jobs/{job}/log", response_model=LogAnswer, summary="What a job has printed")
    async def show_log(
        request: Request,
        job: JobId,
        nbytes: Annotated[int, Query(ge=1, le=LONGEST_LOG_NBYTES, description="Of its end.")] = 65_536,
    ) -> LogAnswer:
        """Return the end of the log of a job."""
        return await desk.asked(request, partial(desk.log, job, nbytes))


def _add_acting(router: APIRouter, desk: JobDesk) -> None:
    @router.post(
        "/jobs",
        response_model=JobAnswer,
        status_code=201,
        summary="Submit a job",
        openapi_extra=SETTINGS_BODY,
    )
    async def submit_job(request: Request) -> Response:
        """Queue a job, which is `actisketch run` with these settings. The same output as that of a run resumes it."""
        desk.check_may_act(request)
        tree = await read_tree(request, partial(desk.asked, request))
        return _created(request, await desk.asked(request, partial(desk.submitted, tree)))

    @router.post("/jobs/plan", response_model=PlanAnswer, summary="Plan a job", openapi_extra=SETTINGS_BODY)
    async def plan_job_of(request: Request) -> PlanAnswer:
        """Return what a job would need: points, blocks, disk and memory. Nothing is run or written."""
        desk.check_may_act(request)
        return await desk.planned(request, await read_tree(request, partial(desk.asked, request)))

    @router.post(
        "/jobs/repair",
        response_model=JobAnswer,
        status_code=201,
        summary="Repair a run",
        openapi_extra=REPAIR_BODY,
    )
    async def repair(request: Request) -> Response:
        """Queue the computing of the damaged blocks of a run, which is `actisketch verify --repair`."""
        desk.check_may_act(request)
        tree = await read_tree(request, partial(desk.asked, request), kinds=("application/json",))
        try:
            asked = RepairQuestion.model_validate(tree, strict=True)
        except ValidationError:
            raise InputError('the body should be {"run": "the id of a run"}') from None
        return _created(request, await desk.asked(request, partial(desk.repaired, asked.run)))

    @router.post("/jobs/{job}/cancel", response_model=JobAnswer, summary="Cancel a job")
    async def cancel_job(request: Request, job: JobId) -> JobAnswer:
        """End a job as Ctrl-C does: finished blocks are kept. One that does not listen is killed after a while."""
        desk.check_may_act(request)
        return await desk.asked(request, partial(desk.cancelled, job))

    @router.post("/jobs/{job}/resume", response_model=JobAnswer, summary="Resume a job")
    async def resume_job(request: Request, job: JobId) -> JobAnswer:
        """Queue a job that has ended again: what is finished is reloaded."""
        desk.check_may_act(request)
        return await desk.asked(request, partial(desk.resumed, job))


def _created(request: Request, job: JobAnswer) -> Response:
    root = request.scope.get("root_path", "")
    headers = {"location": f"{root}/api/v1/jobs/{job.id}"}
    return JSONResponse(job.model_dump(mode="json"), 201, headers=headers)
