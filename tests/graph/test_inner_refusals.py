"""Layers inside others that cannot be recorded: a sentence names them and says what to do, before work starts."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

from actisketch.pipeline import plan, run
from actisketch.storage.errors import InputError

X = np.random.default_rng(13).normal(size=(6, 4)).astype(np.float32)


class Holder(L.Layer):
    """Holds a Dense; how it calls it is told by a function of the Dense and the samples."""

    def __init__(self, calling, **settings):
        super().__init__(**settings)
        self.calling, self.dense = calling, L.Dense(4, name="dense")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.calling(self.dense, x)

    def compute_output_shape(self, shape):
        return shape

    def get_config(self):
        raise NotImplementedError


class Pair(L.Layer):
    """Gives what its Dense gives in a dict, and in a tuple."""

    def __init__(self, kind, **settings):
        super().__init__(**settings)
        self.kind, self.dense = kind, L.Dense(4, name="dense")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        y = self.dense(x)
        return {"a": y, "b": x} if self.kind == "dict" else (y, x)


class Outer(L.Layer):
    """Adds what a Pair gives."""

    def __init__(self, kind, **settings):
        super().__init__(**settings)
        self.pair = Pair(kind, name="pair")

    def build(self, shape):
        self.pair.build(shape)

    def call(self, x):
        return sum(keras.tree.flatten(self.pair(x)))

    def compute_output_shape(self, shape):
        return shape


def in_a_loop(dense, x):
    return tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, dense(y)), (0, x))[1]


def in_a_branch(dense, x):
    return tf.cond(tf.reduce_sum(x) > 0, lambda: dense(x), lambda: x)


def in_a_function(dense, x):
    return tf.function(lambda y: dense(y), autograph=False)(x)


def vectorized(dense, x):
    return tf.vectorized_map(lambda row: dense(row[None])[0], x)


def never(dense, x):
    return x


def of_any_length(dense, x):
    y = dense(x)
    positive = tf.boolean_mask(y[0], y[0] > 0)
    return x + tf.reduce_sum(dense(positive[:, None] * tf.ones((1, 4)))) * 0 + y


def model_of(layer):
    x = keras.Input((4,))
    return keras.Model(x, L.Dense(2, name="last")(layer(L.Dense(4, name="first")(x))))


def points(layer, which, **more):
    settings = {"normalize": {"enabled": False}}
    found = plan(model_of(layer), X, points=which, settings=settings, **more)
    return [point.name for point in found.points]


LOOP = "is called inside a loop, a branch or a tf.function"


@pytest.mark.parametrize("calling", [in_a_loop, in_a_branch, in_a_function, vectorized])
def test_a_layer_in_a_loop_or_a_branch_is_refused_by_name_and_else_represented(calling, caplog):
    with pytest.raises(InputError) as refused:
        points(Holder(calling, name="own"), "own/dense")
    found = points(Holder(calling, name="own"), "leaves")

    assert str(refused.value) == (
        f"the layer 'own/dense' (Dense) {LOOP}, so it cannot be recorded: record what is around it, 'own', or leave it "
        "out with record.points (--points)"
    )
    assert found == ["first", "own", "last"]
    assert f"'own/dense' {LOOP} ('own' is recorded)" in caplog.text


def test_a_layer_that_is_never_called_is_refused_by_name_and_else_left_out(caplog):
    with pytest.raises(InputError, match=r"'own/dense' .* is never called, so it cannot be recorded"):
        points(Holder(never, name="own"), "own/dense")

    assert points(Holder(never, name="own"), "leaves") == ["first", "last"]
    assert "'own/dense' is never called" in caplog.text


def test_a_layer_that_was_never_built_is_refused_by_name():
    layer = Holder(never, name="own")
    layer.more = L.Dense(3, name="more")

    with pytest.raises(InputError, match=r"'own/more' .* was never built or called"):
        points(layer, "own/more")


def test_a_call_whose_shape_varies_is_refused_by_name_and_else_left_out(caplog):
    with pytest.raises(InputError, match=r"'own/dense' .* gives a shape that varies"):
        points(Holder(of_any_length, name="own"), "own/dense")

    assert points(Holder(of_any_length, name="own"), "own/d*") == ["own/dense"]
    assert "'own/dense' gives a shape that varies" in caplog.text


@pytest.mark.parametrize(("kind", "says"), [("dict", "gives a dict"), ("tuple", "gives 2 values")])
def test_a_layer_that_gives_no_single_tensor_is_refused_by_name_while_what_is_inside_is_not(kind, says):
    with pytest.raises(
        InputError, match=rf"'own/pair' .* {says}, so it cannot be recorded: record what is around it"
    ):
        points(Outer(kind, name="own"), "own/pair")

    assert points(Outer(kind, name="own"), "leaves") == ["first", "own/pair/dense", "last"]
    assert points(Outer(kind, name="own"), "own/*") == ["own/pair/dense"]


@pytest.mark.parametrize("pattern", ["own/dens", "nothing/*", ["leaves", "own/dens"]])
def test_a_pattern_that_matches_nothing_is_told_near_names_inside_too(pattern):
    with pytest.raises(InputError, match=r"no layer of the model matches .*: near names are .*own/dense"):
        points(Holder(lambda dense, x: dense(x), name="own"), pattern)


@pytest.mark.parametrize(
    ("pattern", "near"), [("foo/*", ["first", "own", "last", "own/dense"]), ("feet", ["first"])]
)
def test_inputs_are_no_near_names_of_layers(pattern, near):
    x = keras.Input((4,), name="feat")
    y = Holder(lambda dense, x: dense(x), name="own")(L.Dense(4, name="first")(x))
    model = keras.Model(x, L.Dense(2, name="last")(y))
    with pytest.raises(InputError, match="near names are") as caught:
        plan(model, X, output="unused", points=pattern)
    assert caught.value.near == near


def test_a_layer_with_two_reasons_is_told_once(caplog):
    x = keras.Input((5, 4))
    model = keras.Model(x, L.Bidirectional(L.LSTM(3, name="lstm"), name="bi")(x))
    plan(model, np.zeros((6, 5, 4), np.float32), output="unused", points="bi/*")

    assert caplog.text.count("'bi/forward_lstm/lstm_cell'") == 1
    assert "'bi/forward_lstm/lstm_cell' gives 2 values and is called inside a loop" in caplog.text


def test_a_network_without_weights_has_no_leaves():
    x = keras.Input((4,))
    model = keras.Model(x, L.ReLU()(x))

    with pytest.raises(InputError, match=r"no layer with weights"):
        plan(model, X, points="leaves")


class Counting(L.Layer):
    """Calls another layer each time it is called: Python remembers which."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.one, self.other = L.Dense(4, name="one"), L.Dense(4, name="other")
        self.other.trainable = False
        self.n_calls = 0

    def build(self, shape):
        self.one.build(shape)
        self.other.build(shape)

    def call(self, x):
        self.n_calls += 1
        first, second = (self.one, self.other) if self.n_calls % 2 else (self.other, self.one)
        return first(x) * 0 + second(x) * 0 + x

    def compute_output_shape(self, shape):
        return shape


