"""Kills of the service and of a job in every state of the table, and what must be so after a restart.

By hand, as often as wanted: python tests/service/kill_jobs.py 50
"""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from actisketch.pipeline.service.jobs.job_table import Job, JobTable
from actisketch.pipeline.service.jobs.processes import JobFolder, is_held
from actisketch.pipeline.service.jobs.work_as_job import EXIT_NOT_BEGUN
from tests.on_disk import contents

# Who is killed, in which state of the table, and how the job may be found afterwards.
SCENES = (
    ("queued", "service"),
    ("claimed", "service"),
    ("starting", "service"),
    ("starting", "both"),
    ("running", "service"),
    ("running", "job"),
    ("running", "both"),
    ("cancelling", "service"),
    ("cancelling", "both"),
    ("finished", "both"),
    ("finished", "service"),
)
SKIPPED = ("lock", "tmp", "run.json")
LIMIT_S = 120.0


class Killing:
    """A service over a folder, whose processes are killed.

    Parameters
    ----------
    root : Path
        New, and empty.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.n_kills = root, 0
        self._n_jobs = 0
        self._process: subprocess.Popen[str] | None = None
        self.start()
        self.table = JobTable(root / ".actisketch-jobs" / "jobs.sqlite")
        self.wait_for(self.submit("whole"), "complete")
        self.expected = contents(root / "whole", without=SKIPPED)
        assert len(self.expected) > 5

    def start(self) -> None:
        """Start the service, and wait until it answers."""
        script = Path(__file__).with_name("serve_jobs.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(self.root)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline().startswith("http://")

    def kill_service(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.communicate()
        self.n_kills += 1

    def kill_job(self, job: Job) -> None:
        """Kill the process of a job, also one that the table does not know yet."""
        for pid in self.processes(job):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.until(lambda: not self.processes(job))
        self.n_kills += 1

    def processes(self, job: Job) -> list[int]:
        """The processes that were started for a job, as the system lists them."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (place / "cmdline").read_bytes().split(b"\0")
                if str(self.table.path).encode() in words and str(job.id).encode() in words:
                    found.append(int(place.name))
        return found

    def submit(self, name: str) -> Job:
        """Queue a job, as the service does."""
        tree = {"output": name, "model": {"path": "net.keras"}, "data": {"path": "x.npz"}}
        tree |= {part: {"enabled": False} for part in ("normalize", "report")}
        return self.table.add("run", name, tree)

    @staticmethod
    def until(is_so: Callable[[], object]) -> None:
        until_s = time.monotonic() + LIMIT_S
        while not is_so():
            assert time.monotonic() < until_s
            time.sleep(0.002)

    def wait_for(self, job: Job, *states: str) -> Job:
        self.until(lambda: self.table.job(job.id).state in states)
        return self.table.job(job.id)

    @contextmanager
    def table_locked(self) -> Iterator[None]:
        """Nobody else can write to the table: whoever wants to waits."""
        connection = sqlite3.connect(self.table.path, timeout=LIMIT_S, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield
        finally:
            connection.close()

    def play(self, state: str, killed: str) -> None:
        """Bring a job into a state, kill, restart, and check what is told and what becomes of it."""
        self._n_jobs += 1
        name = f"run{self._n_jobs}"
        if state == "queued":
            self._kill_queued(name)
            return
        if state == "claimed":
            self._kill_claimed(name)
            return
        hold = self.root / f"{name}.hold"
        hold.touch()
        job = self.submit(name)
        if state == "starting":
            self._kill_starting(job, killed)
        elif state == "finished":
            hold.unlink()
            self._kill_finished(job, killed)
            return
        else:
            self.wait_for(job, "running")
            self.until(lambda: list(self.root.glob(f"{name}/cache/.actisketch/commits/*")))
            if state == "cancelling":
                self.table.cancel(job.id)
            pids = self._kill(job, killed)
            self._check_after_kill(job, state, killed, pids)
        hold.unlink()
        self._finish(job)

    def _kill(self, job: Job, killed: str) -> list[int]:
        pids = self.processes(job)
        if killed in ("service", "both"):
            self.kill_service()
        if killed in ("job", "both"):
            self.kill_job(job)
        if killed != "job":
            self.start()
        return pids

    def _check_after_kill(self, job: Job, state: str, killed: str, pids: list[int]) -> None:
        if state == "cancelling":
            # Perhaps it was told already; a signal that got lost is followed by the next one.
            assert self.wait_for(job, "cancelled").message
        elif killed == "service":
            time.sleep(0.2)  # some looks of the new service
            found = self.table.job(job.id)
            assert (found.state, found.attempt, self.processes(job)) == ("running", 1, pids)
            assert is_held(JobFolder.beside(self.table.path, job.id).lock_path)
        else:
            found = self.wait_for(job, "interrupted")
            assert "without a word" in found.message

    def _kill_queued(self, name: str) -> None:
        """A job that waits for another one, which goes on meanwhile."""
        hold = self.root / f"{name}a.hold"
        hold.touch()
        first, second = self.submit(f"{name}a"), self.submit(f"{name}b")
        self.wait_for(first, "running")
        self.kill_service()
        assert self.table.job(second.id).state == "queued"
        self.start()
        time.sleep(0.2)
        assert (self.table.job(first.id).state, self.table.job(second.id).state) == ("running", "queued")
        hold.unlink()
        for job in (first, second):
            self._finish(job)
            assert self.table.job(job.id).attempt == 1

    def _kill_claimed(self, name: str) -> None:
        """A job that was claimed, and no process started; one that comes for that claim later does not work."""
        (self.root / f"{name}.hold").touch()
        self.kill_service()
        job = self.submit(name)
        claimed = self.table.claim(1)
        assert claimed is not None
        assert (claimed.id, claimed.attempt, claimed.state) == (job.id, 1, "starting")
        self.start()
        self.until(lambda: self.table.job(job.id).attempt == 2)
        late = [
            sys.executable,
            str(Path(__file__).with_name("made_job.py")),
            str(self.table.path),
            str(job.id),
            "1",
        ]
        with subprocess.Popen(late, stderr=subprocess.DEVNULL) as process:
            self.wait_for(job, "running")
            (self.root / f"{name}.hold").unlink()
            assert process.wait() == EXIT_NOT_BEGUN
        self._finish(job)
        assert len((self.root / f"{name}.began").read_text().split()) == 1

    def _kill_starting(self, job: Job, killed: str) -> None:
        """A job that was claimed, whose process has not said that it works; it may do so before or after the kill."""
        self.wait_for(job, "starting", "running")
        with self.table_locked():
            self._kill(job, killed)
        found = self.wait_for(job, "running", "interrupted")
        # Only if it had begun before the kill.
        assert found.state == "running" or killed == "both"

    def _kill_finished(self, job: Job, killed: str) -> None:
        """A job whose work is done, and whose process could not note that."""
        progress = self.root / job.output / "progress.json"
        self.until(progress.exists)
        with self.table_locked():
            self.until(lambda: not progress.exists())
            self._kill(job, killed)
        found = self.wait_for(job, "complete")
        assert (found.attempt, found.exit_code) == (1, None if killed == "both" else 0)
        self._check_bytes(job)

    def _finish(self, job: Job) -> None:
        """Let a job come to its end, resumed if it was interrupted, and compare its results."""
        while self.wait_for(job, "complete", "interrupted", "cancelled", "failed").state != "complete":
            assert self.table.job(job.id).state != "failed", self.table.job(job.id)
            self.table.resume(job.id)
        self._check_bytes(job)

    def _check_bytes(self, job: Job) -> None:
        assert contents(self.root / job.output, without=SKIPPED) == self.expected
        assert not (self.root / f"{job.output}.twice").exists()
        assert not self.processes(self.table.job(job.id))

    def close(self) -> None:
        if self._process is not None:
            self.kill_service()


def main() -> None:
    """Kill so often, and say in which states."""
    with tempfile.TemporaryDirectory() as folder:
        killing = Killing(Path(folder))
        n_in = dict.fromkeys(SCENES, 0)
        for scene in itertools.cycle(SCENES):
            if killing.n_kills >= int(sys.argv[1]):
                break
            before = killing.n_kills
            killing.play(*scene)
            n_in[scene] += killing.n_kills - before
            print(f"{killing.n_kills} kills: {scene}", flush=True)
        killing.close()
    print(f"{sum(n_in.values())} kills, every run with the same bytes, none run twice: {n_in}")


if __name__ == "__main__":
    main()
