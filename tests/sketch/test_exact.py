"""Exact percentiles equal np.percentile bit for bit, in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actisketch.pipeline.sketch import (
    ChannelSketch,
    Sketch,
    exact_channel_percentiles,
    exact_percentiles,
    refinement,
)
from actisketch.storage.errors import MismatchError

from .distributions import NAMES, Values, few_values, make, percents, ties

pytestmark = pytest.mark.usefixtures("engine")
QS = (0.0, 0.1, 25.0, 50.0, 77.7, 99.0, 99.9, 99.99, 100.0)


def sketch_of(values: Values, bits: int = 20) -> Sketch:
    sketch = Sketch(bits)
    sketch.update(values)
    return sketch


def oracle(values: Values, q: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.percentile(values, q, method="linear")) if values.size else float("nan")


class TestExactPercentiles:
    @pytest.mark.parametrize("nonzero", [False, True])
    @pytest.mark.parametrize("name", NAMES)
    def test_equal_numpy_on_hard_distributions(self, name: str, nonzero: bool) -> None:
        values = make(name)
        chosen = values[values != 0] if nonzero else values
        for bits, qs in ((12, (50.0, 99.9)), (20, QS)):
            found = exact_percentiles(lambda: np.array_split(values, 3), qs, sketch_of(values, bits), nonzero)

            np.testing.assert_array_equal(found, [oracle(chosen, q) for q in qs])

    @given(values=st.one_of(few_values, ties), q=percents)
    @settings(max_examples=80)
    def test_equal_numpy_on_any_values(self, values: Values, q: float) -> None:
        found = exact_percentiles(lambda: [values[:7], values[7:]], [q], sketch_of(values))

        np.testing.assert_array_equal(found, [oracle(values, q)])

    def test_equal_numpy_for_more_percentiles_than_are_tested_one_by_one(self) -> None:
        values, qs = make("heavy tail"), np.linspace(0, 100, 83).tolist()

        assert exact_percentiles(lambda: [values], qs, sketch_of(values)) == [oracle(values, q) for q in qs]

    def test_read_the_chunks_once(self) -> None:
        values, passes = make("rectified"), []

        def chunks() -> Iterator[Values]:
            passes.append(1)
            yield values

        exact_percentiles(chunks, QS, sketch_of(values))
        assert len(passes) == 1

    def test_need_no_pass_at_all_where_the_sketch_knows(self) -> None:
        values = make("quantised")

        assert exact_percentiles(lambda: iter(()), [50, 99.9], sketch_of(values)) == [
            oracle(values, 50.0),
            oracle(values, 99.9),
        ]

    def test_refuse_chunks_of_other_values(self) -> None:
        sketch = sketch_of(make("rectified"))
        for other in (
            make("rectified")[1:],
            np.concatenate((make("rectified"), make("rectified"))),
            make("huge"),
        ):
            with pytest.raises(MismatchError, match="was the sketch made of another cache"):
                exact_percentiles(partial(iter, [other]), [70, 80, 90], sketch)


class TestChannels:
    @pytest.mark.parametrize("nbytes", [2**27, 4_000], ids=["one pass", "many passes"])
    @pytest.mark.parametrize(
        "name", ["rectified", "heavy tail", "narrow", "quantised", "denormal", "any pattern"]
    )
    def test_and_layers_equal_numpy(self, name: str, nbytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(refinement, "EXACT_NBYTES", nbytes)
        values = make(name)
        channels_last, channels_first = values.reshape(-1, 24), values.reshape(20, 10, 300)
        by_last, by_first = ChannelSketch(24), ChannelSketch(10)
        by_last.update(channels_last)
        by_first.update(channels_first, channel_axis=1)
        last = exact_channel_percentiles(lambda: np.array_split(channels_last, 2), QS, by_last)
        some = (50.0, 99.9)
        first = exact_channel_percentiles(
            lambda: np.array_split(channels_first, 2), some, by_first, nonzero=True, channel_axis=1
        )
        layer = exact_percentiles(lambda: np.array_split(values, 2), [99.9], sketch_of(values))

        assert layer == [oracle(values, 99.9)]
        for i, q in enumerate(QS):
            assert last[i].tolist() == [oracle(column, q) for column in channels_last.T]
        for i, q in enumerate(some):
            columns = [column[column != 0] for column in channels_first.transpose(1, 0, 2).reshape(10, -1)]
            assert first[i].tolist() == [oracle(column, q) for column in columns]

    def test_dead_channels_are_nan(self) -> None:
        values = np.zeros((100, 3), np.float32)
        values[:, 1] = 2.0
        sketch = ChannelSketch(3)
        sketch.update(values)
        found = exact_channel_percentiles(lambda: [values], [50], sketch, nonzero=True)

        np.testing.assert_array_equal(found, [[np.nan, 2.0, np.nan]])
