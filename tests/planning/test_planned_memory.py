"""A whole run, normalising and certifying included, takes no more memory than was planned."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from actisketch.pipeline.certifier import comparison_nbytes

PROGRAM = Path(__file__).with_name("run_and_measure.py")


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize(
    ("kind", "policy", "n_samples", "batch_size"),
    [
        ("conv", "float32", 96, 32),
        ("conv", "mixed_float16", 96, 32),
        ("norms", "mixed_bfloat16", 64, 32),
        ("dense", "float32", 256, 64),
        ("dense", "mixed_float16", 256, 64),
    ],
)
def test_a_whole_run_keeps_to_its_plan(kind: str, policy: str, n_samples: int, batch_size: int) -> None:
    command = [sys.executable, str(PROGRAM), kind, policy, str(n_samples), str(batch_size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"\n{kind} {policy}: {found['taken'] / 2**20:.0f} MiB of {found['planned'] / 2**20:.0f} planned")

    assert found["taken"] <= found["planned"]


def test_the_certificate_of_a_large_batch_takes_no_more_than_that_of_a_part_of_it() -> None:
    largest = 256 * 2**20 // (2 * 5 * 32)  # both networks hold five of them, for 32 samples
    counts = {"weight_nbytes": [13, 7], "largest_tensor_nbytes": largest}
    few, many, more = (comparison_nbytes(batch_size=n, **counts) for n in (16, 128, 1024))

    assert few < many == more
    # The normalised network; measured in float64, a part of a batch takes more than compared.
    assert few == 20 + 16 * 13 * largest + 2 * 13
    assert many == 20 + 32 * 13 * largest + 2 * 13


def test_the_largest_layer_is_counted_in_float64() -> None:
    counts = {"largest_tensor_nbytes": 3, "batch_size": 1}

    assert comparison_nbytes(weight_nbytes=[2**20, 5], **counts) == 2**20 + 5 + 2 * 2**20 + 13 * 3
