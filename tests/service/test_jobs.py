"""Jobs from submission to their end: the queue, cancelling, resuming, what is told of them. The job is made_job.py."""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from actisketch.pipeline.service.jobs import job_desk, job_queue
from actisketch.pipeline.service.jobs.job_places import Permissions
from actisketch.pipeline.service.jobs.job_queue import JobQueue
from actisketch.pipeline.service.jobs.processes import holding
from actisketch.pipeline.service.run_root import RunRoot
from actisketch.pipeline.settings.loading import load_job

from ..on_disk import contents
from .conftest import make_client
from .made_job import made

JOBS = "/api/v1/jobs"
QUICK = (sys.executable, str(Path(__file__).with_name("made_job.py")))
ENDED = ("complete", "failed", "cancelled", "interrupted")


def asked(name="new", **changes):
    """The settings of a job, as a request sends them; made_job.py takes no model and no data."""
    tree = {
        "output": name,
        "model": {"path": "net.keras"},
        "data": {"path": "x.npz"},
        "normalize": {"enabled": False},
        "report": {"enabled": False},
    }
    return {**tree, **changes}


@pytest.fixture
def soon(monkeypatch):
    """Look often, and do not wait long before the next signal."""
    monkeypatch.setattr(job_queue, "INTERVAL_S", 0.02)
    monkeypatch.setattr(job_queue, "SIGNALS", tuple((n, after_s / 100) for n, after_s in job_queue.SIGNALS))


@pytest.fixture
def acting(tmp_path, soon):
    """A client that may act, of a service that works off jobs below `tmp_path`."""
    root = RunRoot.of(tmp_path)
    with (
        JobQueue(root, Permissions(), command=QUICK) as jobs,
        make_client(tmp_path, jobs=jobs) as client,
    ):
        yield client
        for job in jobs.table.working():
            client.post(f"{JOBS}/{job.id}/cancel")
        wait_for(lambda: not jobs.table.working())


def wait_for(is_so, *, limit_s=60.0):
    until_s = time.monotonic() + limit_s
    while not (found := is_so()):
        assert time.monotonic() < until_s
        time.sleep(0.01)
    return found


def reached(client, job, *states):
    """The job as soon as it is in one of these states."""
    address = f"{JOBS}/{job}"
    return wait_for(lambda: found if (found := client.get(address).json())["state"] in states else None)


def change_job(root, job, **values):
    """Change a row, as an earlier version or a clock that was set might have."""
    columns = ", ".join(f"{name} = :{name}" for name in values)
    with sqlite3.connect(root / ".actisketch-jobs" / "jobs.sqlite") as connection:
        connection.execute(f"UPDATE jobs SET {columns} WHERE id = :id", {**values, "id": job})
    connection.close()


def submit(client, *arguments, **changes):
    answer = client.post(JOBS, json=asked(*arguments, **changes))
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"{JOBS}/{answer.json()['id']}"
    return answer.json()["id"]


def test_a_job_runs_to_its_end_and_leaves_the_files_that_it_leaves_without_a_service(
    acting, tmp_path, monkeypatch
):
    monkeypatch.setenv("ACTISKETCH_TOKEN", "not-for-jobs-that-anybody-submits")
    monkeypatch.setenv("ACTISKETCH_JOBS_TOKEN", "not-for-jobs-that-anybody-submits")
    job = submit(acting, "runs/new")
    done = reached(acting, job, *ENDED)
    log = acting.get(f"{JOBS}/{job}/log").json()
    alone = tmp_path / "alone" / "new"
    settings = made(tmp_path / "runs" / "new", None).run.manifest()["settings"]

    assert (done["state"], done["message"], done["exit_code"], done["attempt"]) == ("complete", "", 0, 1)
    assert done["has_run"]
    assert acting.get(f"/api/v1/runs/{done['run']}").json()["state"] == "complete"
    assert log["text"].splitlines() == [f"--- job {job}, attempt 1", "working ACTISKETCH_JOB"]
    assert settings["model"]["path"] == str(tmp_path / "net.keras")
    assert not (tmp_path / "runs" / "new.twice").exists()

    from actisketch.pipeline.settings.loading import validate_job

    made(alone, validate_job({**settings, "output": str(alone)})).begin().record().finish()
    expected = contents(alone, without=("lock", "run.json"))
    assert contents(tmp_path / "runs" / "new", without=("lock", "run.json")) == expected
    assert len(expected) > 5


