"""A run that ends at any change of the file system, by kill -9 or by a refusal, resumes to the same bytes."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("crash_points.py")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "refuse"])
def test_a_run_that_ends_at_any_change_of_the_file_system_resumes_to_the_same_bytes(tmp_path, how, capsys):
    command = [sys.executable, "-W", "ignore", str(SCRIPT), str(tmp_path), how, "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=590)
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout)
    with capsys.disabled():
        print(f"\n{how}: {counts}")

    assert counts["changes"] >= 150
    assert counts["same bytes"] == counts["changes"]
    assert counts["ended"] >= (1 if how == "kill" else 0.7) * counts["changes"]
    assert counts["ended twice"] >= 20


@pytest.mark.slow
def test_the_whole_program_killed_at_random_moments_ends_in_the_same_results(demo_files, tmp_path, capsys):
    """With TensorFlow, through recording, factors, normalising and the report: 10 kills, seeded."""
    chance, log = random.Random(34), []
    job = tmp_path / "job.toml"
    job.write_text(
        f'[model]\npath = "{demo_files["model"]}"\n[data]\npath = "{demo_files["data"]}"\ninputs = "x"\n'
        "num_samples = 256\n[record]\nbatch_size = 16\nblock_samples = 32\n"
    )

    def start(output):
        command = [sys.executable, "-m", "actisketch.pipeline", "run", str(job), "--output", str(output)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(output):
        started = time.monotonic()
        with start(output) as process:
            _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
        return time.monotonic() - started

    run, whole = tmp_path / "killed", tmp_path / "whole"
    whole_s = finish(whole)
    for _ in range(10):
        with start(run) as process:
            try:
                _, said = process.communicate(timeout=chance.uniform(0.3, 1.05) * whole_s)
            except subprocess.TimeoutExpired:
                process.kill()
                _, said = process.communicate()
        log.append(process.returncode)
        assert process.returncode in (-9, 0), said
        assert "Traceback" not in said
        verify = [sys.executable, "-m", "actisketch.pipeline", "verify", str(run)]
        if (run / "run.json").exists():
            verified = subprocess.run(verify, capture_output=True, text=True, check=False)
            assert verified.returncode in (0, 9), verified.stderr
            assert "Traceback" not in verified.stderr
    finish(run)
    with capsys.disabled():
        print(f"\n{log.count(-9)} kills of {len(log)} runs with TensorFlow")

    def names(folder):
        return {p.relative_to(folder).as_posix() for p in folder.rglob("*")} - {"cache/.actisketch/tmp"}

    assert log.count(-9) >= 3
    assert names(run) == names(whole)
    assert json.loads((run / "certificate.json").read_text())["passed"]
