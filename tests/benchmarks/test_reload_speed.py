"""How long a command takes that finds everything done, beside what it cannot do without.

``pytest tests/benchmarks/test_reload_speed.py --benchmark-enable -s`` prints seconds and ratios of whole
processes, best of alternating turns. Without the option each is started once.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

N_ROUNDS = 5
LOAD = """
import sys
from actisketch.pipeline.record.model import load_network
load_network(sys.argv[1])
"""


def test_a_run_with_nothing_to_do_takes_what_importing_and_loading_take(
    tmp_path: Path, demo_files: dict[str, str], *, is_measured: bool
) -> None:
    job = tmp_path / "job.toml"
    job.write_text(
        f'output = "{tmp_path / "run"}"\n[model]\npath = "{demo_files["model"]}"\n'
        f'[data]\npath = "{demo_files["data"]}"\ndivide_by = 16.0\n'
    )
    actisketch = [sys.executable, "-m", "actisketch.pipeline"]
    ways = {
        "import TensorFlow, load the network": [sys.executable, "-c", LOAD, demo_files["model"]],
        "run, nothing to do": [*actisketch, "run", str(job)],
        "factors of another percentile": [
            *actisketch,
            "factors",
            str(tmp_path / "run"),
            "--percentile",
            "99",
        ],
        "percentiles of every point": [*actisketch, "percentiles", str(tmp_path / "run"), "-q", "99.9"],
    }
    first = subprocess.run(ways["run, nothing to do"], capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr

    best = dict.fromkeys(ways, float("inf"))
    for _ in range(N_ROUNDS if is_measured else 1):
        for name, command in ways.items():
            start_s = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            best[name] = min(best[name], time.perf_counter() - start_s)
            assert done.returncode == 0, done.stderr
            assert name != "run, nothing to do" or "nothing was recomputed" in done.stdout + done.stderr

    if is_measured:
        loaded = best["import TensorFlow, load the network"]
        print(f"\nwhole processes, best of {N_ROUNDS}:")
        for name, each_s in best.items():
            print(f"  {name:38s} {each_s:6.2f} s  {each_s / loaded:5.2f} x")
        print("  wanted: nothing to do at most 1.5 x")