def test_a_network_whose_calls_depend_on_a_state_of_python_is_refused(tmp_path):
    refusals = []
    for n_before in range(2):
        model = model_of(Counting(name="own"))
        model.get_layer("own").n_calls = n_before
        try:
            run(model, X, output=tmp_path / f"{n_before}", points="own/one", normalize=False)
        except InputError as error:
            refusals.append(str(error))

    # How often it is called before it is traced is no promise, so at least one of the two is found out.
    assert refusals
    assert all(
        "'own/one' each time in the same way: its call() uses a state of Python" in e for e in refusals
    )


class Failing(L.Layer):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.dense = L.Dense(4, name="dense")
        self.fails = False

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        y = self.dense(x)
        if self.fails:
            raise RuntimeError("no such luck")
        return y

    def compute_output_shape(self, shape):
        return shape


def test_the_layers_are_as_they_were_after_an_error(tmp_path):
    layer = Failing(name="own")
    model = model_of(layer)
    layer.fails = True
    with pytest.raises(InputError, match=r"'own' .* no such luck"):
        run(model, X, output=tmp_path / "r", points="leaves", normalize=False)
    layer.fails = False

    assert all("call" not in vars(each) for each in model._flatten_layers())
    assert model(X).shape == (6, 2)
    assert not (tmp_path / "r").exists()


def test_a_method_that_was_replaced_before_is_put_back(tmp_path):
    layer = Failing(name="own")
    model = model_of(layer)
    mine = vars(layer.dense)["call"] = lambda x, training: x + 2
    result = run(model, X, output=tmp_path / "r", points="own/dense", normalize=False)

    np.testing.assert_allclose(
        result.activations("own/dense")[:], model.get_layer("first")(X) + 2, rtol=1e-5, atol=1e-6
    )
    assert vars(layer.dense)["call"] is mine
