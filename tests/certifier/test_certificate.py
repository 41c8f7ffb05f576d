"""The certificate: a wrong rule or a wrong weight fails it, rounding does not, and it says what it saw."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from actisketch.pipeline.certifier import Certificate, certify
from actisketch.pipeline.graph import Node, forward_function, read_graph
from actisketch.pipeline.normalizer import normalize_model, rules, updating
from actisketch.pipeline.normalizer.propagation import Propagation
from actisketch.pipeline.normalizer.variables import Ids
from actisketch.pipeline.sketch import SketchSpec
from actisketch.pipeline.sources import as_source
from actisketch.storage.errors import FormatError, InputError, MismatchError

layers = keras.layers


@pytest.fixture
def residual(randomize: Callable[..., None]) -> keras.Model:
    keras.utils.set_random_seed(83)
    x = keras.Input((6, 6, 2))
    a = layers.Conv2D(4, 3, padding="same", activation="relu", name="a")(x)
    b = layers.Conv2D(4, 3, padding="same", name="b")(a)
    c = layers.ReLU(name="relu")(layers.Add(name="sum")([a, b]))
    d = layers.Concatenate(name="join")([c, layers.DepthwiseConv2D(3, padding="same", name="d")(a)])
    e = layers.Dense(3, name="out")(layers.Flatten()(d))
    model = keras.Model(x, e)
    randomize(model)
    return model


@pytest.fixture
def samples() -> NDArray[np.float32]:
    return np.random.default_rng(89).random((11, 6, 6, 2), dtype=np.float32)


FACTORS = {"a": 2.0, "b": 0.5, "d": 3.0, "out": 7.0}


def certificate_of(model: keras.Model, samples: NDArray[np.float32], **options: Any) -> Certificate:
    return certify(model, normalize_model(model, FACTORS), as_source(samples), batch_size=4, **options)


# What must fail


def untied(walk: Propagation, node: Node) -> list[Ids]:
    return [walk.ids[node.inputs[0]]]


def in_the_wrong_order(walk: Propagation, node: Node) -> list[Ids]:
    first, second = (walk.ids[value] for value in node.inputs)
    return [np.concatenate([np.broadcast_to(each, (1, 1, 4)) for each in (second, first)], axis=-1)]


@pytest.mark.parametrize(("kind", "wrong"), [("Add", untied), ("Concatenate", in_the_wrong_order)])
def test_a_wrong_rule_fails(
    kind: str, wrong: Any, residual: Any, samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert certificate_of(residual, samples).passed
    monkeypatch.setitem(rules.RULES, kind, wrong)
    certificate = certificate_of(residual, samples)

    assert not certificate.passed
    assert "FAILED" in certificate.summary()
    assert certificate.worst is not None
    # Orders of magnitude above what rounding could excuse.
    assert certificate.worst.max_residual > 100 * certificate.worst.allowed


def test_a_bias_that_is_not_divided_fails(
    residual: Any, samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updating, "rescaled_bias", lambda bias, **_: bias)

    assert not certificate_of(residual, samples).passed


@pytest.mark.parametrize("name", ["a", "d", "out"])
def test_the_weights_of_one_channel_that_are_off_by_a_thousandth_fail(
    name: str, residual: Any, samples: Any
) -> None:
    normalized = normalize_model(residual, FACTORS)
    variable = normalized.model.get_layer(name).weights[0]
    weights = variable.numpy().copy()
    weights[..., 0:1] *= 1.001
    variable.assign(weights)
    certificate = certify(residual, normalized, as_source(samples), batch_size=4)

    assert not certificate.passed
    assert {point.name for point in certificate.points if not point.passed} >= {name}


def test_nan_in_one_batch_is_not_forgotten_in_the_next(residual: Any, samples: Any) -> None:
    normalized = normalize_model(residual, FACTORS)
    poisoned = samples.copy()
    poisoned[2] *= np.float32(3e38)  # overflows within, in the first of three batches
    certificate = certify(residual, normalized, as_source(poisoned), batch_size=4)

    assert not certificate.passed


def test_a_network_that_gives_nan_fails(residual: Any, samples: Any) -> None:
    normalized = normalize_model(residual, FACTORS)
    normalized.model.get_layer("b").bias.assign(np.full(4, np.nan))
    certificate = certify(residual, normalized, as_source(samples), batch_size=4)

    assert not certificate.passed
    assert json.loads(json.dumps(certificate.to_dict(), allow_nan=False))["passed"] is False


# What must pass


def test_activations_that_cancel_are_held_to_the_rounding_error_of_the_original() -> None:
    # Two equal branches of size 1e4, subtracted but for 1e-3: float32 keeps 1e-3 of it.
    x = keras.Input((4,))
    big = layers.Dense(50, name="big")(x)
    small = layers.Dense(1, name="small")(big)
    model = keras.Model(x, small)
    rng = np.random.default_rng(97)
    model.get_layer("big").kernel.assign(rng.normal(0, 1e4, (4, 50)))
    half = rng.normal(0, 1, 25)
    model.get_layer("small").kernel.assign(np.concatenate([half, -half])[:, np.newaxis])
    big_kernel = model.get_layer("big").kernel.numpy().copy()
    big_kernel[:, 25:] = big_kernel[:, :25] * (1 + 1e-7)
    model.get_layer("big").kernel.assign(big_kernel)
    samples = rng.random((8, 4)).astype(np.float32)
    factors = {"big": 1e4 / 3, "small": float(np.abs(np.asarray(model(samples))).max()) or 1e-3}
    certificate = certify(model, normalize_model(model, factors), as_source(samples), batch_size=8)
    (_, small_point) = certificate.points

    assert small_point.max_residual > certificate.tolerance
    assert small_point.rounding is not None
    assert small_point.passed


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
def test_half_precision_networks_are_held_to_their_own_rounding(
    policy: str, randomize: Any, peaks: Any, certified: Any
) -> None:
    keras.utils.set_random_seed(101)
    model = keras.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(16, activation="relu", dtype=policy),
            layers.Dense(8, activation="relu", dtype=policy),
            layers.Dense(3, activation="softmax", dtype="float32"),
        ]
    )
    randomize(model)
    data = np.random.default_rng(103).random((20, 6), dtype=np.float32)
    normalized, certificate = certified(model, peaks(model, data), data)

    assert certificate.passed, certificate.summary()
    assert normalized.model.layers[-2].dtype_policy.name == policy
    assert any(point.rounding is not None for point in certificate.points)


# What it says


def test_residual_saturation_and_dead_channels_are_those_of_plain_numpy(residual: Any, samples: Any) -> None:
    residual.get_layer("a").bias.assign([0.1, -99.0, 0.3, 0.2])
    normalized = normalize_model(residual, FACTORS)
    certificate = certify(residual, normalized, as_source(samples), batch_size=4)
    graph = read_graph(residual)
    (old,), _ = forward_function(graph, [graph.every_point["a"]])([samples])
    (new,), _ = forward_function(
        normalized.normalized_graph, [normalized.places[graph.every_point["a"].value]]
    )([samples])
    scale = normalized.scales["a"]
    error = np.asarray(new, np.float64) - np.asarray(old, np.float64) / scale
    (point,) = [point for point in certificate.points if point.name == "a"]

    assert point.max_residual == pytest.approx(np.abs(error).max(), abs=2e-7)
    assert point.peak == pytest.approx(np.max(old) / scale, rel=1e-6)
    assert point.saturation == np.mean(np.asarray(new) > 1 + certificate.tolerance)
    assert (point.n_channels, point.n_dead_channels, point.is_dead) == (4, 1, False)
    assert point.n_values == old.numpy().size


def test_the_batch_size_does_not_change_the_verdict_or_the_counts(residual: Any, samples: Any) -> None:
    normalized = normalize_model(residual, FACTORS)
    one, other = (certify(residual, normalized, as_source(samples), batch_size=n) for n in (3, 11))

    assert one.passed
    assert [(p.saturation, p.n_values, p.n_dead_channels) for p in one.points] == [
        (p.saturation, p.n_values, p.n_dead_channels) for p in other.points
    ]


def test_sketches_hold_the_normalised_activations(residual: Any, samples: Any) -> None:
    certificate = certificate_of(residual, samples, sketch_spec=SketchSpec())
    graph = read_graph(residual)
    (old,), _ = forward_function(graph, [graph.every_point["a"]])([samples])

    assert set(certificate.sketches) == set(FACTORS)
    assert certificate.sketches["a"].layer.n == old.numpy().size
    assert certificate.sketches["a"].layer.maximum == pytest.approx(float(np.max(old)) / 2.0, rel=1e-6)


def test_progress_counts_samples_and_fewer_can_be_asked_for(residual: Any, samples: Any) -> None:
    seen: list[int] = []
    certificate = certificate_of(residual, samples, progress=seen.append, n_samples=10)

    assert seen == [4, 8, 10]
    assert certificate.n_samples == 10


def test_it_survives_json(residual: Any, samples: Any) -> None:
    certificate = certificate_of(residual, samples)

    assert Certificate.from_dict(json.loads(json.dumps(certificate.to_dict()))) == certificate


@pytest.mark.parametrize("tree", [{}, {"actisketch_certificate": 99}, {"actisketch_certificate": 1}])
def test_what_is_no_certificate_is_refused(tree: dict[str, int]) -> None:
    with pytest.raises(FormatError, match=r"certificate"):
        Certificate.from_dict(tree)


def test_a_saved_and_loaded_network_is_certified_as_well(residual: Any, samples: Any, tmp_path: Path) -> None:
    normalized = normalize_model(residual, FACTORS)
    normalized.model.save(tmp_path / "normalized.keras")
    model = keras.models.load_model(tmp_path / "normalized.keras")
    loaded = replace(normalized, model=model, normalized_graph=read_graph(model))

    assert certify(residual, loaded, as_source(samples), batch_size=4).passed


def test_another_network_or_other_samples_are_refused(residual: Any, samples: Any) -> None:
    normalized = normalize_model(residual, FACTORS)
    other = keras.Sequential([layers.Input((6, 6, 2)), layers.Flatten(), layers.Dense(3)])

    with pytest.raises(MismatchError, match="the network that was normalised"):
        certify(other, normalized, as_source(samples), batch_size=4)
    with pytest.raises(InputError, match="shape"):
        certify(residual, normalized, as_source(samples[:, :5]), batch_size=4)
    with pytest.raises(InputError, match="asked for 12 samples"):
        certify(residual, normalized, as_source(samples), batch_size=4, n_samples=12)
