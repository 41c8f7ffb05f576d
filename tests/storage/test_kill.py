"""kill -9 at random moments: nothing lost, nothing twice, and the same bytes as a run that was left alone."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from actisketch.pipeline.factors.compute import compute_factors
from actisketch.pipeline.factors.merge import merged_sketches
from actisketch.pipeline.record.recorder import BLOCKS_IN_FLIGHT
from actisketch.pipeline.settings.job_settings import FactorSettings
from actisketch.storage import Cache

from ..on_disk import IN_WORK, contents
from . import made_up

SCRIPT = Path(__file__).with_name("record_until_killed.py")
N_BLOCKS = 44


class Killer:
    """Runs the script on one cache, kills it or lets it end, and counts the blocks that it began."""

    def __init__(self, folder: Path, seed: int) -> None:
        folder.mkdir()
        self.cache, self.notes = folder / "cache", folder / "notes"
        self.random = random.Random(seed)
        self.n_kills = 0

    def run(self, *, kill_within_s: float | None, sleep_s: float = 0.0, n_most: int = N_BLOCKS) -> bool:
        """Return whether the run came to its end."""
        command = [sys.executable, str(SCRIPT), *map(str, (self.cache, self.notes, sleep_s, n_most))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == "go\n", process.stderr.read()
            if kill_within_s is not None:
                time.sleep(self.random.uniform(0, kill_within_s))
                process.kill()
            rest = process.stdout.read()
            problem = process.stderr.read()
        if process.returncode == -9:
            self.n_kills += 1
            return False
        assert (process.returncode, rest) == (0, "done\n"), problem
        return True

    @property
    def n_begun(self) -> int:
        return len(self.notes.read_text().splitlines())


def results(cache_path: Path) -> tuple[dict[str, bytes], str]:
    """Return the merged statistics, and the factors, of a finished cache."""
    with Cache.open(cache_path) as cache:
        sketches = merged_sketches(cache)
        factors = compute_factors(cache.spec.points, sketches, FactorSettings())
    return {name: sketch.to_bytes() for name, sketch in sketches.items()}, json.dumps(factors.to_dict())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    killer = Killer(tmp_path_factory.mktemp("kill") / "undisturbed", seed=0)
    assert killer.run(kill_within_s=None)
    assert killer.n_begun == N_BLOCKS
    return killer.cache


def check(killer: Killer, undisturbed: Path) -> None:
    """Compare activations, records, statistics and factors byte for byte, and count the work done twice."""
    begun = Counter(killer.notes.read_text().splitlines())

    assert contents(killer.cache, without=IN_WORK) == contents(undisturbed, without=IN_WORK)
    assert results(killer.cache) == results(undisturbed)
    assert len(begun) == N_BLOCKS
    assert killer.n_begun - N_BLOCKS <= killer.n_kills * BLOCKS_IN_FLIGHT
    with Cache.open(killer.cache) as cache:
        assert cache.verify().problems == ()
        for point in cache.spec.points:
            expected = made_up.activations(point, 0, cache.spec.n_samples)
            np.testing.assert_array_equal(np.concatenate(list(cache.chunks(point.name))), expected)


def test_a_run_that_is_killed_four_times_ends_as_if_it_was_not(tmp_path: Path, undisturbed: Path) -> None:
    killer = Killer(tmp_path / "killed", seed=1)
    while killer.n_kills < 4:
        assert not killer.run(kill_within_s=0.4, sleep_s=0.02, n_most=(N_BLOCKS - 1) // 4)
    assert killer.run(kill_within_s=None)

    check(killer, undisturbed)


@pytest.mark.slow
def test_sixty_kills_lose_nothing_and_compute_nothing_twice_but_what_was_in_flight(
    tmp_path: Path, undisturbed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    n_kills = n_rounds = n_begun = 0
    while n_kills < 60:
        # A round ends when its cache is full: then the next begins with an empty one.
        killer = Killer(tmp_path / f"round {n_rounds}", seed=n_rounds)
        while not killer.run(kill_within_s=0.25, sleep_s=0.02):
            if killer.n_kills + n_kills >= 60:
                assert killer.run(kill_within_s=None)
                break
        check(killer, undisturbed)
        n_kills += killer.n_kills
        n_begun += killer.n_begun
        n_rounds += 1
        shutil.rmtree(killer.cache)
    with capsys.disabled():
        print(
            f"\n{n_kills} kills in {n_rounds} runs: {n_begun - n_rounds * N_BLOCKS} blocks computed twice, none lost"
        )

    assert n_kills >= 60
