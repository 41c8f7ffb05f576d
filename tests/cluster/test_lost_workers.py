"""Recording on a cluster whose workers and scheduler come late, die, or cannot work: no byte changes, nothing hangs."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actisketch.pipeline.cluster import Limits, connected, coordinator, record_missing_on
from actisketch.pipeline.events import Event
from actisketch.storage import Block
from actisketch.storage.errors import IncompleteError, InputError

from ..on_disk import IN_WORK, contents
from .conftest import BLOCK, N_BLOCKS, SKETCH, new_cache


class TestWorkersThatDie:
    def test_killed_again_and_again_they_change_no_byte(
        self, tmp_path: Path, folder: Path, faulty: Any, in_process: dict[str, bytes]
    ) -> None:
        recipe = faulty.FaultyRecipe(folder=str(folder), batch_s=0.1)
        n_done, n_kills = 0, 0

        def kill(event: Event) -> None:
            nonlocal n_done, n_kills
            n_done += 1
            if n_done in (2, 12):
                os.kill(min(client.run(os.getpid).values()), signal.SIGKILL)
                n_kills += 1

        with connected(workers=2) as client, new_cache(tmp_path / "c", recipe) as cache:
            record_missing_on(client, cache, recipe, sketch=SKETCH, on_event=kill)

        assert n_kills == 2
        assert contents(tmp_path / "c", without=IN_WORK) == in_process
        # Each kill costs at most the blocks that the worker held: two in memory.
        again = sum(times - 1 for times in faulty.computed(folder).values())
        assert again <= 2 * n_kills

    @pytest.mark.slow
    def test_a_block_that_kills_its_worker_is_reported_and_the_others_finish(
        self, tmp_path: Path, folder: Path, faulty: Any
    ) -> None:
        recipe = faulty.FaultyRecipe(folder=str(folder), deadly_blocks=(2 * BLOCK,))

        with connected(workers=2) as client, new_cache(tmp_path / "c", recipe, 12) as cache:
            client.run_on_scheduler(allow_one_failure)
            with pytest.raises(IncompleteError, match=r"1 of 12 blocks failed .* block 2"):
                record_missing_on(client, cache, recipe, sketch=SKETCH)

            assert [block.index for block in cache.missing()] == [2]


def allow_one_failure(dask_scheduler: Any) -> None:
    dask_scheduler.allowed_failures = 1  # four deaths, as by default, take a minute with TensorFlow


class TestByHand:
    """A scheduler and workers from the command line, in another working directory."""

    def test_late_workers_get_work(
        self, start_cluster: Any, tmp_path: Path, folder: Path, faulty: Any
    ) -> None:
        cluster = start_cluster(1)
        recipe = faulty.FaultyRecipe(folder=str(folder), batch_s=0.05)

        def join(event: Event) -> None:
            if len(cluster.workers) == 1:
                cluster.add_worker("--nthreads", "3")
                client.wait_for_workers(2)

        with (
            connected(scheduler=str(cluster.file)) as client,
            new_cache(tmp_path / "c", recipe, 40) as cache,
        ):
            record_missing_on(client, cache, recipe, sketch=SKETCH, on_event=join)

        assert len(faulty.pids(folder)) == 2
        assert set(faulty.computed(folder).values()) == {1}

    @pytest.mark.slow
    def test_a_late_worker_that_cannot_start_is_sent_home_and_the_run_goes_on(
        self, start_cluster: Any, tmp_path: Path, folder: Path, faulty: Any
    ) -> None:
        cluster = start_cluster(1)
        refusing = tmp_path / "refusing"
        recipe = faulty.FaultyRecipe(folder=str(folder), batch_s=0.05, refusing=str(refusing))

        def join(event: Event) -> None:
            if len(cluster.workers) == 1:
                refusing.touch()
                cluster.add_worker()
                client.wait_for_workers(2)

        with (
            connected(scheduler=str(cluster.file)) as client,
            new_cache(tmp_path / "c", recipe, 50) as cache,
        ):
            record_missing_on(client, cache, recipe, sketch=SKETCH, on_event=join)
            while len(client.nthreads()) > 1:
                time.sleep(0.05)

        assert refusing.read_text() == "refused"
        assert len(faulty.pids(folder)) == 1

    def test_a_lost_scheduler_ends_the_run_with_a_reason_and_the_next_run_resumes(
        self, start_cluster: Any, tmp_path: Path, folder: Path, faulty: Any, shared_client: Any
    ) -> None:
        cluster = start_cluster(2)
        recipe = faulty.FaultyRecipe(folder=str(folder), batch_s=0.05)
        limits = Limits(scheduler_silence_s=2)

        def kill(event: Event) -> None:
            cluster.scheduler.kill()

        with (
            connected(scheduler=str(cluster.file)) as client,
            new_cache(tmp_path / "c", recipe) as cache,
            pytest.raises(IncompleteError, match="lost"),
        ):
            record_missing_on(client, cache, recipe, sketch=SKETCH, on_event=kill, limits=limits)
        with new_cache(tmp_path / "c", recipe) as cache:
            n_left = len(cache.missing())
            assert 0 < n_left < N_BLOCKS
            record_missing_on(shared_client, cache, recipe, sketch=SKETCH)
            assert cache.missing() == ()

    @pytest.mark.slow
    def test_no_worker_left_ends_the_run_with_a_reason(
        self, start_cluster: Any, tmp_path: Path, folder: Path, faulty: Any
    ) -> None:
        cluster = start_cluster(1)
        recipe = faulty.FaultyRecipe(folder=str(folder), batch_s=0.05)

        def kill(event: Event) -> None:
            cluster.workers[0].kill()

        with (
            connected(scheduler=str(cluster.file)) as client,
            new_cache(tmp_path / "c", recipe) as cache,
            pytest.raises(IncompleteError, match="no worker was left for 2 s"),
        ):
            record_missing_on(
                client, cache, recipe, sketch=SKETCH, on_event=kill, limits=Limits(no_workers_s=2)
            )

    def test_a_scheduler_without_workers_and_no_scheduler_are_refused(self, start_cluster: Any) -> None:
        cluster = start_cluster(0)

        with (
            pytest.raises(IncompleteError, match="no worker joined"),
            connected(scheduler=str(cluster.file), limits=Limits(no_workers_s=0.5)),
        ):
            pass
        with pytest.raises(InputError, match="no scheduler file"), connected(scheduler="/nowhere/s.json"):
            pass
        with pytest.raises(InputError, match="choose one"), connected():
            pass


def test_a_scheduler_that_dies_while_it_is_asked_is_lost_and_not_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Dying:
        """A client that does not know yet that its scheduler is gone."""

        status, scheduler = "running", None

        def submit(self, *_: Any, key: str, **__: Any) -> Any:
            return SimpleNamespace(key=key, add_done_callback=lambda _: None)

        def nthreads(self) -> Any:
            raise ConnectionResetError("Connection reset by peer")

        def cancel(self, futures: Any, **_: Any) -> None:
            pass

    monkeypatch.setattr(coordinator, "LOOK_S", 0.01)
    client: Any = Dying()
    run = coordinator.Coordinator(
        client, print, name="job", limits=Limits(scheduler_silence_s=0.05), on_done=print
    )

    with pytest.raises(IncompleteError, match=r"the connection to .* was lost: .* run again to resume"):
        run.run([Block(0, 0, 5)])
