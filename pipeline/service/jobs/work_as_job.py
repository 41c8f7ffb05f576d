"""What the process of a job does around its work: say that it begins, and how it has ended.

Runs in the process of the job. Does not know what the work is.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from ....storage.errors import BusyError
from .job_table import JobTable
from .processes import JobFolder, holding

__all__ = ["EXIT_NOT_BEGUN", "run_claimed"]

INTERRUPTED = 130
EXIT_NOT_BEGUN = 75
"""Of a process that came too late: the job was cancelled, or another process has it."""


def run_claimed(arguments: list[str], work: Callable[[JobFolder], int]) -> int:
    """Do the work of a job that was claimed for this process; return its exit code.

    Parameters
    ----------
    arguments : list of str
        Path of the table, id of the job, number of the attempt.
    work : callable
        Given the folder of the job; returns the exit code.
    """
    table, job_id, attempt = JobTable(Path(arguments[0])), int(arguments[1]), int(arguments[2])
    # A shell that starts the service in the background has its processes ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = JobFolder.beside(table.path, job_id)
    try:
        with holding(folder.lock_path):
            return _worked(table, job_id, attempt, lambda: work(folder))
    except BusyError as error:
        print(error, file=sys.stderr)
        return EXIT_NOT_BEGUN


def _worked(table: JobTable, job_id: int, attempt: int, work: Callable[[], int]) -> int:
    started_s = psutil.Process().create_time()
    if not table.begin(job_id, attempt, pid=os.getpid(), process_started_s=started_s):
        return EXIT_NOT_BEGUN
    code = 1  # of an error that is not foreseen
    try:
        code = work()
    except KeyboardInterrupt:
        code = INTERRUPTED
    finally:
        table.note_exit(job_id, attempt, code)
    return code
