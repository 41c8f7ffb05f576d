"""What every engine gives to the stages of a job: the same cases for this process and for a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actisketch.pipeline.certifier import Comparison, ComparisonSettings, Doubt, judge
from actisketch.pipeline.cluster.cluster_engine import ClusterEngine
from actisketch.pipeline.events import BlockDone, Event
from actisketch.pipeline.graph import model_fingerprint
from actisketch.pipeline.normalizer import Rewriting
from actisketch.pipeline.settings.loading import validate_job
from actisketch.pipeline.sketch import PointSketch, SketchSpec
from actisketch.pipeline.sources import as_source
from actisketch.pipeline.stages.engine import Engine, LocalEngine
from actisketch.pipeline.stages.prepare import Prepared, prepare
from actisketch.storage import Cache
from actisketch.storage.errors import IncompleteError, InputError

N_SAMPLES, BATCH, BLOCK = 43, 4, 8
N_BLOCKS = -(-N_SAMPLES // BLOCK)


@pytest.fixture(scope="module")
def samples() -> Any:
    return np.random.default_rng(13).random((N_SAMPLES, 6, 6, 1), dtype=np.float32)


class EngineContract:
    """The promises of `stages.engine.Engine`."""

    @pytest.fixture
    def engine(self, job: Prepared) -> Iterator[Engine]:
        """The engine, open."""
        raise NotImplementedError

    @pytest.fixture
    def job(self, model: Any, samples: Any, tmp_path: Path, request: Any) -> Prepared:
        """A job of which nothing is done; a parameter are settings of its cache."""
        more: dict[str, Any] = getattr(request, "param", {})
        record = {"batch_size": BATCH, "block_samples": BLOCK, **more.get("record", {})}
        tree = {"output": str(tmp_path / "r"), **more, "record": record}
        return prepare(validate_job(tree), model=model, source=as_source(samples))

    @pytest.fixture
    def cache(self, job: Prepared) -> Cache:
        """The cache of the job, recorded in this process."""
        with job.open_to_write() as cache:
            LocalEngine().record_missing(job, cache, lambda event: None)
        return cache

    def test_all_missing_blocks_are_recorded_once_and_told(self, engine: Engine, job: Prepared) -> None:
        events: list[Event] = []
        with job.open_to_write() as cache:
            n_recorded = [engine.record_missing(job, cache, events.append) for _ in range(2)]
            missing = cache.missing()

        assert n_recorded == [N_BLOCKS, 0]
        assert missing == ()
        assert sorted(e.block for e in events if isinstance(e, BlockDone)) == list(range(N_BLOCKS))

    def test_a_block_that_is_lost_is_recorded_again_and_no_other_one(
        self, engine: Engine, job: Prepared, cache: Cache
    ) -> None:
        key, events = cache.commit_key(), list[Event]()
        with job.open_to_write() as again:
            again.discard(again.blocks[2])
            n_recorded = engine.record_missing(job, again, events.append)

        assert n_recorded == 1
        assert [e.block for e in events if isinstance(e, BlockDone)] == [2]
        assert again.commit_key() == key

    def test_values_are_those_of_the_network(self, engine: Engine, job: Prepared, samples: Any) -> None:
        with job.open_to_write() as cache:
            engine.record_missing(job, cache, lambda event: None)
        recorded = np.concatenate(list(cache.chunks("classes")))

        np.testing.assert_allclose(recorded, job.model.predict(samples, verbose=0), rtol=1e-5)

    def test_merged_sketches_are_those_of_all_values(self, engine: Engine, cache: Cache) -> None:
        merged = engine.merge_sketches(cache)

        assert list(merged) == ["conv", "classes"]
        for name, sketch in merged.items():
            whole = PointSketch.empty(SketchSpec())
            whole.update(np.concatenate(list(cache.chunks(name))), point=name)
            assert sketch.to_bytes() == whole.to_bytes()

    def test_a_cache_that_lacks_blocks_is_not_merged(
        self, engine: Engine, job: Prepared, cache: Cache
    ) -> None:
        with job.open_to_write() as again:
            again.discard(again.blocks[1])

        with pytest.raises(IncompleteError, match="1 of 6 blocks"):
            engine.merge_sketches(again)

    @pytest.mark.parametrize("nonzero", [True, False])
    def test_exact_percentiles_are_those_of_numpy(self, engine: Engine, cache: Cache, nonzero: bool) -> None:
        exact = engine.exact_source(cache, engine.merge_sketches(cache), accept_rounding=False)
        values = np.concatenate(list(cache.chunks("conv"))).ravel()
        values = values[values != 0] if nonzero else values

        for q in (0.0, 37.3, 99.9, 100.0):
            assert exact.percentiles("conv", [q], nonzero=nonzero) == [
                np.percentile(values, q, method="linear")
            ]

    @pytest.mark.parametrize("job", [{"cache": {"dtype": "float16"}}], indirect=True)
    def test_rounded_activations_are_refused_unless_that_is_accepted(
        self, engine: Engine, cache: Cache
    ) -> None:
        sketches = engine.merge_sketches(cache)
        stored = np.concatenate(list(cache.chunks("conv"))).astype(np.float32)

        with pytest.raises(InputError, match="accept-rounding"):
            engine.exact_source(cache, sketches, accept_rounding=False)
        exact = engine.exact_source(cache, sketches, accept_rounding=True)
        assert exact.percentiles("conv", [90.0], nonzero=True) == [np.percentile(stored[stored != 0], 90.0)]

    @pytest.mark.parametrize("job", [{"sketch": {"per_channel": True}}], indirect=True)
    def test_exact_percentiles_of_channels_are_those_of_numpy(self, engine: Engine, cache: Cache) -> None:
        exact = engine.exact_source(cache, engine.merge_sketches(cache), accept_rounding=False)
        values = np.concatenate(list(cache.chunks("conv"))).reshape(-1, 5)

        (found,) = exact.channel_percentiles("conv", [99.3], nonzero=False)
        assert found.tolist() == [np.percentile(values[:, c], 99.3, method="linear") for c in range(5)]

    @pytest.mark.parametrize("job", [{"record": {"activations": False}}], indirect=True)
    def test_sketches_alone_give_no_exact_percentile(self, engine: Engine, cache: Cache) -> None:
        with pytest.raises(InputError, match="sketches only"):
            engine.exact_source(cache, engine.merge_sketches(cache), accept_rounding=False)

    @pytest.fixture
    def comparison(self, model: Any, samples: Any) -> tuple[Comparison, Rewriting]:
        rewriting = Rewriting(factors={"conv": 0.7, "classes": 1.0})
        settings = ComparisonSettings(batch_size=BATCH, sketch_spec=SketchSpec(), tolerance=1e-12)
        source = as_source(samples, np.arange(N_SAMPLES) % 3)
        return Comparison(model, rewriting.rewrite(model), source, settings), rewriting

    def test_networks_are_compared_on_every_sample_to_the_same_verdict(
        self, engine: Engine, comparison: tuple[Comparison, Rewriting]
    ) -> None:
        whole, rewriting = comparison
        done: list[int] = []
        with engine.compare_networks(
            whole, rewriting, fingerprint=model_fingerprint(whole.graph.model)
        ) as comparer:
            found = judge(whole, comparer, progress=done.append)
        expected = judge(whole, whole, progress=lambda n_done: None)

        assert found == expected
        assert found.sketches == expected.sketches
        assert any(point.rounding for point in found.points)
        assert done == sorted(done)
        assert done[-1] == N_SAMPLES

    def test_nothing_is_measured_where_nothing_is_in_doubt(
        self, engine: Engine, comparison: tuple[Comparison, Rewriting]
    ) -> None:
        whole, rewriting = comparison
        doubt = Doubt(starts=(0,), needed=(1.0,))
        with engine.compare_networks(
            whole, rewriting, fingerprint=model_fingerprint(whole.graph.model)
        ) as comparer:
            measured = [dict(comparer.rounding(doubts)) for doubts in ({}, {0: doubt})]

        assert measured[0] == {}
        assert list(measured[1]) == [0]


class TestLocalEngine(EngineContract):
    @pytest.fixture
    def engine(self) -> Iterator[Engine]:
        with LocalEngine() as engine:
            yield engine


class TestClusterEngine(EngineContract):
    @pytest.fixture
    def engine(self, job: Prepared, threads_client: Any) -> Iterator[Engine]:
        with ClusterEngine(job.settings, client=threads_client) as engine:
            yield engine