def test_jobs_wait_for_each_other_and_are_listed_newest_first(acting, tmp_path):
    (tmp_path / "a.hold").touch()
    first, second, third = (submit(acting, name) for name in "abc")
    reached(acting, first, "running")
    assert acting.post(f"{JOBS}/{third}/cancel").json()["state"] == "cancelled"
    states = {job["name"]: job["state"] for job in acting.get(JOBS).json()["jobs"]}
    page = acting.get(JOBS, params={"state": "queued"}).json()

    assert states == {"c": "cancelled", "b": "queued", "a": "running"}
    assert list(states) == ["c", "b", "a"]
    assert (page["n_total"], page["n_at_once"], page["jobs"][0]["id"]) == (1, 1, second)
    metrics = acting.get("/metrics").text
    assert "actisketch_jobs_working 1.0" in metrics
    assert "actisketch_jobs_queued 1.0" in metrics

    (tmp_path / "a.hold").unlink()
    assert reached(acting, second, *ENDED)["state"] == "complete"
    assert not (tmp_path / "c").exists()


def test_a_job_that_is_cancelled_is_resumed_to_the_same_bytes(acting, tmp_path):
    whole = submit(acting, "whole")
    reached(acting, whole, *ENDED)
    (tmp_path / "part.hold").touch()
    job = submit(acting, "part")
    wait_for(lambda: list(tmp_path.glob("part/cache/.actisketch/commits/*")))
    assert acting.post(f"{JOBS}/{job}/cancel").json()["state"] == "cancelling"
    stopped = reached(acting, job, *ENDED)
    (tmp_path / "part.hold").unlink()
    again = acting.post(f"{JOBS}/{job}/resume").json()
    done = reached(acting, job, *ENDED)
    n_begun = len((tmp_path / "part.began").read_text().split())

    assert (stopped["state"], stopped["exit_code"]) == ("cancelled", 130)
    assert "resuming" in stopped["message"]
    assert again["state"] == "queued"
    assert (done["state"], done["attempt"], n_begun) == ("complete", 2, 2)
    assert not (tmp_path / "part.twice").exists()
    skipped = ("lock", "tmp", "run.json")
    assert contents(tmp_path / "part", without=skipped) == contents(tmp_path / "whole", without=skipped)


def test_a_job_that_does_not_listen_is_killed(acting, tmp_path):
    (tmp_path / "deaf.hold").touch()
    job = submit(acting, "deaf", data={"path": "x.npz", "num_samples": 11})
    wait_for(lambda: list(tmp_path.glob("deaf/cache/.actisketch/commits/*")))
    acting.post(f"{JOBS}/{job}/cancel")
    stopped = reached(acting, job, *ENDED)

    assert (stopped["state"], stopped["exit_code"]) == ("cancelled", None)


@pytest.mark.parametrize(("n_samples", "exit_code"), [(12, 130), (11, None)])
def test_a_job_is_cancelled_though_the_clock_is_set_back(acting, tmp_path, n_samples, exit_code):
    (tmp_path / "late.hold").touch()
    job = submit(acting, "late", data={"path": "x.npz", "num_samples": n_samples})
    wait_for(lambda: list(tmp_path.glob("late/cache/.actisketch/commits/*")))
    change_job(tmp_path, job, state="cancelling", cancelled_s=time.time() + 3600)
    stopped = reached(acting, job, *ENDED)

    assert (stopped["state"], stopped["exit_code"]) == ("cancelled", exit_code)


def test_a_job_has_its_time_to_end_though_the_clock_jumps_or_another_service_goes_on(tmp_path, monkeypatch):
    told = []
    clock = SimpleNamespace(now_s=0.0, monotonic=lambda: clock.now_s, time=lambda: time.time() + 3600)
    monkeypatch.setattr(job_queue, "time", clock)
    monkeypatch.setattr(job_queue, "tell_process", lambda _, number: told.append((clock.now_s, number.name)))
    jobs = JobQueue(RunRoot.of(tmp_path), Permissions())
    table = jobs.table
    table.add("run", "new", asked())
    job = table.claim(1)
    table.begin(job.id, job.attempt, pid=1, process_started_s=0.0)
    table.cancel(job.id)
    jobs.folder_of(job).path.mkdir()
    with holding(jobs.folder_of(job).lock_path):
        for clock.now_s in (0.0, 1.0, 29.0, 31.0, 44.0):
            jobs.look()
        jobs = JobQueue(RunRoot.of(tmp_path), Permissions())
        for clock.now_s in (1000.0, 1044.0, 1046.0, 1100.0):
            jobs.look()

    assert told == [(0.0, "SIGINT"), (31.0, "SIGTERM"), (1046.0, "SIGKILL")]


