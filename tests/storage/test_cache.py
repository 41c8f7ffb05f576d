"""What every cache does, on every kind of store."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from actisketch.storage import Block, Cache, PointSpec
from actisketch.storage.errors import (
    BusyError,
    FormatError,
    IncompleteError,
    InputError,
    MismatchError,
    NotFoundError,
    StorageError,
)

from . import made_up
from .conftest import Place


def created(place: Place, **changed: object) -> Cache:
    return Cache.create_or_resume(place.url, made_up.spec(**changed), place.options)


class TestEveryStore:
    def test_a_finished_cache_gives_back_every_value_and_sketch(self, place: Place) -> None:
        with created(place) as cache:
            made_up.fill(cache)

        cache = Cache.open(place.url, place.options)
        assert cache.missing() == ()
        assert [record.block for record in cache.committed()] == list(cache.blocks)
        assert cache.committed()[4].facts == {"data": "32:37"}
        made_up.check(cache)
        assert cache.verify().problems == ()

    def test_resuming_finds_exactly_the_committed_blocks(self, place: Place) -> None:
        with created(place) as cache:
            made_up.record(cache, cache.blocks[1])
            made_up.record(cache, cache.blocks[4])

        with created(place) as cache:
            assert [block.index for block in cache.missing()] == [0, 2, 3]
            assert [record.block.index for record in cache.committed()] == [1, 4]
            made_up.check(made_up.fill(cache))

    def test_a_cache_that_is_open_to_read_is_opened_for_writing_itself(self, place: Place) -> None:
        created(place).close()
        read = Cache.open(place.url, place.options)
        with Cache.create_or_resume(place.url, made_up.spec(), place.options, opened=read) as cache:
            assert cache is read
            made_up.fill(cache)

        made_up.check(read)
        with pytest.raises(InputError, match="open to read only, or closed"):
            read.write(read.blocks[0])
        with pytest.raises(MismatchError):
            Cache.create_or_resume(place.url, made_up.spec(n_samples=3), place.options, opened=read)
        created(place).close()  # the lock was given back

    def test_a_cache_that_grows_leaves_the_one_that_was_opened_as_it_is(self, place: Place) -> None:
        created(place).close()
        read = Cache.open(place.url, place.options)
        n_samples = read.spec.n_samples
        more = made_up.spec(n_samples=n_samples + 8)
        with Cache.create_or_resume(place.url, more, place.options, opened=read) as cache:
            assert (cache.spec.n_samples, read.spec.n_samples) == (n_samples + 8, n_samples)

    def test_batch_by_batch_and_all_at_once_store_the_same_bytes(self, place: Place) -> None:
        with created(place) as cache:
            made_up.fill(cache)
            expected = {key: cache.store.read(key) for key, _ in cache.store.list("") if "/lock" not in key}
            for block in cache.blocks:
                cache.discard(block)
            assert cache.missing() == cache.blocks
            for block in cache.blocks:
                with cache.write(block) as writer:
                    for start in range(block.start, block.stop, 3):
                        stop = min(start + 3, block.stop)
                        writer.append(
                            {p.name: made_up.activations(p, start, stop) for p in cache.spec.points}
                        )
                    writer.commit(made_up.sketches(cache, block), {"data": f"{block.start}:{block.stop}"})
            found = {key: cache.store.read(key) for key, _ in cache.store.list("") if "/lock" not in key}

        assert found == expected

    def test_more_samples_extend_the_cache_and_recompute_only_the_cut_block(self, place: Place) -> None:
        with created(place) as cache:
            made_up.fill(cache)

        with created(place, n_samples=50) as cache:
            assert cache.missing() == (Block(4, 32, 40), Block(5, 40, 48), Block(6, 48, 50))
            made_up.check(made_up.fill(cache))
            assert cache.verify().problems == ()

    def test_fewer_samples_are_refused(self, place: Place) -> None:
        created(place).close()

        with pytest.raises(MismatchError, match="the cache has 37, this run has 36"):
            created(place, n_samples=36)

    def test_another_model_is_refused_with_what_differs(self, place: Place) -> None:
        created(place).close()
        other = {**made_up.IDENTITY, "model": {"topology": "a1", "weights": "zz"}}

        with pytest.raises(MismatchError) as caught:
            created(place, identity=other)
        assert caught.value.differences == ("model.weights: the cache has 'b2', this run has 'zz'",)

    def test_two_writers_at_once_are_refused(self, place: Place) -> None:
        with created(place), pytest.raises(BusyError, match=r"process \d+ on .* is writing to"):
            created(place)

        created(place).close()

    def test_a_worker_attaches_while_the_coordinator_holds_the_lock(self, place: Place) -> None:
        with created(place) as cache:
            made_up.fill(Cache.attach(place.url, place.options))

            assert cache.missing() == ()
            made_up.check(cache)

    def test_what_is_not_committed_is_not_read(self, place: Place) -> None:
        with created(place) as cache:
            made_up.record(cache, cache.blocks[0])

            with pytest.raises(IncompleteError, match="block 1"):
                list(cache.chunks("all zero"))
            with pytest.raises(IncompleteError, match="block 1"):
                list(cache.all_sketches())

    def test_a_missing_chunk_is_never_zeros(self, place: Place) -> None:
        with created(place) as cache:
            made_up.fill(cache)
            cache.store.delete(cache._layout.chunk_keys("all zero", cache.blocks[2])[0])

            with pytest.raises(FormatError, match="'all zero', block 2, is missing"):
                cache.read_block("all zero", cache.blocks[2])

    def test_a_place_that_holds_something_else_is_refused(self, place: Place) -> None:
        with created(place) as cache:
            store = cache.store
            for key, _ in list(store.list("")):
                store.delete(key)
            store.write("somebody/else.txt", [b"hello"])

        with pytest.raises(MismatchError, match="holds no cache"):
            created(place)
        assert [key for key, _ in store.list("")] == ["somebody/else.txt"]

    def test_opening_nothing_says_so(self, place: Place) -> None:
        with pytest.raises(NotFoundError, match="there is no cache"):
            Cache.open(place.url, place.options)
        with pytest.raises(NotFoundError, match="there is no cache"):
            Cache.attach(place.url, place.options)

    def test_sketches_alone_make_a_cache(self, place: Place) -> None:
        with created(place, keeps_activations=False) as cache:
            made_up.fill(cache)

            assert [key for key, _ in cache.store.list("") if key.endswith(".0")] == []
            assert list(cache.all_sketches()) == [made_up.sketches(cache, b) for b in cache.blocks]
            assert cache.verify().problems == ()
            with pytest.raises(InputError, match="sketches only"):
                cache.read_block("all zero", cache.blocks[0])
        with pytest.raises(MismatchError, match="sketches only"):
            created(place)
        created(place, keeps_activations=False).close()

    def test_blocks_may_be_written_by_several_threads(self, place: Place) -> None:
        with created(place) as cache:
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda block: made_up.record(cache, block), cache.blocks * 2))

            made_up.check(cache)


@pytest.fixture
def local(place: Place) -> Place:
    return place


only_local = pytest.mark.parametrize("place", ["local"], indirect=True)


@only_local
class TestOneStore:
    @pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    def test_every_codec_gives_back_what_was_stored(self, place: Place, codec: str, dtype: str) -> None:
        with created(place, codec=codec, dtype=dtype) as cache:
            made_up.fill(cache)
            for point in cache.spec.points:
                stored = np.concatenate(list(cache.chunks(point.name)))

                assert stored.dtype == dtype
                np.testing.assert_array_equal(stored, made_up.activations(point, 0, 37).astype(dtype))
            assert cache.verify().problems == ()

    def test_what_changes_no_values_is_taken_from_the_cache(self, place: Place) -> None:
        created(place).close()

        with created(place, block_samples=20, batch_size=5, codec="zstd") as cache:
            assert (cache.spec.block_samples, cache.spec.batch_size, cache.spec.codec) == (8, 4, "none")

    def test_other_points_are_refused_by_name(self, place: Place) -> None:
        created(place).close()

        with pytest.raises(
            MismatchError, match=r"points: only the cache has nothing, only this run has 'new'"
        ):
            created(place, points=(*made_up.POINTS, PointSpec(name="new", shape=(2,))))

    def test_float16_refuses_what_it_cannot_hold(self, place: Place) -> None:
        with created(place, dtype="float16") as cache:
            there = made_up.arrays(cache, cache.blocks[0])
            there["schicht ü"][3, 5] = 70_000.0

            with pytest.raises(
                InputError, match="'schicht ü' reaches 70000 in block 0, float16 ends at 65504"
            ):
                made_up.write_block(cache, cache.blocks[0], there, made_up.sketches(cache, cache.blocks[0]))
            assert cache.missing() == cache.blocks

    def test_nan_and_infinity_and_negative_zero_are_stored_as_they_are(self, place: Place) -> None:
        odd = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-42, 3.4e38, 7], np.float32)
        with created(place) as cache:
            there = made_up.arrays(cache, cache.blocks[0])
            there["all zero"][2] = odd
            made_up.write_block(cache, cache.blocks[0], there, made_up.sketches(cache, cache.blocks[0]))

            assert cache.read_block("all zero", cache.blocks[0])[2].tobytes() == odd.tobytes()

    def test_any_memory_layout_is_stored_alike(self, place: Place) -> None:
        with created(place) as cache:
            block = cache.blocks[0]
            there = {
                name: np.asfortranarray(array[::-1])[::-1]
                for name, array in made_up.arrays(cache, block).items()
            }
            made_up.write_block(cache, block, there, made_up.sketches(cache, block))

            for point in cache.spec.points:
                expected = made_up.activations(point, 0, 8)
                np.testing.assert_array_equal(cache.read_block(point.name, block), expected)

    def test_the_memory_of_a_batch_may_be_used_again_after_append(self, place: Place) -> None:
        memory = {point.name: np.empty((4, *point.shape), np.float32) for point in made_up.POINTS}
        with created(place) as cache:
            block = cache.blocks[0]
            with cache.write(block) as writer:
                for start in (0, 4):
                    for point in made_up.POINTS:
                        memory[point.name][:] = made_up.activations(point, start, start + 4)
                    writer.append(memory)
                writer.commit(made_up.sketches(cache, block))

            for point in made_up.POINTS:
                expected = made_up.activations(point, 0, 8)
                np.testing.assert_array_equal(cache.read_block(point.name, block), expected)

    def test_a_writer_that_is_left_early_commits_nothing(self, place: Place) -> None:
        with created(place) as cache:
            with cache.write(cache.blocks[0]) as writer:
                writer.append(made_up.arrays(cache, cache.blocks[0]))

            assert cache.missing() == cache.blocks

    def test_a_block_is_whole_or_not_committed(self, place: Place) -> None:
        with created(place) as cache:
            block, sketches = cache.blocks[0], made_up.sketches(cache, cache.blocks[0])
            short = {name: array[:-1] for name, array in made_up.arrays(cache, block).items()}

            with pytest.raises(InputError, match="has 8 samples, point 'block1/conv' got 7"):
                made_up.write_block(cache, block, short, sketches)
            with pytest.raises(InputError, match="has 8 samples, point 'block1/conv' was given 16"):
                made_up.write_block(
                    cache,
                    block,
                    {
                        n: np.tile(a, (2,) + (1,) * (a.ndim - 1))
                        for n, a in made_up.arrays(cache, block).items()
                    },
                    sketches,
                )
            with pytest.raises(InputError, match=r"shape \(8, 5\), \(samples, 11\) was expected"):
                made_up.write_block(cache, block, {"schicht ü": np.zeros((8, 5), np.float32)}, sketches)
            with pytest.raises(InputError, match="one sketch for each point, these differ: 'all zero'"):
                made_up.write_block(
                    cache, block, made_up.arrays(cache, block), {"block1/conv": b"", "schicht ü": b""}
                )
            with pytest.raises(InputError, match="no point 'typo'"):
                made_up.write_block(cache, block, {"typo": np.zeros((8, 5), np.float32)}, sketches)
            with pytest.raises(InputError, match="not a block of the cache"):
                made_up.write_block(cache, Block(0, 0, 7), made_up.arrays(cache, block), sketches)
            assert cache.missing() == cache.blocks

    def test_a_task_that_runs_twice_changes_nothing(self, place: Place) -> None:
        with created(place) as cache:
            made_up.fill(cache)
            before = {key: cache.store.read(key) for key, _ in cache.store.list("")}
            for block in cache.blocks:
                made_up.record(cache, block)

            assert {key: cache.store.read(key) for key, _ in cache.store.list("")} == before

    def test_two_workers_that_disagree_leave_the_block_missing(self, place: Place) -> None:
        with created(place) as cache:
            block = cache.blocks[0]
            with cache.write(block) as slow:
                slow.append({name: array + 1 for name, array in made_up.arrays(cache, block).items()})
                made_up.record(Cache.attach(place.url), block)
                with pytest.raises(StorageError, match="committed by another worker with other values"):
                    slow.commit(made_up.sketches(cache, block))

            assert block in cache.missing()
            made_up.check(made_up.fill(cache))

    def test_reading_changes_nothing_and_cannot_write(self, place: Place) -> None:
        with created(place) as cache:
            made_up.record(cache, cache.blocks[0])
        cache = Cache.open(place.url)

        with pytest.raises(InputError, match="open to read only"):
            made_up.record(cache, cache.blocks[1])
        with pytest.raises(InputError, match="open to read only"):
            cache.discard(cache.blocks[0])

    def test_a_closed_cache_cannot_write(self, place: Place) -> None:
        with created(place) as cache:
            pass

        with pytest.raises(InputError, match="open to read only, or closed"):
            made_up.record(cache, cache.blocks[0])

    def test_an_unknown_point_is_answered_with_the_known_ones(self, place: Place) -> None:
        with (
            created(place) as cache,
            pytest.raises(InputError, match="holds 'block1/conv', 'schicht ü', 'all zero'"),
        ):
            cache.read_block("conv", cache.blocks[0])

    def test_chunks_hold_one_chunk_at_a_time_and_can_be_read_again(self, place: Place) -> None:
        points = tuple(PointSpec(name=p.name, shape=p.shape, chunk_samples=2) for p in made_up.POINTS)
        with created(place, points=points) as cache:
            made_up.fill(cache)
            first = list(cache.chunks("schicht ü"))

            assert [len(chunk) for chunk in first] == [2] * 18 + [1]
            np.testing.assert_array_equal(
                np.concatenate(first), np.concatenate(list(cache.chunks("schicht ü")))
            )
            assert cache.verify().problems == ()

    def test_nothing_is_written_outside_the_folder_and_no_half_files_stay(self, place: Place) -> None:
        with created(place) as cache:
            made_up.fill(cache)
            keys = [key for key, _ in cache.store.list("")]

        assert not [key for key in keys if "tmp" in key]
        assert cache.nbytes() == sum(nbytes for _, nbytes in cache.store.list(""))


@only_local
def test_only_one_of_many_threads_gets_the_lock(place: Place) -> None:
    barrier, caches, refused = threading.Barrier(8), [], []

    def take() -> None:
        barrier.wait()
        try:
            caches.append(created(place))
        except BusyError as error:
            refused.append(error)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(caches), len(refused)) == (1, 7)
    caches[0].close()
