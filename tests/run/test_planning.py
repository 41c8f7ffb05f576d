"""What a run takes is known before it runs; the numbers are primes, so that a lost term shows."""

import math

import pytest

from actisketch.pipeline.planning import LARGEST_BLOCK_NBYTES, make_plan
from actisketch.pipeline.recorder import SLAB_NBYTES
from actisketch.storage import PointSpec
from actisketch.storage.errors import InputError, OverBudgetError

POINTS = [PointSpec(name="conv", shape=(5, 7)), PointSpec(name="dense", shape=(11,))]
PER_SAMPLE_NBYTES = 4 * (35 + 11)


def plan_of(**changes):
    settings = {"n_samples": 103, "batch_size": 13, "memory_limit": 2**30, **changes}
    return make_plan(settings.pop("points", POINTS), **settings)


def test_disk_is_every_value_of_every_sample():
    assert plan_of().disk_nbytes == 103 * PER_SAMPLE_NBYTES
    assert plan_of(stored_itemsize=2).disk_nbytes == 103 * PER_SAMPLE_NBYTES // 2
    assert plan_of(record=False).disk_nbytes == 0


def test_a_block_is_whole_batches_and_no_more_than_the_samples_need():
    plan = plan_of()

    assert plan.block_samples == 8 * 13  # 103 samples are 8 batches
    assert plan.n_blocks == 1


def test_blocks_can_be_kept_small():
    plan = plan_of(max_block_samples=20)

    assert plan.block_samples == 26  # rounded up to whole batches
    assert plan.n_blocks == 4


def test_a_tight_limit_makes_smaller_blocks_and_the_projection_keeps_to_it():
    big = [PointSpec(name="conv", shape=(1_000_003,))]
    loose = plan_of(points=big, n_samples=10_007, memory_limit=8 * 2**30)
    tight = plan_of(points=big, n_samples=10_007, memory_limit=700 * 2**20)

    assert loose.block_samples * 4 * 1_000_003 <= SLAB_NBYTES
    assert tight.block_samples < loose.block_samples
    assert tight.memory.total <= tight.memory_limit


def test_blocks_of_a_large_network_are_several_slabs_so_that_small_layers_are_no_tiny_files():
    """VGG16-like: a batch of 8 samples fills a slab, its smallest layer has 1,000 values."""
    points = [PointSpec(name="conv", shape=(224, 224, 64)), PointSpec(name="more", shape=(10_000_000,))]
    points.append(PointSpec(name="classes", shape=(1000,)))
    few = plan_of(points=points, n_samples=64, batch_size=8, memory_limit=16 * 2**30)
    many = plan_of(points=points, n_samples=50_000, batch_size=8, memory_limit=16 * 2**30)

    assert few.block_samples == 8  # sixteen blocks at least, where there are samples for them
    assert many.block_samples == 64  # 256 KiB of the smallest layer, 3.2 GiB of all
    assert many.block_samples * sum(4 * math.prod(p.shape) for p in points) <= LARGEST_BLOCK_NBYTES
    assert many.disk_nbytes / many.n_files > 32 * 2**20
    assert many.memory.blocks < 2.5 * SLAB_NBYTES * 2


def test_memory_does_not_grow_with_the_number_of_samples():
    one, many = (plan_of(n_samples=n, max_block_samples=26).memory for n in (130, 130_000))

    assert one == many


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
        OverBudgetError, match=r"18\.5 KiB, record\.disk_limit allows 9\.8 KiB.*sketches only"
    ):
        plan.check(cache_path=tmp_path, disk_limit=10_000)


def test_what_is_written_already_counts_as_done(tmp_path):
    plan_of().check(cache_path=tmp_path, disk_limit=19_000, n_done_nbytes=0)
    plan_of().check(cache_path=tmp_path, disk_limit=19_000, n_done_nbytes=18_952)


def test_nothing_to_record_and_no_samples_are_refused():
    with pytest.raises(InputError, match="no points"):
        plan_of(points=[])
    with pytest.raises(InputError, match="no samples"):
        plan_of(n_samples=0)
