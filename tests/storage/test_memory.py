"""Memory is predicted before the run, kept during it, and the same for any number of samples."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("record_and_measure.py")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc"
    ),
]


def measured(folder: Path, **changed: Any) -> dict[str, Any]:
    settings = {
        "n_samples": 192,
        "batch_size": 16,
        "memory_limit": "4GiB",
        "block_samples": 48,
        "codec": "none",
        **changed,
    }
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder / "run"), json.dumps(settings)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"batch_size": 4, "block_samples": 4, "n_samples": 40},
        {"batch_size": 64, "block_samples": None, "n_samples": 400},
        {"codec": "zstd"},
        {"memory_limit": "350MiB", "block_samples": None, "n_samples": 400},
    ],
)
def test_a_run_takes_no_more_than_was_predicted_and_allowed(tmp_path: Path, changed: dict[str, Any]) -> None:
    figures = measured(tmp_path, **changed)

    assert figures["taken"] <= figures["predicted"], figures
    # And the prediction is worth something: not more than twice what is taken, besides the fixed part.
    assert figures["predicted"] - figures["parts"]["runtime"] <= 2 * figures["taken"], figures
    if changed.get("memory_limit"):
        assert figures["predicted"] <= 350 * 2**20


def test_sixteen_times_the_samples_take_the_same_memory(tmp_path: Path) -> None:
    one, many = (measured(tmp_path / f"{n}", n_samples=n) for n in (192, 16 * 192))

    assert (one["n_blocks"], many["n_blocks"]) == (4, 64)
    assert many["predicted"] == one["predicted"]
    assert many["taken"] <= 1.05 * one["taken"], (one, many)
