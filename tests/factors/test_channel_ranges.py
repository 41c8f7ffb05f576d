"""Clips of channels: each as good as the best for the channel's own values, found by brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from actisketch.pipeline.factors.compute import compute_factors
from actisketch.pipeline.settings.job_settings import FactorSettings
from actisketch.pipeline.sketch import PointSketch, SketchSpec
from actisketch.storage import PointSpec
from actisketch.storage.errors import InputError

from .test_ranges import squared_error, tensorrt_threshold

N_CHANNELS = 5


def factors_of(x, *, channel_bits=16, **asked):
    sketch = PointSketch.empty(SketchSpec(per_channel=True, channel_bits=channel_bits), x.shape[-1])
    sketch.update(x)
    points = [PointSpec(name="a", shape=x.shape[1:])]
    (found,) = compute_factors(points, {"a": sketch}, FactorSettings(per_channel=True, **asked)).points
    return found


def values(seed=17, n=4_001):
    """ReLUs of other widths, one of them dead, and one channel below zero."""
    rng = np.random.default_rng(seed)
    x = np.maximum(rng.standard_t(4, size=(n, N_CHANNELS)) * [1, 0.01, 30, 1, 2], 0)
    x[:, 3], x[:, 4] = 0, -x[:, 4]
    return x.astype(np.float32)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_the_clip_of_each_channel_is_as_good_as_the_best(bits, symmetric):
    x = values()
    found = factors_of(x, method="mse", bits=bits, symmetric=symmetric)

    assert (found.rule, found.n_dead_channels) == ("mse", 1)
    for i in (0, 1, 2, 4):
        sign = -1 if i == 4 else 1

        def cost(clip, i=i, sign=sign):
            ends = (min(sign * clip, 0), max(sign * clip, 0))
            return squared_error(x[:, i], *ends, bits=bits, symmetric=symmetric)

        brute = min(cost(float(np.abs(x[:, i]).max()) * share) for share in np.geomspace(0.02, 1, 300))
        # Buckets of 16 bits are as wide as the steps of 8.
        assert cost(found.factor[i]) <= brute * 1.04
    assert found.factor[3] == found.value  # that of the layer


@settings(max_examples=25)
@given(x=hnp.arrays(np.float32, (7, 3), elements=st.floats(0, 1e4, width=32)), bits=st.integers(2, 8))
def test_a_channel_has_the_clip_of_a_layer_with_its_values_alone(x, bits):
    found = factors_of(x, method="mse", bits=bits)
    if found.rule == "dead":
        return
    for i, factor in enumerate(np.broadcast_to(found.factor, 3)):
        alone = factors_of(x[:, i : i + 1], method="mse", bits=bits)
        if alone.rule != "dead":
            assert factor == alone.factor[0]


def test_the_entropy_of_each_channel_needs_fine_sketches_of_channels():
    x = values(n=1_501)[:, :3]
    found = factors_of(x, method="entropy", bits=5, channel_bits=20)

    assert found.rule == "entropy"
    for i, factor in enumerate(found.factor):
        assert factor in tensorrt_threshold(x[:, i], bits=5, nonzero=True)
    with pytest.raises(
        InputError, match=r"it has 16 bits, record with sketch.bits = 20 .channels: sketch.channel_bits"
    ):
        factors_of(x, method="entropy")
