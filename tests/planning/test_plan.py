"""What a run takes is known before it runs; the numbers are primes, so that a lost term shows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest

from actisketch.pipeline.factors.merge import UNPACKED_NBYTES, WAITING_NBYTES
from actisketch.pipeline.planning.block_size import BLOCK_NBYTES, LARGEST_BLOCK_NBYTES
from actisketch.pipeline.planning.plan import make_plan
from actisketch.pipeline.record.producer import Consumer
from actisketch.pipeline.record.recorder import record_missing
from actisketch.pipeline.sketch import PointSketch, SketchSpec
from actisketch.storage import Cache, CacheSpec, PointSpec
from actisketch.storage.errors import InputError, OverBudgetError

from .planned import plan_arguments

POINTS = [PointSpec(name="conv", shape=(5, 7)), PointSpec(name="dense", shape=(11,))]
PER_SAMPLE_NBYTES = 4 * (35 + 11)


@dataclass
class Gaussian:
    """A producer of activations that are spread like a bell curve."""

    n_samples: int
    batch_size: int
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def points(self) -> tuple[PointSpec, ...]:
        return tuple(PointSpec(name=name, shape=shape) for name, shape in self.shapes.items())

    def content_hash(self, start: int, stop: int) -> str:
        return f"{start:032}-{stop:031}"

    def hand_over(self, start: int, stop: int, consumer: Consumer) -> None:
        for first in range(start, stop, self.batch_size):
            n, rng = min(self.batch_size, stop - first), np.random.default_rng(first)
            for name, shape in self.shapes.items():
                consumer.take(name, rng.standard_normal((n, *shape), np.float32))
            consumer.end_batch(n)


@dataclass
class _Usage:
    free: int
    total: int = 2**40


def plan_of(**changes):
    settings = {"n_samples": 103, "batch_size": 13, "memory_limit": 2**30, **changes}
    job, network, others = plan_arguments(settings.pop("points", POINTS), **settings)
    return make_plan(job, network, **others)


def test_disk_is_every_value_of_every_sample_padded_to_whole_chunks_and_records_beside_them():
    whole, sums = 104 * PER_SAMPLE_NBYTES, 2 * 4  # 8 batches of 13, a checksum for each of two chunks

    assert plan_of(max_block_samples=103).activations_nbytes == whole + sums
    assert plan_of(max_block_samples=103, stored_itemsize=2).activations_nbytes == whole // 2 + sums
    assert plan_of().activations_nbytes == whole + 8 * sums  # a block for each batch
    assert plan_of(record=False).activations_nbytes == 0
    assert plan_of(record=False).disk_nbytes == plan_of(record=False).records_nbytes > 0


def recorded(folder, **changes):
    """Record Gaussian activations; return the plan, the bytes of the cache, and those of its chunks."""
    settings = {
        "n_samples": 257,
        "batch_size": 32,
        "shapes": {"conv": (16, 16, 8), "dense": (11,)},
        **changes,
    }
    sketch = settings.pop("sketch", SketchSpec())
    dtype, record = settings.pop("dtype", "float32"), settings.pop("record", True)
    max_block_samples = settings.pop("max_block_samples", None)
    producer = Gaussian(**settings)
    plan = plan_of(
        points=producer.points,
        n_samples=producer.n_samples,
        batch_size=producer.batch_size,
        memory_limit=2**30,
        sketch=sketch,
        record=record,
        stored_itemsize=2 if dtype == "float16" else 4,
        max_block_samples=max_block_samples,
    )
    spec = CacheSpec(
        points=producer.points,
        n_samples=plan.n_samples,
        batch_size=plan.batch_size,
        block_samples=plan.block_samples,
        identity={"model": {"weights": "a" * 64}, "data": {"content": "b" * 64}, "settings": {}},
        dtype=dtype,
        keeps_activations=record,
        codec="none",
    )
    with Cache.create_or_resume(folder, spec) as cache:
        record_missing(cache, producer, sketch=sketch)
        chunks = {
            key
            for p in producer.points
            for block in cache.blocks
            for key in cache._layout.chunk_keys(p.name, block)
        }
        sizes = dict(cache.store.list(""))
    return plan, sum(sizes.values()), sum(sizes[key] for key in chunks) if record else 0


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"max_block_samples": 256},  # the second block holds one sample, and has its whole length on disk
        {"dtype": "float16"},
        {"record": False},
        {"record": False, "max_block_samples": 32},
        {"n_samples": 5, "record": False},
        {"sketch": SketchSpec(per_channel=True), "record": False},
        {"sketch": SketchSpec(bits=12), "record": False},
        {"shapes": {f"layer number {i}": (3,) for i in range(40)}},
    ],
    ids=str,
)
def test_a_cache_takes_no_more_disk_than_was_planned_nor_much_less(tmp_path, changes):
    plan, nbytes, chunk_nbytes = recorded(tmp_path / "c", **changes)

    assert nbytes <= plan.disk_nbytes
    assert plan.activations_nbytes == chunk_nbytes
    assert plan.records_nbytes <= 2 * (nbytes - chunk_nbytes) + 4096 * (1 + len(plan.points))


def test_a_block_is_whole_batches_and_no_more_than_the_samples_need():
    plan = plan_of(max_block_samples=1000)

    assert plan.block_samples == 8 * 13  # 103 samples are 8 batches
    assert plan.n_blocks == 1


def test_blocks_can_be_kept_small():
    plan = plan_of(max_block_samples=20)

    assert plan.block_samples == 26  # rounded up to whole batches
    assert plan.n_blocks == 4


def test_a_tight_limit_makes_smaller_blocks_and_the_projection_keeps_to_it():
    big = [PointSpec(name=f"layer{i}", shape=(25_013,)) for i in range(40)]
    loose = plan_of(points=big, n_samples=10_007, memory_limit=8 * 2**30)
    tight = plan_of(points=big, n_samples=10_007, memory_limit=600 * 2**20)

    assert loose.block_samples * 4 * 25_013 * 40 <= BLOCK_NBYTES
    assert tight.block_samples < loose.block_samples
    assert tight.memory.total <= tight.memory_limit


def test_blocks_of_a_large_network_are_larger_so_that_small_layers_are_no_tiny_files():
    """VGG16-like: a batch of 8 samples would be a block, its smallest layer has 1,000 values."""
    points = [PointSpec(name="conv", shape=(224, 224, 64)), PointSpec(name="more", shape=(10_000_000,))]
    points.append(PointSpec(name="classes", shape=(1000,)))
    few = plan_of(points=points, n_samples=64, batch_size=8, memory_limit=16 * 2**30)
    many = plan_of(points=points, n_samples=50_000, batch_size=8, memory_limit=16 * 2**30)

    assert few.block_samples == 8  # sixteen blocks at least, where there are samples for them
    assert many.block_samples == 64  # 256 KiB of the smallest layer, 3.2 GiB of all
    assert many.block_samples * sum(4 * math.prod(p.shape) for p in points) <= LARGEST_BLOCK_NBYTES
    assert many.disk_nbytes / many.n_files > 32 * 2**20
    assert many.memory.blocks < 2.5 * BLOCK_NBYTES


def test_memory_does_not_grow_with_the_number_of_samples():
    few, many, more = (plan_of(n_samples=n, max_block_samples=26).memory for n in (130, 2**21, 2**24))

    assert many == more
    # Until sketches have seen most of what they will, and enough of them wait to be merged.
    assert replace(few, sketches=0) == replace(many, sketches=0)
    assert many.sketches - few.sketches < WAITING_NBYTES + UNPACKED_NBYTES + len(POINTS) * 8 * 2**20


def test_memory_counts_a_sketch_of_every_point_open_and_packed():
    points = [PointSpec(name=f"layer{i}", shape=(8192,)) for i in range(150)]
    counts = {"n_samples": 128, "batch_size": 16, "max_block_samples": 64, "record": False}
    few, many = (plan_of(points=points[:n], **counts).memory.sketches for n in (100, 150))

    sketch = PointSketch.empty(SketchSpec())
    sketch.update(np.random.default_rng(0).standard_normal((64, 8192), np.float32))
    opened, packed = sketch.layer.nbytes + sketch.maxima.nbytes, len(sketch.to_bytes())
    # One block's sketches are open, those of the one before are packed, by themselves and in its record.
    assert 50 * (opened + 2 * packed) <= many - few <= 1.5 * 50 * (opened + 2 * packed)


def test_loading_counts_for_what_it_leaves_and_for_its_peak_where_recording_takes_less():
    without = plan_of().memory
    small, large = (plan_of(model_nbytes=7 * 2**20, loading_nbytes=n * 2**20).memory for n in (23, 2003))

    assert (without.model, without.loading) == (0, 0)
    assert (small.model, small.loading) == (7 * 2**20, 7 * 2**20)
    assert small.total - without.total == 14 * 2**20
    # Weights, loading's peak, and what every run takes: recording is over that peak later.
    assert large.total == 7 * 2**20 + 2003 * 2**20 + large.runtime


def test_memory_of_rectified_activations_is_that_of_one_sign():
    both, one = (
        plan_of(points=[PointSpec(name="conv", shape=(8192,), meta={"activation": name})]).memory.sketches
        for name in ("linear", "relu")
    )

    assert one < both


@pytest.mark.parametrize("limit_mib", [1024, 700, 560])
def test_an_existing_cache_is_recorded_under_a_lower_limit(limit_mib):
    """A cache of blocks of 128 samples, 1,000,003 values each, that was planned under 4 GiB: no block is held."""
    points = [PointSpec(name="conv", shape=(1_000_003,))]
    counts = {"points": points, "n_samples": 1024, "batch_size": 4, "max_block_samples": 128, "record": False}
    loose = plan_of(memory_limit=4 * 2**30, **counts)
    tight = plan_of(memory_limit=limit_mib * 2**20, block_samples=loose.block_samples, **counts)
    tight.check(cache_path=None)

    assert loose.block_samples == tight.block_samples == 128


def test_the_advice_for_an_existing_cache_is_not_one_that_the_cache_refuses():
    big = [PointSpec(name="conv", shape=(2**20,))]
    plan = plan_of(points=big, batch_size=64, block_samples=64, memory_limit=300 * 2**20)

    with pytest.raises(
        OverBudgetError, match=r"raise record\.memory_limit to .* another output folder and a"
    ):
        plan.check(cache_path=None)


def test_a_run_over_its_memory_is_refused_with_the_numbers_and_the_setting(tmp_path):
    plan = plan_of(points=[PointSpec(name="conv", shape=(2**20,))], batch_size=64, memory_limit=300 * 2**20)

    with pytest.raises(
        OverBudgetError, match=r"300\.0 MiB: use a smaller record\.batch_size than 64, or raise"
    ):
        plan.check(cache_path=tmp_path)


def test_a_network_that_alone_is_over_the_limit_is_answered_with_the_limit_to_set(tmp_path):
    plan = plan_of(model_nbytes=2 * 2**30)

    with pytest.raises(OverBudgetError, match=r"network 2\.0 GiB.*raise record\.memory_limit to 2\.\d GiB"):
        plan.check(cache_path=tmp_path)


def test_a_cache_over_the_disk_limit_is_refused_with_ways_out(tmp_path):
    plan = plan_of()

    with pytest.raises(
        OverBudgetError, match=r"up to \d\d\.\d KiB, record\.disk_limit allows 9\.8 KiB.*sketches only"
    ):
        plan.check(cache_path=tmp_path, disk_limit=10_000)


def test_a_cache_of_sketches_keeps_to_the_disk_limit_too(tmp_path):
    with pytest.raises(OverBudgetError, match=r"record\.disk_limit allows 1 B.*smaller sketch\.bits"):
        plan_of(record=False).check(cache_path=tmp_path, disk_limit=1)


def test_what_is_written_already_counts_as_done(tmp_path, monkeypatch):
    plan = plan_of()
    plan.check(cache_path=tmp_path, disk_limit=plan.disk_nbytes, n_done_nbytes=0)
    plan.check(cache_path=tmp_path, disk_limit=plan.disk_nbytes, n_done_nbytes=plan.disk_nbytes - 5)
    monkeypatch.setattr("shutil.disk_usage", lambda path: _Usage(free=5))
    plan.check(cache_path=tmp_path, n_done_nbytes=plan.disk_nbytes - 5)

    with pytest.raises(
        OverBudgetError, match=r"KiB of it are written already\), the disk of .* has 5 B left"
    ):
        plan.check(cache_path=tmp_path, n_done_nbytes=plan.disk_nbytes - 7)


def test_a_disk_refusal_of_a_cache_that_is_there_compares_what_it_takes_in_all(tmp_path):
    """More is there than is planned, and more than is allowed: no number of the message is negative."""
    with pytest.raises(OverBudgetError, match=r"^the cache needs up to \d+\.\d KiB \(") as caught:
        plan_of().check(cache_path=tmp_path, disk_limit=2**10, n_done_nbytes=45 * 2**11)

    assert "-" not in str(caught.value)


def test_nothing_to_record_and_no_samples_are_refused():
    with pytest.raises(InputError, match="no points"):
        plan_of(points=[])
    with pytest.raises(InputError, match="no samples"):
        plan_of(n_samples=0)
