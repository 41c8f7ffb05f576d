"""Packed integers come back, and both engines pack them to the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actisketch.pipeline.sketch.packing import (
    pack_integers,
    scatter_groups,
    unpack_integers,
)
from actisketch.storage.errors import FormatError


@st.composite
def numbers(draw: st.DrawFn) -> np.ndarray:
    """Runs of numbers of like size, long enough for the compiled way."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sizes = draw(st.lists(st.integers(0, 64), min_size=1, max_size=40))
    runs = [rng.integers(0, 2**bits, 211, np.uint64, endpoint=bits == 0) for bits in sizes if bits < 64]
    runs += [np.full(7, 2**64 - 1, np.uint64)] * (64 in sizes)
    return np.concatenate([np.zeros(draw(st.integers(0, 8192)), np.uint64), *runs])


@given(numbers())
def test_both_engines_give_the_same_bytes_and_all_numbers_back(found: np.ndarray) -> None:
    import numba  # noqa: F401 # else numpy packs so few

    packed = pack_integers(found)
    back, rest = unpack_integers(memoryview(packed + b"more"), found.size)

    assert packed == (scatter_groups(found) if found.size else b"")
    np.testing.assert_array_equal(back, found)
    assert bytes(rest) == b"more"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.int64])
def test_the_type_of_the_numbers_makes_no_difference(dtype: type) -> None:
    found = np.arange(9000) % 113

    assert pack_integers(found.astype(dtype)) == pack_integers(found.astype(np.uint64))


def test_bytes_that_end_too_early_are_refused() -> None:
    packed = pack_integers(np.arange(9000))

    with pytest.raises(FormatError, match="too early"):
        unpack_integers(memoryview(packed[:-1]), 9000)
