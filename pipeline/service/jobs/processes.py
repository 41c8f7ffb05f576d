"""The process of a job: how it is started, known to live, and told to end.

It holds a lock from before it begins to its end, whatever ends it: a process id is used again, and a clock that was set
moves the time when a process started.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from ....storage.errors import BusyError, StorageError
from ....storage.files import open_own, open_unlinked
from ..access import JOBS_TOKEN_VARIABLE, TOKEN_VARIABLE
from .job_table import Job

__all__ = [
    "JOB_COMMAND",
    "JobFolder",
    "end_session",
    "head_of_log",
    "holding",
    "is_held",
    "start_process",
    "tell_process",
]

JOB_COMMAND: Sequence[str] = (sys.executable, "-m", "actisketch.pipeline.cli.job_process")
# In the environment of a job and of all processes that it starts.
MARK = "ACTISKETCH_JOB"
# An earlier process that comes too late holds the lock for a moment.
LOCK_WAIT_S = 10.0
LONGEST_LOG_NBYTES = 256 * 2**10


@dataclass(frozen=True, slots=True)
class JobFolder:
    """The files of one job, which only this program reads."""

    path: Path

    @classmethod
    def beside(cls, table: Path, job_id: int) -> JobFolder:
        """Return the folder of a job of a table."""
        return cls(table.parent / str(job_id))

    @property
    def job_path(self) -> Path:
        """The job file."""
        return self.path / "job.toml"

    @property
    def arguments_path(self) -> Path:
        """What the command line is called with."""
        return self.path / "arguments.json"

    @property
    def allowed_path(self) -> Path:
        """What the operator allows the job."""
        return self.path / "allowed.json"

    @property
    def before_path(self) -> Path:
        """The manifest of the run as it was before the last attempt."""
        return self.path / "before.json"

    @property
    def log_path(self) -> Path:
        """What the processes of the job have printed."""
        return self.path / "log"

    @property
    def lock_path(self) -> Path:
        """Held by the process of the job."""
        return self.path / "lock"

    def log_end(self, nbytes: int = LONGEST_LOG_NBYTES) -> tuple[str, int]:
        """Return the last bytes of the log as text, and how many it has in all; nothing if there is none."""
        try:
            with open(self.log_path, "rb") as file:
                n_all = os.fstat(file.fileno()).st_size
                file.seek(max(0, n_all - nbytes))
                return file.read(nbytes).decode("utf-8", "replace"), n_all
        except FileNotFoundError:
            return "", 0
        except OSError as error:
            raise StorageError(f"the log of the job cannot be read: {error.strerror}") from None


@contextmanager
def holding(path: Path) -> Iterator[None]:
    """Hold a lock; BusyError if another process does for longer than the one that comes too late."""
    import fcntl

    descriptor = open_unlinked(path, os.O_RDWR)
    try:
        until_s = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until_s:
                    raise BusyError(f"another process works on this job, it holds {str(path)!r}") from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether a process holds the lock."""
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def start_process(table: Path, job: Job, command: Sequence[str], *, cwd: Path) -> subprocess.Popen[bytes]:
    """Start the process of a job that was claimed, in a session of its own; what it prints goes to its log.

    Raises
    ------
    OSError
        If the system refuses.
    """
    with open(JobFolder.beside(table, job.id).log_path, "ab", opener=open_own) as log:
        log.write(f"{head_of_log(job)}\n".encode())
        log.flush()
        return subprocess.Popen(
            [*command, str(table), str(job.id), str(job.attempt)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=_environment(os.environ, job),
            start_new_session=True,
        )


def head_of_log(job: Job) -> str:
    """Return the line in the log of a job below which its attempt begins."""
    return f"--- job {job.id}, attempt {job.attempt}"


def _environment(own: Mapping[str, str], job: Job) -> dict[str, str]:
    """Return the environment of a job: the service's, without its tokens."""
    kept = {name: value for name, value in own.items() if name not in (TOKEN_VARIABLE, JOBS_TOKEN_VARIABLE)}
    return {**kept, MARK: _mark(job), "PYTHONUNBUFFERED": "1"}


def _mark(job: Job) -> str:
    return f"{job.id}.{job.attempt}.{job.submitted_s}"


def tell_process(job: Job, number: signal.Signals) -> None:
    """Send a signal to the process of a job, which holds its lock; SIGKILL to all of its session."""
    assert job.pid is not None
    with suppress(ProcessLookupError):
        if number == signal.SIGKILL:
            os.killpg(job.pid, number)
        else:
            os.kill(job.pid, number)


def end_session(job: Job) -> None:
    """Kill what is left of the session of a job whose process has ended, as workers of a local cluster."""
    if job.pid is None:
        return
    for pid in psutil.pids():
        with suppress(OSError, psutil.Error):
            # The id of a session that has ended may be used again: the mark is not.
            if os.getsid(pid) == job.pid and psutil.Process(pid).environ().get(MARK) == _mark(job):
                os.kill(pid, signal.SIGKILL)
