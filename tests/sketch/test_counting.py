"""Counts, extremes, layouts and dtypes; the compiled loops against numpy."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from actisketch.pipeline.sketch import ChannelSketch, PointSketch, Sketch, SketchSpec, merge_sketches
from actisketch.pipeline.sketch.compiled import NO_NUMBA

from .distributions import NAMES, Values, make

STRANGE = np.array([np.nan, np.inf, -np.inf, -np.nan, 0.0, -0.0, 1.0, -1.0], np.float32)


def with_strange_values(values: Values) -> Values:
    mixed = np.tile(values, -(-40_000 // values.size))[:40_000].copy()
    mixed[::97] = np.resize(STRANGE, mixed[::97].size)
    return mixed


class TestTheEnginesAgree:
    @pytest.mark.parametrize("strange", [False, True], ids=["finite", "with NaN"])
    @pytest.mark.parametrize("name", NAMES)
    def test_on_layers_and_maxima_of_any_shape(
        self, name: str, strange: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        values = with_strange_values(make(name)) if strange else np.resize(make(name), 40_000)
        for bits in (12, 16, 20):
            spec = SketchSpec(bits=bits, on_nonfinite="exclude")
            for shape in ((40_000, 1), (5, 8_000), (1, 40_000), (8_000, 5)):
                made = []
                for no_numba in ("0", "1"):
                    monkeypatch.setenv(NO_NUMBA, no_numba)
                    point = PointSketch.empty(spec)
                    point.update(values.reshape(shape))
                    made.append(point)

                assert made[0] == made[1]

    @pytest.mark.parametrize("strange", [False, True], ids=["finite", "with NaN"])
    @pytest.mark.parametrize("name", NAMES)
    def test_on_channels_anywhere(self, name: str, strange: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        values = with_strange_values(make(name)) if strange else np.resize(make(name), 40_000)
        # 36 = two full cache lines of channels and a rest; 5 an odd number; inner axes short and long.
        shapes = [((1_111, 36), 1), ((500, 80), 1), ((8_000, 5), 1), ((8, 5, 1_000), 1), ((40, 10, 20, 5), 2)]
        for bits in (14, 16):
            for shape, axis in shapes:
                array = values[: np.prod(shape)].reshape(shape)
                made = []
                for no_numba in ("0", "1"):
                    monkeypatch.setenv(NO_NUMBA, no_numba)
                    sketch = ChannelSketch(shape[axis], bits, on_nonfinite="exclude")
                    sketch.update(array, channel_axis=axis)
                    made.append(sketch)

                assert made[0] == made[1]


@pytest.mark.usefixtures("engine")
class TestCounts:
    def test_are_exact(self) -> None:
        values = np.array([0.0, -0.0, 1.5, -2.5, 1e-45, 3e38], np.float32)
        sketch = Sketch()
        sketch.update(values)

        assert (sketch.n, sketch.n_zeros, sketch.n_nonzero) == (6, 2, 4)
        assert (sketch.minimum, sketch.maximum) == (-2.5, float(np.float32(3e38)))
        assert sketch.sparsity == 2 / 6

    def test_of_nothing_are_zero_and_its_statistics_nan(self) -> None:
        sketch = Sketch()
        sketch.update(np.empty((0, 3), np.float32))

        assert (sketch.n, sketch.sum, sketch.sum_squares) == (0, 0.0, 0.0)
        assert np.isnan([sketch.minimum, sketch.maximum, sketch.mean, sketch.percentile(50).value]).all()
        assert Sketch.from_bytes(sketch.to_bytes()) == Sketch() == sketch

    def test_minus_zero_is_zero(self) -> None:
        one, other = Sketch(), Sketch()
        one.update(np.full(50_000, -0.0, np.float32))
        other.update(np.zeros(50_000, np.float32))

        assert one.to_bytes() == other.to_bytes()
        assert (one.minimum, one.maximum, one.n_zeros) == (0.0, 0.0, 50_000)

    def test_maxima_are_those_of_each_sample(self) -> None:
        samples = make("negative").reshape(-1, 5, 3, 4)
        point = PointSketch.empty(SketchSpec())
        point.update(samples)
        maxima = Sketch()
        maxima.update(samples.max(axis=(1, 2, 3)))

        assert point.maxima == maxima

    def test_maxima_leave_out_what_is_not_finite(self) -> None:
        samples = np.array([[1, np.inf], [np.nan, -2], [np.nan, np.inf]], np.float32)
        point = PointSketch.empty(SketchSpec(on_nonfinite="exclude"))
        point.update(samples)

        assert (point.maxima.n, point.maxima.minimum, point.maxima.maximum) == (2, -2.0, 1.0)
        assert (point.layer.n_nan, point.layer.n_inf, point.layer.n) == (2, 2, 2)

    def test_buckets_hold_every_value_between_their_edges(self) -> None:
        values = make("rectified")
        sketch = Sketch()
        sketch.update(values)
        lower, upper, counts = sketch.buckets()

        assert counts.sum() == values.size
        assert (lower <= upper).all()
        assert (upper[:-1] < lower[1:]).all()
        assert counts[0] == (values == 0).sum()
        for i in range(0, len(counts), 500):
            assert counts[i] == ((values >= lower[i]) & (values <= upper[i])).sum()


def laid_out(samples: Values) -> list[Values]:
    big = np.zeros((samples.shape[0] * 2, *samples.shape[1:]), np.float32)
    big[::2] = samples
    swapped = samples.astype(samples.dtype.newbyteorder())
    return [
        np.asfortranarray(samples),
        big[::2],
        np.ascontiguousarray(samples[::-1])[::-1],
        np.ascontiguousarray(samples.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1),
        swapped,
    ]


@pytest.mark.usefixtures("engine")
class TestTheResultDoesNotDependOn:
    def sketch(self, samples: Values) -> PointSketch:
        point = PointSketch.empty(SketchSpec(per_channel=True), samples.shape[-1])
        point.update(samples)
        return point

    def test_the_layout(self) -> None:
        samples = make("heavy tail").reshape(100, 5, 6, 20)
        expected = self.sketch(samples)
        for array in laid_out(samples):
            assert self.sketch(array) == expected

    def test_the_number_of_threads(self) -> None:
        samples = np.tile(make("rectified"), 12).reshape(-1, 48)

        with ThreadPoolExecutor(3) as pool:
            parts = list(pool.map(self.sketch, np.array_split(samples, 3)))

        assert merge_sketches(parts).to_bytes() == self.sketch(samples).to_bytes()

    @pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
    def test_when_halves_are_widened(self, dtype: type) -> None:
        samples: NDArray[Any] = make("rectified").reshape(-1, 20).astype(dtype)

        assert self.sketch(samples) == self.sketch(samples.astype(np.float32))

    def test_the_place_of_the_channels(self) -> None:
        samples = make("rectified").reshape(-1, 4, 5, 20)
        moved = PointSketch.empty(SketchSpec(per_channel=True), 20)
        moved.update(np.ascontiguousarray(np.moveaxis(samples, -1, 1)), channel_axis=1)

        assert moved == self.sketch(samples)


def test_two_thousand_channels_fit_in_64_mib() -> None:
    rng = np.random.default_rng(3)
    sketch = ChannelSketch(2048)
    samples = rng.standard_normal((1500, 2048), dtype=np.float32)
    for scale in (1.0, 1e-2, 1e-4, 1e-6):
        sketch.update(samples * np.float32(scale))

    assert sketch.n.tolist() == [6000] * 2048
    assert sketch.nbytes <= 64 * 2**20
