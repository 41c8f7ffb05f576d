"""What a certificate says is so: open sizes, channels of all sizes, half precision, networks in which nothing changes.

The oracles are Keras' own outputs, counted with numpy, and weights that are made wrong on purpose.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from actisketch.pipeline import run
from actisketch.pipeline.certifier import Certificate, certify
from actisketch.pipeline.graph import forward_function, read_graph, select_points
from actisketch.pipeline.normalizer import normalize_model
from actisketch.pipeline.sources import as_source

layers = keras.layers


@pytest.fixture(autouse=True)
def _seeded() -> None:
    keras.utils.set_random_seed(307)


def rng() -> np.random.Generator:
    return np.random.default_rng(311)


# Open sizes

OPEN: dict[str, tuple[tuple[int | None, ...], tuple[int, ...], Callable[[Any], Any]]] = {
    "images": (
        (None, None, 3),
        (12, 10, 3),
        lambda x: layers.Conv2D(4, 3, activation="relu", name="a")(x),
    ),
    "one open side": (
        (None, 7, 2),
        (9, 7, 2),
        lambda x: layers.Conv2D(3, 2, strides=2, activation="relu", name="a")(layers.UpSampling2D()(x)),
    ),
    "time": (
        (None, 4),
        (13, 4),
        lambda x: layers.Conv1D(5, 3, padding="same", activation="relu", name="a")(x),
    ),
    "two open axes before Dense": (
        (None, None, 2),
        (3, 5, 2),
        lambda x: layers.Dense(6, "relu", name="a")(x),
    ),
}


@pytest.mark.parametrize("case", OPEN)
def test_every_value_of_open_sizes_is_counted(case: str) -> None:
    open_shape, shape, build = OPEN[case]
    x = keras.Input(open_shape)
    model = keras.Model(x, layers.Dense(2, name="out")(build(x)))
    samples = rng().random((11, *shape), dtype=np.float32)
    tensor = model.get_layer("a").output
    found = np.asarray(keras.Model(model.input, tensor)(samples))
    factor = float(np.percentile(found[found > 0], 80))

    normalized = normalize_model(model, {"a": factor, "out": 1.0})
    certificate = certify(model, normalized, as_source(samples), batch_size=4)
    (point,) = [each for each in certificate.points if each.name == "a"]

    assert certificate.passed
    assert point.n_values == found.size
    assert point.saturation == pytest.approx(np.mean(found > factor * (1 + 1e-5)), abs=1.5 / found.size)
    assert 0 < point.saturation < 1


RECURRENT: dict[str, tuple[tuple[int | None, ...], tuple[int, ...], Callable[[Any], Any]]] = {
    "TimeDistributed(LSTM)": (
        (None, None, 4),
        (3, 5, 4),
        lambda x: layers.LSTM(3)(layers.TimeDistributed(layers.LSTM(3))(x)),
    ),
    "TimeDistributed(Dense)": (
        (None, None, 4),
        (3, 5, 4),
        lambda x: layers.GlobalAveragePooling2D()(layers.TimeDistributed(layers.Dense(3))(x)),
    ),
    "LSTM": ((None, 4), (6, 4), lambda x: layers.LSTM(5)(x)),
    "Conv1D and Bidirectional(GRU)": (
        (None, 4),
        (9, 4),
        lambda x: layers.Bidirectional(layers.GRU(3))(layers.Conv1D(4, 3, activation="relu")(x)),
    ),
}


@pytest.mark.parametrize("case", RECURRENT)
def test_a_network_with_open_time_axes_is_certified_as_it_was_recorded(case: str, tmp_path: Any) -> None:
    open_shape, shape, build = RECURRENT[case]
    x = keras.Input(open_shape)
    hidden = layers.Dense(6, activation="relu", name="behind")(build(x))
    model = keras.Model(x, layers.Dense(2, name="out")(hidden))
    samples = rng().random((20, *shape), dtype=np.float32)

    result = run(model, samples, output=tmp_path / "r", batch_size=8, settings={"report": {"enabled": False}})
    after = keras.saving.load_model(result.folder.network_path)
    scale = result.factors().by_point()["out"]

    assert result.certificate()["passed"]
    np.testing.assert_allclose(after.predict(samples, verbose=0) * scale, model(samples), atol=1e-5)


# Small channels


def with_a_small_channel(kind: str, size: float) -> tuple[keras.Model, NDArray[np.float32]]:
    """A network whose layer "a" has a channel 1 that is ``size`` as large as the others."""
    x = keras.Input((6, 6, 2))
    if kind == "dense":
        y = layers.Dense(4, activation="relu", name="a")(layers.Flatten()(x))
    else:
        layer = layers.Conv2D if kind == "conv" else layers.SeparableConv2D
        y = layers.Flatten()(layer(4, 3, activation="relu", name="a")(x))
    model = keras.Model(x, layers.Dense(2, name="out")(y))
    kernel = kernel_of(model.get_layer("a"))
    kernel.assign(np.abs(np.asarray(kernel)) * np.array([1.0, size, 1.0, 1.0], np.float32))
    return model, rng().random((12, 6, 6, 2), dtype=np.float32)


def kernel_of(layer: Any) -> Any:
    return layer.pointwise_kernel if hasattr(layer, "pointwise_kernel") else layer.kernel


@pytest.mark.parametrize(
    ("kind", "size"), [("dense", 3.5e-6), ("dense", 1e-3), ("conv", 1e-5), ("separable", 1e-7), ("conv", 1.0)]
)
def test_a_wrong_channel_fails_however_small_it_is(kind: str, size: float) -> None:
    model, samples = with_a_small_channel(kind, size)
    factors = {name: np.maximum(each, 1e-12) for name, each in _exact_peaks(model, samples).items()}
    normalized = normalize_model(model, factors, mode="channel")
    right = certify(model, normalized, as_source(samples), batch_size=5)
    kernel = kernel_of(normalized.model.get_layer("a"))
    kernel.assign(np.asarray(kernel) * np.array([1.0, 1.001, 1.0, 1.0], np.float32))
    wrong = certify(model, normalized, as_source(samples), batch_size=5)

    assert right.passed, right.summary()
    assert not wrong.points[0].passed
    # The channel is wrong by 0.1 % of its own peak.
    assert wrong.points[0].max_residual == pytest.approx(1e-3, rel=0.01)


def _exact_peaks(model: keras.Model, samples: NDArray[np.float32]) -> dict[str, Any]:
    graph = read_graph(model)
    points = select_points(graph)
    tensors, _ = forward_function(graph, points)([samples])
    return {
        point.name: np.abs(np.asarray(tensor, np.float64)).reshape(-1, tensor.shape[-1]).max(axis=0)
        for point, tensor in zip(points, tensors, strict=True)
    }


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "bfloat16"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_channels_that_are_nearly_always_zero_are_not_failed_for_their_rounding(
    policy: str, seed: int, randomize: Any
) -> None:
    keras.utils.set_random_seed(seed)
    x = y = keras.Input((24,))
    for index in range(8):
        y = layers.Dense(32, activation="relu", name=f"h{index}", dtype=policy)(y)
    model = keras.Model(x, layers.Dense(5, activation="softmax", name="out", dtype="float32")(y))
    randomize(model, seed)
    samples = rng().random((24, 24), dtype=np.float32)
    factors = {
        name: np.where(each > 1e-4 * each.max(), each, 1.0)
        for name, each in _exact_peaks(model, samples).items()
    }
    certificate = certify(
        model, normalize_model(model, factors, mode="channel"), as_source(samples), batch_size=8
    )

    assert certificate.passed, certificate.summary()


# Half precision


def half(policy: str, kind: str) -> tuple[keras.Model, NDArray[np.float32]]:
    shape = (8, 8, 3) if kind == "conv" else (24,)
    x = keras.Input(shape)
    y = x
    for index in range(3):
        name = f"h{index}"
        if kind == "conv":
            y = layers.Conv2D(8, 3, padding="same", activation="relu", name=name, dtype=policy)(y)
            y = layers.BatchNormalization(name=f"n{index}", dtype=policy)(y) if index == 1 else y
        else:
            y = layers.Dense(32, activation="relu", name=name, dtype=policy)(y)
    y = layers.Flatten()(y)
    model = keras.Model(x, layers.Dense(5, activation="softmax", name="out", dtype="float32")(y))
    return model, rng().random((24, *shape), dtype=np.float32)


HALF = [
    ("mixed_bfloat16", 1.02),
    ("mixed_float16", 1.003),
    ("bfloat16", 1.02),
    ("float16", 1.003),
]


@pytest.mark.parametrize("kind", ["dense", "conv"])
@pytest.mark.parametrize(("policy", "wrong_by"), HALF)
def test_a_kernel_that_is_wrong_as_a_whole_fails_in_half_precision(
    policy: str, wrong_by: float, kind: str, randomize: Any, peaks: Any
) -> None:
    model, samples = half(policy, kind)
    randomize(model)
    normalized = normalize_model(model, peaks(model, samples))
    right = certify(model, normalized, as_source(samples), batch_size=8)
    assert right.passed, right.summary()
    assert all(point.float64_residual is not None for point in right.points if point.name.startswith("h"))

    for name in ("h0", "h2"):
        kernel = normalized.model.get_layer(name).kernel
        kept = np.asarray(keras.ops.convert_to_numpy(kernel), np.float32)
        kernel.assign(kept * np.float32(wrong_by))
        wrong = certify(model, normalized, as_source(samples), batch_size=8)
        kernel.assign(kept)

        assert not wrong.passed, (name, wrong.summary())
        assert "in float64" in wrong.summary()
        assert Certificate.from_dict(json.loads(json.dumps(wrong.to_dict()))) == wrong


def test_half_precision_that_underflows_fails_though_its_float64_twin_is_right() -> None:
    model = keras.Sequential(
        [
            layers.Input((8,)),
            layers.Dense(6, "relu", name="a", dtype="mixed_float16"),
            layers.Dense(2, name="b"),
        ]
    )
    samples = rng().random((16, 8), dtype=np.float32)
    normalized = normalize_model(model, {"a": 3e7, "b": 1.0})

    assert not certify(model, normalized, as_source(samples), batch_size=8).passed


def test_a_certificate_in_float32_has_no_word_of_half_precision(peaks: Any, certified: Any) -> None:
    model, samples = half("float32", "dense")
    _, certificate = certified(model, peaks(model, samples), samples)

    assert certificate.passed
    assert "float64" not in json.dumps(certificate.to_dict())


def test_the_network_is_as_it_was_when_it_has_been_measured_in_float64(peaks: Any, certified: Any) -> None:
    model, samples = half("mixed_bfloat16", "conv")
    policies = [layer.dtype_policy for layer in model.layers]
    before = np.asarray(model(samples))
    certified(model, peaks(model, samples), samples)

    assert [layer.dtype_policy for layer in model.layers] == policies
    np.testing.assert_array_equal(model(samples), before)


# Nothing normalised


def encoder(x: Any) -> Any:
    y = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    return layers.LayerNormalization(name="norm")(layers.Add()([x, y]))


VACUOUS: dict[str, tuple[tuple[int, ...], Callable[[Any], Any]]] = {
    "attention": ((5, 8), encoder),
    "gelu": ((8,), lambda x: layers.Dense(4, activation="gelu", name="a")(x)),
    "lstm": ((5, 3), lambda x: layers.LSTM(4, name="a")(x)),
    "softmax alone": ((6,), lambda x: layers.Dense(3, activation="softmax", name="a")(x)),
}


@pytest.mark.parametrize("case", VACUOUS)
def test_a_run_that_normalises_nothing_says_so(case: str, tmp_path: Any) -> None:
    shape, build = VACUOUS[case]
    x = keras.Input(shape)
    model = keras.Model(x, build(x))
    samples = rng().random((9, *shape), dtype=np.float32)
    result = run(model, samples, output=tmp_path / "r", batch_size=4)
    certificate = Certificate.from_dict(result.certificate())

    assert certificate.passed
    assert "nothing was normalised" in certificate.summary()
    assert any("nothing was normalised" in note for note in certificate.notes)
    assert "Nothing was normalised" in (result.folder.report_path / "index.html").read_text(encoding="utf-8")
    assert "passed: largest residual" not in certificate.summary()


# The largest


@pytest.mark.parametrize("low", [0.01, 0.1, 3.0])
def test_the_largest_residual_of_the_summary_is_the_largest_of_the_table(
    low: float, peaks: Any, certified: Any
) -> None:
    x = keras.Input((12,))
    y = layers.Dense(30, activation="relu", name="a")(x)
    y = layers.Dense(30, activation="relu", name="b")(y)
    model = keras.Model(x, layers.Dense(3, name="c")(y))
    samples = rng().random((50, 12), dtype=np.float32)
    # Activations far above their factor have a larger residual, and more of it is allowed.
    _, certificate = certified(model, {**peaks(model, samples), "a": low}, samples)
    largest = max(certificate.points, key=lambda point: point.max_residual)

    assert f"largest residual {largest.max_residual:.2g} at {largest.name!r}" in certificate.summary()


@pytest.mark.parametrize("names", [["q"], ["q", "a"], ["b"]])
def test_a_failure_with_quantised_layers_tells_what_they_do(names: list[str]) -> None:
    shapes = [("h", 64), ("a", 64), ("q", 48), ("b", 20)]
    hidden = [layers.Dense(n, activation="relu", name=name) for name, n in shapes]
    model = keras.Sequential([layers.Input((16,)), *hidden, layers.Dense(4, name="c")])
    for name in names:
        model.get_layer(name).quantize("int8")
    factors = {"h": 1.3, "a": 1.3, "q": 1.0, "b": 0.7, "c": 0.5}
    normalized = normalize_model(model, factors, pin=names)
    kernel = normalized.model.get_layer("c").kernel
    kernel.assign(kernel * 1.01)
    samples = rng().random((64, 16), dtype=np.float32)
    certificate = certify(model, normalized, as_source(samples), batch_size=64)

    assert not certificate.passed
    assert all(repr(name) in certificate.summary() for name in names)
    assert "normalise the network before it is quantised" in certificate.summary()
