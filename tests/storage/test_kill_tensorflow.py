"""kill -9 on the whole program, with a trained network: the same factors and activations as left alone."""

from __future__ import annotations

import importlib.resources
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from actisketch.storage import Cache
from actisketch.storage.errors import ActisketchError

from ..on_disk import IN_WORK, contents

# 1797 digits in batches of 16 and blocks of 32.
N_BLOCKS = 57
# The same results bit for bit need the same order of additions: one thread adds in one order.
ONE_THREAD = os.environ | {
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


@pytest.fixture
def job(tmp_path: Path) -> Path:
    demo = importlib.resources.files("actisketch.pipeline.demo")
    (tmp_path / "job.toml").write_text(
        f'[model]\npath = "{demo / "digits.keras"}"\n[data]\npath = "{demo / "digits.npz"}"\ninputs = "x"\n'
        "[record]\nbatch_size = 16\nblock_samples = 32\n[report]\nenabled = false\n"
        "[normalize]\nenabled = false\n"
    )
    return tmp_path / "job.toml"


def finish(job: Path, output: str) -> None:
    command = [
        sys.executable,
        "-m",
        "actisketch.pipeline",
        "run",
        str(job),
        "--output",
        str(job.parent / output),
    ]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=ONE_THREAD, check=False)
    assert done.returncode == 0, done.stderr


def n_committed(cache_path: Path) -> int:
    try:
        return len(Cache.open(cache_path).committed())
    except ActisketchError:
        return 0


@pytest.mark.slow
def test_a_trained_network_whose_run_is_killed_six_times_gives_the_same_factors(
    tmp_path: Path, job: Path, start_held: Any
) -> None:
    chance = random.Random(11)
    cache_path = tmp_path / "killed/cache"
    for _ in range(6):
        before = n_committed(cache_path)
        process = start_held(1, "run", job, "--output", tmp_path / "killed", env=ONE_THREAD)
        time.sleep(chance.uniform(0, 0.02))  # other threads still write
        process.kill()
        process.wait()
        assert before < n_committed(cache_path)
    assert 6 <= n_committed(cache_path) < N_BLOCKS
    finish(job, "killed")
    finish(job, "whole")

    assert n_committed(cache_path) == N_BLOCKS
    assert contents(cache_path, without=IN_WORK) == contents(tmp_path / "whole/cache", without=IN_WORK)
    assert (tmp_path / "killed/factors.json").read_bytes() == (tmp_path / "whole/factors.json").read_bytes()
    assert Cache.open(cache_path).verify().problems == ()
