"""Exact factors: every percentile that goes into one is that of numpy, over what plain Zarr reads."""

import keras
import numpy as np
import pytest
import zarr

from actisketch.pipeline import run

Q = 97.3


def signed_model(biases):
    """A linear convolution of four channels, the third of them dead, and a Dense layer behind it."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input((6, 6, 3))
    signed = keras.layers.Conv2D(4, 3, name="signed")
    outputs = keras.layers.Dense(3, name="last")(keras.layers.Flatten()(signed(inputs)))
    kernel, _ = signed.get_weights()
    kernel[..., 2] = 0.0
    signed.set_weights([kernel, np.array(biases)])
    return keras.Model(inputs, outputs)


def expected(values):
    """Return the percentile of what is not zero, or where it is negative the magnitude; NaN if all are zero."""
    values = values[values != 0]
    if not values.size:
        return np.nan
    high = np.percentile(values, Q)
    return high if high > 0 else max(-high, -np.percentile(values, 100 - Q))


@pytest.mark.parametrize(
    "biases", [[3.0, -9.0, 0.0, -0.1], [-9.0, -9.0, 0.0, -7.0]], ids=["mixed", "negative"]
)
@pytest.mark.parametrize("per_channel", [False, True])
def test_every_exact_factor_is_a_percentile_by_numpy(tmp_path, biases, per_channel):
    samples = np.random.default_rng(3).random((300, 6, 6, 3), np.float32)
    settings = {
        "sketch": {"per_channel": per_channel},
        "factors": {"per_channel": per_channel, "exact": True, "percentile": Q},
        "normalize": {"enabled": False},
        "report": {"enabled": False},
    }
    result = run(signed_model(biases), samples, output=tmp_path / "r", settings=settings)

    values = zarr.open_array(result.cache.url, path="signed", mode="r")[:]
    factor = result.factors().points[0]

    assert (factor.name, factor.exact) == ("signed", True)
    assert factor.rule == ("percentile" if np.percentile(values[values != 0], Q) > 0 else "magnitude")
    if per_channel:
        by_channel = [expected(values[..., c]) for c in range(4)]
        # The dead channel gets the factor of the layer.
        assert factor.factor == tuple(np.where(np.isnan(by_channel), expected(values), by_channel))
    else:
        assert factor.factor == expected(values)
