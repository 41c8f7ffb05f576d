"""A script that would start workers in its workers is told what to add, before anything is started or written."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import numpy as np, keras
from actisketch.pipeline import run
def work():
    x = np.random.default_rng(0).random((64, 6), dtype=np.float32)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, activation="relu"), keras.layers.Dense(2)])
    settings = {{"record": {{"workers": 1, "block_samples": 32}}, "report": {{"enabled": False}}}}
    run(model, x, output="r", normalize=False, settings=settings)
    print("recorded")

{call}
"""


def called(tmp_path, *command, call, file="mine.py"):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(SCRIPT.format(call=call))
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), *sys.path]))
    return subprocess.run(
        [sys.executable, *(command or (file,))],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
    )


@pytest.mark.parametrize(
    "call",
    [
        "work()",
        pytest.param("if True:\n    work()", marks=pytest.mark.slow),
        pytest.param("for _ in range(1):\n    work()", marks=pytest.mark.slow),
    ],
)
def test_without_a_main_guard_nothing_is_started(tmp_path, call):
    done = called(tmp_path, call=call)

    assert done.returncode == 1
    assert "'mine.py' again" in done.stderr.splitlines()[-1]
    assert 'if __name__ == "__main__":' in done.stderr.splitlines()[-1]
    assert len(done.stderr.splitlines()) < 40
    assert not (tmp_path / "r").exists()


def test_with_one_it_runs(tmp_path):
    done = called(tmp_path, call='if __name__ == "__main__":\n    work()')

    assert done.returncode == 0, done.stderr
    assert done.stdout == "recorded\n"


@pytest.mark.slow
@pytest.mark.parametrize("command", [("-m", "mine"), ("mine",)])
def test_what_runs_a_package_needs_none(tmp_path, command):
    done = called(tmp_path, *command, call="work()", file="mine/__main__.py")

    assert done.stdout == "recorded\n", done.stderr


@pytest.mark.slow
def test_with_one_beside_the_call_the_workers_tell_what_is_wrong(tmp_path):
    done = called(tmp_path, call='if __name__ == "__main__":\n    pass\nwork()')

    assert done.returncode == 1
    assert "must stand below its line" in done.stderr.splitlines()[-1]
    assert "Nanny failed to start" in done.stderr.splitlines()[-1]
