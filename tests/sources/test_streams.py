"""Data sets and functions that give batches: counted, in a fixed order, and refused where that fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from actisketch.pipeline.sources import as_source
from actisketch.storage.errors import InputError

X = np.arange(23 * 2, dtype=np.float32).reshape(23, 2)
Y = np.arange(23)


def dataset(n_samples: int = 23) -> Any:
    return tf.data.Dataset.from_tensor_slices((X[:n_samples], Y[:n_samples]))


class TestTfData:
    def test_batches_are_told_from_samples(self) -> None:
        for source in (
            as_source(dataset()),
            as_source(dataset().batch(4)),
            as_source(dataset().batch(4, drop_remainder=True).prefetch(1)),
            as_source(dataset().batch(4).map(lambda x, y: (x, y))),
            as_source(dataset().batch(4).unbatch()),
        ):
            assert source.inputs[0].shape == (2,)
            np.testing.assert_array_equal(source.read(3, 9).inputs[0], X[3:9])

    def test_the_last_partial_batch_counts_unless_it_is_dropped(self) -> None:
        assert as_source(dataset().batch(4)).n_samples == 23
        assert as_source(dataset().batch(4, drop_remainder=True)).n_samples == 20
        assert as_source(dataset().filter(lambda x, y: y % 2 == 0)).n_samples == 12

    def test_batched_can_be_said_where_it_cannot_be_seen(self) -> None:
        sequences = tf.data.Dataset.from_tensors(X).repeat(3)  # three samples of 23 steps, or batches of 23?

        assert as_source(sequences).inputs[0].shape == (23, 2)
        assert as_source(sequences, batched=True).n_samples == 69

    def test_dicts_and_weights_are_taken_apart(self) -> None:
        named = tf.data.Dataset.from_tensor_slices(({"a": X, "b": Y}, Y, np.ones(23))).batch(5)

        source = as_source(named)
        batch = source.read(0, 7)

        assert [spec.name for spec in source.inputs] == ["a", "b"]
        np.testing.assert_array_equal(batch.inputs[1], Y[:7])
        np.testing.assert_array_equal(batch.labels, Y[:7])

    @pytest.mark.parametrize("seed", [None, 7])
    def test_a_shuffled_one_is_refused_with_advice(self, seed: int | None) -> None:
        with pytest.raises(InputError, match="reshuffle_each_iteration=False"):
            as_source(dataset().shuffle(23, seed=seed).batch(8)).read(0, 23)

    def test_one_that_is_shuffled_once_and_for_all_is_taken(self) -> None:
        fixed = dataset().shuffle(23, seed=7, reshuffle_each_iteration=False)

        assert as_source(fixed).n_samples == 23

    def test_augmentation_that_starts_late_is_found_when_a_range_is_read_again(self) -> None:
        # Not tf.random.uniform: a seed that another test has set would make it the same each time.
        random = tf.random.Generator.from_non_deterministic_state()
        noise = dataset().map(lambda x, y: (x + tf.where(y > 10, random.uniform([]), 0.0), y))
        source = as_source(noise)
        source.read(0, 20)

        with pytest.raises(InputError, match="another sample 11 the second time") as caught:
            source.read(0, 20)
        assert caught.value.sample == 11

    def test_an_endless_one_needs_the_number_of_samples(self) -> None:
        with pytest.raises(InputError, match="never ends"):
            as_source(dataset().repeat())
        assert as_source(dataset().repeat(), num_samples=50).read(40, 50).inputs[0][0, 0] == X[40 - 23, 0]

    def test_an_empty_one_is_refused(self) -> None:
        for empty in (dataset().take(0), dataset().take(0).batch(3)):
            with pytest.raises(InputError, match="empty"):
                as_source(empty)

    def test_ragged_tensors_are_refused(self) -> None:
        with pytest.raises(InputError):
            as_source(tf.data.Dataset.from_tensor_slices(tf.ragged.constant([[1.0], [2.0, 3.0]])).batch(2))

    def test_y_beside_a_data_set_is_refused(self) -> None:
        with pytest.raises(InputError, match="brings its own labels"):
            as_source(dataset(), Y)


class Batches(keras.utils.PyDataset):  # type: ignore[misc] # Keras has no types
    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.sizes = sizes
        self.calls: list[int] = []

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Any:
        self.calls.append(index)
        start = sum(self.sizes[:index])
        return X[start : start + self.sizes[index]], Y[start : start + self.sizes[index]]


class TestPyDataset:
    def test_a_read_asks_for_its_batches_only(self) -> None:
        batches = Batches([5, 5, 5, 5, 3])
        source = as_source(batches)
        batches.calls.clear()

        source.read(11, 19)

        assert source.n_samples == 23
        assert batches.calls == [2, 3]

    def test_going_forward_asks_for_each_batch_once(self) -> None:
        batches = Batches([5, 5, 5, 5, 3])
        source = as_source(batches)
        batches.calls.clear()

        for start in range(0, 23, 2):
            source.read(start, min(start + 2, 23))

        assert batches.calls == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize("sizes", [[5, 4, 5], [3, 5]])
    def test_uneven_batches_are_refused(self, sizes: list[int]) -> None:
        with pytest.raises(InputError, match="the same size"):
            as_source(Batches(sizes)).read(0, sum(sizes))

    def test_no_batches_are_refused(self) -> None:
        with pytest.raises(InputError, match="no batches"):
            as_source(Batches([]))

    def test_an_infinite_one_is_refused(self) -> None:
        class Endless(keras.utils.PyDataset):  # type: ignore[misc] # Keras has no types
            @property
            def num_batches(self) -> None:
                return None

            def __getitem__(self, index: int) -> Any:
                return X[:5]

        with pytest.raises(InputError, match="length of the Endless is unknown"):
            as_source(Endless())

    def test_augmentation_is_found(self) -> None:
        class Noisy(Batches):
            def __getitem__(self, index: int) -> Any:
                x, y = super().__getitem__(index)
                return x + np.random.default_rng().random(), y

        with pytest.raises(InputError, match="a different first batch"):
            as_source(Noisy([5, 5]))


class TestFunctions:
    def test_the_iterator_goes_on_and_starts_again_only_to_go_back(self) -> None:
        starts: list[int] = []

        def batches() -> Iterator[Any]:
            starts.append(len(starts))
            yield from (X[start : start + 4] for start in range(0, 23, 4))

        source = as_source(batches, num_samples=23)
        starts.clear()

        for start in range(0, 23, 3):
            source.read(start, min(start + 3, 23))
        source.content_hash(0, 23)
        assert len(starts) == 1

        source.read(0, 1)
        assert len(starts) == 2

    def test_more_may_come_than_is_used(self) -> None:
        source = as_source(lambda: iter([X, X]), num_samples=30)

        assert source.read(20, 30).inputs[0][3, 0] == X[0, 0]

    def test_an_empty_batch_in_between_is_skipped(self) -> None:
        source = as_source(lambda: iter([X[:2], X[:0], X[2:4]]), num_samples=4)

        np.testing.assert_array_equal(source.read(1, 4).inputs[0], X[1:4])

    @pytest.mark.parametrize("one_shot", [(batch for batch in [X]), iter([X]), map(np.sqrt, [X])])
    def test_a_one_shot_iterator_is_refused_with_advice(self, one_shot: Any) -> None:
        with pytest.raises(InputError, match="pass the function that makes it"):
            as_source(one_shot, num_samples=23)

    def test_a_function_that_gives_the_same_iterator_again_is_refused(self) -> None:
        iterator = iter([X])

        with pytest.raises(InputError, match="nothing the second time"):
            as_source(lambda: iterator, num_samples=23)

    def test_the_number_of_samples_must_be_said(self) -> None:
        with pytest.raises(InputError, match="set num_samples"):
            as_source(lambda: iter([X]))

    @pytest.mark.parametrize(
        ("batches", "words"),
        [
            ([], "gave no samples"),
            ([X[:3], X[:3, :1]], "one shape"),
            ([X[:3], X[:3].astype(np.float64)], "one shape"),
            ([(X[:3], Y[:2])], "must agree"),
            ([np.array(["a", None])], "Python objects"),
            ([()], "without inputs"),
        ],
    )
    def test_what_does_not_fit_together_is_refused(self, batches: list[Any], words: str) -> None:
        with pytest.raises(InputError, match=words):
            as_source(lambda: iter(batches), num_samples=6).read(0, 6)


class TestMemoryThatIsFilledAgain:
    """What gives batches may fill one buffer with all of them: what was read before stays as it was."""

    def refilled(self, start: int, stop: int) -> Any:
        self.buffer[: stop - start] = X[start:stop]
        return self.buffer[: stop - start]

    @pytest.fixture(autouse=True)
    def _one_buffer(self) -> None:
        self.buffer = np.empty((5, 2), np.float32)

    @pytest.mark.parametrize("of", ["a function", "a PyDataset", "samples"])
    @pytest.mark.parametrize("n_read", [2, 5, 7])
    def test_batches_that_wait_are_not_written_to(self, of: str, n_read: int) -> None:
        own = self

        class Refilling(Batches):
            def __getitem__(self, index: int) -> Any:
                return own.refilled(5 * index, min(5 * index + 5, 23))

        def batches() -> Iterator[Any]:
            yield from (self.refilled(start, min(start + 5, 23)) for start in range(0, 23, 5))

        def samples() -> Iterator[Any]:
            yield from (self.refilled(start, start + 1)[0] for start in range(23))

        if of == "a PyDataset":
            source = as_source(Refilling([5, 5, 5, 5, 3]))
        else:
            batched = of == "a function"
            source = as_source(batches if batched else samples, num_samples=23, batched=batched)
        read = [source.read(start, min(start + n_read, 23)).inputs[0] for start in range(0, 23, n_read)]

        np.testing.assert_array_equal(np.concatenate(read), X)
