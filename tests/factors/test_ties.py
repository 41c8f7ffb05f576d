"""Which points share a scale, and that the factors of a run are those by which its network is divided."""

import json

import keras
import numpy as np
import pytest

from actisketch.pipeline import run
from actisketch.pipeline.factors.reading_ties import read_ties
from actisketch.pipeline.factors.ties import Ties
from actisketch.pipeline.graph import read_graph, select_points
from actisketch.pipeline.settings.job_settings import NormalizeSettings

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
    return np.asarray(keras.Model(model.inputs, model.get_layer(name).output)([DATA], training=False))


def recorded(model, folder, **settings):
    return run(
        model, DATA, output=str(folder), percentile=100.0, settings={"report": {"enabled": False}}, **settings
    )


@pytest.mark.parametrize("per_channel", [False, True])
def test_recording_a_concatenate_leaves_the_factors_of_its_branches(tmp_path, per_channel):
    model = joined_network()
    found = recorded(model, tmp_path / "r", points=["parameters", "merges"], per_channel=per_channel)
    factors = found.factors().by_point()
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
    factors = found.factors().by_point()

    assert found.certificate()["passed"]
    assert {name: float(np.max(factor)) for name, factor in factors.items()} == pytest.approx(used)
    for name in ("a", "b"):
        peaks = activations(model, name).max(axis=(0, 1, 2) if per_channel else None)
        assert np.asarray(factors[name])[peaks > 0] == pytest.approx(peaks[peaks > 0], rel=1e-6)


def test_ties_come_back_from_a_manifest_as_they_were():
    graph = read_graph(joined_network())
    points = select_points(graph, ["parameters", "merges"])
    ties = read_ties(graph, points, NormalizeSettings(), per_channel=True)

    assert Ties.from_dict(json.loads(json.dumps(ties.to_dict()))) == ties
    assert set(ties.joined) == set(ties.joined_channel) == {"both"}


def entangled_network():
    """An Add with dead channels on one side, bounded and joined branches, a BatchNormalization that is not folded."""
    keras.utils.set_random_seed(32)
    inputs = keras.Input((6, 6, 2))
    a = layers.Conv2D(4, 1, activation="relu", name="a")(inputs)
    b = layers.Conv2D(4, 1, activation="relu", name="b")(inputs)
    c = layers.Conv2D(3, 1, activation="relu6", name="c")(inputs)
    both = layers.Concatenate(name="both")([layers.Add(name="sum")([a, b]), c])
    normed = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(both))
    pooled = layers.Concatenate(name="pooled")([layers.MaxPooling2D(name="pool")(normed), normed[:, :3, :3]])
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="out")(layers.Flatten()(pooled)))
    model.get_layer("a").bias.assign([0.5, -99.0, 0.5, -99.0])
    model.get_layer("a").kernel.assign(model.get_layer("a").kernel * 60)
    model.get_layer("b").bias.assign([0.1, 0.1, 0.1, -99.0])
    return model


@pytest.mark.parametrize("per_channel", [False, True])
def test_the_factors_of_a_run_are_those_by_which_its_network_is_divided(tmp_path, per_channel):
    model = entangled_network()
    found = recorded(model, tmp_path / "r", points="all", per_channel=per_channel)
    used = {p["name"]: p["factor"] for p in found.certificate()["points"]}
    factors = found.factors().by_point()
    normalised = keras.saving.load_model(found.folder.network_path)

    assert {name: float(np.max(factor)) for name, factor in factors.items()} == pytest.approx(used)
    for name in ("a", "b", "sum", "both", "out"):
        before = activations(model, name)
        divided = activations(normalised, name) * factors[name]
        assert np.allclose(divided, before, rtol=1e-5, atol=1e-5 * before.max()), name
    if per_channel:
        peaks = activations(model, "sum").max(axis=(0, 1, 2))
        # a is dead in channel 1: the factor there is that of b and the sum, which are the same.
        assert factors["a"][1] == factors["b"][1] == pytest.approx(peaks[1], rel=2**-6)
