"""Which layer computes in which precision is part of a fingerprint; the policy of the session is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest

from actisketch.pipeline.graph import model_fingerprint

layers = keras.layers


def applied(function: Callable[[Any], Any]) -> keras.Model:
    x = keras.Input((4, 4))
    return keras.Model(x, function(x))


class Around(layers.Layer):  # type: ignore[misc]  # Keras has no types
    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def call(self, x: Any) -> Any:
        return self.inner(x)


def both(first: str, second: str, kind: str) -> keras.Model:
    """A network of two layers of one kind that compute in these precisions."""

    def layer(dtype: str) -> Any:
        if kind == "Dense":
            return layers.Dense(4, kernel_initializer="ones", dtype=dtype)
        if kind == "inside":
            return Around(layers.Dense(4, kernel_initializer="ones", dtype=dtype))
        return layers.ReLU(dtype=dtype)

    return applied(lambda x: layer(second)(layer(first)(x)))


@pytest.mark.parametrize("kind", ["Dense", "ReLU", "inside"])
@pytest.mark.parametrize("other", ["mixed_bfloat16", "mixed_float16", "float16"])
def test_which_layer_computes_in_which_precision_counts(kind: str, other: str) -> None:
    one, swapped = (
        model_fingerprint(both(*names, kind)) for names in (("float32", other), (other, "float32"))
    )

    assert one["dtype_policy"] == swapped["dtype_policy"]
    assert one["topology"] != swapped["topology"]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float64"])
def test_the_policy_of_the_session_in_which_a_model_is_loaded_does_not_count(
    tmp_path: Path, policy: str
) -> None:
    usual = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy(policy)
        model = applied(lambda x: layers.Dense(2)(layers.ReLU()(x)))
    finally:
        keras.config.set_dtype_policy(usual)
    model.save(tmp_path / "model.keras")

    assert model_fingerprint(keras.models.load_model(tmp_path / "model.keras")) == model_fingerprint(model)
