"""Whole jobs on Dask: from Python with a client, and from the command line with kills in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actisketch.pipeline import run
from actisketch.pipeline.cluster.engine import ClusterEngine, check_local_memory
from actisketch.pipeline.settings.loading import validate_job
from actisketch.storage import Cache
from actisketch.storage.errors import InputError, OverBudgetError

DEMO = Path(__file__).parents[2] / "pipeline" / "demo"
Contents = Callable[[Path], dict[str, bytes]]


@pytest.fixture
def small_model() -> Any:
    import keras

    keras.utils.set_random_seed(3)
    inputs = keras.Input((6, 6, 1), name="image")
    x = keras.layers.Conv2D(5, 3, activation="relu", name="conv")(inputs)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="classes")(x))


class TestFromPython:
    def test_a_client_gives_the_files_that_this_process_gives(
        self, small_model: Any, threads_client: Any, tmp_path: Path, read_all: Contents
    ) -> None:
        x = np.random.default_rng(5).random((50, 6, 6, 1), dtype=np.float32)
        settings: dict[str, dict[str, Any]] = {"record": {"block_samples": 8}, "factors": {"exact": True}}

        for name, client in [("here", None), ("dask", threads_client)]:
            run(small_model, x, output=tmp_path / name, batch_size=8, settings=settings, client=client)

        assert read_all(tmp_path / "dask/cache") == read_all(tmp_path / "here/cache")
        for name in ("statistics.json", "factors.json", "certificate.json"):
            assert (tmp_path / "dask" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()

    def test_a_second_run_starts_no_cluster(
        self, small_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        x = np.random.default_rng(5).random((9, 6, 6, 1), dtype=np.float32)
        run(small_model, x, output=tmp_path / "r")
        monkeypatch.setattr(ClusterEngine, "_connected", lambda self: pytest.fail("a cluster was started"))

        again = run(small_model, x, output=tmp_path / "r", settings={"record": {"workers": 2}})

        assert again.factors is not None

    def test_samples_that_cannot_travel_are_refused_with_advice(
        self, small_model: Any, threads_client: Any, tmp_path: Path
    ) -> None:
        def batches() -> Iterator[Any]:
            yield np.ones((4, 6, 6, 1), np.float32)

        from actisketch.pipeline.sources import as_source

        source = as_source(batches, num_samples=4)
        source.lock = __import__("threading").Lock()  # type: ignore[attr-defined] # cannot be pickled

        with pytest.raises(InputError, match=r"cannot be sent to workers.*save the samples"):
            run(small_model, source, output=tmp_path / "r", client=threads_client)


def test_more_workers_than_memory_are_refused_with_the_numbers() -> None:
    with pytest.raises(OverBudgetError, match=r"4000 workers need .* use fewer record\.workers"):
        check_local_memory(4000, 2**30)
    check_local_memory(1, 2**20)


def test_in_process_runs_do_not_import_dasks_cluster_parts(tmp_path: Path) -> None:
    code = "import sys, actisketch.pipeline.job, actisketch.pipeline.cli; print('distributed' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


def test_a_performance_report_without_a_cluster_is_refused(tmp_path: Path) -> None:
    from actisketch.pipeline.job import run_job

    files = {"model": {"path": str(DEMO / "digits.keras")}, "data": {"path": str(DEMO / "digits.npz")}}
    job = validate_job({"output": str(tmp_path / "r"), **files})
    with pytest.raises(InputError, match="performance report"):
        run_job(job, performance_report=tmp_path / "p.html")


@pytest.mark.slow
class TestFromTheCommandLine:
    """Real processes with TensorFlow; one thread each, in process too, so that bytes can be compared."""

    def command(self, output: Path, *flags: str) -> list[str]:
        job = output.parent / "job.toml"
        job.write_text(
            f'[model]\npath = "{DEMO / "digits.keras"}"\n[data]\npath = "{DEMO / "digits.npz"}"\ndivide_by = 16.0\n'
            "[record]\nblock_samples = 32\n"
        )
        return [sys.executable, "-m", "actisketch.pipeline", "run", str(job), "--output", str(output), *flags]

    def start(self, output: Path, *flags: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
        return subprocess.Popen(
            self.command(output, *flags),
            env=environment,
            cwd=output.parent,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def finish(self, process: subprocess.Popen[str]) -> str:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        return out + err

    def wait_for_blocks(self, output: Path, n_blocks: int) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if len(list(output.rglob("*.block"))) >= n_blocks:
                return
            time.sleep(0.05)
        pytest.fail("no blocks were written")

    def test_local_workers_interrupted_twice_write_the_bytes_of_one_process(
        self, tmp_path: Path, read_all: Contents
    ) -> None:
        self.finish(self.start(tmp_path / "here"))
        output = tmp_path / "dask"
        for n_blocks, how in [(3, signal.SIGKILL), (12, signal.SIGINT)]:
            process = self.start(output, "--workers", "2")
            self.wait_for_blocks(output, n_blocks)
            if how == signal.SIGKILL:
                os.killpg(process.pid, how)  # the client and its workers: the whole job
            else:
                process.send_signal(how)
            _, err = process.communicate(timeout=60)
            assert process.returncode in (-9, 130)
        assert "Resume with" in err

        told = self.finish(self.start(output, "--workers", "2", "--performance-report", "p.html"))

        assert "dashboard http" in told
        assert (tmp_path / "p.html").stat().st_size > 10_000
        assert read_all(output / "cache") == read_all(tmp_path / "here/cache")
        for name in ("statistics.json", "factors.json", "certificate.json", "normalized-sketches.json"):
            assert (output / name).read_bytes() == (tmp_path / "here" / name).read_bytes()

    def test_a_client_that_is_killed_leaves_a_cluster_that_the_next_run_uses(
        self, start_cluster: Any, tmp_path: Path
    ) -> None:
        cluster = start_cluster(2)
        output = tmp_path / "r"
        first = self.start(output, "--scheduler", str(cluster.file))
        self.wait_for_blocks(output, 4)
        first.kill()
        first.communicate()
        n_done = len(list(output.rglob("*.block")))

        self.finish(self.start(output, "--scheduler", str(cluster.file)))

        manifest = json.loads((output / "run.json").read_text())
        cache = Cache.open(output / "cache")
        assert manifest["n_samples"] == 1797
        assert not cache.missing()
        assert n_done >= 4
