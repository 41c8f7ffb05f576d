"""Channels of every network: points of one number a sample, layers of very many channels."""

import numpy as np
import pytest

from actisketch.pipeline import open_run, run
from actisketch.storage.errors import InputError

SKETCHED = {"sketch": {"per_channel": True}, "factors": {"per_channel": True}}


def scored():
    """A network with a point of shape (): the mean of a layer."""
    import keras
    from keras import layers, ops

    keras.utils.set_random_seed(11)
    inputs = keras.Input((6,))
    x = layers.Dense(8, activation="relu", name="first")(inputs)
    return keras.Model(inputs, ops.mean(x, axis=-1), name="scored")


def test_a_point_of_one_number_a_sample_has_one_channel_all_the_way_to_the_report(tmp_path, small_data):
    settings = {**SKETCHED, "normalize": {"enabled": False}, "record": {"points": "all"}}
    result = run(scored(), small_data, output=tmp_path / "r", batch_size=8, settings=settings)
    name = next(p.name for p in result.cache.spec.points if not p.shape)
    values = result.activations(name)[:]
    (row,) = result.percentiles([50.0], points=[name], per_channel=True, exact=True)

    assert values.shape == (53,)
    assert (row.channel, row.value) == (0, np.percentile(values[values != 0], 50))
    assert len(result.factors().by_point()[name]) == 1
    assert (result.folder.report_path / "index.html").exists()


def test_a_normalised_network_may_have_a_point_of_one_number_a_sample(tmp_path, small_data):
    settings = {**SKETCHED, "report": {"enabled": False}}
    result = run(scored(), small_data, output=tmp_path / "r", batch_size=8, settings=settings)

    assert result.certificate()["passed"]


def test_a_layer_of_more_channels_than_16_bits_have_buckets_for_is_sketched_with_fewer(tmp_path):
    import keras

    inputs = keras.Input((2,))
    wide = keras.layers.Dense(70_000, activation="relu", name="wide", kernel_initializer="ones")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, name="last")(wide))
    data = np.random.default_rng(2).random((5, 2), dtype=np.float32)
    settings = {**SKETCHED, "normalize": {"enabled": False}, "report": {"enabled": False}}
    with pytest.raises(InputError, match="channel_bits"):
        run(model, data, output=tmp_path / "16", settings=settings)
    settings["sketch"] = {"per_channel": True, "channel_bits": 15}
    result = run(model, data, output=tmp_path / "15", settings=settings)

    assert result.sketches["wide"].channels.n_channels == 70_000
    assert len(open_run(tmp_path / "15").factors().by_point()["wide"]) == 70_000
