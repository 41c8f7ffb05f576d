"""Networks with layers of your own: what a refusal advises works at once."""

import re
import shlex

import keras
import numpy as np
import pytest

from actisketch.pipeline import open_run, run
from actisketch.pipeline.rerun import normalize_run
from actisketch.storage.errors import InputError

L = keras.layers
X = np.random.default_rng(29).random((11, 5), dtype=np.float32)
QUIET = {"report": {"enabled": False}}


@keras.saving.register_keras_serializable("test_own_layers")
class Block(L.Layer):
    """Holds two Dense layers; nobody can know how scales pass it."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.up, self.down = L.Dense(7, name="up"), L.Dense(5, name="down")

    def build(self, shape):
        self.up.build(shape)
        self.down.build((*shape[:-1], 7))

    def call(self, x):
        return x + self.down(keras.ops.tanh(self.up(x)))

    def compute_output_shape(self, shape):
        return shape


def network(n_blocks=2):
    keras.utils.set_random_seed(29)
    x = keras.Input((5,))
    y = L.Dense(5, activation="relu", name="first")(x)
    for i in range(n_blocks):
        y = Block(name=f"block_{i}")(y)
        y = L.Dense(5, activation="relu", name=f"between_{i}")(y)
    return keras.Model(x, L.Dense(2, name="last")(y))


def job(model, folder, **tables):
    return run(model, X, output=folder, batch_size=4, settings={**QUIET, **tables})


@pytest.mark.parametrize("factors", [{}, {"per_channel": True}])
@pytest.mark.parametrize("pin", [["Block"], ["block_0", "block_1"]])
def test_a_layer_that_is_pinned_needs_no_factor_and_can_be_left_out(tmp_path, pin, factors):
    model = network()
    tables = {"record": {"points": "leaves"}, "factors": factors, "sketch": factors}
    with pytest.raises(InputError, match=r"normalize.pin = \['Block'\]"):
        job(model, tmp_path / "r", **tables)
    result = job(model, tmp_path / "r", normalize={"pin": pin}, **tables)

    assert "block_0" not in result.points
    assert "block_0/up" in result.points
    normalised = keras.saving.load_model(result.folder.network_path)
    scale = np.asarray(result.factors().by_point()["last"])
    np.testing.assert_allclose(
        normalised.predict(X, verbose=0) * scale, model.predict(X, verbose=0), rtol=1e-4, atol=1e-6
    )
    between = keras.Model(model.inputs, model.get_layer("between_1").output).predict(X, verbose=0)
    divided = keras.Model(normalised.inputs, normalised.get_layer("between_1").output).predict(X, verbose=0)
    factor = np.asarray(result.factors().by_point()["between_1"])
    np.testing.assert_allclose(divided * factor, between, rtol=1e-4, atol=1e-6)
    assert np.max(factor) != 1
    assert {p["name"]: p["factor"] for p in result.certificate()["points"]}["block_0"] == 1


@pytest.mark.parametrize("points", [["block_*/up"], ["last", "first"]])
def test_what_is_left_out_and_not_pinned_can_be_recorded_as_the_message_says(tmp_path, points):
    tables = {"normalize": {"pin": ["Block"]}}
    with pytest.raises(InputError, match=r"leaves out .*'between_1'.*--no-normalize") as caught:
        job(network(), tmp_path / "r", record={"points": points}, **tables)
    assert not {"block_0", "block_1"} & set(caught.value.points)
    (advised,) = shlex.split(re.search(r"\(--points (.*?)\), or", str(caught.value))[1])

    assert job(network(), tmp_path / "r", record={"points": advised.split(",")}, **tables).certificate()[
        "passed"
    ]


@pytest.mark.parametrize("n_blocks", [1, 2])
def test_the_verb_that_normalises_says_where_to_set_what_it_advises(tmp_path, n_blocks):
    model = network(n_blocks)
    model.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", X)
    job(model, tmp_path / "r", normalize={"enabled": False})
    paths = {"model_path": str(tmp_path / "m.keras"), "data_path": str(tmp_path / "x.npy")}
    with pytest.raises(
        InputError, match=r"normalize.pin = \[(?s:.*)set it in the job file and run the job again"
    ):
        normalize_run(open_run(tmp_path / "r"), **paths)
    again = job(model, tmp_path / "r", normalize={"pin": ["Block"]})

    assert again.certificate()["passed"]
