"""Points inside the nodes of a graph: names, values, order. Expected values come from eager calls written out here."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

from actisketch.pipeline import plan, run
from actisketch.storage.errors import InputError

X = np.random.default_rng(11).normal(size=(11, 5, 6)).astype(np.float32)


class Block(L.Layer):
    """Attention and two Dense layers, of which one is called twice."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.mha = L.MultiHeadAttention(2, 3, name="mha")
        self.twice = L.Dense(6, activation="relu", name="twice")
        self.norm = L.LayerNormalization(name="norm")

    def build(self, shape):
        self.mha.build(shape, shape)
        self.twice.build(shape)
        self.norm.build(shape)

    def call(self, x):
        x = self.norm(x + self.mha(x, x))
        return self.twice(self.twice(x))

    def compute_output_shape(self, shape):
        return shape


def recorded(model, data, folder, points="leaves", **more):
    settings = {"report": {"enabled": False}, **more}
    return run(model, data, output=folder, points=points, batch_size=4, normalize=False, settings=settings)


@pytest.fixture(scope="module")
def nested():
    keras.utils.set_random_seed(3)
    x = keras.Input((5, 6), name="x")
    inner = keras.Sequential(
        [keras.Input((5, 6)), L.Dense(6, name="first"), Block(name="block")], name="inner"
    )
    y = Block(name="outer")(L.ReLU(name="relu")(inner(x)))
    return keras.Model(x, L.Dense(2, name="last")(y))


@pytest.fixture(scope="module")
def nested_run(nested, tmp_path_factory):
    return recorded(nested, X, tmp_path_factory.mktemp("nested") / "r")


def test_leaves_are_named_by_the_layers_around_them_in_the_order_of_their_calls(nested_run):
    in_block = ["mha/query", "mha/key", "mha/value", "mha/attention_output", "norm", "twice", "twice:1"]

    assert list(nested_run.points) == [
        "inner/first",
        *(f"inner/block/{name}" for name in in_block),
        *(f"outer/{name}" for name in in_block),
        "last",
    ]


def test_their_values_are_those_that_the_layers_give(nested, nested_run):
    block, last = nested.get_layer("outer"), nested.get_layer("last")
    x = keras.ops.relu(nested.get_layer("inner")(X))
    query = block.mha._query_dense(x)
    normed = block.norm(x + block.mha(x, x))
    once = block.twice(normed)
    twice = block.twice(once)

    for name, expected in {
        "outer/mha/query": query,
        "outer/norm": normed,
        "outer/twice": once,
        "outer/twice:1": twice,
        "last": last(twice),
    }.items():
        np.testing.assert_allclose(
            nested_run.activations(name)[:], expected, rtol=1e-4, atol=1e-5, err_msg=name
        )


def test_they_have_statistics_factors_and_exports_of_their_own(nested_run):
    values = nested_run.activations("outer/twice")[:]
    (row,) = [p for p in nested_run.factors().points if p.name == "outer/twice"]
    (spec,) = [p for p in nested_run.cache.spec.points if p.name == "outer/twice"]

    assert row.rule == "percentile"
    assert row.lo <= np.percentile(values[values != 0], 99.9) <= row.hi
    assert (spec.shape, spec.channel_axis) == ((5, 6), -1)
    assert spec.meta == {
        "layer": "twice",
        "layer_type": "Dense",
        "activation": "relu",
        "pinned": False,
        "n_params": 42,
        "inside": "outer",
        "place": 14,
    }
    assert "\nouter/twice,5x6," in nested_run.export("csv")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("outer/mha/query", ["outer/mha/query"]),
        ("*/mha/[qk]*", [f"{at}/mha/{name}" for at in ("inner/block", "outer") for name in ("query", "key")]),
        ("outer/twice:1", ["outer/twice:1"]),
        ("outer/twice", ["outer/twice", "outer/twice:1"]),
        ("outer/mha", ["outer/mha"]),
        (["relu", "outer/norm"], ["relu", "outer/norm"]),
        # What matches points of the graph means these, as before there were others.
        ("outer*", ["outer"]),
        ("parameters", ["inner/first", "inner/block", "outer", "last"]),
        ("all", ["inner/first", "inner/block", "outer", "last"]),
    ],
)
def test_patterns_reach_inside_where_no_point_of_the_graph_matches(nested, tmp_path, pattern, expected):
    found = plan(nested, X, output=tmp_path / "r", points=pattern, settings={"normalize": {"enabled": False}})

    assert [point.name for point in found.points] == expected