def test_a_hundred_jobs_may_be_open(acting, tmp_path):
    (tmp_path / "0.hold").touch()
    jobs = [submit(acting, str(i)) for i in range(100)]
    assert acting.post(f"{JOBS}/{jobs[1]}/cancel").json()["state"] == "cancelled"
    jobs.append(submit(acting, "100"))
    refused = [acting.post(JOBS, json=asked("101")), acting.post(f"{JOBS}/{jobs[1]}/resume")]
    listed = acting.get(JOBS).json()["jobs"]
    for job in jobs[2:]:
        acting.post(f"{JOBS}/{job}/cancel")

    assert [answer.status_code for answer in refused] == [409, 409]
    assert all("100 jobs wait or work" in answer.json()["detail"] for answer in refused)
    assert not any("settings" in job or "job_file" in job for job in listed)
    (tmp_path / "0.hold").unlink()
    assert acting.get(f"{JOBS}/{jobs[0]}").json()["settings"]["output"] == "0"
    assert reached(acting, jobs[0], *ENDED)["state"] == "complete"


def test_an_attempt_that_dies_before_it_writes_is_not_complete_by_the_run_before_it(acting, tmp_path):
    job = submit(acting, "run", data={"path": "x.npz", "num_samples": 7})
    reached(acting, job, *ENDED)
    finished = made(tmp_path / "run", load_job(tmp_path / ".actisketch-jobs" / str(job) / "job.toml"))
    finished.begin().record().finish()
    an_hour_on = time.time() + 3600  # or the clock is set back by an hour now
    os.utime(finished.run.manifest_path, (an_hour_on, an_hour_on))
    acting.post(f"{JOBS}/{job}/resume")
    ended = reached(acting, job, *ENDED)

    assert (ended["state"], ended["attempt"]) == ("interrupted", 2)


def test_an_attempt_that_dies_after_it_has_finished_is_complete_though_the_clock_is_set_back(
    acting, tmp_path
):
    (tmp_path / "run.hold").touch()
    job = submit(acting, "run", data={"path": "x.npz", "num_samples": 17})
    for attempt in (1, 2):
        wait_for(lambda: list(tmp_path.glob("run/progress.json")))
        change_job(tmp_path, job, claimed_s=time.time() + 3600)
        (tmp_path / "run.hold").unlink()
        ended = reached(acting, job, *ENDED)

        assert (ended["state"], ended["attempt"], ended["exit_code"]) == ("complete", attempt, None)
        (tmp_path / "run.hold").touch()
        acting.post(f"{JOBS}/{job}/resume")


@pytest.mark.parametrize(("ahead_s", "state"), [(0, "complete"), (3600, "interrupted")])
def test_a_process_that_an_earlier_version_has_started_is_judged_by_the_clock(
    acting, tmp_path, ahead_s, state
):
    (tmp_path / "run.hold").touch()
    job = submit(acting, "run", data={"path": "x.npz", "num_samples": 17})
    claimed_s = reached(acting, job, "running")["claimed_s"]
    wait_for(lambda: list(tmp_path.glob("run/progress.json")))
    (tmp_path / ".actisketch-jobs" / str(job) / "before.json").unlink()
    change_job(tmp_path, job, claimed_s=claimed_s + ahead_s)
    (tmp_path / "run.hold").unlink()

    assert reached(acting, job, *ENDED)["state"] == state


