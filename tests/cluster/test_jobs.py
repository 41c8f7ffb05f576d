"""Whole jobs on Dask: from Python with a client, and from the command line with kills in between."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from actisketch.pipeline import run
from actisketch.pipeline.cluster.cluster_engine import ClusterEngine, check_local_memory
from actisketch.pipeline.display.job_progress import JobProgress
from actisketch.pipeline.events import BlockDone, Event, StageDone
from actisketch.pipeline.planning.machine_memory import UsableMemory
from actisketch.pipeline.settings.loading import validate_job
from actisketch.storage import Cache
from actisketch.storage.errors import InputError, OverBudgetError

from ..on_disk import IN_WORK, contents

DEMO = Path(__file__).parents[2] / "pipeline" / "demo"
ONE_THREAD = os.environ | {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}


class TestFromPython:
    def test_a_client_gives_the_files_that_this_process_gives(
        self, model: Any, threads_client: Any, tmp_path: Path
    ) -> None:
        x = np.random.default_rng(5).random((50, 6, 6, 1), dtype=np.float32)
        settings: dict[str, dict[str, Any]] = {"record": {"block_samples": 8}, "factors": {"exact": True}}

        for name, client in [("here", None), ("dask", threads_client)]:
            run(model, x, output=tmp_path / name, batch_size=8, settings=settings, client=client)

        assert contents(tmp_path / "dask/cache", without=IN_WORK) == contents(
            tmp_path / "here/cache", without=IN_WORK
        )
        for name in ("statistics.json", "factors.json", "certificate.json"):
            assert (tmp_path / "dask" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()

    def test_a_clients_cluster_is_not_judged_by_the_memory_of_this_machine(
        self, model: Any, threads_client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "actisketch.pipeline.planning.memory_limit.usable_memory",
            lambda: UsableMemory(2**20, "of a mite"),
        )
        x = np.random.default_rng(5).random((50, 6, 6, 1), dtype=np.float32)

        assert run(model, x, output=tmp_path / "dask", batch_size=8, client=threads_client).certificate()[
            "passed"
        ]
        with pytest.raises(OverBudgetError, match=r"the default, 60 % of the 1\.0 MiB of a mite"):
            run(model, x, output=tmp_path / "here", batch_size=8)

    def test_what_is_said_about_the_cluster_leaves_the_bar_of_the_stage_where_it_is(
        self, model: Any, tmp_path: Path
    ) -> None:
        """Both remarks, since there are more workers than blocks. A bar is drawn once more when it is closed."""
        from distributed import Client, LocalCluster

        text, events = io.StringIO(), list[Event]()
        console = Console(file=text, width=80, force_terminal=True, _environ={"TERM": "xterm"})
        with (
            LocalCluster(
                n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
            ) as cluster,
            Client(cluster, set_as_default=False) as client,
            ExitStack() as stack,
        ):
            progress = stack.enter_context(JobProgress(console))

            def listen(event: Event) -> None:
                events.append(event)
                progress(event)
                if isinstance(event, BlockDone):
                    stack.close()

            run(
                model,
                np.random.default_rng(5).random((9, 6, 6, 1), dtype=np.float32),
                output=tmp_path / "r",
                settings={"normalize": {"enabled": False}, "report": {"enabled": False}},
                client=client,
                on_event=listen,
            )
        _, place, advice = text.getvalue().split("cluster: ")

        assert place.startswith("2 workers with 2 threads in all at inproc://")
        assert advice.startswith("1 blocks for 2 workers: some stay idle")
        assert "9/9" in advice
        assert [e.stage for e in events if isinstance(e, StageDone)] == ["record", "factors"]

    def test_a_second_run_starts_no_cluster(
        self, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        x = np.random.default_rng(5).random((9, 6, 6, 1), dtype=np.float32)
        run(model, x, output=tmp_path / "r")
        monkeypatch.setattr(ClusterEngine, "_connected", lambda self: pytest.fail("a cluster was started"))

        again = run(model, x, output=tmp_path / "r", settings={"record": {"workers": 2}})

        assert again.factors is not None

    def test_samples_that_cannot_travel_are_refused_with_advice(
        self, model: Any, threads_client: Any, tmp_path: Path
    ) -> None:
        def batches() -> Iterator[Any]:
            yield np.ones((4, 6, 6, 1), np.float32)

        from actisketch.pipeline.sources import as_source

        source = as_source(batches, num_samples=4)
        source.lock = __import__("threading").Lock()  # type: ignore[attr-defined] # cannot be pickled

        with pytest.raises(InputError, match=r"cannot be sent to workers.*save the samples"):
            run(model, source, output=tmp_path / "r", client=threads_client)


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

    @pytest.fixture
    def job(self, tmp_path: Path) -> Path:
        (tmp_path / "job.toml").write_text(
            f'[model]\npath = "{DEMO / "digits.keras"}"\n[data]\npath = "{DEMO / "digits.npz"}"\ndivide_by = 16.0\n'
            "[record]\nblock_samples = 32\n"
        )
        return tmp_path / "job.toml"

    def finish(self, *arguments: object) -> str:
        command = [sys.executable, "-m", "actisketch.pipeline", "run", *map(str, arguments)]
        done = subprocess.run(
            command, env=ONE_THREAD, cwd=Path(command[4]).parent, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def test_local_workers_interrupted_twice_write_the_bytes_of_one_process(
        self, job: Path, start_held: Any, tmp_path: Path
    ) -> None:
        self.finish(job, "--output", tmp_path / "here")
        output = tmp_path / "dask"
        run_on_two = (job, "--output", output, "--workers", "2")
        killed = start_held(3, "run", *run_on_two, env=ONE_THREAD, start_new_session=True)
        os.killpg(killed.pid, signal.SIGKILL)  # the client and its workers: the whole job
        killed.wait()
        interrupted = start_held(9, "run", *run_on_two, env=ONE_THREAD, start_new_session=True)
        interrupted.send_signal(signal.SIGINT)
        assert "Resume with" in interrupted.communicate()[1]
        assert interrupted.returncode == 130
        n_done = len(list(output.rglob("*.block")))

        told = self.finish(*run_on_two, "--performance-report", "p.html")

        assert 12 <= n_done < 57
        assert "dashboard http" in told
        assert (tmp_path / "p.html").stat().st_size > 10_000
        assert contents(output / "cache", without=IN_WORK) == contents(
            tmp_path / "here/cache", without=IN_WORK
        )
        for name in ("statistics.json", "factors.json", "certificate.json", "normalized-sketches.json"):
            assert (output / name).read_bytes() == (tmp_path / "here" / name).read_bytes()

    def test_a_client_that_is_killed_leaves_a_cluster_that_the_next_run_uses(
        self, job: Path, start_held: Any, start_cluster: Any, tmp_path: Path
    ) -> None:
        output = tmp_path / "r"
        run_there = (job, "--output", output, "--scheduler", start_cluster(2).file)
        first = start_held(4, "run", *run_there, env=ONE_THREAD)
        first.kill()
        first.wait()
        n_done = len(list(output.rglob("*.block")))

        self.finish(*run_there)

        manifest = json.loads((output / "run.json").read_text())
        cache = Cache.open(output / "cache")
        assert manifest["n_samples"] == 1797
        assert not cache.missing()
        assert 4 <= n_done < 57
