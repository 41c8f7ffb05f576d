"""Totals of a comparison add up to the same bits, whatever the parts and their order."""

from __future__ import annotations

import math
import pickle
import random
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from actisketch.pipeline.certifier import Comparison, ComparisonSettings
from actisketch.pipeline.certifier.totals import ValueTotals
from actisketch.pipeline.normalizer import Rewriting
from actisketch.pipeline.sketch import SketchSpec
from actisketch.pipeline.sources import as_source

float32s = st.floats(width=32, min_value=0.0) | st.just(math.nan)
batches = st.lists(
    st.tuples(float32s, float32s, st.integers(0, 9), st.lists(float32s, min_size=3, max_size=3))
)


def totals_of(found: list[tuple[int, Any]]) -> ValueTotals:
    totals = ValueTotals()
    for start, (error, squares, n_saturated, peaks) in found:
        numbers = [np.float32(error), np.float32(squares), np.int32(n_saturated), np.array(peaks, np.float32)]
        totals.add(numbers, n_values=5, start=start)
    return totals


@given(batches, st.randoms(use_true_random=False))
def test_order_and_parts_change_no_bit_of_the_totals(found: list[Any], chance: random.Random) -> None:
    numbered = list(enumerate(found))
    shuffled = chance.sample(numbered, len(numbered))
    cut = chance.randint(0, len(shuffled))

    whole, one, other = totals_of(numbered), totals_of(shuffled[:cut]), totals_of(shuffled[cut:])
    one.merge(pickle.loads(pickle.dumps(other)))

    for name in ("max_error", "n_saturated", "n_values", "rms_error"):
        mine, theirs = getattr(one, name), getattr(whole, name)
        assert mine == theirs or (math.isnan(mine) and math.isnan(theirs)), name
    np.testing.assert_array_equal(one.channel_peaks, whole.channel_peaks)
    np.testing.assert_array_equal(one.starts, whole.starts)


@given(st.lists(st.floats(width=32, min_value=0.0, allow_nan=False, allow_infinity=False), min_size=1))
def test_the_square_sum_is_the_exact_one(squares: list[float]) -> None:
    totals = totals_of([(i, (0.0, each, 0, [0.0] * 3)) for i, each in enumerate(squares)])

    assert totals.rms_error == math.sqrt(math.fsum(squares) / (5 * len(squares)))


@settings(max_examples=10)
@given(n_parts=st.integers(1, 6), chance=st.randoms(use_true_random=False))
def test_parts_compared_apart_give_the_totals_of_one_pass(n_parts: int, chance: random.Random) -> None:
    import keras

    keras.utils.set_random_seed(5)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(6, "relu", name="a"),
            keras.layers.Dense(3, "softmax", name="b"),
        ]
    )
    rng = np.random.default_rng(8)
    x, labels = rng.random((26, 4), dtype=np.float32), rng.integers(0, 3, 26)
    comparison = Comparison(
        model,
        Rewriting(factors={"a": 0.3, "b": 1.0}).rewrite(model),
        as_source(x, labels),
        ComparisonSettings(batch_size=2, sketch_spec=SketchSpec()),
    )
    cuts = sorted(chance.sample(range(2, 26, 2), n_parts - 1))
    spans = list(zip([0, *cuts], [*cuts, 26], strict=True))
    chance.shuffle(spans)

    apart, whole = comparison.empty(), comparison.compare(0, 26)
    for span in spans:
        apart.merge(comparison.compare(*span))

    assert apart.sketches == whole.sketches
    assert apart.values[0].rms_error == whole.values[0].rms_error > 0
    assert apart.values[0].max_error == whole.values[0].max_error
    assert apart.decisions.agreement == whole.decisions.agreement == {0: (1.0, 26)}
    assert apart.decisions.accuracy_before == whole.decisions.accuracy_before is not None
    assert apart.n_samples == whole.n_samples == 26
