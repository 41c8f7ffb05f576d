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
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout)
    with capsys.disabled():
        print(f"\n{how}: {counts}")

    assert counts["changes"] >= 150
    assert counts["same bytes"] == counts["changes"]
    assert counts["ended"] >= (1 if how == "kill" else 0.7) * counts["changes"]
    assert counts["ended twice"] >= 10


MOMENTS = (
    "cache/.actisketch/cache.json",
    "cache/.actisketch/commits/00000002.64-96.block",
    "cache/.actisketch/commits/00000006.192-224.block",
    "statistics.json",
    "factors.json",
    "sketches.npz",
    "normalized-sketches.json",
    "normalized.keras",
    "certificate.json",
    "report/index.html",
)


@pytest.mark.slow
def test_the_whole_program_killed_while_each_result_is_written_ends_in_the_same_results(
    demo_files, tmp_path, capsys, warm_python
):
    """With TensorFlow, loaded before: a kill -9 within a tenth of a second after each of these files appears."""
    chance, codes = random.Random(34), []
    job = tmp_path / "job.toml"
    job.write_text(
        f'[model]\npath = "{demo_files["model"]}"\n[data]\npath = "{demo_files["data"]}"\ninputs = "x"\n'
        "num_samples = 256\n[record]\nbatch_size = 16\nblock_samples = 32\n"
    )
    run, whole = tmp_path / "killed", tmp_path / "whole"

    def start(*arguments):
        return warm_python.start("-m", "actisketch.pipeline", *arguments, cwd=tmp_path)

    def finish(output):
        process = start("run", job, "--output", output)
        _, said = process.communicate()
        assert process.returncode == 0, said

    def verify():
        process = start("verify", run)
        _, said = process.communicate()
        assert process.returncode in (0, 9), said
        assert "Traceback" not in said

    for moment in MOMENTS:
        if (run / moment).exists() and moment != MOMENTS[0]:
            (run / moment).unlink()  # so that it is made again
        process = start("run", job, "--output", run)
        while process.poll() is None and not (run / moment).exists():
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        _, said = process.communicate()
        codes.append(process.returncode)
        assert process.returncode in (-9, 0), said
        if (run / "run.json").exists():
            verify()
    finish(run)
    finish(whole)
    with capsys.disabled():
        print(f"\n{codes.count(-9)} kills of {len(codes)} runs with TensorFlow")

    def names(folder):
        return {p.relative_to(folder).as_posix() for p in folder.rglob("*")}

    assert codes.count(-9) >= 7
    assert names(run) == names(whole)
    assert json.loads((run / "certificate.json").read_text())["passed"]
    verify()
