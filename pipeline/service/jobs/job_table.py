"""The queue of jobs: one table of SQLite. Every change of a job is one transaction: a crash leaves none half done.

Knows rows. Does not know processes, paths or requests.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ....storage.errors import BusyError, FormatError, NotFoundError, StorageError

__all__ = ["Job", "JobKind", "JobState", "JobTable"]

JobKind = Literal["run", "repair"]
JobState = Literal[
    "queued", "starting", "running", "cancelling", "complete", "failed", "cancelled", "interrupted"
]
"""``starting``: claimed, and its process has not said that it works. ``interrupted``: it ended without a word or was
told to stop, and resuming goes on from its last block."""

FORMAT_VERSION = 1
# A job that takes the machine down each time is not started for ever.
MOST_AUTO_RESUMES = 3
# That wait or work: each is looked at when another is submitted.
MOST_OPEN = 100
# The others write for a millisecond; a disk that hangs longer is broken.
BUSY_S = 60.0
# A job in one of these has a process, or gets one.
WORKING: Sequence[JobState] = ("starting", "running", "cancelling")
OPEN: Sequence[JobState] = ("queued", *WORKING)
# What is known of a process, before there is one.
_NOT_BEGUN: Mapping[str, Any] = {
    "pid": None,
    "process_started_s": None,
    "exit_code": None,
    "n_signals": 0,
    "cancelled_s": None,
    "ended_s": None,
    "message": "",
}

_CREATE = f"""
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    output TEXT NOT NULL,
    settings TEXT NOT NULL,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    n_auto_resumes INTEGER NOT NULL DEFAULT 0,
    n_signals INTEGER NOT NULL DEFAULT 0,
    pid INTEGER,
    process_started_s REAL,
    exit_code INTEGER,
    submitted_s REAL NOT NULL,
    queued_s REAL NOT NULL,
    claimed_s REAL,
    cancelled_s REAL,
    ended_s REAL,
    message TEXT NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX IF NOT EXISTS one_open_job_of_a_folder ON jobs (output)
    WHERE state IN ({", ".join(f"'{state}'" for state in OPEN)});
