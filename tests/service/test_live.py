"""What goes on now: the state of a run that somebody works on, and the events that follow it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time

import pytest

from actisketch.pipeline.events import SamplesDone, StageDone, StageStarted
from actisketch.pipeline.folder.progress_file import progress_told
from actisketch.pipeline.service import live

from .conftest import AUTHORIZED, MadeRun, served_here

API = "/api/v1/runs"


@pytest.fixture
def quick(monkeypatch):
    """Look often."""
    monkeypatch.setattr(live, "INTERVAL_S", 0.03)
    monkeypatch.setattr(live, "SHARED_S", 0.0)
    monkeypatch.setattr("actisketch.pipeline.folder.progress_file.INTERVAL_S", 0.0)


def follow(place, run, last_id=None):
    """A connection that listens."""
    connection = http.client.HTTPConnection(*place, timeout=20)
    headers = AUTHORIZED | ({"Last-Event-ID": last_id} if last_id else {})
    connection.request("GET", f"{API}/{run}/events", headers=headers)
    return connection, connection.getresponse()


def next_event(answer):
    """The next event, as a dict of its fields."""
    found = {}
    while line := answer.readline().decode().rstrip("\n"):
        name, _, value = line.partition(": ")
        found[name] = value
    if "data" in found:
        found["data"] = json.loads(found["data"])
    return found


def test_the_state_of_a_job_that_works(root, own, quick):
    made = MadeRun(root / "half")
    with progress_told(made.run, lambda event: None) as listen:
        listen(StageStarted(stage="record", n_total=17, n_done=12, unit="samples"))
        listen(SamplesDone(n_done=3))
        state = own.get(f"{API}/half/live").json()

    assert (state["state"], state["stage"], state["n_done"], state["n_total"]) == (
        "running",
        "record",
        15,
        17,
    )
    assert (state["n_blocks_done"], state["n_blocks"], state["n_samples_done"]) == (2, 3, 12)
    assert state["error"] is None
    assert own.get(f"{API}/half/live").json()["state"] == "stopped"
    assert own.get(f"{API}/first/live").json()["state"] == "complete"
    assert own.get(f"{API}/nope/live").status_code == 404


def test_events_follow_a_run_from_its_first_block_to_its_end(tmp_path, quick):
    made = MadeRun(tmp_path / "new").begin()
    with served_here(tmp_path) as place:
        connection, answer = follow(place, "new")
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert next_event(answer) == {"retry": "2000"}
        done = [next_event(answer)["data"]["n_blocks_done"]]
        with progress_told(made.run, lambda event: None) as listen:
            listen(StageStarted(stage="record", n_total=17, unit="samples"))
            for n in range(3):
                made.record(1)
                listen(SamplesDone(n_done=6 * n + 6))
                while done[-1] <= n:
                    event = next_event(answer)
                    assert event["event"] == "progress"
                    done.append(event["data"]["n_blocks_done"])
            listen(StageDone(stage="record", message="all blocks"))
            listen(StageStarted(stage="factors"))
            made.finish()
        while event["event"] != "complete":
            event = next_event(answer)
        assert answer.read() == b""
        connection.close()

        # EventSource comes back, as always when a stream ends: it is told to stay away.
        connection, answer = follow(place, "new", event["id"])
        assert answer.status == 204
        connection.close()

    assert sorted(done) == done
    assert set(done) == {0, 1, 2, 3}


def test_a_client_that_comes_back_is_not_told_what_it_knows(root, quick):
    with served_here(root) as place:
        connection, answer = follow(place, "half")
        next_event(answer)
        known = next_event(answer)["id"]
        connection.close()

        connection, answer = follow(place, "half", known)
        next_event(answer)
        MadeRun(root / "half").record(1)
        seen = [next_event(answer)]
        while seen[-1]["data"]["n_blocks_done"] < 3:
            seen.append(next_event(answer))
        connection.close()

    assert known not in [event["id"] for event in seen]


def test_an_error_of_the_job_is_told(root, quick):
    made = MadeRun(root / "half")

    def work():
        with progress_told(made.run, lambda event: None) as listen:
            listen(StageStarted(stage="record", n_total=17, unit="samples"))
            raise RuntimeError("no more\nmemory \x1b[2J")

    with served_here(root) as place:
        connection, answer = follow(place, "half")
        next_event(answer)
        assert next_event(answer)["event"] == "progress"
        with pytest.raises(RuntimeError):
            work()
        event = next_event(answer)
        while event["event"] == "progress":
            event = next_event(answer)
        connection.close()

    assert event["event"] == "failed"
    assert event["data"]["error"] == "RuntimeError: no more\nmemory \\x1b[2J"
    assert event["data"]["state"] == "stopped"


def test_a_job_that_was_killed_is_told(root, own):
    folder = root / "half"
    code = f"""
        import os, signal
        from pathlib import Path
        from actisketch.pipeline.events import StageStarted
        from actisketch.pipeline.folder.folder import RunFolder
        from actisketch.pipeline.folder.progress_file import progress_told
        with progress_told(RunFolder(Path({str(folder)!r})), lambda event: None) as listen:
            listen(StageStarted(stage="record", n_total=17, unit="samples"))
            os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    state = own.get(f"{API}/half/live").json()

    assert (folder / "progress.json").exists()
    assert state["state"] == "stopped"
    assert "kill -9" in state["error"]


def test_what_a_failed_job_has_left_is_not_told_of_a_run_that_is_complete(root, own, quick):
    made = MadeRun(root / "first")

    def fail():
        with progress_told(made.run, lambda event: None) as listen:
            listen(StageStarted(stage="certify", n_total=17, unit="samples"))
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        fail()
    failed = own.get(f"{API}/first/live").json()
    # As `actisketch normalize` does, which makes what was left to do.
    os.utime(made.run.manifest_path)
    done = own.get(f"{API}/first/live").json()

    assert (failed["state"], failed["stage"], failed["error"]) == (
        "stopped",
        "certify",
        "OSError: the disk is full",
    )
    assert (done["state"], done["stage"], done["error"], done["pid"]) == ("complete", "", None, None)


def test_a_run_that_is_deleted_ends_its_events(root, quick):
    with served_here(root) as place:
        connection, answer = follow(place, "half")
        next_event(answer)
        next_event(answer)
        shutil.rmtree(root / "half")
        event = next_event(answer)
        while event["event"] != "problem":
            event = next_event(answer)
        assert answer.read() == b""
        connection.close()

    assert event["data"]["detail"]


def test_listeners_that_leave_and_too_many_of_them(root, quick, monkeypatch):
    monkeypatch.setattr(live, "MOST_STREAMS", 2)
    with served_here(root) as place:
        listening = [follow(place, "half") for _ in range(2)]
        for _, answer in listening:
            next_event(answer)
        connection, refused = follow(place, "half")
        assert refused.status == 503
        connection.close()
        for connection, _ in listening:
            connection.close()
        for _ in range(100):
            connection, answer = follow(place, "half")
            connection.close()
            if answer.status == 200:
                break
            time.sleep(0.05)

    assert answer.status == 200
