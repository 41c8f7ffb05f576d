"""Starts queued jobs, watches those that work, and notes how they end: also those that an earlier service started.

Knows jobs and processes. Does not know requests.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from ....storage.errors import ActisketchError, BusyError, InputError, StorageError
from ....storage.locks import FileLock
from ...settings.job_settings import JobSettings
from ...settings.loading import validate_job
from ...settings.template import job_text
from ..run_root import RunRoot
from .job_places import Permissions, anchored, check_places
from .job_table import MOST_AUTO_RESUMES, Job, JobTable
from .plan_process import PLAN_PREFIX
from .processes import JOB_COMMAND, JobFolder, end_session, is_held, start_process, tell_process
from .reconciling import LONGEST_MESSAGE, has_finished, how_it_ended, note_before
from .repairing import check_repair
from .still_inside import note_allowed

__all__ = ["JOBS_FOLDER", "JobQueue"]

logger = logging.getLogger(__name__)

JOBS_FOLDER = ".actisketch-jobs"
"""Below the folder that is served. Hidden: no request can name it."""
INTERVAL_S = 0.5
# Ctrl-C lets a job finish what it writes; SIGTERM means the same to it, and reaches it where an import has swallowed
# the first. SIGKILL leaves finished blocks too.
SIGNALS = ((signal.SIGINT, 0.0), (signal.SIGTERM, 30.0), (signal.SIGKILL, 45.0))


class JobQueue:
    """The queue of one folder, and the thread that works it off; use it in a ``with``.

    Parameters
    ----------
    root : RunRoot
    allowed : Permissions
    n_at_once : int
        Jobs that may work at the same time.
    auto_resume : bool
        Whether jobs that ended without a word are queued again by themselves.
    command : sequence of str
        Of the process of a job; path of the table, id and attempt are added.

    Raises
    ------
    BusyError
        When entered, if another service has the queue of this folder.
    """

    def __init__(
        self,
        root: RunRoot,
        allowed: Permissions,
        *,
        n_at_once: int = 1,
        auto_resume: bool = False,
        command: Sequence[str] = JOB_COMMAND,
    ) -> None:
        self._root, self.allowed = root, allowed
        self.n_at_once, self._auto_resume, self._command = n_at_once, auto_resume, command
        self._started: dict[tuple[int, int], subprocess.Popen[bytes]] = {}
        self._told: set[str] = set()
        self._cancelling: dict[tuple[int, int], float] = {}  # since when, by the clock that nobody sets
        self._wake, self._is_closed = threading.Event(), False
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)
        self._lock: FileLock | None = None
        self.folder = root.path / JOBS_FOLDER
        _make_private(self.folder)
        self.table = JobTable(self.folder / "jobs.sqlite")

    def __enter__(self) -> JobQueue:
        # Of no cache, but the same lock.
        (self.folder / "service").mkdir(exist_ok=True)
        try:
            self._lock = FileLock.acquire(self.folder / "service" / "lock")
        except BusyError as error:
            who = f", process {error.pid} on {error.host}," if "pid" in error.facts else ""
            raise BusyError(
                f"another service{who} has the queue of jobs in {str(self._root.path)!r}: stop it, or serve without "
                "--allow-jobs",
                **error.facts,
            ) from None
        for left in self.folder.glob(f"{PLAN_PREFIX}*"):
            shutil.rmtree(left, ignore_errors=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop to start jobs. Those that work go on, and the next service watches them."""
        self._is_closed = True
        self._wake.set()
        self._thread.join()
        if self._lock is not None:
            self._lock.release()

    def wake(self) -> None:
        """Look at the table now."""
        self._wake.set()

    def folder_of(self, job: Job) -> JobFolder:
        """Return where the files of a job are."""
        return JobFolder.beside(self.table.path, job.id)

    def settings_of(self, job: Job) -> JobSettings:
        """Return the settings of a job, with absolute paths."""
        return anchored(validate_job(job.settings), self._root)

    def _work(self) -> None:
        while not self._is_closed:
            with self._logged("the queue of jobs"):
                self.look()
            self._wake.wait(INTERVAL_S)
            self._wake.clear()

    @contextmanager
    def _logged(self, what: str) -> Iterator[None]:
        """Log an error, once, and go on: a disk that is full or away perhaps is not the next time."""
        try:
            yield
        except Exception as error:
            told = f"{what}: {type(error).__name__}: {error}"
            if told not in self._told:
                self._told.add(told)
                logger.exception("%s could not be looked at", what)

    def look(self) -> None:
        """Compare the table with what runs, and start what may be started."""
        working = self.table.working()
        for job in working:
            with self._logged(f"job {job.id}"):
                if job.state == "starting":
                    self._look_at_start(job)
                else:
                    self._look_at_work(job)
        for key in self._started.keys() - {(job.id, job.attempt) for job in working}:
            if self._started[key].poll() is not None:
                del self._started[key]
        for key in self._cancelling.keys() - {(job.id, job.attempt) for job in working}:
            del self._cancelling[key]
        while not self._is_closed and (claimed := self.table.claim(self.n_at_once)):
            self._start(claimed)

    def _start(self, job: Job) -> None:
        folder = self.folder_of(job)
        try:
            folder.path.mkdir(exist_ok=True)
            arguments = self._arguments(job, folder)
            note_allowed(folder, self._root, self.allowed)
            folder.arguments_path.write_text(json.dumps(arguments), encoding="utf-8")
            note_before(job, self._root.path / job.output, folder)
            process = start_process(self.table.path, job, self._command, cwd=self._root.path)
        except (ActisketchError, OSError) as error:
            self.table.end(job, "failed", f"it could not be started: {error}")
            return
        except Exception as error:  # left `starting`, it would be queued again for ever
            logger.exception("job %d could not be started", job.id)
            told = f"{type(error).__name__}: {error}"[:LONGEST_MESSAGE]
            self.table.end(
                job, "failed", f"it could not be started: {told} (the log of the service says more)"
            )
            return
        self._started[job.id, job.attempt] = process

    def _arguments(self, job: Job, folder: JobFolder) -> list[str]:
        """Return what the command line is called with; what has changed since the job was submitted is refused.

        It may have waited for days, and a link have been put in the place of a folder.
        """
        if job.kind == "repair":
            flags = check_repair(job.output, self._root, self.allowed)
            return ["verify", str(self._root.path / job.output), "--repair", *flags]
        settings = self.settings_of(job)
        check_places(settings, self._root, self.allowed)
        text = job_text(settings.model_dump(mode="json", exclude_unset=True))
        folder.job_path.write_text(text, encoding="utf-8")
        return ["run", str(folder.job_path)]

    def _look_at_start(self, job: Job) -> None:
        process = self._started.get((job.id, job.attempt))
        if process is None:
            # Of a service that is gone. Its process, if there is one, comes too late: the attempt is another one.
            self.table.queue_again(job, "", is_auto_resume=False)
        elif process.poll() is not None and self.table.job(job.id).state == "starting":
            self.table.end(job, "failed", "its process ended before it began: its log says why")

    def _look_at_work(self, job: Job) -> None:
        folder = self.folder_of(job)
        if is_held(folder.lock_path):
            if job.state == "cancelling":
                self._cancel(job)
            return
        process = self._started.get((job.id, job.attempt))
        returned = None if process is None else _returned(process)
        end_session(job)
        job = self.table.job(job.id)  # its last words came before it let its lock go
        is_finished = job.exit_code is None and self._has_finished(job)
        state, message = how_it_ended(job, returned, is_finished=is_finished, folder=folder)
        is_again = state == "interrupted" and self._auto_resume and job.n_auto_resumes < MOST_AUTO_RESUMES
        if is_again:
            self.table.queue_again(job, message, is_auto_resume=True)
        else:
            self.table.end(job, state, message)

    def _has_finished(self, job: Job) -> bool:
        try:
            output = self._root.path / job.output
            return has_finished(job, output, self.settings_of(job), self.folder_of(job))
        except InputError:  # an earlier program took these settings
            return False

    def _cancel(self, job: Job) -> None:
        """Send the next signal if it is due."""
        now_s = time.monotonic()
        # How long an earlier service has waited only a clock tells that may have been set since: this one waits anew.
        waited_s = now_s - self._cancelling.setdefault((job.id, job.attempt), now_s)
        if job.n_signals < len(SIGNALS):
            number, after_s = SIGNALS[job.n_signals]
            if waited_s >= after_s and self.table.note_signal(job):
                tell_process(job, number)


def _returned(process: subprocess.Popen[bytes]) -> int | None:
    try:
        # Its lock is free: it is at its end.
        return process.wait(10)
    except subprocess.TimeoutExpired:
        return None


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        is_own = not folder.is_symlink() and folder.stat().st_uid == os.getuid()
    except OSError as error:
        raise StorageError(
            f"the jobs of this folder are kept in {str(folder)!r}, which cannot be made: {error.strerror}"
        ) from None
    if not is_own:
        raise InputError(
            f"{str(folder)!r}, where jobs are kept, is a link or somebody else's: remove it, or serve another folder"
        )
