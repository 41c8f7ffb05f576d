"""Values far below 1 are judged by their own size: a wrong network fails, and rounding fails no right one.

The oracles are weights that are made wrong on purpose, and the network as it was rewritten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from actisketch.pipeline.certifier import Certificate, certify
from actisketch.pipeline.normalizer import NormalizedModel, normalize_model
from actisketch.pipeline.sources import as_source

layers = keras.layers
Array = NDArray[Any]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    keras.utils.set_random_seed(419)


def samples(n: int = 64) -> Array:
    return np.random.default_rng(421).random((n, 8), dtype=np.float32)


def network(*sizes: float, hidden: Any = None) -> keras.Model:
    """A network with an output of about each size; hidden activations are about 1."""
    x = keras.Input((8,))
    y = (hidden or layers.Dense(16, activation="relu", name="fc"))(x)
    model = keras.Model(x, [layers.Dense(3, name=f"out{i}")(y) for i in range(len(sizes))])
    for i, size in enumerate(sizes):
        scale(model, f"out{i}", size)
    return model


def scale(model: keras.Model, name: str, by: float) -> None:
    change(model, name, lambda kernel: kernel * np.float32(by))


def change(model: keras.Model, name: str, how: Callable[[Array], Array]) -> None:
    kernel = model.get_layer(name).kernel
    kernel.assign(how(np.asarray(kernel)))


def rewritten(model: keras.Model) -> NormalizedModel:
    """Outputs keep factor 1, as those below `factors.floor` do."""
    names = [layer.name for layer in model.layers[1:]]
    return normalize_model(model, {name: 1.7 if name == "fc" else 1.0 for name in names})


def certificate_of(model: keras.Model, normalized: NormalizedModel, n: int = 64) -> Certificate:
    return certify(model, normalized, as_source(samples(n)), batch_size=16)


WRONG: dict[str, Callable[[Array], Array]] = {
    "sign": lambda kernel: -kernel,
    "twice": lambda kernel: 2 * kernel,
    "half": lambda kernel: kernel / 2,
    "permuted": lambda kernel: kernel[::-1],
    "a thousandth": lambda kernel: kernel * np.float32(1.001),
}


@pytest.mark.parametrize("size", [1e-3, 1e-6, 1e-30])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_kernel_fails_however_small_the_outputs_are(wrong: str, size: float) -> None:
    model = network(size)
    normalized = rewritten(model)
    change(normalized.model, "out0", WRONG[wrong])
    certificate = certificate_of(model, normalized)

    assert not certificate.passed
    assert not certificate.outputs[0].passed
    assert certificate.points[0].passed
    assert "FAILED at 1 of 2 points, first 'out0'" in certificate.summary()


@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-6, 1e-30, 0.0])
def test_a_right_network_passes_however_small_its_outputs_are(size: float) -> None:
    model = network(size)
    certificate = certificate_of(model, rewritten(model))

    assert certificate.passed, certificate.summary()


def test_of_two_outputs_the_tiny_one_is_judged_by_its_own_size() -> None:
    model = network(1.0, 1e-6)
    normalized = rewritten(model)
    right = certificate_of(model, normalized)
    change(normalized.model, "out1", WRONG["sign"])
    wrong = certificate_of(model, normalized)

    assert right.passed, right.summary()
    assert [output.passed for output in wrong.outputs] == [True, False]


@pytest.mark.parametrize("size", [1e-6, 1e-12])
def test_a_channel_that_keeps_factor_1_is_judged_by_its_own_size(size: float) -> None:
    model = network(1.0)
    change(model, "fc", lambda kernel: np.abs(kernel) * np.array([1.0] * 15 + [size], np.float32))
    factors = {"fc": np.array([1.7] * 15 + [1.0]), "out0": np.ones(3)}
    normalized = normalize_model(model, factors, mode="channel")
    right = certificate_of(model, normalized)
    change(normalized.model, "fc", lambda kernel: kernel * np.array([1.0] * 15 + [2.0], np.float32))
    wrong = certificate_of(model, normalized)

    assert right.passed, right.summary()
    assert not wrong.points[0].passed
    assert wrong.points[0].max_residual == pytest.approx(wrong.points[0].peak, rel=1e-3)


def test_where_the_original_is_zero_the_residual_must_be_within_the_tolerance() -> None:
    model = network(0.0)
    normalized = rewritten(model)
    bias = normalized.model.get_layer("out0").bias
    bias.assign(np.full(3, 9e-6, np.float32))
    within = certificate_of(model, normalized)
    bias.assign(np.full(3, 2e-5, np.float32))
    beyond = certificate_of(model, normalized)

    assert within.passed
    assert not beyond.passed


@pytest.mark.parametrize("n_samples", [1, 16])
@pytest.mark.parametrize("seed", range(12))
def test_small_outputs_of_large_numbers_that_cancel_are_not_failed_for_their_rounding(
    seed: int, n_samples: int
) -> None:
    """One number of one sample may happen to be rounded rightly in the original, and not in the other network."""
    keras.utils.set_random_seed(seed)
    x = keras.Input((8,))
    y = layers.Dense(64, activation="relu", name="fc")(x)
    model = keras.Model(x, layers.Dense(1, name="out")(y))
    change(model, "out", lambda kernel: 5 * np.abs(kernel))
    found = np.asarray(model(samples(n_samples)))
    model.get_layer("out").bias.assign(-found.mean(axis=0) * np.float32(1 - 2e-5))
    certificate = certificate_of(model, rewritten(model), n_samples)

    assert certificate.passed, certificate.summary()


class InFloat32(layers.Dense):
    """A layer of a user; rounding of a network that has it cannot be measured."""

    def call(self, x: Any, training: bool = False) -> Any:
        if keras.backend.standardize_dtype(x.dtype) != "float32":
            raise TypeError("float32 only")
        return super().call(x)


def test_where_rounding_cannot_be_measured_a_wrong_sign_fails_and_cancelling_does_not(caplog: Any) -> None:
    model = network(1.0, hidden=InFloat32(16, activation="relu", name="own"))
    out = model.get_layer("out0")
    out.bias.assign(2e4 * np.ones(3, np.float32))
    cancelling = keras.Model(model.input, layers.Dense(3, name="last")(out.output))
    last = cancelling.get_layer("last")
    last.kernel.assign(np.eye(3, dtype=np.float32) * np.float32(1e-7))
    last.bias.assign(np.full(3, -2e-3, np.float32))
    factors = {"out0": 3.0, "last": 1.0}

    right = normalize_model(cancelling, factors, pin=["own"])
    certificate = certificate_of(cancelling, right)
    assert certificate.passed, certificate.summary()
    assert "cannot be measured" in caplog.text

    model = network(1e-6, hidden=InFloat32(16, activation="relu", name="own"))
    wrong = normalize_model(model, {"out0": 1.0}, pin=["own"])
    change(wrong.model, "out0", WRONG["sign"])
    assert not certificate_of(model, wrong).passed
