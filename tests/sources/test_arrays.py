"""Arrays in memory and lazy arrays: several inputs, odd layouts, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from actisketch.pipeline.sources import Batch, as_source
from actisketch.pipeline.sources.columns import LazyColumn
from actisketch.pipeline.sources.prepared import HASH_BUDGET_NBYTES, hashed_rows
from actisketch.storage.errors import InputError

X = np.arange(5 * 3, dtype=np.float32).reshape(5, 3)


def test_a_dict_is_a_network_with_named_inputs() -> None:
    tokens = np.arange(10).reshape(5, 2)
    source = as_source({"picture": X, "tokens": tokens}, scale={"picture": 2.0})

    batch = source.read(1, 4)

    assert [(spec.name, spec.shape, spec.dtype) for spec in source.inputs] == [
        ("picture", (3,), "float32"),
        ("tokens", (2,), "int64"),
    ]
    np.testing.assert_array_equal(batch.inputs[0], X[1:4] * 2)
    np.testing.assert_array_equal(batch.inputs[1], tokens[1:4])


def test_a_list_is_a_network_with_inputs_in_order() -> None:
    source = as_source([X, X + 100])

    assert [spec.name for spec in source.inputs] == [None, None]
    np.testing.assert_array_equal(source.read(0, 5).inputs[1], X + 100)


def test_each_input_counts_in_the_hash() -> None:
    changed = X.copy()
    changed[2, 1] += 1

    assert as_source([X, X]).content_hash(0, 5) != as_source([X, changed]).content_hash(0, 5)


@pytest.mark.parametrize("layout", ["fortran", "strided", "negative"])
def test_layout_in_memory_plays_no_part(layout: str) -> None:
    x = {
        "fortran": np.asfortranarray(X),
        "strided": np.repeat(X, 2, axis=1)[:, ::2],
        "negative": X[::-1][::-1],
    }[layout]
    batch = as_source(x).read(1, 5)

    assert batch.inputs[0].flags.c_contiguous
    np.testing.assert_array_equal(batch.inputs[0], X[1:5])
    assert as_source(x).content_hash(0, 5) == as_source(X).content_hash(0, 5)


def test_byte_order_plays_no_part_in_the_hash() -> None:
    assert as_source(X.astype(">f4")).content_hash(0, 5) == as_source(X).content_hash(0, 5)


def test_an_array_that_grew_has_the_same_fingerprint_and_hashes() -> None:
    short, grown = as_source(X[:3]), as_source(X)

    assert short.fingerprint() == grown.fingerprint()
    assert short.content_hash(0, 3) == grown.content_hash(0, 3)


def test_labels_of_one_column_are_taken_as_a_list() -> None:
    assert as_source(X, np.arange(5)[:, None]).read(1, 3).labels == pytest.approx([1, 2])
    assert as_source(X, [0, 1, 2, 3, 4]).read(1, 3).labels == pytest.approx([1, 2])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named_by_its_sample(bad: float) -> None:
    x = X.copy()
    x[3, 2] = bad
    source = as_source(x)

    assert isinstance(source.read(0, 3), Batch)
    with pytest.raises(InputError, match="sample 3 of the arrays holds") as caught:
        source.read(2, 5)
    assert caught.value.sample == 3


def test_a_double_beyond_float32_is_named_with_its_value() -> None:
    x = X.astype(np.float64)
    x[1, 1] = 1e60

    with pytest.raises(InputError, match=r"sample 1 .*1e\+60, which float32 cannot hold"):
        as_source(x).read(0, 5)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (None, "no samples were given"),
        (np.zeros((0, 3)), "empty"),
        (np.zeros((5, 0)), "empty"),
        (np.float32(3), "single number"),
        (np.array([1, "a"], object), "Python objects"),
        (np.array(["a", None], object), "Python objects"),
        (np.zeros(3, complex), "complex128"),
        (np.zeros(3, "M8[s]"), "datetime64"),
        ([], "at least one input"),
        ({}, "at least one input"),
        ([[1.0, 2.0], [3.0, 4.0]], "numpy.asarray"),
        (7, "not a data set"),
        ("nowhere.npz", "no data at"),
    ],
)
def test_what_is_no_data_is_refused(x: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        as_source(x)


def test_arrays_of_different_lengths_are_refused_with_the_lengths() -> None:
    with pytest.raises(InputError, match=r"'a' 5, 'b' 4"):
        as_source({"a": X, "b": X[:4]})
    with pytest.raises(InputError, match=r"input 0 5, labels 4"):
        as_source(X, np.arange(4))


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "7"])
def test_num_samples_is_a_whole_number_of_at_least_one(n: Any) -> None:
    with pytest.raises(InputError, match="num_samples"):
        as_source(X, num_samples=n)


def test_a_dask_array_of_unknown_length_is_refused_with_advice() -> None:
    import dask.array

    x = dask.array.from_array(X, chunks=2)

    with pytest.raises(InputError, match="compute_chunk_sizes"):
        as_source(x[x[:, 0] > 3])


class CountingArray:
    """Stands for a lazy array: counts the rows that are loaded."""

    def __init__(self) -> None:
        self.shape = (100, 2)
        self.dtype = np.dtype("float32")
        self.loaded: list[tuple[int, int]] = []

    def __getitem__(self, rows: slice) -> Any:
        self.loaded.append((rows.start, rows.stop))
        return np.arange(rows.start * 2, rows.stop * 2, dtype=np.float32).reshape(-1, 2)


def test_going_forward_through_a_lazy_array_loads_each_chunk_once() -> None:
    array = CountingArray()
    column = LazyColumn(array, chunk_rows=30)

    for start in range(0, 100, 7):
        stop = min(start + 7, 100)
        np.testing.assert_array_equal(column.read(start, stop)[:, 0], np.arange(start, stop) * 2)

    assert array.loaded == [(0, 30), (30, 60), (60, 90), (90, 100)]


def test_all_rows_of_a_small_range_are_hashed() -> None:
    assert hashed_rows(7, 12, 1000, full=False) == [7, 8, 9, 10, 11]


def test_of_a_large_range_first_last_and_even_steps_are_hashed() -> None:
    rows = hashed_rows(100, 1100, HASH_BUDGET_NBYTES // 4, full=False)

    assert rows == [100, 433, 766, 1099]
    assert len(hashed_rows(100, 1100, HASH_BUDGET_NBYTES // 4, full=True)) == 1000


def test_full_and_sampled_fingerprints_are_told_apart() -> None:
    assert as_source(X).fingerprint() != as_source(X, fingerprint="sampled").fingerprint()
