"""Names, copies and settings in the new network: none twice, and each place its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from actisketch.pipeline.graph import read_graph, select_points
from actisketch.pipeline.normalizer import normalize_in_place, normalize_model

from .conftest import outputs_of

layers = keras.layers
SAMPLES = np.random.default_rng(227).normal(0, 2, (16, 6)).astype(np.float32)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    keras.utils.set_random_seed(229)


def doubling(name: str, dense: str) -> keras.Model:
    """A nested model with a bare operation, named as in a fresh session."""
    keras.backend.clear_session()
    h = keras.Input((6,))
    return keras.Model(h, layers.Dense(6, activation="relu", name=dense)(h * 2.0), name=name)


def nested_called_twice() -> keras.Model:
    inner, x = doubling("inner", "d"), keras.Input((6,), name="x")
    return keras.Model(x, layers.Dense(2, name="o")(inner(inner(x))))


def nested_with_equal_names() -> keras.Model:
    first, second, x = doubling("A", "p"), doubling("B", "q"), keras.Input((6,), name="x")
    return keras.Model(x, layers.Dense(2, name="o")(second(first(x))))


def path_that_is_a_name() -> keras.Model:
    first, second, x = doubling("A", "p"), doubling("B", "p"), keras.Input((6,), name="x")
    return keras.Model(x, layers.Dense(2, name="A_p")(second(first(x))))


def nested_with_the_name_of_an_input() -> keras.Model:
    inner, x = doubling("inner", "x"), keras.Input((6,), name="x")
    return keras.Model(x, layers.Dense(2, name="o")(inner(x)))


def second_place_pinned() -> keras.Model:
    x, relu = keras.Input((6,)), layers.ReLU(1.5, name="r")
    y = layers.Dense(5, name="b")(relu(layers.Dense(4, name="a")(x)))
    return keras.Model(x, layers.Dense(3, name="o")(relu(layers.Activation("tanh")(y))))


def copy_that_is_a_name() -> keras.Model:
    x, relu = keras.Input((6,)), layers.ReLU(1.5, name="re_lu")
    y = relu(layers.Dense(4, name="b")(relu(layers.Dense(4, name="a")(x))))
    y = layers.ReLU(0.5, name="re_lu_1")(layers.Dense(4, name="c")(y))
    return keras.Model(x, layers.Dense(2, name="o")(y))


def bound_that_is_a_name() -> keras.Model:
    x = keras.Input((6,))
    return keras.Model(x, layers.Dense(2, name="a_bounded")(layers.Dense(3, activation="relu6", name="a")(x)))


def casts_that_are_names() -> keras.Model:
    h = keras.Input((6,), dtype="float16", name="h")
    inner = keras.Model(h, h * 1.0, name="inner")
    x = keras.Input((6,))
    y = layers.Dense(4, name="inner_cast")(inner(x))
    return keras.Model(x, layers.Dense(2, name="cast")(y))


NETWORKS = [
    nested_called_twice,
    nested_with_equal_names,
    path_that_is_a_name,
    nested_with_the_name_of_an_input,
    second_place_pinned,
    copy_that_is_a_name,
    bound_that_is_a_name,
    casts_that_are_names,
]


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_whose_names_meet_when_it_is_flat_is_normalised_and_saved(
    network: Callable[[], keras.Model], certified: Any, tmp_path: Path
) -> None:
    model = network()
    factors = {point.name: 2.0 + i for i, point in enumerate(select_points(read_graph(model)))}
    normalized, certificate = certified(model, factors, SAMPLES)
    normalized.model.save(tmp_path / "n.keras")
    loaded = keras.models.load_model(tmp_path / "n.keras")
    last = list(normalized.scales.values())[-1]

    assert certificate.passed
    np.testing.assert_allclose(
        outputs_of(loaded, SAMPLES) * last, outputs_of(model, SAMPLES), rtol=1e-4, atol=1e-4
    )
    # What has a name of its own keeps it.
    names = {layer.name for layer in normalized.model.layers}
    assert {name for name in factors if "/" not in name and ":" not in name} <= names


@pytest.mark.parametrize("mode", ["layer", "channel"])
def test_a_rescaling_with_an_offset_serves_places_of_different_scale(mode: Any, certified: Any) -> None:
    x, shift = keras.Input((6,)), layers.Rescaling(2.0, offset=0.5, name="shift")
    both = [shift(layers.Dense(4, name=name)(x)) for name in ("a", "b")]
    model = keras.Model(x, layers.Dense(2, name="o")(layers.Concatenate()(both)))
    normalized, certificate = certified(model, {"a": 2.0, "b": 3.0, "o": 5.0}, SAMPLES, mode=mode)

    assert certificate.passed
    np.testing.assert_allclose(
        outputs_of(normalized.model, SAMPLES) * 5.0, outputs_of(model, SAMPLES), atol=1e-5
    )
    scales = [layer.scale for layer in normalized.model.layers if isinstance(layer, layers.Rescaling)]
    assert scales == [4.0, 6.0]


def test_a_shared_rescaling_stays_one_layer_where_its_places_have_one_scale() -> None:
    x, shift = keras.Input((6,)), layers.Rescaling(2.0, offset=0.5, name="shift")
    both = [shift(layers.Dense(4, name=name)(x)) for name in ("a", "b")]
    model = keras.Model(x, layers.Dense(2, name="o")(layers.Concatenate()(both)))
    new = normalize_model(model, {"a": 3.0, "b": 3.0, "o": 5.0}).model

    assert [layer.name for layer in new.layers if isinstance(layer, layers.Rescaling)] == ["shift"]


# A Lambda cannot be made from its settings, a function is a function


@pytest.mark.parametrize(
    ("options", "scale"), [({"pin": ["double"]}, 1.0), ({"treat_as_identity": ["double"]}, 7.0)]
)
def test_a_lambda_can_be_pinned_and_identified(options: Any, scale: float, certified: Any) -> None:
    x = keras.Input((6,))
    double = layers.Lambda(lambda t, by: t * by, arguments={"by": 2.0}, name="double")
    model = keras.Model(x, layers.Dense(2, name="o")(double(layers.Dense(4, activation="relu", name="a")(x))))
    normalized, certificate = certified(model, {"a": 7.0, "o": 5.0}, SAMPLES, **options)

    assert certificate.passed
    assert normalized.scales["a"] == scale
    assert normalized.model.get_layer("double") is not double
    np.testing.assert_allclose(
        outputs_of(normalized.model, SAMPLES) * 5.0, outputs_of(model, SAMPLES), atol=1e-5
    )


# In place


def bounded_relu() -> list[Any]:
    return [layers.ReLU(0.5, name="r")]


def threshold_relu() -> list[Any]:
    return [layers.ReLU(threshold=0.5, name="r")]


def rescaling() -> list[Any]:
    return [layers.Rescaling(2.0, offset=0.5, name="r")]


@pytest.mark.parametrize("between", [bounded_relu, threshold_relu, rescaling])
@pytest.mark.parametrize("options", [{}, {"treat_as_identity": ["r"]}, {"pin": ["r"]}])
def test_the_twin_computes_what_the_network_will_compute_in_place(between: Any, options: Any) -> None:
    model = keras.Sequential(
        [layers.Input((6,)), layers.Dense(4, name="a"), *between(), layers.Dense(2, name="o")]
    )
    factors = {"a": 5.0, "o": 1.0}
    twin = normalize_model(model, factors, keep_structure=True, **options).model
    normalize_in_place(model, factors, **options)

    np.testing.assert_array_equal(outputs_of(twin, SAMPLES), outputs_of(model, SAMPLES))
