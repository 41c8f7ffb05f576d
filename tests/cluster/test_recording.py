"""Recording on a cluster of real processes: the same bytes, nothing twice, every failure told."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actisketch.pipeline.cluster import Limits, connected, record_missing_on
from actisketch.pipeline.cluster.rehearsal import RehearsalRecipe, rehearsal_spec
from actisketch.pipeline.events import Event
from actisketch.pipeline.record.recorder import record_missing
from actisketch.storage import Cache
from actisketch.storage.errors import IncompleteError, InputError, MismatchError

from ..on_disk import IN_WORK, contents
from .conftest import BLOCK, N_BLOCKS, SKETCH, new_cache


def shuffled(blocks: Any) -> Any:
    return random.Random(7).sample(list(blocks), len(blocks))


def test_two_workers_write_the_bytes_of_one_process_and_tell_of_each_block(
    shared_client: Any, tmp_path: Path, in_process: dict[str, bytes]
) -> None:
    events: list[Any] = []

    with new_cache(tmp_path / "c") as cache:
        n_computed = record_missing_on(
            shared_client, cache, RehearsalRecipe(), sketch=SKETCH, on_event=events.append
        )

    assert n_computed == N_BLOCKS
    assert contents(tmp_path / "c", without=IN_WORK) == in_process
    assert sorted(event.block for event in events) == list(range(N_BLOCKS))
    assert sum(event.nbytes for event in events) == N_BLOCKS * BLOCK * (16 * 16 * 8 + 64) * 4


def test_the_order_of_blocks_changes_no_byte(
    shared_client: Any, tmp_path: Path, in_process: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with new_cache(tmp_path / "shuffled") as cache:
        missing = cache.missing
        monkeypatch.setattr(cache, "missing", lambda: shuffled(missing()))
        record_missing_on(shared_client, cache, RehearsalRecipe(), sketch=SKETCH)
    assert contents(tmp_path / "shuffled", without=IN_WORK) == in_process


@pytest.mark.parametrize("n_workers", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_the_number_of_workers_changes_no_byte(
    n_workers: int, tmp_path: Path, in_process: dict[str, bytes]
) -> None:
    with connected(workers=n_workers) as client, new_cache(tmp_path / "c") as cache:
        record_missing_on(client, cache, RehearsalRecipe(), sketch=SKETCH)

    assert contents(tmp_path / "c", without=IN_WORK) == in_process


def test_a_second_run_computes_nothing_and_a_grown_one_the_rest(
    shared_client: Any, tmp_path: Path, folder: Path, faulty: Any
) -> None:
    recipe = faulty.FaultyRecipe(folder=str(folder))
    for n_blocks, expected in [(5, 5), (5, 0), (9, 4)]:
        with new_cache(tmp_path / "c", recipe, n_blocks) as cache:
            assert record_missing_on(shared_client, cache, recipe, sketch=SKETCH) == expected

    assert set(faulty.computed(folder).values()) == {1}


def test_keys_on_the_scheduler_stay_few_and_none_is_left(shared_client: Any, tmp_path: Path) -> None:
    """Nothing is handed out while an event is told; what is let go then goes a moment later on a busy machine."""
    seen: list[int] = []
    window = Limits().window(2, 2)

    def n_keys() -> int:
        return int(shared_client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)))

    def count_keys(event: Event) -> None:
        deadline = time.monotonic() + 60
        while (n_seen := n_keys()) > window and time.monotonic() < deadline:
            time.sleep(0.01)
        seen.append(n_seen)

    recipe = RehearsalRecipe(shapes=((4,),))
    with new_cache(tmp_path / "c", recipe, 100) as cache:
        record_missing_on(shared_client, cache, recipe, sketch=SKETCH, on_event=count_keys)

    assert max(seen) <= window
    assert len(seen) == 100
    while n_keys():
        time.sleep(0.01)
    assert not any(shared_client.has_what().values())
    assert not any(name.startswith("actisketch") for name in plugins(shared_client))


def plugins(client: Any) -> set[str]:
    found = client.run(lambda dask_worker: list(dask_worker.plugins))
    return {name for names in found.values() for name in names}


def test_wrong_data_is_reported_with_block_and_cause_while_the_others_finish(
    shared_client: Any, tmp_path: Path, folder: Path, faulty: Any
) -> None:
    recipe = faulty.FaultyRecipe(folder=str(folder), nan_blocks=(3 * BLOCK, 7 * BLOCK))

    with new_cache(tmp_path / "c", recipe) as cache:
        with pytest.raises(
            IncompleteError, match=r"2 of 23 blocks failed .* block 3: .*point0.*NaN"
        ) as caught:
            record_missing_on(shared_client, cache, recipe, sketch=SKETCH)
        assert [block.index for block in cache.missing()] == [3, 7]
        assert set(caught.value.failures) == {3, 7}
        # Wrong data stays wrong: it is not computed again and again.
        assert set(faulty.computed(folder).values()) == {1}

        assert record_missing_on(shared_client, cache, RehearsalRecipe(), sketch=SKETCH) == 2


def test_storage_that_fails_for_a_while_is_tried_again_within_limits(
    shared_client: Any, tmp_path: Path, folder: Path, faulty: Any, in_process: Any
) -> None:
    recipe = faulty.FaultyRecipe(folder=str(folder), transient_blocks={0: 2, 5 * BLOCK: 3, 6 * BLOCK: 99})

    with new_cache(tmp_path / "c", recipe) as cache:
        with pytest.raises(IncompleteError, match=r"block 6: the store did not answer \(4\)"):
            record_missing_on(shared_client, cache, recipe, sketch=SKETCH, limits=Limits(retries=3))
        assert [block.index for block in cache.missing()] == [6]
        counts = faulty.computed(folder)
        assert (counts[0], counts[5 * BLOCK], counts[6 * BLOCK]) == (3, 4, 4)
        record_missing_on(shared_client, cache, RehearsalRecipe(), sketch=SKETCH)

    assert contents(tmp_path / "c", without=IN_WORK) == in_process


def test_a_cause_that_is_not_in_the_blocks_stops_the_run_early(
    shared_client: Any, tmp_path: Path, folder: Path, faulty: Any
) -> None:
    recipe = faulty.FaultyRecipe(folder=str(folder), nan_blocks=tuple(range(0, N_BLOCKS * BLOCK, BLOCK)))

    with new_cache(tmp_path / "c", recipe) as cache, pytest.raises(InputError, match="NaN"):
        record_missing_on(shared_client, cache, recipe, sketch=SKETCH, limits=Limits(first_failures=4))

    assert len(faulty.computed(folder)) < 12


def test_a_worker_that_cannot_start_refuses_the_run_before_the_first_block(
    shared_client: Any, tmp_path: Path, folder: Path, faulty: Any
) -> None:
    refusing = tmp_path / "refusing"
    refusing.touch()
    recipe = faulty.FaultyRecipe(folder=str(folder), refusing=str(refusing))

    with (
        new_cache(tmp_path / "c", recipe) as cache,
        pytest.raises(InputError, match=r"2 of 2 workers cannot work.*no network here"),
    ):
        record_missing_on(shared_client, cache, recipe, sketch=SKETCH)

    assert faulty.computed(folder) == {}
    assert list((tmp_path / "c/.actisketch").glob("probe*")) == []


def test_workers_that_see_another_folder_under_the_same_name_are_refused(
    shared_client: Any, tmp_path: Path
) -> None:
    other = str(tmp_path / "other-host")

    def look_elsewhere(place: str) -> None:
        from actisketch.storage import reachability
        from actisketch.storage.stores import open_store

        def open_there(url: Any, options: Any) -> Any:
            return open_store(place, options)

        setattr(reachability, "PAUSE_S", 0.01)  # noqa: B010 - in the worker process
        setattr(reachability, "open_store", open_there)  # noqa: B010

    def look_back() -> None:
        from actisketch.storage import reachability, stores

        setattr(reachability, "open_store", stores.open_store)  # noqa: B010

    new_cache(Path(other)).close()
    shared_client.run(look_elsewhere, other)
    try:
        with (
            new_cache(tmp_path / "c") as cache,
            pytest.raises(InputError, match="not at the same place on the worker's host"),
        ):
            record_missing_on(shared_client, cache, RehearsalRecipe(), sketch=SKETCH)
    finally:
        shared_client.run(look_back)


def test_workers_with_other_versions_are_refused_with_the_table(
    shared_client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = shared_client.get_versions(check=False, packages=["keras", "tensorflow", "actisketch"])
    worker = next(iter(found["workers"].values()))
    worker["packages"] = {**worker["packages"], "keras": "3.0.0", "tensorflow": None}
    monkeypatch.setattr(shared_client, "get_versions", lambda **_: found)

    with new_cache(tmp_path / "c") as cache, pytest.raises(MismatchError) as caught:
        record_missing_on(shared_client, cache, RehearsalRecipe(), sketch=SKETCH)

    lines = str(caught.value).splitlines()
    assert any("keras" in line and "3.0.0" in line for line in lines)
    assert any("tensorflow" in line and "not installed" in line for line in lines)
    assert len(cache.missing()) == N_BLOCKS


def test_workers_write_to_an_object_store_what_they_write_to_a_folder(
    shared_client: Any, s3: Any, in_process: dict[str, bytes]
) -> None:
    url, spec = "s3://activations/cluster", rehearsal_spec(RehearsalRecipe(), n_blocks=5, block_samples=BLOCK)

    with Cache.create_or_resume(url, spec, storage_options=s3.options) as cache:
        record_missing_on(shared_client, cache, RehearsalRecipe(), sketch=SKETCH, storage_options=s3.options)
        written = {key: cache.store.read(key) for key, _ in cache.store.list("") if "/c." in key}

    assert len(written) == 2 * 5
    # Not the shape of the whole, which is in the metadata: this one is shorter.
    assert written == {key: in_process[key] for key in written}


@pytest.mark.slow
def test_an_adaptive_cluster_grows_with_the_work_and_shrinks_without_losing_a_block(
    tmp_path: Path, folder: Path, faulty: Any, in_process: dict[str, bytes]
) -> None:
    from distributed import Client, LocalCluster

    recipe = faulty.FaultyRecipe(folder=str(folder), batch_s=0.1)
    n_seen: list[int] = []

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", memory_limit=0
        ) as grown,
        Client(grown, set_as_default=False) as client,
        new_cache(tmp_path / "c", recipe) as cache,
    ):
        grown.adapt(minimum=1, maximum=3, interval="200ms", wait_count=2, target_duration="500ms")
        record_missing_on(
            client,
            cache,
            recipe,
            sketch=SKETCH,
            on_event=lambda event: n_seen.append(len(client.nthreads())),
        )

    assert max(n_seen) > 1
    assert len(faulty.pids(folder)) > 1
    assert set(faulty.computed(folder).values()) == {1}
    assert contents(tmp_path / "c", without=IN_WORK) == in_process


def test_what_comes_back_from_workers_equals_numpy(shared_client: Any, tmp_path: Path) -> None:
    with new_cache(tmp_path / "c", n_blocks=3) as cache:
        record_missing_on(shared_client, cache, RehearsalRecipe(), sketch=SKETCH)
        stored = np.concatenate(list(cache.chunks("point1")))

    expected: list[Any] = []

    class Taken:
        def take(self, point: str, values: Any) -> None:
            expected.extend([values] * (point == "point1"))

        def end_batch(self, n_samples: int) -> None:
            pass

    RehearsalRecipe().hand_over(0, 3 * BLOCK, Taken())
    np.testing.assert_array_equal(stored, np.concatenate(expected))


def test_blocks_whose_chunks_wait_for_each_other_are_written_as_in_process(
    threads_client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a worker in this process, so that the room for chunks can be made small."""
    from actisketch.pipeline.record import recorder

    monkeypatch.setattr(recorder, "waiting_nbytes", lambda spec: 1)
    recipe = RehearsalRecipe(batch_size=4)
    for name in ("here", "dask"):
        with new_cache(tmp_path / name, recipe, 9) as cache:
            if name == "here":
                record_missing(cache, recipe, sketch=SKETCH)
            else:
                record_missing_on(threads_client, cache, recipe, sketch=SKETCH)

    assert contents(tmp_path / "dask", without=IN_WORK) == contents(tmp_path / "here", without=IN_WORK)
