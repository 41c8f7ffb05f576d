"""A disk that is too small or fills up: refused beforehand, or one sentence and what is there stays good."""

import json
import subprocess
import sys

import numpy as np
import pytest


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_too_small_is_refused_beforehand(refused, small_files, small_disk):
    path = small_files["folder"] / "many.npy"
    np.save(path, np.random.default_rng(3).random((20_000, 6), dtype=np.float32))
    message = refused(small_files["job"], "--data", path, "--output", small_disk / "run", code=5)

    assert "the disk of" in message
    assert list(small_disk.iterdir()) == []


def test_a_disk_that_fills_up_on_the_way_stops_the_run_and_what_is_there_stays_good(
    call, small_files, small_disk
):
    path = small_files["folder"] / "many.npy"
    np.save(path, np.random.default_rng(3).random((4_000, 6), dtype=np.float32))
    arguments = [small_files["job"], "--data", path, "--output", small_disk / "run", "--disk-limit", "1 GB"]
    # Something else fills the disk after the run was planned.
    (small_disk / "other").write_bytes(bytes(150_000))
    full = call("run", *arguments)
    (small_disk / "other").unlink()
    subprocess.run(["mount", "-o", "remount,size=30m", str(small_disk)], check=True)
    n_done = json.loads(call("status", small_disk / "run", "--json").out)["n_blocks_done"]
    resumed = call("run", *arguments)

    assert full.code == 7
    assert "Traceback" not in full.err
    assert full.err.count("\n") <= 3
    assert 0 < n_done < 250
    assert resumed.code == 0, resumed.err
    assert f"reloaded {n_done} of 250 blocks" in resumed.err
    assert call("verify", small_disk / "run").code == 0


def test_a_normalisation_for_which_there_is_no_disk_leaves_no_folder(call, finished, small_disk):
    factors = finished["folder"] / "f.json"
    call("factors", finished["run"], "--percentile", 50, "--output", factors)
    (small_disk / "other").write_bytes(bytes(300 * 1024))
    answer = call("normalize", finished["run"], "--factors", factors, "--output", small_disk / "new")

    assert answer.code == 7, answer.err
    assert [path.name for path in small_disk.iterdir()] == ["other"]


@pytest.mark.parametrize("verb", [("percentiles",), ("export",), ("status", "--json")])
def test_a_full_disk_behind_standard_output_is_told_in_one_line(finished, verb):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "actisketch.pipeline", verb[0], finished["run"], *verb[1:]]
        answer = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    assert answer.returncode == 7
    assert answer.stderr.count("\n") == 1
    assert "No space left on device; free space" in answer.stderr
