"""Ctrl-C and SIGTERM on a real process: finished blocks are kept, and the next run goes on from there."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from actisketch.pipeline import open_run

N_BLOCKS = 20


@pytest.fixture
def long_job(small_files):
    """A job of many small blocks."""
    data = np.random.default_rng(8).random((N_BLOCKS * 16, 6), dtype=np.float32)
    np.save(small_files["folder"] / "many.npy", data)
    text = small_files["job"].read_text().replace("small.npz", "many.npy")
    small_files["job"].write_text(text)
    return small_files


def n_committed(path):
    """Count the commit records by their names: opening the cache again and again takes as long as many blocks."""
    return len(list((path / ".actisketch" / "commits").glob("*.block")))


@pytest.fixture
def interrupt(long_job, start_held):
    """Start the job, send the signal after some blocks; return exit code and what it said."""

    def interrupt(number):
        process = start_held(3, "run", long_job["job"], env={**os.environ, "COLUMNS": "60"})
        process.send_signal(number)
        _, said = process.communicate()
        return process.returncode, said

    return interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_tells_what_is_there_and_how_to_resume_and_resumes_to_the_same_bytes(
    long_job, interrupt, call, number
):
    code, said = interrupt(number)
    n_kept = n_committed(long_job["run"] / "cache")
    status = json.loads(call("status", long_job["run"], "--json").out)
    asked = call("percentiles", long_job["run"])
    verified = call("verify", long_job["run"])
    resumed = call("run", long_job["job"])
    whole = call("run", long_job["job"], "--output", long_job["folder"] / "whole")
    first, second = (open_run(long_job["folder"] / name) for name in ("run", "whole"))

    assert code == 130
    assert any(f"Resume with: actisketch run {long_job['job']}" in line for line in said.splitlines())
    assert "Traceback" not in said
    assert 3 <= n_kept < N_BLOCKS
    assert status["is_complete"] is False
    assert status["n_blocks_done"] == n_kept
    assert asked.code == 9
    assert "run the job again" in asked.err
    assert verified.code == 9  # sound, not complete
    assert resumed.code == whole.code == 0, resumed.err
    assert f"computed {N_BLOCKS - n_kept} blocks, reloaded {n_kept}" in resumed.err
    assert [s.to_bytes() for s in first.sketches.values()] == [s.to_bytes() for s in second.sketches.values()]
    assert first.written_factors() == second.written_factors()
    assert np.array_equal(first.activations("second")[:], second.activations("second")[:])


@pytest.mark.parametrize("name", ["numpy", "click", "rich.console", "pydantic"])
def test_ctrl_c_during_the_imports_ends_without_a_traceback(name):
    """Python raises KeyboardInterrupt wherever it is: here, inside an import."""
    code = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == {name!r}: raise KeyboardInterrupt\n"
        "from importlib.metadata import entry_points\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "(entry,) = entry_points(group='console_scripts', name='actisketch')\n"
        "sys.argv = ['actisketch', 'status', 'run']\n"
        "entry.load()()\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert answer.returncode == 130
    assert answer.stderr.strip() == ""


def test_what_tensorflow_prints_at_its_import_is_kept_for_failures_not_for_ctrl_c(capfd):
    from actisketch.pipeline.record.model import _silent_stderr

    def load(banner, error):
        with _silent_stderr():
            os.write(2, banner)
            raise error

    with pytest.raises(KeyboardInterrupt):
        load(b"oneDNN custom operations are on", KeyboardInterrupt)
    interrupted = capfd.readouterr().err
    with pytest.raises(ImportError):
        load(b"no libtensorflow", ImportError)

    assert interrupted == ""
    assert capfd.readouterr().err == "no libtensorflow"
