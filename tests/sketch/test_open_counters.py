"""Counters that stay open between updates hold what is right, whenever it is asked for and however it is copied."""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
import subprocess
import sys
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from actisketch.pipeline.sketch import ChannelSketch, PointSketch, Sketch, SketchSpec
from actisketch.pipeline.sketch.counters import give_back
from actisketch.pipeline.sketch.counting import take_tally
from actisketch.pipeline.sketch.forecast import sketch_forecast
from actisketch.pipeline.sketch.open_tally import OpenTally
from actisketch.storage.errors import InputError

from .distributions import NAMES, Values, make


def sketch_of(*parts: Values, bits: int = 20) -> Sketch:
    sketch = Sketch(bits)
    for part in parts:
        sketch.update(part)
    return sketch


@pytest.mark.usefixtures("engine")
class TestAnOpenSketch:
    @pytest.mark.parametrize("size", [300, 20_000])
    @pytest.mark.parametrize("name", ["rectified", "heavy tail", "any pattern"])
    def test_that_is_asked_between_updates_ends_as_if_it_were_not(self, name: str, size: int) -> None:
        parts = np.array_split(make(name)[: 3 * size], 3)
        asked = Sketch()
        for part in parts:
            asked.update(part)
            assert asked.n == sketch_of(*parts).n or part is not parts[-1]

        assert asked.to_bytes() == sketch_of(*parts).to_bytes()

    def test_is_as_before_after_a_refused_update(self) -> None:
        values = make("negative")
        bad = values.copy()
        bad[-1] = np.nan
        sketch = sketch_of(values, values)
        for array in (bad, bad[-10:], bad.reshape(2, -1).T):
            with pytest.raises(InputError, match="1 NaN"):
                sketch.update(array)
        sketch.update(values)

        assert sketch.to_bytes() == sketch_of(values, values, values).to_bytes()

    def test_is_copied_with_all_it_counted(self) -> None:
        values = make("rectified")
        for copied in (copy.copy, copy.deepcopy, lambda sketch: pickle.loads(pickle.dumps(sketch))):
            sketch = sketch_of(values)
            other = copied(sketch)
            other.update(values)

            assert sketch.to_bytes() == sketch_of(values).to_bytes()
            assert other.to_bytes() == sketch_of(values, values).to_bytes()

    @pytest.mark.parametrize("bits", [12, 16, 20])
    def test_counts_more_values_of_one_bucket_than_a_word_holds(self, bits: int) -> None:
        """A word of 20 bits is emptied after half a million values."""
        same = np.full(1_100_000, -1.5, np.float32)
        others = same - 3 * np.spacing(np.float32(1.5))
        sketch = sketch_of(same, same, bits=bits)

        assert sketch.percentile(50) == sketch.percentile(0)
        assert (sketch.n, sketch.sum) == (2_200_000, -3_300_000.0)
        sketch.update(others)
        assert (sketch.n, sketch.minimum, sketch.maximum) == (3_300_000, others[0], -1.5)
        assert sketch.sum == float(Fraction(-3_300_000) + 1_100_000 * Fraction(float(others[0])))
        assert sketch.percentile(50).width > 0


