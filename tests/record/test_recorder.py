"""The one block task, and all missing blocks of a cache: without a model."""

import numpy as np
import pytest

from actisketch.pipeline.factors.exact_source import ExactSource
from actisketch.pipeline.factors.merge import merged_sketches
from actisketch.pipeline.record.recorder import record_block, record_missing
from actisketch.pipeline.sketch import PointSketch, SketchSpec, merge_sketches
from actisketch.storage import Cache, CacheSpec
from actisketch.storage.errors import IncompleteError, InputError

SKETCH = SketchSpec()


def make_cache(path, producer, *, block_samples=12, record=True, dtype="float32"):
    spec = CacheSpec(
        points=producer.points,
        n_samples=producer.n_samples,
        batch_size=producer.batch_size,
        block_samples=block_samples,
        identity={"model": {}, "data": {}, "settings": {}},
        keeps_activations=record,
        dtype=dtype,
    )
    return Cache.create_or_resume(path, spec)


def test_every_sample_is_recorded_once_and_the_last_partial_batch_is_kept(tmp_path, producer):
    with make_cache(tmp_path / "c", producer) as cache:
        n_blocks = record_missing(cache, producer, sketch=SKETCH)

    cache = Cache.open(tmp_path / "c")
    assert n_blocks == 5
    for name in producer.shapes:
        assert np.array_equal(np.concatenate(list(cache.chunks(name))), producer.all_values(name))


def test_a_run_with_nothing_to_do_asks_the_producer_for_nothing(tmp_path, producer):
    with make_cache(tmp_path / "c", producer) as cache:
        record_missing(cache, producer, sketch=SKETCH)
    producer.calls.clear()
    with make_cache(tmp_path / "c", producer) as cache:
        n_blocks = record_missing(cache, producer, sketch=SKETCH)

    assert (n_blocks, producer.calls) == (0, [])


def test_a_failing_producer_leaves_whole_blocks_and_a_resume_computes_only_the_rest(tmp_path, make_producer):
    failing = make_producer(fail_at=30)
    with make_cache(tmp_path / "c", failing) as cache, pytest.raises(RuntimeError, match="sample 30"):
        record_missing(cache, failing, sketch=SKETCH)
    done = len(Cache.open(tmp_path / "c").committed())
    whole = make_producer()
    with make_cache(tmp_path / "c", whole) as cache:
        n_blocks = record_missing(cache, whole, sketch=SKETCH)

    assert done == 2  # blocks 0 and 1 hold samples 0..23, block 2 fails
    assert n_blocks == 3
    assert min(first for first, _ in whole.calls) == 24


def test_statistics_of_an_unfinished_run_are_refused(tmp_path, make_producer):
    failing = make_producer(fail_at=30)
    with make_cache(tmp_path / "c", failing) as cache, pytest.raises(RuntimeError):
        record_missing(cache, failing, sketch=SKETCH)

    with pytest.raises(IncompleteError, match="3 of 5 blocks are not recorded"):
        merged_sketches(Cache.open(tmp_path / "c"))


@pytest.mark.parametrize("block_samples", [4, 12, 48, 52])
def test_statistics_are_the_same_bytes_for_any_block_size(tmp_path, producer, block_samples):
    whole = {}
    for name in producer.shapes:
        whole[name] = PointSketch.empty(SKETCH)
        whole[name].update(producer.all_values(name))
    with make_cache(tmp_path / "c", producer, block_samples=block_samples) as cache:
        record_missing(cache, producer, sketch=SKETCH)

    merged = merged_sketches(Cache.open(tmp_path / "c"))
    assert {n: s.to_bytes() for n, s in merged.items()} == {n: s.to_bytes() for n, s in whole.items()}


def test_blocks_recorded_one_by_one_in_any_order_give_the_same_bytes(tmp_path, producer):
    with make_cache(tmp_path / "a", producer) as cache:
        record_missing(cache, producer, sketch=SKETCH)
    with make_cache(tmp_path / "b", producer) as cache:
        for block in reversed(cache.blocks):
            record_block(cache, producer, block, sketch=SKETCH)

    a, b = (list(Cache.open(tmp_path / name).all_sketches()) for name in "ab")
    assert a == b


