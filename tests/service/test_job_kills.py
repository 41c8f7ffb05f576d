"""After kill -9 of the service, of a job or of both, the table tells the truth, and nothing is lost or run twice."""

from __future__ import annotations

import pytest

from .kill_jobs import SCENES, Killing


@pytest.fixture(scope="module")
def killing(tmp_path_factory):
    made = Killing(tmp_path_factory.mktemp("kills"))
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize(("state", "killed"), SCENES)
def test_a_kill_loses_nothing_and_runs_nothing_twice(killing, state, killed):
    killing.play(state, killed)
