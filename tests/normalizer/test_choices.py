"""What the caller chooses: input factors, dead channels, merges, weights in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from actisketch.pipeline.graph import read_graph, select_points
from actisketch.pipeline.normalizer import normalize_in_place, normalize_model

layers = keras.layers


def test_inputs_divided_by_their_factor_give_the_same_network(small_model: Any, small_data: Any) -> None:
    factors = np.arange(1.0, 7.0)
    normalized = normalize_model(
        small_model, {"first": 2.0, "second": 3.0}, mode="channel", input_factor=factors
    )
    after = normalized.model((small_data / factors).astype(np.float32))

    np.testing.assert_allclose(after, small_model(small_data), atol=1e-6)


def test_a_rescaling_with_an_offset_takes_the_scale_of_the_input_in(
    peaks: Callable[..., Any], certified: Callable[..., Any]
) -> None:
    model = keras.Sequential(
        [
            layers.Input((6,)),
            layers.Rescaling(1 / 127.5, offset=-1.0),
            layers.Dense(3, activation="relu", name="d"),
        ]
    )
    pixels = np.random.default_rng(109).integers(0, 256, (8, 6)).astype(np.float32)
    normalized, certificate = certified(model, peaks(model, pixels), pixels, input_factor=255.0)

    assert certificate.passed
    np.testing.assert_allclose(
        normalized.model(pixels / 255.0) * normalized.scales["d"], model(pixels), atol=1e-5
    )


def test_dead_points_claim_nothing_and_a_dead_group_keeps_one() -> None:
    x = keras.Input((4,))
    a, b = layers.Dense(3, name="a")(x), layers.Dense(3, name="b")(x)
    model = keras.Model(x, layers.Dense(2, name="out")(layers.Add()([a, b])))
    factors = {"a": 5.0, "b": 2.0, "out": 3.0}

    assert normalize_model(model, factors, dead={"a": True}).scales["a"] == 2.0
    assert normalize_model(model, factors, dead={"a": True, "b": True}).scales["a"] == 1.0
    channels: dict[str, Any] = {"a": np.array([5.0, 6.0, 7.0]), "b": np.full(3, 2.0), "out": 3.0}
    found = normalize_model(model, channels, mode="channel", dead={"a": [False, True, False]}).scales["a"]
    np.testing.assert_array_equal(found, [5.0, 2.0, 7.0])


def test_a_recorded_merge_takes_part_in_its_group() -> None:
    x = keras.Input((4,))
    a, b = layers.Dense(3, name="a")(x), layers.Dense(3, name="b")(x)
    model = keras.Model(x, layers.Dense(2, name="out")(layers.ReLU()(layers.Add(name="sum")([a, b]))))
    normalized = normalize_model(model, {"a": 5.0, "b": 2.0, "sum": 6.5, "out": 3.0})

    assert normalized.scales["a"] == normalized.scales["b"] == normalized.scales["sum"] == 6.5
    assert normalized.groups == (("a", "b", "sum"),)


def test_names_and_structure_of_inputs_and_outputs_are_kept() -> None:
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    inner = keras.Sequential(
        [layers.Input((3,)), layers.Dense(4, activation="relu", name="code")], name="encoder"
    )
    code = layers.Concatenate(name="both")([inner(left), inner(right)])
    outputs = {"class": layers.Dense(2, name="class")(code), "size": layers.Dense(1, name="size")(code)}
    model = keras.Model({"left": left, "right": right}, outputs, name="pair")
    factors = {point.name: 2.0 for point in select_points(read_graph(model))}
    normalized = normalize_model(model, factors).model
    data = {name: np.ones((2, 3), np.float32) for name in ("left", "right")}

    assert normalized.name == "pair"
    assert {"code", "both", "class", "size"} <= {layer.name for layer in normalized.layers}
    found, expected = normalized(data), model(data)
    for name in ("class", "size"):
        np.testing.assert_allclose(np.asarray(found[name]) * 2.0, expected[name], rtol=1e-5, atol=1e-6)


def test_layers_of_one_name_in_two_nested_models_get_their_paths_as_names() -> None:
    x = keras.Input((3,))
    parts = [
        keras.Sequential([layers.Input((3,)), layers.Dense(3, name="code")], name=name)(x)
        for name in ("p", "q")
    ]
    model = keras.Model(x, layers.Add()(parts))
    normalized = normalize_model(model, {"p/code": 2.0, "q/code": 2.0}).model

    assert {"p_code", "q_code"} <= {layer.name for layer in normalized.layers}


# In place


def network() -> keras.Model:
    keras.utils.set_random_seed(113)
    return keras.Sequential(
        [
            layers.Input((6, 6, 2)),
            layers.Conv2D(3, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(scale=False, name="bn"),
            layers.ReLU(),
            layers.Conv2D(3, 2, activation="relu6", name="bounded"),
            layers.Flatten(),
            layers.Dense(2, name="out"),
        ]
    )


@pytest.mark.parametrize("mode", ["layer", "channel"])
def test_weights_in_place_keep_the_function_and_the_layers(mode: Any, randomize: Callable[..., None]) -> None:
    model = network()
    randomize(model)
    data = np.random.default_rng(127).random((5, 6, 6, 2), dtype=np.float32)
    before, names = np.asarray(model(data)), [layer.name for layer in model.layers]
    factors: dict[str, Any] = {"conv": 3.0, "bounded": 2.0, "out": 5.0}
    if mode == "channel":
        factors["conv"] = np.array([1.5, 3.0, 0.2])
    scales = normalize_in_place(model, factors, mode=mode)

    np.testing.assert_allclose(np.asarray(model(data)) * scales["out"], before, rtol=1e-5, atol=1e-5)
    assert [layer.name for layer in model.layers] == names
    # One bound is a setting, not a weight: the layer keeps its scale.
    assert scales["bounded"] == 1.0


def test_if_one_weight_cannot_be_written_all_are_put_back(
    randomize: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network()
    randomize(model)
    before = model.get_weights()
    refused = model.get_layer("out").bias
    original = type(refused).assign

    def assign(variable: Any, value: Any) -> Any:
        if variable is refused and not np.array_equal(value, before[-1]):
            raise RuntimeError("no")
        return original(variable, value)

    monkeypatch.setattr(type(refused), "assign", assign)
    with pytest.raises(RuntimeError, match="no"):
        normalize_in_place(model, {"conv": 3.0, "bounded": 2.0, "out": 5.0})

    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
