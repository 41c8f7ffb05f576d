"""What Keras, TensorFlow or a network's own code refuses becomes an error of ours, with the layer and the cause."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from actisketch.pipeline import run
from actisketch.pipeline.graph import read_graph, refusals_explained, select_points
from actisketch.storage.errors import InputError, OverBudgetError

L = keras.layers
SAMPLES = np.random.default_rng(5).random((20, 6), dtype=np.float32)
NO_LUCK = {
    each.__name__: each for each in (ValueError, KeyError, ZeroDivisionError, AttributeError, RuntimeError)
}


class Failing(L.Layer):
    """Computes nothing; fails in the way and at the time that it is told."""

    def __init__(self, kind="ValueError", when="always", **settings):
        super().__init__(**settings)
        self.kind, self.when = kind, when

    def fail(self, _=None):
        raise NO_LUCK[self.kind]("no such luck")

    def call(self, x):
        if isinstance(x, keras.KerasTensor):
            return x
        if self.when == "always" or (self.when == "traced" and not tf.executing_eagerly()):
            self.fail()
        if self.when == "running":
            y = tf.py_function(self.fail, [x], tf.float32)
            y.set_shape(x.shape)
            return y
        return x

    def compute_output_shape(self, shape):
        return shape

    def get_config(self):
        return {**super().get_config(), "kind": self.kind, "when": self.when}


class OnceOnly(L.Layer):
    """Can be built once."""

    n_built = 0

    def build(self, shape):
        type(self).n_built += 1
        if self.n_built > 1:
            raise ValueError("already built")

    def call(self, x):
        return x


def chain(layer, shape=(6,)):
    return keras.Sequential(
        [keras.Input(shape), L.Dense(4, activation="relu", name="first"), layer, L.Dense(3, name="last")]
    )


def refused(model, samples, tmp_path, **normalize):
    with pytest.raises(InputError) as caught:
        run(
            model,
            samples,
            output=tmp_path / "r",
            settings={"normalize": normalize, "report": {"enabled": False}},
        )
    assert caught.value.exit_code == 2
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("kind", NO_LUCK)
@pytest.mark.parametrize("when", ["always", "traced"])
def test_a_layer_that_fails_when_it_is_called(tmp_path, kind, when):
    error = refused(chain(Failing(kind, when, name="mine")), SAMPLES, tmp_path, treat_as_identity=["mine"])

    assert error.layer == "mine"
    assert f"{kind}: no such luck (test_refusals.py, line " in str(error)
    assert type(error.__cause__).__name__ == kind
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("kind", ["ValueError", "ZeroDivisionError", "KeyError"])
def test_a_layer_that_fails_while_the_graph_runs(tmp_path, kind):
    error = refused(
        chain(Failing(kind, "running", name="mine")), SAMPLES, tmp_path, treat_as_identity=["mine"]
    )

    assert error.layer == "mine"
    assert f"{kind}: " in str(error)
    assert "own code" in str(error)
    assert isinstance(error.__cause__, tf.errors.OpError)


def test_a_lambda_whose_function_needs_what_is_not_there(tmp_path):
    def double(x):
        return x if isinstance(x, keras.KerasTensor) else not_imported.double(x)  # noqa: F821

    error = refused(
        chain(L.Lambda(double, output_shape=(4,), name="lam")), SAMPLES, tmp_path, treat_as_identity=["lam"]
    )

    assert "'lam' (Lambda) failed when it was called: NameError: name 'not_imported'" in str(error)


def test_a_layer_of_keras_that_does_not_take_these_samples(tmp_path):
    model = keras.Sequential(
        [keras.Input((None, 4)), L.Dense(4), L.Reshape((12,), name="fold"), L.Dense(3, name="last")]
    )
    error = refused(model, np.zeros((20, 5, 4), np.float32), tmp_path)

    assert "'fold' (Reshape) failed" in str(error)
    assert "total size" in str(error)


def test_a_layer_that_cannot_be_built_anew(tmp_path):
    OnceOnly.n_built = 0
    error = refused(chain(OnceOnly(name="once")), SAMPLES, tmp_path, treat_as_identity=["once"])

    assert "'once' (OnceOnly) failed when it was built anew: ValueError: already built" in str(error)


def test_one_that_only_eager_execution_refuses_is_recorded(tmp_path):
    class Graphic(L.Layer):
        def call(self, x):
            if tf.executing_eagerly() and not isinstance(x, keras.KerasTensor):
                raise RuntimeError("graphs only")
            return x

    result = run(
        chain(Graphic()),
        SAMPLES,
        output=tmp_path / "r",
        normalize=False,
        settings={"report": {"enabled": False}},
    )

    assert result.status().n_blocks_done == 1


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_channels_first_without_a_kernel_is_told_of_the_layer_not_of_the_data(tmp_path, dtype):
    conv = L.Conv2D(4, 3, data_format="channels_first", dtype=dtype, name="conv")
    model = keras.Sequential([keras.Input((3, 8, 8)), conv, L.Flatten(), L.Dense(3)])
    samples = np.random.default_rng(5).random((4, 3, 8, 8), dtype=np.float32)
    error = refused(model, samples, tmp_path)

    assert error.layer == "conv"
    assert "channels_last" in str(error)
    assert "correct the data" not in str(error)


def embedding(dtype):
    x = keras.Input((3,), dtype=dtype)
    return keras.Model(x, L.Dense(2)(L.Flatten()(L.Embedding(20, 4)(x))))


@pytest.mark.parametrize(
    ("takes", "given", "value"),
    [
        ("int32", "int64", 2**32 + 1),
        ("int32", "int64", -(2**32) + 1),
        ("int32", "uint32", 2**32 - 3),
        ("int32", "float32", 5e9),
        ("uint8", "int64", 257),
        ("int8", "int16", -300),
    ],
)
def test_whole_numbers_that_do_not_fit_are_refused_and_do_not_wrap(tmp_path, takes, given, value):
    samples = np.full((8, 3), 2, given)
    samples[5, 1] = value

    assert f"the samples hold {samples[5, 1].item()!r}" in str(refused(embedding(takes), samples, tmp_path))


def test_whole_numbers_that_fit_are_the_same_in_any_dtype(tmp_path):
    ids = np.random.default_rng(5).integers(0, 20, (8, 3))
    keras.utils.set_random_seed(5)
    model = embedding("int32")
    expected = np.asarray(model(ids.astype("int32")))
    (point,) = [point.name for point in select_points(read_graph(model)) if point.layer_type == "Dense"]
    for dtype in ("int64", "uint32", "float32"):
        result = run(
            model,
            ids.astype(dtype),
            output=tmp_path / dtype,
            normalize=False,
            settings={"report": {"enabled": False}},
        )

        np.testing.assert_array_equal(result.activations(point)[:], expected)


def _texts():
    x = keras.Input((6,))
    classes = L.Dense(3, name="classes")(x)
    best = keras.ops.argmax(classes, axis=-1) + 1
    names = L.StringLookup(vocabulary=["a", "b", "c"], invert=True, name="names")(best)
    return keras.Model(x, [classes, names])


def test_an_output_of_texts_is_refused_before_anything_is_recorded_and_the_rest_is(tmp_path):
    settings = {"normalize": {"pin": ["names", "*rgmax*"]}, "report": {"enabled": False}}
    with pytest.raises(InputError, match=r"the output 'names' gives text, .*--no-normalize"):
        run(_texts(), SAMPLES, output=tmp_path / "r", settings=settings)
    assert not (tmp_path / "r").exists()

    with pytest.raises(InputError, match=r"the point 'names' \(StringLookup\) gives text, not"):
        run(_texts(), SAMPLES, output=tmp_path / "r", normalize=False, points=["classes", "names"])
    result = run(
        _texts(), SAMPLES, output=tmp_path / "r", normalize=False, settings={"report": {"enabled": False}}
    )

    assert result.activations("classes").shape == (20, 3)


def _inner():
    x = keras.Input((5, 6))
    return keras.Model(x, L.Dense(3, name="deep")(x), name="inner")


def _masked_implicitly():
    x = keras.Input((5, 6))
    return keras.Model(x, L.Dense(2)(_inner()(L.Masking()(x)))), "receives a mask"


def _masked_explicitly():
    x, mask = keras.Input((5, 6)), keras.Input((5,), dtype="bool")
    return keras.Model([x, mask], L.Dense(2)(_inner()(x, mask=mask))), "receives a mask"


def _subclassed():
    class Own(keras.Model):
        def __init__(self):
            super().__init__(name="inner")
            self.deep = L.Dense(3)

        def call(self, x):
            return self.deep(x)

    x = keras.Input((5, 6))
    return keras.Model(x, L.Dense(2)(Own()(x))), "is subclassed"


@pytest.mark.filterwarnings("ignore:Layer .inner.")
@pytest.mark.parametrize("make", [_masked_implicitly, _masked_explicitly, _subclassed])
def test_a_nested_model_without_a_rule_has_a_reason(make):
    from actisketch.pipeline.normalizer import normalize_model

    model, reason = make()
    with pytest.raises(InputError, match=f"no rule for 'inner' .*, a nested model that {reason}"):
        normalize_model(model, {})


@pytest.mark.parametrize("kind", ["Sequential", "Functional"])
def test_a_model_of_tf_keras_is_told_to_come_as_h5(kind):
    # As tf_keras has them: classes of these names in its modules.
    model = type(kind, (), {"__module__": "tf_keras.src.engine", "name": "mine", "layers": []})()

    with pytest.raises(InputError, match=rf"'mine' \({kind}\) is of tf_keras.*name\.h5"):
        read_graph(model)


def test_a_sequential_model_whose_shape_is_lost_on_the_way_names_the_layer():
    model = keras.Sequential(
        [keras.Input((6,)), L.Dense(3), L.Lambda(lambda x: not_there(x), name="lam"), L.Dense(2)]  # noqa: F821
    )
    with pytest.raises(
        InputError, match="the output shape of its layer 'lam': give that layer an output_shape"
    ):
        read_graph(model)
    with pytest.raises(InputError, match=r"does not know its input shape: give it a keras\.Input"):
        read_graph(keras.Sequential([L.Dense(3)]))


def test_a_network_that_finds_no_memory_is_told_to_take_smaller_batches():
    told = "Graph execution error:\n\nOOM when allocating tensor with shape[9,9]\n\t [[{{node conv}}]] [Op:f]"
    with (
        pytest.raises(OverBudgetError, match=r"samples 8 to 15: OOM .*\[9,9\]; reduce record.batch_size"),
        refusals_explained(8, 16),
    ):
        raise tf.errors.ResourceExhaustedError(None, None, told)
