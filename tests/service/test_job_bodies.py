"""The bodies of requests about jobs: how deep they are, and keys that are there twice."""

from __future__ import annotations

import time

import pytest

from actisketch.pipeline.service.jobs.job_places import Permissions
from actisketch.pipeline.service.jobs.job_queue import JobQueue
from actisketch.pipeline.service.run_root import RunRoot

from .conftest import make_client
from .test_bad_questions import problem

JOBS = "/api/v1/jobs"


@pytest.fixture
def acting(tmp_path):
    """A client of a service whose queue nobody works off."""
    with make_client(tmp_path, jobs=JobQueue(RunRoot.of(tmp_path), Permissions())) as client:
        yield client


def sent(client, kind, body):
    return client.post(JOBS, content=body, headers={"content-type": f"application/{kind}"})


@pytest.mark.parametrize(
    "body",
    [
        "a." * 25_000 + "a = 1",
        "[" + "a." * 25_000 + "a]",
        "[[" + "a . " * 25_000 + "a]]",
        "x = {" + "'a,'." * 20_000 + "'a' = 1}",
        "x = ['''a'''', {" + "a." * 25_000 + 'a = """"""}]',
        'x = [ # "\n""" a.b """"", "\\\\", {' + '"=".' * 20_000 + "a = 1}]",
    ],
)
def test_keys_of_many_parts_are_refused_before_they_are_parsed(acting, body):
    """What tomllib does with them grows by the square: this took 12 s and 2.5 GB, and nobody else was answered."""
    began_s = time.process_time()
    answer = sent(acting, "toml", body)

    assert "a key has more than 60 parts" in problem(answer, 422)["detail"]
    assert time.process_time() - began_s < 2


def test_deep_json_is_refused(acting):
    problem(sent(acting, "json", '{"a":' * 40_000), 422)
    problem(sent(acting, "json", '{"a":' * 61 + "1" + "}" * 61), 422)


def test_points_that_are_not_in_keys_are_taken(acting, tmp_path):
    overrides = ", ".join(f'"a.b.c.{i}" = {{percentile = 99.5}}' for i in range(100))
    path = "a.b." * 40 + "keras"
    text = f"""# {"." * 100}
output = "toml"
model.path = "{path}"
data = {{path = 'x.npz'}}
factors.overrides = {{{overrides}}}
record.points = ["{"b." * 99}", '{"c." * 99}', '''d.e''']
"""
    (tmp_path / path).touch()
    (tmp_path / "x.npz").touch()
    answer = sent(acting, "toml", text)

    assert answer.status_code == 201, answer.text
    assert len(answer.json()["settings"]["factors"]["overrides"]) == 100


@pytest.mark.parametrize(
    ("kind", "body", "key"),
    [
        ("json", '{"output": "a", "output": "b"}', "'output' twice"),
        ("json", '{"output": "a", "model": {"path": "a", "path": "b"}}', "'path' twice"),
        ("toml", 'output = "a"\noutput = "b"', "overwrite"),
    ],
)
def test_a_key_that_is_there_twice_is_refused(acting, kind, body, key):
    assert key in problem(sent(acting, kind, body), 422)["detail"]