def test_sketches_only_keeps_no_activations_and_refuses_to_be_exact(tmp_path, producer):
    with make_cache(tmp_path / "c", producer, record=False) as cache:
        record_missing(cache, producer, sketch=SKETCH)
    cache = Cache.open(tmp_path / "c")
    merged = merged_sketches(cache)

    assert merged["dense"].layer.n == 50 * 7
    with pytest.raises(InputError, match=r"record\.activations = true"):
        ExactSource(cache, merged)


def test_exact_percentiles_of_rounded_storage_are_refused_until_accepted(tmp_path, producer):
    with make_cache(tmp_path / "c", producer, dtype="float16") as cache:
        record_missing(cache, producer, sketch=SKETCH)
    cache = Cache.open(tmp_path / "c")
    merged = merged_sketches(cache)
    with pytest.raises(InputError, match="--accept-rounding"):
        ExactSource(cache, merged)
    stored = producer.all_values("conv").astype(np.float16).astype(np.float32)

    answer = ExactSource(cache, merged, accept_rounding=True).percentiles("conv", [37.3], nonzero=False)
    assert answer == [np.percentile(stored, 37.3)]


@pytest.mark.parametrize("nonzero", [True, False])
def test_exact_percentiles_are_those_of_numpy_to_the_last_bit(tmp_path, producer, nonzero):
    qs = [0.0, 12.5, 50.0, 99.0, 99.9, 100.0]
    with make_cache(tmp_path / "c", producer) as cache:
        record_missing(cache, producer, sketch=SKETCH)
    cache = Cache.open(tmp_path / "c")
    values = producer.all_values("conv")
    values = values[values != 0] if nonzero else values

    answer = ExactSource(cache, merged_sketches(cache)).percentiles("conv", qs, nonzero=nonzero)
    assert answer == [np.percentile(values, q) for q in qs]


def test_nan_in_the_activations_names_point_block_and_index_and_commits_nothing_of_the_block(
    tmp_path, producer
):
    class Poisoned(type(producer)):
        def sample(self, name, index):
            values = super().sample(name, index)
            if name == "dense" and index == 17:
                values[3] = np.nan
            return values

    poisoned = Poisoned()
    with make_cache(tmp_path / "c", poisoned) as cache, pytest.raises(InputError) as caught:
        record_missing(cache, poisoned, sketch=SKETCH)

    assert "'dense'" in str(caught.value)
    assert "block 1" in str(caught.value)
    # Blocks hold 12 samples: 17 is the sixth of the second one.
    assert "index (5, 3) (sample 5 of this block)" in str(caught.value)
    committed = {record.block.index for record in Cache.open(tmp_path / "c").committed()}
    assert 0 in committed
    assert 1 not in committed


def test_a_producer_that_ends_early_is_found_out(tmp_path, make_producer):
    class Short(make_producer):
        def hand_over(self, start, stop, consumer):
            super().hand_over(start, min(stop, 40), consumer)

    short = Short()
    with make_cache(tmp_path / "c", short) as cache, pytest.raises(InputError, match="has become shorter"):
        record_missing(cache, short, sketch=SKETCH)


@pytest.mark.parametrize("waiting_nbytes", [1, 4 * 37 * 24, 2**29])
def test_the_bytes_do_not_depend_on_how_many_chunks_wait_to_be_written(
    tmp_path, producer, monkeypatch, waiting_nbytes
):
    """A sample has 37 values, a block 24 samples: one chunk waits, those of one block, or all."""
    with make_cache(tmp_path / "plain", producer, block_samples=24) as cache:
        record_missing(cache, producer, sketch=SKETCH)
    monkeypatch.setattr("actisketch.pipeline.record.recorder.waiting_nbytes", lambda spec: waiting_nbytes)
    with make_cache(tmp_path / "changed", producer, block_samples=24) as cache:
        record_missing(cache, producer, sketch=SKETCH)
    with make_cache(tmp_path / "one by one", producer, block_samples=24) as cache:
        for block in cache.blocks:
            record_block(cache, producer, block, sketch=SKETCH)

    def files(folder):
        paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}

    assert files(tmp_path / "plain") == files(tmp_path / "changed") == files(tmp_path / "one by one")


