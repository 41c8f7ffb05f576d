"""Layers with several outputs: which of them is recorded, and when that is told. Expected values come from Keras."""

import keras
import numpy as np
import pytest
from keras import layers as L

from actisketch.pipeline import run
from actisketch.pipeline.graph import points
from actisketch.pipeline.record import producer
from actisketch.storage.errors import MismatchError

X = np.random.default_rng(17).normal(size=(7, 5, 4)).astype(np.float32)


class Pair(L.Layer):
    """Gives a constant and a product, in a dict or a tuple, under the names or at the places that are asked for."""

    def __init__(self, kind, **settings):
        super().__init__(**settings)
        self.kind = kind

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")

    def call(self, x):
        first, second = x * 0 + 7, keras.ops.matmul(x, self.kernel)
        return {"a": first, "y": second} if self.kind == "dict" else (first, second)

    def get_config(self):
        return {**super().get_config(), "kind": self.kind}


def recorded(model, folder):
    settings = {"report": {"enabled": False}}
    return run(model, X, output=folder, points="parameters", batch_size=3, normalize=False, settings=settings)


def pair_model(kind, used):
    keras.utils.set_random_seed(2)
    x = keras.Input((5, 4))
    outputs = Pair(kind, name="pair")(x)
    given = dict(enumerate(outputs.values() if kind == "dict" else outputs))
    taken = [given[place] for place in used]
    y = taken[0] if len(taken) == 1 else L.Add()(taken)
    return keras.Model(x, L.Dense(2, name="last")(y))


def values_of(model, place):
    return keras.ops.convert_to_numpy(keras.tree.flatten(model.get_layer("pair")(X))[place])


@pytest.mark.parametrize("kind", ["dict", "tuple"])
@pytest.mark.parametrize(("used", "expected"), [([0], 0), ([1], 1), ([1, 0], 0)])
def test_the_first_output_that_is_used_is_recorded(tmp_path, caplog, kind, used, expected):
    model = pair_model(kind, used)
    result = recorded(model, tmp_path / "r")

    np.testing.assert_allclose(
        result.activations("pair")[:], values_of(model, expected), rtol=1e-4, atol=1e-5
    )
    told = "'pair' (Pair) gives 2 tensors, of which 2 are used: output 0 (counted from 0 in the order of "
    assert (told in caplog.text) == (len(used) > 1)


def test_an_output_of_the_network_is_used(tmp_path, caplog):
    keras.utils.set_random_seed(2)
    x = keras.Input((5, 4))
    model = keras.Model(x, Pair("dict", name="pair")(x)["y"])
    result = recorded(model, tmp_path / "r")

    np.testing.assert_allclose(result.activations("pair")[:], model(X), rtol=1e-4, atol=1e-5)
    assert "of which" not in caplog.text


@pytest.mark.parametrize("used", [[0], [1], [2], [1, 2]])
def test_of_a_recurrent_layer_the_state_is_recorded_where_the_state_is_used(tmp_path, caplog, used):
    keras.utils.set_random_seed(2)
    x = keras.Input((5, 4))
    outputs = L.LSTM(3, return_sequences=True, return_state=True, name="lstm")(x)
    model = keras.Model(x, [L.Dense(2, name=f"last{place}")(outputs[place]) for place in used])
    result = recorded(model, tmp_path / "r")
    expected = model.get_layer("lstm")(X)[used[0]]

    np.testing.assert_allclose(result.activations("lstm")[:], expected, rtol=1e-4, atol=1e-5)
    assert ("'lstm' (LSTM) gives 3 tensors, of which 2 are used: output 1" in caplog.text) == (len(used) > 1)


def test_an_activation_function_behind_the_second_output_belongs_to_the_layer(tmp_path):
    keras.utils.set_random_seed(2)
    x = keras.Input((5, 4))
    model = keras.Model(x, L.ReLU(name="relu")(Pair("dict", name="pair")(x)["y"]))
    result = recorded(model, tmp_path / "r")

    np.testing.assert_allclose(result.activations("pair")[:], model(X), rtol=1e-4, atol=1e-5)


def test_a_cache_of_an_output_that_nothing_uses_is_refused(tmp_path, monkeypatch):
    model = pair_model("dict", [1])
    with monkeypatch.context() as earlier:
        for module in (points, producer):
            earlier.setattr(module, "used_outputs", lambda graph, node: (0,))
        recorded(model, tmp_path / "r")

    with pytest.raises(MismatchError, match=r"holds output 0 of 'pair' \(Pair\), .* and not output 1"):
        recorded(model, tmp_path / "r")
