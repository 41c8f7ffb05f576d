"""The answers about jobs, and the schema of what a job may be asked for. They are part of the OpenAPI document.

Knows values. Does not know how they are found.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from ...settings.job_settings import JobSettings
from ...settings.template import job_text
from ..run_root import id_of
from .job_table import Job, JobKind, JobState

__all__ = [
    "AccessAnswer",
    "JobAnswer",
    "JobsAnswer",
    "ListedJob",
    "LogAnswer",
    "PlanAnswer",
    "RepairQuestion",
    "job_answer",
    "listed_job",
    "settings_schemas",
]


class AccessAnswer(BaseModel):
    """What is possible here."""

    has_jobs: bool = Field(description="Whether the operator allowed jobs (`--allow-jobs`).")
    may_act: bool = Field(description="Whether who asks may start and end jobs.")


class ListedJob(BaseModel):
    """A job, as in the list."""

    id: int
    kind: JobKind
    state: JobState = Field(
        description="`interrupted`: its process ended without a word, or was told to stop. Every job that has ended "
        "can be resumed: what is finished is reloaded."
    )
    run: str = Field(description="Id of its run, for `/api/v1/runs/{run}`.")
    name: str = Field(description="Folder of its run, below the folder that is served.")
    has_run: bool = Field(
        description="Whether the folder of the run has a manifest, so that it can be asked."
    )
    attempt: int = Field(description="How often a process was started for it.")
    pid: int | None
    process_started_s: float | None = Field(description="Seconds since 1970, as all times here.")
    exit_code: int | None
    submitted_s: float
    queued_s: float
    claimed_s: float | None
    cancelled_s: float | None
    ended_s: float | None
    message: str = Field(description="How it ended, and what can be done.")


class JobAnswer(ListedJob):
    """A job."""

    settings: dict[str, Any] = Field(description="As they were asked for; empty for a repair.")
    job_file: str = Field(
        description="The same for `actisketch run`, with paths from the folder that is served."
    )


class JobsAnswer(BaseModel):
    """A page of the jobs, newest first."""

    n_total: int
    offset: int
    limit: int
    n_at_once: int = Field(description="How many jobs work at the same time.")
    jobs: list[ListedJob] = Field(description="Without their settings: `/api/v1/jobs/{job}` has them.")


class LogAnswer(BaseModel):
    """The end of what the processes of a job have printed."""

    job: int
    nbytes: int = Field(description="Of the whole log.")
    is_cut: bool = Field(description="Whether the text begins later than the log.")
    text: str


class PlanAnswer(BaseModel):
    """What a job would need. Nothing was run or written."""

    plan: dict[str, Any] = Field(description="As `actisketch plan --json`.")
    refusal: str | None = Field(description="Why the job would be refused now; None if it would not.")
    warnings: list[str]
    job_file: str = Field(
        description="The settings as a job file, with paths from the folder that is served."
    )


class RepairQuestion(BaseModel):
    """Which run is to be repaired."""

    run: str = Field(max_length=1000, description="Its id, as in the list of runs.")


def job_answer(job: Job, *, has_run: bool) -> JobAnswer:
    """Return a job as an answer."""
    listed = listed_job(job, has_run=has_run)
    return JobAnswer(**listed.model_dump(), settings=dict(job.settings), job_file=job_text(job.settings))


def listed_job(job: Job, *, has_run: bool) -> ListedJob:
    """Return a job as it is listed."""
    hidden = ("output", "settings", "n_auto_resumes", "n_signals")
    facts = {name: getattr(job, name) for name in Job.__dataclass_fields__ if name not in hidden}
    return ListedJob(**facts, run=id_of(job.output), name=job.output, has_run=has_run)


def settings_schemas() -> dict[str, Any]:
    """Return the JSON schema of each table of settings by its name in the OpenAPI document; JobSettings has all."""
    whole = JobSettings.model_json_schema(ref_template="#/components/schemas/{model}")
    tables: dict[str, Any] = whole.pop("$defs")
    return {**tables, "JobSettings": whole}