def test_a_batch_that_fails_in_the_middle_of_a_block_leaves_the_block_missing(tmp_path, make_producer):
    failing = make_producer(fail_at=30)
    with make_cache(tmp_path / "c", failing, block_samples=24) as cache, pytest.raises(RuntimeError):
        record_missing(cache, failing, sketch=SKETCH)
    committed = [record.block.index for record in Cache.open(tmp_path / "c").committed()]
    whole = make_producer()
    with make_cache(tmp_path / "c", whole, block_samples=24) as cache:
        record_missing(cache, whole, sketch=SKETCH)

    assert committed == [0]
    assert np.array_equal(
        np.concatenate(list(Cache.open(tmp_path / "c").chunks("conv"))), whole.all_values("conv")
    )


def test_merging_many_blocks_does_not_depend_on_how_they_are_grouped(producer):
    sketches = []
    for i in range(producer.n_samples):
        sketch = PointSketch.empty(SKETCH)
        sketch.update(producer.sample("conv", i)[None])
        sketches.append(sketch)
    together = merge_sketches(sketches)
    in_two = merge_sketches([merge_sketches(sketches[::2]), merge_sketches(sketches[1::2])])

    assert together.to_bytes() == in_two.to_bytes()


def with_gaps(producer):
    """A producer whose activations are missing in every seventh place, and that has a point of shape ()."""

    class WithGaps(type(producer)):
        def sample(self, name, index):
            values = super().sample(name, index)
            missing = (np.arange(values.size) + index).reshape(values.shape) % 7 == 0
            return np.where(missing, np.float32(np.nan), values)

    return WithGaps(shapes={"conv": (3, 2, 5), "dense": (7,), "score": ()})


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", ["conv", "dense", "score"])
def test_what_was_excluded_from_the_sketch_is_excluded_from_exact_percentiles(
    tmp_path, producer, dtype, name
):
    gaps = with_gaps(producer)
    spec = SketchSpec(per_channel=True, on_nonfinite="exclude")
    with make_cache(tmp_path / "c", gaps, dtype=dtype) as cache:
        record_missing(cache, gaps, sketch=spec)
    cache = Cache.open(tmp_path / "c")
    source = ExactSource(cache, merged_sketches(cache), accept_rounding=dtype != "float32")
    stored = gaps.all_values(name).astype(dtype).astype(np.float32)
    columns = stored.reshape(-1, stored.shape[-1] if stored.ndim > 1 else 1)

    answer = source.percentiles(name, [37.3, 100.0], nonzero=False)
    by_channel = source.channel_percentiles(name, [37.3, 100.0], nonzero=False)
    for found, q in zip(answer, [37.3, 100.0], strict=True):
        np.testing.assert_array_equal(found, np.nanpercentile(stored, q))
    for row, q in zip(by_channel, [37.3, 100.0], strict=True):
        np.testing.assert_array_equal(row, [np.nanpercentile(column, q) for column in columns.T])


@pytest.mark.parametrize("name", ["WAITING_NBYTES", "UNPACKED_NBYTES"])
@pytest.mark.parametrize("nbytes", [1, 4000])
def test_merged_statistics_do_not_depend_on_how_many_sketches_wait_or_are_unpacked(
    tmp_path, producer, monkeypatch, name, nbytes
):
    spec = SketchSpec(per_channel=True)
    with make_cache(tmp_path / "c", producer, block_samples=4) as cache:
        record_missing(cache, producer, sketch=spec)
    cache = Cache.open(tmp_path / "c")
    together = {point: sketch.to_bytes() for point, sketch in merged_sketches(cache).items()}
    monkeypatch.setattr(f"actisketch.pipeline.factors.merge.{name}", nbytes)

    assert {point: sketch.to_bytes() for point, sketch in merged_sketches(cache).items()} == together


def test_many_sketches_are_unpacked_a_few_at_a_time(tmp_path, producer, monkeypatch):
    with make_cache(tmp_path / "c", producer, block_samples=4) as cache:
        record_missing(cache, producer, sketch=SKETCH)
    cache, groups = Cache.open(tmp_path / "c"), []

    def counted(sketches):
        groups.append(len(sketches))
        return merge_sketches(sketches)

    monkeypatch.setattr("actisketch.pipeline.factors.merge.merge_sketches", counted)
    monkeypatch.setattr("actisketch.pipeline.factors.merge.UNPACKED_NBYTES", 1)
    merged = merged_sketches(cache)

    assert merged["conv"].layer.n == 50 * 30
    assert max(groups) == 2
    assert len(groups) >= len(merged) * len(cache.blocks)
