"""From a request about jobs to its answer.

Knows jobs and answers. Does not know addresses.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fastapi import Request

from ....storage.claim import writer_of
from ....storage.errors import BusyError
from ...settings.template import job_text
from ...settings.visible import visible
from ..problems import Forbidden, JobsOff
from ..run_root import MANIFEST, RunRoot, path_in_id
from ..sign_in import MAY_ACT
from ..workers import Stop, Workers
from .job_answers import AccessAnswer, JobAnswer, JobsAnswer, LogAnswer, PlanAnswer, job_answer, listed_job
from .job_places import kept_settings, requested
from .job_queue import JobQueue
from .job_table import Job, JobState
from .plan_process import planned
from .repairing import check_repair

__all__ = ["JobDesk"]

Answer = TypeVar("Answer")


class JobDesk:
    """Answers requests about jobs.

    Parameters
    ----------
    root : RunRoot
    queue : JobQueue, optional
        None if the operator has not allowed jobs.
    quick : Workers
        Threads that look at the table and at files.
    planning : Workers
        One thread: plans take as much memory as TensorFlow.
    """

    def __init__(self, root: RunRoot, queue: JobQueue | None, *, quick: Workers, planning: Workers) -> None:
        self._root, self._queue = root, queue
        self._quick, self._planning = quick, planning

    @property
    def queue(self) -> JobQueue:
        """The queue; Forbidden if there is none."""
        if self._queue is None:
            raise JobsOff("this service only reads: the operator can start it with --allow-jobs")
        return self._queue

    def access(self, request: Request) -> AccessAnswer:
        """Return what is possible for who asks."""
        has_jobs = self._queue is not None
        return AccessAnswer(has_jobs=has_jobs, may_act=has_jobs and request.scope.get(MAY_ACT, False))

    def check_may_act(self, request: Request) -> JobQueue:
        """Return the queue; Forbidden if who asks may only read."""
        queue = self.queue
        if not request.scope.get(MAY_ACT, False):
            raise Forbidden(
                "this token may only read: send one of --jobs-token-file, or sign a browser in with the printed address"
            )
        return queue

    def listed(self, state: JobState | None, *, offset: int, limit: int) -> JobsAnswer:
        """Return a page of the jobs."""
        jobs, n_total = self.queue.table.jobs(state=state, offset=offset, limit=limit)
        return JobsAnswer(
            n_total=n_total,
            offset=offset,
            limit=limit,
            n_at_once=self.queue.n_at_once,
            jobs=[listed_job(job, has_run=self._has_run(job)) for job in jobs],
        )

    def shown(self, job_id: int) -> JobAnswer:
        """Return a job."""
        return self._answer(self.queue.table.job(job_id))

    def _answer(self, job: Job) -> JobAnswer:
        """Return a job as an answer."""
        return job_answer(job, has_run=self._has_run(job))

    def _has_run(self, job: Job) -> bool:
        return os.path.lexists(self._root.path / job.output / MANIFEST)

    async def asked(self, request: Request, make: Callable[[], Answer]) -> Answer:
        """Return what is made in a thread."""
        return await self._quick.run(lambda _: make(), request.is_disconnected)

    def submitted(self, tree: Mapping[str, Any]) -> JobAnswer:
        """Queue a job."""
        requested(tree, self._root, self.queue.allowed)
        settings = kept_settings(tree)
        output = str(settings["output"])
        self._check_unclaimed(output)
        return self._queued(self.queue.table.add("run", output, settings))

    def repaired(self, run_id: str) -> JobAnswer:
        """Queue the repair of a run."""
        name = path_in_id(run_id)
        check_repair(name, self._root, self.queue.allowed)
        self._check_unclaimed(name)
        return self._queued(self.queue.table.add("repair", name, {}))

    def resumed(self, job_id: int) -> JobAnswer:
        """Queue a job again."""
        job = self.queue.table.job(job_id)
        if not job.is_open:  # the table says it better
            self._check_unclaimed(job.output)
        return self._queued(self.queue.table.resume(job_id))

    def cancelled(self, job_id: int) -> JobAnswer:
        """Cancel a job."""
        return self._queued(self.queue.table.cancel(job_id))

    def _queued(self, job: Job) -> JobAnswer:
        self.queue.wake()
        return self._answer(job)

    def _check_unclaimed(self, output: str) -> None:
        """Refuse a folder in which somebody works."""
        holder = writer_of(self._root.path / output / "cache")
        if holder is not None:
            raise BusyError(
                f"process {holder.pid} on {holder.host} works in {output!r}: wait for it, or cancel its job"
            )

    async def planned(self, request: Request, tree: Mapping[str, Any]) -> PlanAnswer:
        """Return what a job would need."""
        queue = self.queue

        def make(stop: Stop) -> PlanAnswer:
            settings = requested(tree, self._root, queue.allowed)
            plan, refusal, warnings = planned(settings, queue.folder, stop)
            return PlanAnswer(
                plan=plan, refusal=refusal, warnings=warnings, job_file=job_text(kept_settings(tree))
            )

        return await self._planning.run(make, request.is_disconnected)

    def log(self, job_id: int, nbytes: int) -> LogAnswer:
        """Return the end of the log of a job."""
        job = self.queue.table.job(job_id)
        text, n_all = self.queue.folder_of(job).log_end(nbytes)
        return LogAnswer(job=job_id, nbytes=n_all, is_cut=n_all > nbytes, text=visible(text, kept="\n\t"))
