"""A model's fingerprint: the same for the same function in any process, another for any change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from actisketch.pipeline.graph import model_fingerprint

from ..warm import WarmPython

layers = keras.layers


def network(
    *, filters: int = 4, rate: float = 0.25, name: str | None = None, dtype: str = "float32"
) -> keras.Model:
    x = keras.Input((8, 8, 1))
    y = layers.Conv2D(filters, 3, activation="relu", name=name, dtype=dtype)(x)
    y = layers.Dropout(rate)(layers.BatchNormalization()(y))
    model = keras.Model(x, layers.Dense(2)(layers.Flatten()(y)))
    fill(model)
    return model


def fill(model: keras.Model) -> None:
    rng = np.random.default_rng(11)
    model.set_weights([rng.random(weight.shape) for weight in model.get_weights()])


def test_names_that_count_up_within_a_session_are_no_part_of_it() -> None:
    assert model_fingerprint(network()) == model_fingerprint(network(name="another"))


def test_a_saved_and_loaded_model_in_another_process_has_the_same_fingerprint(
    tmp_path: Path, warm_python: WarmPython
) -> None:
    model = network()
    model.compile("adam", "mse")
    model.save(tmp_path / "model.keras")
    code = (
        "import sys, keras; from actisketch.pipeline.graph import model_fingerprint;"
        "print(model_fingerprint(keras.models.load_model(sys.argv[1])))"
    )

    assert warm_python.told("-c", code, tmp_path / "model.keras") == str(model_fingerprint(model))


def bias(model: keras.Model) -> None:
    model.layers[-1].bias.assign([0.0, 1e-7])


def moving_mean(model: keras.Model) -> None:
    model.layers[2].moving_mean.assign(np.zeros(4))


@pytest.mark.parametrize("change", [bias, moving_mean])
def test_any_change_of_a_weight_changes_it(change: Callable[[keras.Model], None]) -> None:
    model = network()
    before = model_fingerprint(model)
    change(model)
    after = model_fingerprint(model)

    assert before["topology"] == after["topology"]
    assert before["weights"] != after["weights"]


def test_a_setting_changes_the_topology() -> None:
    assert model_fingerprint(network())["topology"] != model_fingerprint(network(rate=0.5))["topology"]


def test_the_precision_is_told() -> None:
    assert model_fingerprint(network(dtype="mixed_bfloat16"))["dtype_policy"] == "float32,mixed_bfloat16"


def test_how_it_was_initialised_and_trained_does_not_matter() -> None:
    def dense(**settings: str) -> keras.Model:
        model = keras.Sequential([layers.Input((3,)), layers.Dense(2, **settings)])
        fill(model)
        return model

    plain = model_fingerprint(dense())
    assert model_fingerprint(dense(kernel_initializer="zeros", kernel_regularizer="l2")) == plain


def test_which_values_a_layer_takes_matters() -> None:
    def joined(*, swapped: bool) -> keras.Model:
        a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
        order = [b, a] if swapped else [a, b]
        return keras.Model([a, b], layers.Concatenate()(order))

    assert model_fingerprint(joined(swapped=False)) != model_fingerprint(joined(swapped=True))


def test_constants_of_bare_operations_count() -> None:
    def shifted(constant: NDArray[np.float32]) -> keras.Model:
        x = keras.Input((2,))
        return keras.Model(x, x + constant)

    one, other = np.array([1, 2], np.float32), np.array([1, 3], np.float32)
    assert model_fingerprint(shifted(one)) == model_fingerprint(shifted(one.copy()))
    assert model_fingerprint(shifted(one)) != model_fingerprint(shifted(other))
