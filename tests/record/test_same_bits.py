"""The same batch gives the same bits, whatever else the machine does and however many threads TensorFlow has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("activation_bits.py")


def bits_with(n_threads: int, repeats: int = 1) -> dict[str, dict[str, list[str]]]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(repeats)],
        env={**os.environ, "TF_NUM_INTRAOP_THREADS": str(n_threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, list[str]]] = json.loads(done.stdout.splitlines()[-1])
    return found


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def of_two_threads() -> dict[str, dict[str, list[str]]]:
    return bits_with(2, repeats=8)


def test_a_busy_machine_changes_no_bit(of_two_threads: dict[str, dict[str, list[str]]]) -> None:
    """More threads than cores in other processes would show it; so do eight passes beside other tests."""
    assert all(len(seen) == 1 for batches in of_two_threads.values() for seen in batches.values())


@pytest.mark.parametrize("n_threads", [1, 8])
def test_the_number_of_threads_changes_no_bit_of_a_last_batch(
    of_two_threads: dict[str, dict[str, list[str]]], n_threads: int
) -> None:
    """A product of one row is divided by threads: a sample that is left over does not go through alone."""
    assert bits_with(n_threads) == of_two_threads