CREATE INDEX IF NOT EXISTS by_state ON jobs (state);
PRAGMA user_version = {FORMAT_VERSION};
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A row."""

    id: int
    kind: JobKind
    output: str
    """The folder of the run, below the folder that is served."""
    settings: Mapping[str, Any]
    """As they were asked for; empty for a repair."""
    state: JobState
    attempt: int
    """How often it was claimed. A process of an earlier attempt that comes late is turned away by it."""
    n_auto_resumes: int
    """Since somebody submitted or resumed it."""
    n_signals: int
    """That its process was sent to end it."""
    pid: int | None
    process_started_s: float | None
    """When the process started, seconds since 1970, as all times here."""
    exit_code: int | None
    """As its process noted it; None while it works, or if it ended without a word."""
    submitted_s: float
    queued_s: float
    claimed_s: float | None
    cancelled_s: float | None
    ended_s: float | None
    message: str

    @property
    def is_open(self) -> bool:
        """Whether it waits or works."""
        return self.state in OPEN


class JobTable:
    """The table. May be used by several threads and processes at once.

    Parameters
    ----------
    path : Path
        Of the database, on a disk of this machine. Made if there is none.

    Raises
    ------
    FormatError
        If the file is damaged or of a newer program.
    StorageError
        From every method, if the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._connected() as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > FORMAT_VERSION:
                raise FormatError(
                    f"the jobs in {str(path)!r} are of format {version}, this program reads {FORMAT_VERSION}: update "
                    "actisketch"
                )
            if version < FORMAT_VERSION:
                # Readers are never in the way of the one who writes.
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(_CREATE)

    def add(self, kind: JobKind, output: str, settings: Mapping[str, Any]) -> Job:
        """Queue a new job; BusyError if one is open in, above or below its folder, or too many are."""
        now_s = time.time()
        with self._writing() as connection, _one_for_a_folder(output):
            _check_room(connection, output)
            added = connection.execute(
                "INSERT INTO jobs (kind, output, settings, state, submitted_s, queued_s) "
                "VALUES (?, ?, ?, 'queued', ?, ?)",
                (kind, output, json.dumps(settings), now_s, now_s),
            )
            return self._row(connection, int(added.lastrowid or 0))

    def job(self, job_id: int) -> Job:
        """Return a job; NotFoundError if there is none."""
        with self._connected() as connection:
            return self._row(connection, job_id)

    def jobs(self, *, state: str | None, offset: int, limit: int) -> tuple[list[Job], int]:
        """Return a page of the jobs, newest first, and how many there are in all."""
        where = "WHERE state = :state" if state else ""
        asked = {"state": state, "offset": offset, "limit": limit}
        with self._connected() as connection:
            (n_total,) = connection.execute(f"SELECT count(*) FROM jobs {where}", asked).fetchone()
            rows = connection.execute(
                f"SELECT * FROM jobs {where} ORDER BY id DESC LIMIT :limit OFFSET :offset", asked
            )
            return [_job(row) for row in rows], n_total

    def n_in(self, *states: JobState) -> int:
        """Return how many jobs are in these states."""
        with self._connected() as connection:
            (n,) = connection.execute(
                f"SELECT count(*) FROM jobs WHERE state IN ({_marks(states)})", states
            ).fetchone()
        return int(n)

    def working(self) -> list[Job]:
        """Return the jobs that have a process, or get one."""
        with self._connected() as connection:
            rows = connection.execute(
                f"SELECT * FROM jobs WHERE state IN ({_marks(WORKING)}) ORDER BY id", WORKING
            )
            return [_job(row) for row in rows]

    def claim(self, limit: int) -> Job | None:
        """Return the job that has waited longest, as ``starting``; None if there is none, or ``limit`` jobs work."""
        with self._writing() as connection:
            (n_working,) = connection.execute(
                f"SELECT count(*) FROM jobs WHERE state IN ({_marks(WORKING)})", WORKING
            ).fetchone()
            first = connection.execute(
                "SELECT id, attempt FROM jobs WHERE state = 'queued' ORDER BY queued_s, id LIMIT 1"
            ).fetchone()
            if n_working >= limit or first is None:
                return None
            values = {"state": "starting", "attempt": first["attempt"] + 1, "claimed_s": time.time()}
            self._set(connection, first["id"], {**_NOT_BEGUN, **values})
            return self._row(connection, first["id"])

    def begin(self, job_id: int, attempt: int, *, pid: int, process_started_s: float) -> bool:
        """Note the process of a job that was claimed; False if it came too late, and must not work."""
        return self._change(
            job_id,
            attempt,
            ("starting",),
            {"state": "running", "pid": pid, "process_started_s": process_started_s},
        )

    def note_exit(self, job_id: int, attempt: int, exit_code: int) -> None:
        """Note how the process of a job has ended; called by it, at its end."""
        self._change(job_id, attempt, ("running", "cancelling"), {"exit_code": exit_code})

    def note_signal(self, job: Job) -> bool:
        """Count a signal before it is sent: after a crash the next one is sent, never the same one again."""
        return self._change(job.id, job.attempt, ("cancelling",), {"n_signals": job.n_signals + 1})

    def end(self, job: Job, state: JobState, message: str) -> bool:
        """Note the end of a job; False if somebody has changed its state meanwhile."""
        values = {"state": state, "message": message, "ended_s": time.time()}
        return self._change(job.id, job.attempt, (job.state,), values)

    def queue_again(self, job: Job, message: str, *, is_auto_resume: bool) -> bool:
        """Let a job wait again; False if somebody has changed its state meanwhile."""
        n = job.n_auto_resumes + is_auto_resume
        values = {"state": "queued", "message": message, "n_auto_resumes": n, "queued_s": time.time()}
        return self._change(job.id, job.attempt, (job.state,), values)

    def cancel(self, job_id: int) -> Job:
        """End a job that waits; mark one that works, so that its process is told. BusyError if it has ended."""
        with self._writing() as connection:
            job = self._row(connection, job_id)
            if not job.is_open:
                raise BusyError(
                    f"job {job_id} has ended already, it is {job.state}: there is nothing to cancel"
                )
            if job.state == "running":
                self._set(connection, job_id, {"state": "cancelling", "cancelled_s": time.time()})
            elif job.state != "cancelling":
                # A process on its way finds another state than `starting`, and does not work.
                message = "cancelled before it began: resuming queues it again"
                self._set(
                    connection, job_id, {"state": "cancelled", "ended_s": time.time(), "message": message}
                )
            return self._row(connection, job_id)

    def resume(self, job_id: int) -> Job:
        """Queue a job that has ended again; BusyError if it is open, or for what `add` refuses."""
        with self._writing() as connection:
            job = self._row(connection, job_id)
            if job.is_open:
                raise BusyError(f"job {job_id} is {job.state}: it can be resumed when it has ended")
            _check_room(connection, job.output)
            with _one_for_a_folder(job.output):
                values = {"state": "queued", "queued_s": time.time(), "n_auto_resumes": 0}
                self._set(connection, job_id, {**_NOT_BEGUN, **values})
            return self._row(connection, job_id)

    def _change(
        self, job_id: int, attempt: int, states: Sequence[JobState], values: Mapping[str, Any]
    ) -> bool:
        """Change a row if it is still of this attempt and in one of these states."""
        with self._writing() as connection:
            found = connection.execute(
                f"SELECT 1 FROM jobs WHERE id = ? AND attempt = ? AND state IN ({_marks(states)})",
                (job_id, attempt, *states),
            ).fetchone()
            if found is not None:
                self._set(connection, job_id, values)
            return found is not None

    @staticmethod
    def _set(connection: sqlite3.Connection, job_id: int, values: Mapping[str, Any]) -> None:
        columns = ", ".join(f"{name} = :{name}" for name in values)
        connection.execute(f"UPDATE jobs SET {columns} WHERE id = :id", {**values, "id": job_id})

    @staticmethod
    def _row(connection: sqlite3.Connection, job_id: int) -> Job:
        row = connection.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if row is None:
            raise NotFoundError(f"there is no job {job_id}: GET /api/v1/jobs lists the jobs")
        return _job(row)

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None)
            try:
                connection.row_factory = sqlite3.Row
                yield connection
            finally:
                connection.close()
        except sqlite3.OperationalError as error:
            raise StorageError(
                f"the table of jobs {str(self.path)!r} cannot be used ({error}): see whether its disk is full, "
                "read-only or away"
            ) from None
        except sqlite3.DatabaseError as error:
            raise FormatError(
                f"the table of jobs {str(self.path)!r} is damaged ({error}): stop the service and move that file away; "
                "runs are kept"
            ) from None

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection in a transaction that nobody else writes in."""
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                if connection.in_transaction:  # SQLite has rolled back by itself where the disk is full
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")


@contextmanager
def _one_for_a_folder(output: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.IntegrityError:
        raise BusyError(
            f"another job waits or works in {output!r}: wait for it, cancel it, or choose another output"
        ) from None


def _check_room(connection: sqlite3.Connection, output: str) -> None:
    """Refuse one more job than may be open, and a folder that holds or lies in that of an open job."""
    others = connection.execute(f"SELECT output FROM jobs WHERE state IN ({_marks(OPEN)})", OPEN).fetchall()
    for (other,) in others:
        if f"{output}/".startswith(f"{other}/") != f"{other}/".startswith(f"{output}/"):
            raise BusyError(
                f"{output!r} and the folder of another job, {other!r}, lie in each other: choose one beside it"
            )
    if len(others) >= MOST_OPEN:
        raise BusyError(
            f"{len(others)} jobs wait or work, at most {MOST_OPEN} may: wait for one, or cancel one"
        )


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _job(row: sqlite3.Row) -> Job:
    facts = {**dict(row), "settings": json.loads(row["settings"])}
    if facts["state"] not in get_args(JobState) or facts["kind"] not in get_args(JobKind):
        raise FormatError(
            f"job {facts['id']} has an unknown state {facts['state']!r}: the table is of another program"
        )
    return Job(**facts)
