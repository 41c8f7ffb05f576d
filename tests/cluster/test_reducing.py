"""The tree on a cluster gives what one process gives, to the bit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from actisketch.pipeline.cluster import Limits, coordinator, merge_tree
from actisketch.pipeline.cluster.merge_tree import (
    LEAF_BLOCKS,
    count_values,
    exact_percentiles_on,
    merge_blocks,
    merge_parts,
    merged_sketches_on,
)
from actisketch.pipeline.cluster.rehearsal import RehearsalRecipe, rehearsal_spec
from actisketch.pipeline.factors.merge import merged_sketches
from actisketch.pipeline.record.recorder import record_missing
from actisketch.pipeline.sketch import SketchSpec
from actisketch.storage import Cache
from actisketch.storage.errors import FormatError, IncompleteError

from ..on_disk import flip

RECIPE = RehearsalRecipe(shapes=((7, 5), (3,)), batch_size=4)
N_BLOCKS = 3 * LEAF_BLOCKS + 5  # three full leaves and a part of one


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    path = tmp_path_factory.mktemp("reduce") / "c"
    spec = rehearsal_spec(RECIPE, n_blocks=N_BLOCKS, block_samples=4)
    with Cache.create_or_resume(path, spec) as cache:
        record_missing(cache, RECIPE, sketch=SketchSpec())
    return Cache.open(path)


def test_the_tree_gives_the_bytes_of_one_process(shared_client: Any, cache: Cache) -> None:
    expected = merged_sketches(cache)

    found = merged_sketches_on(shared_client, cache)

    assert list(found) == list(expected)
    assert {name: sketch.to_bytes() for name, sketch in found.items()} == {
        name: sketch.to_bytes() for name, sketch in expected.items()
    }


def test_any_grouping_gives_the_same_bytes(cache: Cache) -> None:
    blocks = list(cache.blocks)
    whole = merge_blocks(cache.url, {}, blocks)

    for cut in (1, 11, 30):
        parts = [merge_blocks(cache.url, {}, blocks[cut:]), merge_blocks(cache.url, {}, blocks[:cut])]
        assert merge_parts(parts) == whole


@pytest.mark.parametrize("n_together", [1, 7, merge_tree.SPELT_OUT])
@pytest.mark.parametrize("nonzero", [True, False])
def test_exact_percentiles_from_the_cluster_equal_numpy(
    shared_client: Any, cache: Cache, nonzero: bool, n_together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge_tree, "SPELT_OUT", n_together)
    values = np.concatenate([chunk.ravel() for chunk in cache.chunks("point0")])
    values = values[values != 0] if nonzero else values
    qs = [0.0, 13.7, 50.0, 99.0, 99.9, 100.0]

    found = exact_percentiles_on(
        shared_client, cache, "point0", qs, merged_sketches(cache)["point0"], nonzero=nonzero
    )

    assert found == [float(np.percentile(values, q, method="linear")) for q in qs]


def test_what_travels_is_distinct_values_and_counts(cache: Cache) -> None:
    values, counts = count_values(cache.url, {}, "point0", cache.blocks, [(-1.0, 0.0), (0.5, 0.6)])

    recorded = np.concatenate([chunk.ravel() for chunk in cache.chunks("point0")])
    assert counts[0] == np.count_nonzero(recorded == 0)
    assert counts.sum() == np.count_nonzero((recorded <= 0) | ((recorded >= 0.5) & (recorded <= 0.6)))
    assert values.size == np.unique(values).size


def test_missing_blocks_are_refused(shared_client: Any, tmp_path: Path) -> None:
    spec = rehearsal_spec(RECIPE, n_blocks=2, block_samples=4)
    with (
        Cache.create_or_resume(tmp_path / "c", spec) as empty,
        pytest.raises(IncompleteError, match="2 of 2 blocks"),
    ):
        merged_sketches_on(shared_client, empty)


def test_a_damaged_record_is_named_by_the_worker_that_reads_it(shared_client: Any, tmp_path: Path) -> None:
    with Cache.create_or_resume(tmp_path / "c", rehearsal_spec(RECIPE, n_blocks=2, block_samples=4)) as cache:
        record_missing(cache, RECIPE, sketch=SketchSpec())
        flip(next((tmp_path / "c").rglob("00000001*.block")), -3)

        with pytest.raises((FormatError, IncompleteError)):
            merged_sketches_on(shared_client, cache)


def test_workers_that_are_gone_end_the_reduction_with_a_reason(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import Client, LocalCluster

    monkeypatch.setattr(coordinator, "LOOK_S", 0.05)
    limits, sketch = Limits(no_workers_s=0.2), merged_sketches(cache)["point0"]

    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        with pytest.raises(IncompleteError, match="no worker was left"):
            merged_sketches_on(client, cache, limits=limits)
        with pytest.raises(IncompleteError, match="no worker was left"):
            exact_percentiles_on(client, cache, "point0", [50.0], sketch, nonzero=True, limits=limits)


class InProcess:
    """A client that does each task at once, and counts them by level of the tree."""

    def __init__(self) -> None:
        self.n_tasks = {"merge_blocks": 0, "merge_parts": 0}

    def submit(self, task: Any, *arguments: Any, **_: Any) -> Any:
        self.n_tasks[task.__name__] += 1
        resolved = [[each.result() for each in a] if task is merge_parts else a for a in arguments]
        answer = task(*resolved)
        return SimpleNamespace(result=lambda **_: answer, add_done_callback=lambda tell: tell(None))


def test_the_tree_has_few_levels(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    client: Any = InProcess()
    monkeypatch.setattr(merge_tree, "LEAF_BLOCKS", 2)
    monkeypatch.setattr(merge_tree, "FAN_IN", 3)
    found = merged_sketches_on(client, cache)

    # 53 blocks: 27 leaves, then 9, 3 and 1 nodes.
    assert client.n_tasks == {"merge_blocks": 27, "merge_parts": 9 + 3 + 1}
    assert found == merged_sketches(cache)
