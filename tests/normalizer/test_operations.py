"""Bare operations, masks and layers with weights of another kind: the function is kept, or it is said why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer  # Keras exports the networks only

from actisketch.pipeline.graph import read_graph, select_points
from actisketch.pipeline.normalizer import normalize_model
from actisketch.storage.errors import InputError

from .conftest import outputs_of

layers, ops = keras.layers, keras.ops
rng = np.random.default_rng(233)
SAMPLES = rng.normal(0, 2, (8, 3, 4, 5)).astype(np.float32)
WORDS = np.where(rng.random((8, 5)) < 0.4, 0, rng.integers(1, 7, (8, 5))).astype(np.int32)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    keras.utils.set_random_seed(239)


def between(operation: Callable[[Any], Any], *, n_channels: int = 7) -> keras.Model:
    """A layer with parameters, the operation in question, and an output layer."""
    x = keras.Input((3, 4, 5))
    y = operation(layers.Dense(n_channels, name="a")(x))
    return keras.Model(x, layers.Dense(2, name="o")(y))


def factors_of(model: keras.Model, mode: str) -> dict[str, Any]:
    """Distinct primes, one for each channel in channel mode."""
    primes = np.array([2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 17.0, 19.0])
    points = select_points(read_graph(model))
    return {p.name: primes[: p.n_channels] if mode == "channel" else primes[i] for i, p in enumerate(points)}


def check(model: keras.Model, samples: Any, mode: str, certified: Any) -> Any:
    """Assert that the function is kept, by the certificate and by Keras itself."""
    normalized, certificate = certified(model, factors_of(model, mode), samples, mode=mode)

    assert certificate.passed
    np.testing.assert_allclose(
        outputs_of(normalized.model, samples) * normalized.scales["o"],
        outputs_of(model, samples),
        rtol=1e-4,
        atol=1e-4,
    )
    return normalized


FREE = {
    "transpose by negative axes": lambda y: ops.transpose(y, (0, -1, 1, 2)),
    "transpose by axes of both signs": lambda y: layers.Flatten()(ops.transpose(y, (-4, 2, -1, 1))),
    "reshape that merges the samples": lambda y: ops.reshape(y, (-1, 12)),
    "reshape that splits the channels": lambda y: ops.reshape(y, (-1, 12, 8)),
    "reshape by a layer": lambda y: layers.Reshape((-1, 4))(y),
    "cast to another float": lambda y: ops.cast(ops.cast(y, "float64"), "float32"),
    "padding with zeros": layers.Resizing(8, 6, pad_to_aspect_ratio=True),
    "a maximum": lambda y: ops.max(y, axis=(1, 2)),
    "zeros around": lambda y: ops.pad(y, ((0, 0), (1, 2), (0, 1), (0, 0))),
    "zeros around, said": lambda y: ops.pad(y, ((0, 0), (1, 2), (0, 1), (0, 0)), constant_values=0.0),
    "reflected edges": lambda y: ops.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect"),
    "channels of zeros": lambda y: ops.pad(y, ((0, 0), (0, 0), (0, 0), (0, 3))),
    "the centre": layers.CenterCrop(2, 2),
    "a centre that is larger": layers.CenterCrop(8, 9),
    "another size": lambda y: ops.image.resize(y, (5, 7), interpolation="bicubic"),
    "depth to space": lambda y: ops.depth_to_space(y, 2),
    "space to depth": lambda y: ops.space_to_depth(ops.pad(y, ((0, 0), (0, 1), (0, 0), (0, 0))), 2),
    "a part": lambda y: y[:, 1:, ::2],
    "a part of the channels": lambda y: y[..., 2:6],
    "the last": lambda y: y[:, -1],
    "halves": lambda y: layers.Add()(ops.split(y, 2, axis=-1)),
    "a triangle": lambda y: ops.tril(y),
    "a median": lambda y: ops.median(y, axis=1),
    "a scaled sum": lambda y: CustomScaleLayer(0.17)([y, layers.ReLU()(y)]),
}
PINNED = {
    "cast to int": lambda y: ops.cast(ops.cast(y, "int32"), "float32"),
    "cast to bool": lambda y: ops.cast(ops.cast(layers.ReLU()(y), "bool"), "float32"),
    "ones around": lambda y: ops.pad(y, ((0, 0), (1, 1), (0, 0), (0, 0)), constant_values=1.0),
    "another size beside ones": lambda y: ops.image.resize(
        y, (8, 6), pad_to_aspect_ratio=True, fill_value=1.0
    ),
    "padding with a value": layers.Resizing(8, 6, pad_to_aspect_ratio=True, fill_value=1.0),
    "maximum with a start": lambda y: ops.max(y, axis=(1, 2), initial=1.0),
    "minimum with a start": lambda y: ops.min(y, axis=(1, 2), initial=-1.0),
    "a comparison": lambda y: y * ops.cast(ops.greater(y, 0.5), "float32"),
}


@pytest.mark.parametrize("mode", ["layer", "channel"])
@pytest.mark.parametrize("case", FREE)
def test_what_moves_or_keeps_elements_passes_their_scales_on(case: str, mode: str, certified: Any) -> None:
    normalized = check(between(FREE[case], n_channels=8), SAMPLES, mode, certified)

    assert not normalized.pinned
    assert np.max(normalized.scales["a"]) > 1.0


@pytest.mark.parametrize("mode", ["layer", "channel"])
@pytest.mark.parametrize("case", PINNED)
def test_what_depends_on_the_size_of_its_input_keeps_scale_one(case: str, mode: str, certified: Any) -> None:
    normalized = check(between(PINNED[case]), SAMPLES, mode, certified)

    assert normalized.pinned
    assert normalized.scales["a"] == 1.0


CONSTANT = np.full((4, 3, 4, 7), 2.0, np.float32)
JOINED = {
    "concatenate": lambda y: ops.concatenate([y, CONSTANT], axis=-1),
    "Concatenate": lambda y: layers.Concatenate()([y, ops.convert_to_tensor(CONSTANT)]),
    "stack": lambda y: ops.stack([y, CONSTANT], axis=2),
}


@pytest.mark.parametrize("size", [0.0, 1.0])
@pytest.mark.parametrize("case", JOINED)
def test_a_constant_that_is_joined_is_not_divided(case: str, size: float, monkeypatch: Any) -> None:
    monkeypatch.setitem(globals(), "CONSTANT", size * CONSTANT)
    x = keras.Input(batch_shape=(4, 3, 4, 5))
    model = keras.Model(x, layers.Dense(2, name="o")(JOINED[case](layers.Dense(7, name="a")(x))))

    normalized = normalize_model(model, {"a": 3.0, "o": 5.0})

    assert normalized.scales["a"] == (1.0 if size else 3.0)
    found = outputs_of(normalized.model, SAMPLES[:4]) * 5.0
    np.testing.assert_allclose(found, outputs_of(model, SAMPLES[:4]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer", [layers.Cropping1D(1), layers.UpSampling1D(2), layers.ZeroPadding1D(1)])
@pytest.mark.parametrize("mode", ["layer", "channel"])
def test_positions_that_were_joined_can_be_cropped(layer: Any, mode: str, certified: Any) -> None:
    x = keras.Input((3, 5))
    y = layers.Concatenate(axis=1)([layers.Dense(4, "relu", name=name)(x) for name in "ab"])
    model = keras.Model(x, layers.Dense(2, name="o")(layers.Flatten()(layer(y))))

    check(model, SAMPLES[:, :, 0], mode, certified)


def test_a_nested_model_that_takes_whole_numbers_keeps_scale_one(certified: Any) -> None:
    h = keras.Input((3, 4, 7), dtype="int32")
    inner = keras.Model(h, ops.cast(h, "float32"), name="whole")
    normalized = check(between(inner), SAMPLES, "layer", certified)

    assert normalized.scales["a"] == 1.0
    assert [each.reason for each in normalized.pinned] == ["rounds to int32"]


# Masks


def recurrent(x: Any) -> Any:
    return layers.LSTM(3, name="r")(x)


def pooled(x: Any) -> Any:
    return layers.GlobalAveragePooling1D()(layers.Dense(3, activation="relu", name="d")(x))


def joined(x: Any) -> Any:
    both = layers.Concatenate(axis=1)([x, layers.Dense(4, name="d")(x)])
    return layers.GRU(3, name="r")(layers.Add()([both, layers.Concatenate(axis=1)([x, x])]))


@pytest.mark.parametrize("mode", ["layer", "channel"])
@pytest.mark.parametrize("rest", [recurrent, pooled, joined])
def test_a_network_with_a_mask_is_normalised(rest: Any, mode: str, certified: Any) -> None:
    x = keras.Input((5,), dtype="int32")
    y = rest(layers.Embedding(7, 4, mask_zero=True, name="e")(x))
    normalized = check(keras.Model(x, layers.Dense(2, name="o")(y)), WORDS, mode, certified)

    # A mask alone pins no weights.
    assert rest is not pooled or np.max(normalized.scales["e"]) > 1.0


def test_a_network_with_a_masking_layer_is_normalised(certified: Any) -> None:
    x = keras.Input((5, 3))
    y = layers.GRU(3, name="r")(layers.Masking()(layers.Dense(4, use_bias=False, name="a")(x)))
    samples = rng.normal(size=(8, 5, 3)).astype(np.float32)
    samples[:, 3:] = 0.0
    check(keras.Model(x, layers.Dense(2, name="o")(y)), samples, "layer", certified)


def test_a_normalisation_that_takes_a_mask_in_one_of_its_calls_keeps_its_weights(
    certified: Any, randomize: Any
) -> None:
    x, norm = keras.Input((5, 3)), layers.BatchNormalization(name="bn")
    plain = norm(layers.Dense(4, "relu", name="a")(x))
    masked = norm(layers.Dense(4, "relu", name="b")(layers.Masking()(x)))
    model = keras.Model(x, layers.Dense(2, name="o")(layers.Concatenate()([plain, masked])))
    randomize(model)

    check(model, rng.normal(size=(8, 5, 3)).astype(np.float32), "layer", certified)


# Weights of another kind


def lora(layer: Any) -> None:
    layer.enable_lora(2)
    for variable in layer.weights:  # one of the two starts at 0, where it would not matter
        if "lora" in variable.path:
            variable.assign(rng.normal(size=variable.shape))


def int8(layer: Any) -> None:
    layer.quantize("int8")


def dense_network() -> tuple[keras.Model, Any]:
    x, layer = keras.Input((3, 4, 5)), layers.Dense(4, name="a")
    y = layers.BatchNormalization(name="bn")(layer(x))
    return keras.Model(x, layers.Dense(2, name="o")(y)), SAMPLES


def embedding_network() -> tuple[keras.Model, Any]:
    x, layer = keras.Input((5,), dtype="int32"), layers.Embedding(7, 4, name="a")
    return keras.Model(x, layers.Dense(2, name="o")(layers.Flatten()(layer(x)))), WORDS


@pytest.mark.parametrize("change", [lora, int8])
@pytest.mark.parametrize("network", [dense_network, embedding_network])
def test_quantised_layers_and_lora_are_refused_or_pinned(network: Any, change: Any, certified: Any) -> None:
    model, samples = network()
    change(model.get_layer("a"))
    with pytest.raises(InputError, match=r"'a' is quantised or has LoRA weights.*normalize\.pin = \['a'\]"):
        normalize_model(model, factors_of(model, "layer"))
    normalized, certificate = certified(model, factors_of(model, "layer"), samples, pin=["a"])

    assert certificate.passed
    np.testing.assert_allclose(
        outputs_of(normalized.model, samples) * normalized.scales["o"],
        outputs_of(model, samples),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("called", [False, True])
def test_an_activation_function_with_weights_is_refused_with_advice(called: bool) -> None:
    model = between(layers.Dense(3, activation=layers.PReLU(), name="p"))
    if called:  # only then the activation has its weights
        model(SAMPLES)
    with pytest.raises(InputError, match=r"'p' is a layer with weights \(PReLU\): put it behind 'p'"):
        normalize_model(model, factors_of(model, "layer"))


@pytest.mark.parametrize("mode", ["layer", "channel"])
def test_a_dense_layer_that_is_treated_as_identity_passes_the_scale_and_divides_its_bias(
    mode: Any, certified: Any
) -> None:
    model = between(layers.Dense(4, bias_initializer="ones", name="d"))
    normalized, certificate = certified(
        model, factors_of(model, mode), SAMPLES, mode=mode, treat_as_identity=["d"]
    )

    assert certificate.passed
    np.testing.assert_allclose(
        normalized.model.get_layer("d").get_weights()[1], 1.0 / np.max(normalized.scales["d"])
    )
    np.testing.assert_array_equal(
        normalized.model.get_layer("d").get_weights()[0], model.get_layer("d").get_weights()[0]
    )