def test_the_layer_around_represents_layers_that_are_called_at_each_step(tmp_path):
    keras.utils.set_random_seed(5)
    x = keras.Input((5, 6))
    y = L.Bidirectional(L.LSTM(3, return_sequences=True, name="lstm"), name="both")(x)
    y = L.TimeDistributed(L.Dense(4, name="dense"), name="timed")(y)
    model = keras.Model(x, L.GRU(2, name="gru")(y))
    result = recorded(model, X, tmp_path / "r")

    both = model.get_layer("both")
    after = model.get_layer("timed")(both(X))
    assert list(result.points) == ["both/forward_lstm", "both/backward_lstm", "timed", "gru"]
    np.testing.assert_allclose(
        result.activations("both/forward_lstm")[:], both.forward_layer(X), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        result.activations("both/backward_lstm")[:], both.backward_layer(X), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(result.activations("timed")[:], after, rtol=1e-4, atol=1e-5)


class Windows(L.Layer):
    """A Dense over parts of each sample, which are rows beside those of other samples."""

    def __init__(self, order, **settings):
        super().__init__(**settings)
        self.order, self.dense = order, L.Dense(3, name="dense")

    def build(self, shape):
        self.dense.build((None, shape[-1]))

    def call(self, x):
        n = keras.ops.shape(x)[0]
        if self.order == "times first":
            y = self.dense(keras.ops.reshape(keras.ops.transpose(x, (1, 0, 2)), (-1, 6)))
            return keras.ops.transpose(keras.ops.reshape(y, (5, n, 3)), (1, 0, 2))
        return keras.ops.reshape(self.dense(keras.ops.reshape(x, (-1, 6))), (n, 5, 3))

    def compute_output_shape(self, shape):
        return (*shape[:-1], 3)


def windowed(order):
    x = keras.Input((5, 6))
    return keras.Model(x, Windows(order, name="own")(x))


def test_rows_that_are_parts_of_samples_are_kept_by_sample(tmp_path):
    model = windowed("samples first")
    result = recorded(model, X, tmp_path / "r")

    assert result.cache.spec.points[0].shape == (5, 3)
    np.testing.assert_allclose(
        result.activations("own/dense")[:], model.get_layer("own").dense(X), rtol=1e-4, atol=1e-5
    )


def test_rows_in_another_order_than_that_of_the_samples_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"'own/dense' .* not in the order of the samples: leave it out"):
        recorded(windowed("times first"), X, tmp_path / "r")
    assert not (tmp_path / "r").exists()


class Watched(L.Layer):
    """Lets another thread call its inner layer while it is traced."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.dense = L.Dense(3, name="dense")
        self.from_beside = []

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        if tf.inside_function():
            with tf.init_scope():
                beside = threading.Thread(target=lambda: self.from_beside.append(self.dense(X).numpy()))
                beside.start()
                beside.join()
        return self.dense(x)

    def compute_output_shape(self, shape):
        return (*shape[:-1], 3)


def test_another_thread_may_call_the_network_while_it_is_traced(tmp_path):
    x = keras.Input((5, 6))
    layer = Watched(name="own")
    model = keras.Model(x, layer(x))
    expected = layer.dense(X).numpy()
    result = recorded(model, X, tmp_path / "r")

    assert list(result.points) == ["own/dense"]
    assert len(layer.from_beside) >= 2
    assert all(np.array_equal(found, expected) for found in layer.from_beside)
    np.testing.assert_allclose(result.activations("own/dense")[:], expected, rtol=1e-4, atol=1e-5)


def test_a_layer_that_two_networks_share_is_recorded_for_each(tmp_path):
    block, x = Block(name="shared"), keras.Input((5, 6))
    one = keras.Model(x, block(x))
    other = keras.Model(x, block(L.ReLU()(x)))
    for model, taken, folder in [(one, X, "one"), (other, np.maximum(X, 0), "other")]:
        result = recorded(model, X, tmp_path / folder, points="shared/norm")
        expected = block.norm(taken + block.mha(taken, taken))

        np.testing.assert_allclose(result.activations("shared/norm")[:], expected, rtol=1e-4, atol=1e-5)


def test_the_default_points_of_a_network_with_own_layers_tell_of_the_leaves_inside(nested, tmp_path, caplog):
    plan(nested, X, output=tmp_path / "r", settings={"normalize": {"enabled": False}})

    assert (
        "12 layers with weights are inside layers of your own (first 'inner/block/mha/query')" in caplog.text
    )
    assert "--points leaves" in caplog.text


def test_the_layers_are_as_they_were_afterwards(nested, nested_run):
    assert all("call" not in vars(layer) for layer in nested._flatten_layers())
    assert all(layer.call.__func__ is type(layer).call for layer in nested._flatten_layers())


def test_a_network_with_layers_inside_others_is_normalised_but_for_these(tmp_path, caplog):
    x = keras.Input((5, 6))
    y = L.Dense(4, activation="relu", name="first")(x)
    y = L.Bidirectional(L.SimpleRNN(3, name="rnn"), name="both")(y)
    model = keras.Model(x, L.Dense(2, name="last")(y))
    result = run(model, X, output=tmp_path / "r", points="leaves", batch_size=4)

    assert list(result.points) == ["first", "both/forward_rnn", "both/backward_rnn", "last"]
    assert "leaves 2 recorded layers inside other layers as they are" in caplog.text
    assert "statistics and factors only: 'both/forward_rnn', 'both/backward_rnn'" in caplog.text
    assert result.certificate()["passed"]
    assert [p["name"] for p in result.certificate()["points"]] == ["first", "both", "last"]
    assert "both/forward_rnn" in (tmp_path / "r" / "report" / "index.html").read_text()
