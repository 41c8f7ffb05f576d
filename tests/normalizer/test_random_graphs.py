"""Laws over random networks: layers of the table composed at random, with branches, random weights and factors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from actisketch.pipeline.certifier import certify
from actisketch.pipeline.graph import forward_function, read_graph, select_points
from actisketch.pipeline.normalizer import Factor, normalize_model
from actisketch.pipeline.sources import as_source

layers = keras.layers
SIZE, N_SAMPLES = 8, 4
ACTIVATIONS = [None, "relu", "relu", "leaky_relu", "relu6", "sigmoid"]

UNARY = {
    "conv": lambda n, act: layers.Conv2D(n, 3, padding="same", activation=act),
    "grouped": lambda n, act: layers.Conv2D(2 * n, 1, groups=2, activation=act),
    "depthwise": lambda n, act: layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, activation=act),
    "separable": lambda n, act: layers.SeparableConv2D(n, 3, padding="same", activation=act),
    "transposed": lambda n, act: layers.Conv2DTranspose(n, 3, padding="same", activation=act, use_bias=False),
    "dense": lambda n, act: layers.Dense(n, activation=act),
    "norm": lambda n, act: layers.BatchNormalization(center=n % 2 == 0, scale=n > 2),
    "relu": lambda n, act: layers.ReLU(max_value=1.5 if act == "relu6" else None),
    "leaky": lambda n, act: layers.LeakyReLU(0.2),
    "prelu": lambda n, act: layers.PReLU(shared_axes=(1, 2)),
    "pool": lambda n, act: layers.MaxPooling2D(3, strides=1, padding="same"),
    "average": lambda n, act: layers.AveragePooling2D(3, strides=1, padding="same"),
    "pad": lambda n, act: layers.ZeroPadding2D(1),
    "crop": lambda n, act: layers.Cropping2D(((1, 0), (0, 1))),
    "dropout": lambda n, act: layers.Dropout(0.5),
    "softplus": lambda n, act: layers.Activation("softplus"),
}
MERGES = {
    "add": layers.Add,
    "subtract": layers.Subtract,
    "mean": layers.Average,
    "maximum": layers.Maximum,
    "multiply": layers.Multiply,
    "join": layers.Concatenate,
    "stack": lambda: layers.Concatenate(axis=1),
}
STEP = st.tuples(
    st.sampled_from([*UNARY, *MERGES]), st.integers(1, 4), st.sampled_from(ACTIVATIONS), st.integers(0, 99)
)


@dataclass(frozen=True)
class Recipe:
    """What a random network is made of: 3 to 9 steps, each on any tensor so far, then one or two outputs."""

    seed: int
    steps: list[tuple[str, int, str | None, int]]
    flatten: bool
    activation: str | None
    two_outputs: bool


RECIPES = st.builds(
    Recipe,
    seed=st.integers(0, 999),
    steps=st.lists(STEP, min_size=3, max_size=9),
    flatten=st.booleans(),
    activation=st.sampled_from([None, "softmax"]),
    two_outputs=st.booleans(),
)


def build(recipe: Recipe) -> keras.Model:
    keras.utils.set_random_seed(recipe.seed)
    x = keras.Input((SIZE, SIZE, 2))
    tensors = [layers.Conv2D(4, 3, padding="same", activation="relu")(x)]
    for kind, n, activation, place in recipe.steps:
        tensor = tensors[-1 - place % min(3, len(tensors))]
        if kind in UNARY:
            tensors.append(_extended(tensor, kind, n, activation))
        else:
            tensors.append(_merged(kind, tensor, tensors[place % len(tensors)]))
    last = layers.Flatten()(tensors[-1]) if recipe.flatten else layers.GlobalAveragePooling2D()(tensors[-1])
    outputs = [layers.Dense(3, activation=recipe.activation, name="classes")(last)]
    if recipe.two_outputs:
        outputs.append(tensors[len(tensors) // 2])
    model = keras.Model(x, outputs)
    _randomize(model, recipe.seed)
    return model


def _extended(tensor: Any, kind: str, n: int, activation: str | None) -> Any:
    if (kind == "grouped" and tensor.shape[-1] % 2) or (kind == "crop" and min(tensor.shape[1:3]) < 4):
        return tensor
    return UNARY[kind](n, activation)(tensor)


def _merged(kind: str, one: Any, other: Any) -> Any:
    """Join two tensors, bringing the second to the shape of the first where that is needed."""
    if one.shape[1:3] != other.shape[1:3]:
        other = one
    if kind != "join" and one.shape[-1] != other.shape[-1]:
        other = layers.Conv2D(one.shape[-1], 1)(other)
    return MERGES[kind]()([one, other])


def _randomize(model: keras.Model, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        for variable in layer.weights:
            kind = variable.path.rsplit("/", 1)[-1]
            if kind in {"bias", "beta", "moving_mean", "alpha"}:
                variable.assign(rng.normal(0, 0.2, tuple(variable.shape)))
            elif kind in {"gamma", "moving_variance"}:
                variable.assign(rng.uniform(0.5, 1.5, tuple(variable.shape)))


def _random_factors(model: keras.Model, mode: str, seed: int) -> dict[str, Factor]:
    rng = np.random.default_rng(seed)
    found: dict[str, Factor] = {}
    for point in select_points(read_graph(model)):
        n = point.n_channels if mode == "channel" else None
        found[point.name] = np.exp(rng.uniform(-2, 2, n)) if n else float(np.exp(rng.uniform(-2, 2)))
    return found


def _samples(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 1, (N_SAMPLES, SIZE, SIZE, 2)).astype(np.float32)


def check_preserved(recipe: Recipe, mode: str, seed: int) -> None:
    model, samples = build(recipe), _samples(seed)
    normalized = normalize_model(model, _random_factors(model, mode, seed), mode=mode)  # type: ignore[arg-type]
    certificate = certify(model, normalized, as_source(samples), batch_size=N_SAMPLES)

    assert certificate.passed, certificate.summary()


@given(RECIPES, st.sampled_from(["layer", "channel"]), st.integers(0, 999))
@settings(max_examples=12, suppress_health_check=list(HealthCheck), derandomize=True)
def test_random_factors_preserve_the_function_of_random_networks(
    recipe: Recipe, mode: str, seed: int
) -> None:
    check_preserved(recipe, mode, seed)


@pytest.mark.slow
@given(RECIPES, st.sampled_from(["layer", "channel"]), st.integers(0, 999))
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
def test_random_factors_preserve_the_function_of_many_random_networks(
    recipe: Recipe, mode: str, seed: int
) -> None:
    check_preserved(recipe, mode, seed)


@given(RECIPES, st.sampled_from(["layer", "channel"]), st.integers(0, 999))
@settings(max_examples=6, suppress_health_check=list(HealthCheck), derandomize=True)
def test_the_inverse_factors_bring_the_weights_back(recipe: Recipe, mode: str, seed: int) -> None:
    model = build(recipe)
    ones: dict[str, Factor] = {point.name: 1.0 for point in select_points(read_graph(model))}
    folded = normalize_model(model, ones, mode=mode)  # type: ignore[arg-type]
    there = normalize_model(model, _random_factors(model, mode, seed), mode=mode)  # type: ignore[arg-type]
    inverse = {
        point.name: 1.0 / there.scales[point.name]
        for point in select_points(there.normalized_graph)
        if point.name in there.scales
    }
    back = normalize_model(there.model, inverse, mode=mode)  # type: ignore[arg-type]

    for layer in folded.model.layers:
        if layer.weights:
            for old, new in zip(layer.weights, back.model.get_layer(layer.name).weights, strict=True):
                np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-7)


@given(st.integers(0, 99))
@settings(max_examples=3, derandomize=True)
def test_normalising_a_network_that_is_normalised_at_its_maxima_gives_factors_of_one(seed: int) -> None:
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            layers.Input((SIZE, SIZE, 2)),
            layers.Conv2D(4, 3, activation="relu", name="a"),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3, name="b"),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(3, activation="softmax", name="c"),
        ]
    )
    samples = _samples(seed)
    graph = read_graph(model)

    def maxima(network: keras.Model) -> dict[str, float]:
        read = read_graph(network)
        tensors, _ = forward_function(read, select_points(read))([samples])
        return {
            p.name: float(np.abs(np.asarray(t)).max())
            for p, t in zip(select_points(read), tensors, strict=True)
        }

    normalized = normalize_model(model, maxima(model))
    again = maxima(normalized.model)

    for point in select_points(graph):
        if not point.pinned:
            assert again[point.name] == pytest.approx(1.0, rel=1e-5)
