"""Which points share a scale, and that the factors of a run are those by which its network is divided."""

import json

import keras
import numpy as np
import pytest

from actisketch.pipeline import run
from actisketch.pipeline.graph import read_graph
from actisketch.pipeline.settings import NormalizeSettings
from actisketch.pipeline.ties import Ties, read_ties

layers = keras.layers
DATA = np.random.default_rng(31).random((40, 6, 6, 2), dtype=np.float32)


def joined_network(axis=-1):
    """Two convolutions of very different size that are concatenated, and a layer behind them."""
    keras.utils.set_random_seed(31)
    inputs = keras.Input((6, 6, 2))
    a = layers.Conv2D(3, 1, activation="relu", name="a")(inputs)
    b = layers.Conv2D(3, 1, activation="relu", name="b")(inputs)
    both = layers.Concatenate(axis=axis, name="both")([a, b])
    last = layers.Dense(4, name="last")(layers.Flatten()(both))
    model = keras.Model(inputs, last)
    model.get_layer("b").kernel.assign(model.get_layer("b").kernel * 70)
    return model


def activations(model, name):
    return keras.Model(model.inputs, model.get_layer(name).output).predict(DATA, verbose=0)


def recorded(model, folder, **settings):
    return run(
        model, DATA, output=str(folder), percentile=100.0, settings={"report": {"enabled": False}}, **settings
    )


@pytest.mark.parametrize("per_channel", [False, True])
def test_recording_a_concatenate_leaves_the_factors_of_its_branches(tmp_path, per_channel):
    model = joined_network()
    found = recorded(model, tmp_path / "r", points=["parameters", "merges"], per_channel=per_channel)
    factors = found.saved_factors().by_point()
    normalised = keras.saving.load_model(found.folder.network_path)
    axes = (0, 1, 2) if per_channel else None

    for name in ("a", "b"):
        peaks = activations(model, name).max(axis=axes)
        live = peaks > 0
        assert np.asarray(factors[name])[live] == pytest.approx(peaks[live], rel=1e-6)
    for name in ("a", "b", "both"):
        divided = activations(normalised, name) * factors[name]
        assert np.allclose(divided, activations(model, name), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("per_channel", [False, True])
def test_factors_and_certificate_agree_at_a_concatenate_along_another_axis(tmp_path, per_channel):
    model = joined_network(axis=1)
    found = recorded(model, tmp_path / "r", points=["parameters", "merges"], per_channel=per_channel)
    used = {p["name"]: p["factor"] for p in found.certificate()["points"]}
    factors = found.saved_factors().by_point()

    assert found.certificate()["passed"]
    assert {name: float(np.max(factor)) for name, factor in factors.items()} == pytest.approx(used)
    for name in ("a", "b"):
        peaks = activations(model, name).max(axis=(0, 1, 2) if per_channel else None)
        assert np.asarray(factors[name])[peaks > 0] == pytest.approx(peaks[peaks > 0], rel=1e-6)


def test_ties_come_back_from_a_manifest_as_they_were():
    graph = read_graph(joined_network())
    points = graph.points(["parameters", "merges"])
    ties = read_ties(graph, points, NormalizeSettings(), per_channel=True)

    assert Ties.from_dict(json.loads(json.dumps(ties.to_dict()))) == ties
    assert set(ties.joined) == set(ties.joined_channel) == {"both"}