@pytest.mark.usefixtures("engine")
class TestChannels:
    @pytest.mark.parametrize("name", ["rectified", "any pattern", "negative"])
    @pytest.mark.parametrize("cuts", [[1, 2, 500, 501, 3_000], list(range(0, 3_000, 300))])
    @pytest.mark.parametrize("n_channels", [5, 16, 36])
    def test_in_pieces_give_the_bytes_of_the_whole(self, name: str, cuts: list[int], n_channels: int) -> None:
        values = make(name)
        samples = np.resize(values[np.isfinite(values)], (3_100, n_channels))
        whole, pieces = ChannelSketch(n_channels), ChannelSketch(n_channels)
        whole.update(samples)
        for i, piece in enumerate(np.split(samples, cuts)):
            pieces.update(piece)
            if i == 2:
                assert pieces.n.tolist() == [cuts[2]] * n_channels
                assert pieces.n_zeros.tolist() == (samples[: cuts[2]] == 0).sum(axis=0).tolist()

        assert pieces.to_bytes() == whole.to_bytes()

    def test_count_more_values_of_one_bucket_than_a_word_holds(self) -> None:
        """A word of 16 bits is emptied after 32 thousand values."""
        samples = np.tile(np.array([[-1.5, 0.0, 1.0, 1.25]], np.float32), (50_000, 4))
        sketch = ChannelSketch(16)
        for _ in range(3):
            sketch.update(samples)

        assert sketch.n.tolist() == [150_000] * 16
        assert sketch.n_zeros.tolist() == [0, 150_000, 0, 0] * 4
        assert sketch.sum.tolist() == [-225_000.0, 0.0, 150_000.0, 187_500.0] * 4
        assert [ends.tolist() for ends in sketch.percentile(50)] == [[-1.5, 0.0, 1.0, 1.25] * 4] * 3

    @pytest.mark.parametrize("n_rows", [3, 400, 5_000])
    def test_are_as_before_after_a_refused_update(self, n_rows: int) -> None:
        samples = np.resize(make("negative"), (n_rows, 20))
        bad = samples.copy()
        bad[-1, -1] = np.inf
        spec = SketchSpec(per_channel=True)
        made, expected = PointSketch.empty(spec, 20), PointSketch.empty(spec, 20)
        for point in (made, expected):
            point.update(samples)
        for array in (bad, np.asfortranarray(bad)):
            with pytest.raises(InputError, match="1 infinite"):
                made.update(array)
            assert made.channels is not None
            with pytest.raises(InputError, match="1 infinite"):
                made.channels.update(array)
        for point in (made, expected):
            point.update(samples)

        assert made.to_bytes() == expected.to_bytes()

    def test_are_copied_with_all_they_counted(self) -> None:
        samples = make("rectified")[:2_000].reshape(-1, 20)
        expected, sketch = ChannelSketch(20), ChannelSketch(20)
        for each in (expected, sketch):
            each.update(samples)
        other = copy.copy(sketch)
        other.update(samples[:7])
        sketch.update(samples[7:9])
        expected.update(samples[7:9])

        assert sketch == expected
        assert other.n.tolist() == [107] * 20


@pytest.mark.parametrize("is_signed", [False, True])
@pytest.mark.parametrize("n_samples", [100, 1_000, 30_000])
def test_open_counters_take_what_was_foreseen(n_samples: int, is_signed: bool) -> None:
    samples = np.random.default_rng(n_samples).standard_normal((n_samples, 100), dtype=np.float32)
    point = PointSketch.empty(SketchSpec())
    for part in np.array_split(samples if is_signed else np.maximum(samples, 0), 3):
        point.update(part)
    foreseen = sketch_forecast(
        SketchSpec(), n_samples=n_samples, sample_values=100, n_channels=1, is_signed=is_signed
    )

    assert point.layer.nbytes + point.maxima.nbytes <= foreseen.nbytes <= 2 * foreseen.open_nbytes
    assert foreseen.nbytes <= 1.6 * (point.layer.nbytes + point.maxima.nbytes)


@pytest.mark.parametrize("n_values", [20_000, 100_000])
def test_ctrl_c_while_a_sketch_is_asked_leaves_all_its_values_in_it(n_values: int) -> None:
    """An interrupt at each line in turn of what makes buckets of open counters."""
    values = np.resize(make("any pattern"), n_values)
    expected = sketch_of(values).to_bytes()
    looked_at = {code.__code__ for code in (OpenTally.settle, OpenTally._sort_loose, take_tally, give_back)}
    n_lines = n_interrupts = 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal n_lines
        if frame.f_code not in looked_at:
            return None
        if event == "line":
            n_lines -= 1
            if n_lines == 0:
                raise KeyboardInterrupt
        return trace

    for wanted in range(1, 100):
        sketch, n_lines = sketch_of(values), wanted
        tracing = sys.gettrace()
        sys.settrace(trace)
        try:
            sketch.to_bytes()
        except KeyboardInterrupt:
            n_interrupts += 1
        finally:
            sys.settrace(tracing)
        assert sketch.to_bytes() == expected, wanted
        assert sketch_of(values).to_bytes() == expected, wanted
        if n_lines > 0:  # all lines were tried
            break
    assert 5 < n_interrupts < 99


HASHES = """
import hashlib
import numpy as np
from actisketch.pipeline.sketch import PointSketch, SketchSpec, kernels
from tests.sketch.distributions import NAMES, make
print(kernels.HAS_COMPRESS)
for name in NAMES:
    point = PointSketch.empty(SketchSpec(per_channel=True), 20)
    point.update(np.resize(make(name), (3, 2_000, 20)))
    print(hashlib.sha256(point.to_bytes()).hexdigest())
"""


@pytest.mark.slow
def test_a_plain_processor_counts_the_same_bytes() -> None:
    """Compiled for one without vectors of 512 bits, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", HASHES],
        env={**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = []
    for name in NAMES:
        point = PointSketch.empty(SketchSpec(per_channel=True), 20)
        point.update(np.resize(make(name), (3, 2_000, 20)))
        expected.append(hashlib.sha256(point.to_bytes()).hexdigest())

    assert done.stdout.split() == ["False", *expected]
