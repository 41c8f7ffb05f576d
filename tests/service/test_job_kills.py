"""After kill -9 of the service, of a job or of both, the table tells the truth, and nothing is lost or run twice."""

from __future__ import annotations

import pytest

from .kill_jobs import SCENES, Killing

# By hand all are played, as often as wanted: `python tests/service/kill_jobs.py 50`.
LEFT_OUT = {("starting", "service"), ("running", "job"), ("cancelling", "service"), ("finished", "service")}


@pytest.fixture(scope="module")
def killing(tmp_path_factory):
    made = Killing(tmp_path_factory.mktemp("kills"))
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize(("state", "killed"), [scene for scene in SCENES if scene not in LEFT_OUT])
def test_a_kill_loses_nothing_and_runs_nothing_twice(killing, state, killed):
    killing.play(state, killed)