@pytest.mark.slow
def test_a_job_that_ends_without_a_word_is_resumed_by_itself_three_times(tmp_path, soon):
    with (
        JobQueue(RunRoot.of(tmp_path), Permissions(), command=QUICK, auto_resume=True) as jobs,
        make_client(tmp_path, jobs=jobs) as client,
    ):
        job = submit(client, "dies", data={"path": "x.npz", "num_samples": 7})
        ended = reached(client, job, *ENDED)

        assert (ended["state"], ended["attempt"], ended["exit_code"]) == ("interrupted", 4, None)
        assert "SIGKILL" in ended["message"]
        assert len((tmp_path / "dies.began").read_text().split()) == 4

        client.post(f"{JOBS}/{job}/resume")
        assert reached(client, job, *ENDED)["attempt"] == 8


def test_a_job_that_fails_says_why(acting):
    job = submit(acting, data={"path": "x.npz", "num_samples": 13})
    failed = reached(acting, job, *ENDED)

    assert (failed["state"], failed["exit_code"]) == ("failed", 2)
    assert failed["message"] == "no data at 'there': it is not here"
    assert not failed["has_run"]


def test_what_an_earlier_attempt_said_is_not_told_of_a_later_one(acting, tmp_path):
    job = submit(acting, data={"path": "x.npz", "num_samples": 13})
    reached(acting, job, *ENDED)
    (tmp_path / "new.mute").touch()
    waits = acting.post(f"{JOBS}/{job}/resume").json()
    failed = wait_for(
        lambda: (
            found
            if (found := acting.get(f"{JOBS}/{job}").json())["ended_s"] and found["attempt"] == 2
            else None
        )
    )

    assert (waits["state"], waits["pid"], waits["exit_code"], waits["ended_s"]) == (
        "queued",
        None,
        None,
        None,
    )
    assert (failed["state"], failed["message"]) == ("failed", "it ended with exit code 2: its log says why")


@pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (37, "signal 37")])
def test_a_job_ends_whichever_signal_has_killed_it(acting, number, name):
    job = submit(acting, data={"path": "x.npz", "num_samples": 7, "offset": number})
    ended = reached(acting, job, *ENDED)

    assert ended["state"] == "interrupted"
    assert f"({name})" in ended["message"]


def test_a_job_whose_start_fails_for_no_known_reason_has_failed(acting, monkeypatch, caplog):
    def unforeseen(*_):
        raise LookupError("nobody thought of this")

    monkeypatch.setattr(job_queue, "check_places", unforeseen)
    ended = reached(acting, submit(acting), *ENDED)

    assert (ended["state"], ended["attempt"]) == ("failed", 1)
    assert "LookupError: nobody thought of this" in ended["message"]
    assert any(record.exc_info and record.exc_info[0] is LookupError for record in caplog.records)


def test_one_folder_has_one_job(acting, tmp_path):
    (tmp_path / "a.hold").touch()
    job = submit(acting, "a")
    reached(acting, job, "running")
    for name in ("a", "a/b"):
        answer = acting.post(JOBS, json=asked(name))
        assert answer.status_code == 409, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
    assert "resumed when" in acting.post(f"{JOBS}/{job}/resume").json()["detail"]

    (tmp_path / "a.hold").unlink()
    reached(acting, job, "complete")
    assert "ended already" in acting.post(f"{JOBS}/{job}/cancel").json()["detail"]


@pytest.mark.parametrize("address", [JOBS, f"{JOBS}/1/resume"])
def test_of_two_requests_at_once_for_folders_in_each_other_one_is_refused(tmp_path, monkeypatch, address):
    jobs = JobQueue(RunRoot.of(tmp_path), Permissions(), command=QUICK)
    with make_client(tmp_path, jobs=jobs) as client:
        client.post(f"{JOBS}/{submit(client, 'a')}/cancel")
        # Called between the look at the first request and its place in the queue.
        monkeypatch.setattr(
            job_desk, "writer_of", lambda cache: jobs.table.add("run", "a/b", asked("a/b")) and None
        )
        answer = client.post(address, json=asked("a") if address == JOBS else None)
        queued = client.get(JOBS, params={"state": "queued"}).json()["jobs"]

    assert answer.status_code == 409
    assert "lie in each other" in answer.json()["detail"]
    assert [job["name"] for job in queued] == ["a/b"]


def test_a_second_service_over_the_same_folder_is_refused(acting, tmp_path):
    from actisketch.storage.errors import BusyError

    told = "another service, process .* has the queue of jobs in"
    with pytest.raises(BusyError, match=told), JobQueue(RunRoot.of(tmp_path), Permissions()):
        pass
