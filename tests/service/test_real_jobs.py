"""A job is `actisketch run`, a plan `actisketch plan`: with a network, and through the addresses."""

from __future__ import annotations

import time

import numpy as np
import pytest

from actisketch.pipeline import open_run
from actisketch.pipeline.service.jobs.job_places import Permissions
from actisketch.pipeline.service.jobs.job_queue import JobQueue
from actisketch.pipeline.service.run_root import RunRoot

from ..on_disk import flip
from .conftest import make_client

JOBS = "/api/v1/jobs"


def swapped(place, to):
    """Put a link in the place of a file or folder."""
    place.rename(place.with_name(f"{place.name}.away"))
    place.symlink_to(to)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["small-2.npy", "inner"])
def test_a_link_that_leads_out_is_refused_also_after_the_job_began(place, acting, tmp_path, what):
    (place / "inner").mkdir(exist_ok=True)
    np.save(place / "small-2.npy", np.load(place / "small.npy"))
    np.save(tmp_path / "secret.npy", np.load(place / "small.npy"))
    (tmp_path / "folder").mkdir()
    output = f"inner/{what}"
    answer = acting.post(JOBS, json=asked(output=output, data={"path": "small-2.npy"}))
    while acting.get(f"{JOBS}/{answer.json()['id']}").json()["state"] != "running":
        time.sleep(0.01)
    swapped(place / what, tmp_path / ("folder" if what == "inner" else "secret.npy"))
    job = ended(acting, answer)
    (place / what).unlink()
    (place / f"{what}.away").rename(place / what)

    assert job["state"] == "failed"
    assert "link" in job["message"] or "leads out" in job["message"]
    assert list((tmp_path / "folder").iterdir()) == []
    assert not (place / output / "cache").exists()


@pytest.fixture(scope="module")
def place(tmp_path_factory, small_parts):
    """A folder that is served, with a small network and its samples."""
    import keras

    root = tmp_path_factory.mktemp("real")
    make_model, make_data = small_parts
    make_model(keras).save(root / "small.keras")
    np.save(root / "small.npy", make_data())
    return root


@pytest.fixture(scope="module")
def acting(place):
    root = RunRoot.of(place)
    with JobQueue(root, Permissions()) as jobs, make_client(place, jobs=jobs) as client:
        yield client


def asked(**changes):
    tree = {"output": "runs/real", "model": {"path": "small.keras"}, "data": {"path": "small.npy"}}
    return {**tree, "record": {"batch_size": 8, "block_samples": 16}, "report": {"enabled": False}, **changes}


def ended(client, answer):
    """A job at its end."""
    assert answer.status_code in (200, 201), answer.text
    job, until_s = answer.json(), time.monotonic() + 120
    while job["ended_s"] is None:
        assert time.monotonic() < until_s
        time.sleep(0.05)
        job = client.get(f"{JOBS}/{job['id']}").json()
    return job


@pytest.mark.slow
def test_a_job_is_planned_refused_run_and_repaired(place, acting):
    answer = acting.post(f"{JOBS}/plan", json=asked(record={"batch_size": 8, "disk_limit": 1}))
    assert answer.status_code == 200, answer.text
    plan = answer.json()
    assert not (place / "runs").exists()
    assert [path.name for path in (place / ".actisketch-jobs").glob("plan-*")] == []
    failed = ended(acting, acting.post(JOBS, json=asked(data={"path": "nothing.npy"})))
    assert not (place / "runs").exists()
    done = ended(acting, acting.post(JOBS, json=asked()))
    run = open_run(place / "runs" / "real")
    sketches = [sketch.to_bytes() for sketch in run.sketches.values()]

    assert (plan["plan"]["batch_size"], plan["plan"]["n_samples"]) == (8, 53)
    assert [point["name"] for point in plan["plan"]["points"]] == list(run.points)
    assert "disk" in plan["refusal"]
    assert (failed["state"], failed["exit_code"]) == ("failed", 2)
    assert "nothing.npy" in failed["message"]
    assert (done["state"], done["message"]) == ("complete", "")
    assert acting.get("/api/v1/runs/runs~1real").json()["certificate_passed"]
    assert "certificate: passed" in acting.get(f"{JOBS}/{done['id']}/log").json()["text"]

    flip(min((place / "runs" / "real" / "cache" / ".actisketch" / "commits").iterdir()))
    repaired = ended(acting, acting.post(f"{JOBS}/repair", json={"run": "runs~1real"}))
    text = acting.get(f"{JOBS}/{repaired['id']}/log").json()["text"]

    assert (repaired["kind"], repaired["state"]) == ("repair", "complete"), text
    assert "computed 1 damaged block again" in text
    assert [sketch.to_bytes() for sketch in open_run(place / "runs" / "real").sketches.values()] == sketches
