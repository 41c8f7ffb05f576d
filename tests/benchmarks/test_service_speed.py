"""How long the service takes to list many runs, and to answer from a sketch over a loopback connection."""

from __future__ import annotations

import http.client
import json
import shutil

import pytest

from actisketch.pipeline.service.catalogue import Catalogue
from actisketch.pipeline.service.run_root import RunRoot

from ..service.conftest import AUTHORIZED, make_run, served_here

API = "/api/v1/runs"

N_RUNS = 10_000


@pytest.fixture(scope="module")
def many_runs(tmp_path_factory):
    """A root with 10,000 manifests, each a little different, in a hundred folders."""
    root = tmp_path_factory.mktemp("many")
    made = make_run(root / "made")
    tree = json.loads(made.run.manifest_path.read_text())
    shutil.rmtree(root / "made")
    for i in range(N_RUNS):
        folder = root / f"project-{i % 100}" / f"run-{i}"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({**tree, "n_samples": i + 1}))
    return root


@pytest.mark.slow
@pytest.mark.parametrize("which", ["first", "again"])
def test_10_000_runs_are_listed_in_a_second(benchmark, many_runs, which):
    known = Catalogue(RunRoot.of(many_runs))
    known.rows()

    def rows():
        catalogue = Catalogue(RunRoot.of(many_runs)) if which == "first" else known
        catalogue._walked_s = float("-inf")
        return catalogue.rows()[0]

    found = benchmark.pedantic(rows, rounds=3, warmup_rounds=1)

    assert len(found) == N_RUNS
    if benchmark.enabled:
        assert benchmark.stats.stats.median < 1.0


def test_a_percentile_over_loopback(benchmark, tmp_path):
    make_run(tmp_path / "first")
    with served_here(tmp_path, fresh_s=1.0) as place:
        connection = http.client.HTTPConnection(*place)

        def ask():
            connection.request("GET", f"{API}/first/percentile?q=99.9&point=conv", headers=AUTHORIZED)
            answer = connection.getresponse()
            return answer.status, answer.read()

        ask()
        status, body = benchmark(ask)
        connection.close()

    assert status == 200
    assert b'"value":' in body
    if benchmark.enabled:
        assert benchmark.stats.stats.median < 0.005
