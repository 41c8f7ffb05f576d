"""Weights of any dtype stream through one sketch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from actisketch.pipeline.report import weight_sketch
from actisketch.pipeline.sketch import Sketch
from actisketch.storage.errors import InputError


def test_the_sketch_of_some_arrays_is_the_sketch_of_all_their_values() -> None:
    rng = np.random.default_rng(11)
    kernel, bias = rng.normal(size=(3, 3, 5, 7)).astype(np.float32), rng.normal(size=7).astype(np.float32)
    expected = Sketch()
    expected.update(np.concatenate([bias, kernel.ravel()]))

    assert weight_sketch([kernel, bias]) == expected


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16, np.int8, np.uint8, np.bool_])
def test_other_real_dtypes_are_rounded_to_float32(dtype: Any) -> None:
    array = np.array([0, 1, 1, 1]).astype(dtype)

    sketch = weight_sketch([array])

    assert (sketch.n, sketch.n_zeros, sketch.maximum) == (4, 1, 1.0)


def test_arrays_may_come_from_an_iterator_in_any_layout_and_shape() -> None:
    def arrays() -> Iterator[NDArray[Any]]:
        yield np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2]
        yield np.asfortranarray(np.ones((2, 3), np.float32))
        yield np.array(5.0, np.float32)
        yield np.empty((0, 3), np.float32)

    assert weight_sketch(arrays()).n == 6 + 6 + 1


def test_an_array_larger_than_one_portion_is_counted_whole() -> None:
    assert weight_sketch([np.ones((1 << 20) + 3, np.float16)]).n == (1 << 20) + 3


@pytest.mark.parametrize("array", [np.array([1j]), np.array(["a"]), np.array([object()])])
def test_what_is_not_real_is_refused(array: NDArray[Any]) -> None:
    with pytest.raises(InputError, match="real numbers"):
        weight_sketch([array])


@pytest.mark.parametrize("value", [np.nan, 1e300])
def test_values_that_are_not_finite_in_float32_are_refused(value: float) -> None:
    with pytest.raises(InputError):
        weight_sketch([np.array([1.0, value])])
