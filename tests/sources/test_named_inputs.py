"""Which array feeds which input: as Keras does it, or a refusal."""

import numpy as np
import pytest

from actisketch.pipeline import run
from actisketch.storage.errors import InputError

FIRST, SECOND = np.ones((6, 4), np.float32), np.zeros((6, 4), np.float32)
QUICK = {"report": {"enabled": False}, "normalize": {"enabled": False}}


def difference(names, struct):
    """Return a network of first - second, whose inputs have these names and whose argument has this structure."""
    import keras

    first, second = (keras.Input((4,), name=name) for name in names)
    layer = keras.layers.Dense(1, kernel_initializer="ones", name="sum")
    return keras.Model(struct(first, second), layer(keras.layers.Subtract()([first, second])))


def recorded(model, data, folder):
    return run(model, data, output=folder, settings=QUICK).activations("sum")[:]


@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict")
@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (("it", "is"), ("it", "is")),
        (("zeta", "alpha"), ("alpha", "zeta")),
        (("a", "b"), ("k2", "k1")),
        (("a", "b"), ("k1", "k2")),
    ],
    ids=["names that are not in order", "keys crossed", "other keys, not in order", "other keys"],
)
@pytest.mark.parametrize("kind", ["arrays", "tf.data", "npz"])
def test_data_go_by_the_keys_that_the_model_was_built_with(tmp_path, names, keys, kind):
    import tensorflow as tf

    model = difference(names, lambda first, second: {keys[0]: first, keys[1]: second})
    arrays = {keys[0]: FIRST, keys[1]: SECOND}
    if kind == "npz":
        np.savez(tmp_path / "data.npz", **arrays)
    data = {
        "arrays": lambda: arrays,
        "tf.data": lambda: tf.data.Dataset.from_tensor_slices((arrays,)).batch(4),
        "npz": lambda: tmp_path / "data.npz",
    }[kind]()

    np.testing.assert_array_equal(
        recorded(model, data, tmp_path / "run"), np.asarray(model.predict(arrays, verbose=0))
    )


@pytest.mark.parametrize(
    ("struct", "data"),
    [
        (lambda first, second: {"it": first, "is": second}, [FIRST, SECOND]),
        (lambda first, second: {"it": first, "is": second}, {"x": FIRST, "z": SECOND}),
        (lambda first, second: [first, second], {"is": FIRST, "other": SECOND}),
    ],
    ids=["a list for a dict", "other names for a dict", "a name in another's place"],
)
def test_what_contradicts_the_inputs_of_the_network_is_refused_with_both_names(tmp_path, struct, data):
    with pytest.raises(InputError, match="give a dict with the names of the network") as caught:
        run(difference(("it", "is"), struct), data, output=tmp_path / "run", settings=QUICK)

    assert "'it'" in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("names", [("x", "z"), ("z", "x"), ("it", "z")])
def test_other_names_go_in_order_and_are_told(tmp_path, caplog, names):
    caplog.set_level("WARNING")
    model = difference(("it", "is"), lambda first, second: [first, second])
    found = recorded(model, dict(zip(names, (FIRST, SECOND), strict=True)), tmp_path / "run")

    np.testing.assert_array_equal(found, np.full((6, 1), 4.0))
    assert any(f"{names[0]!r} as 'it', {names[1]!r} as 'is'" in text for text in caplog.messages)


def test_arrays_without_names_go_in_order(tmp_path):
    model = difference(("it", "is"), lambda first, second: [first, second])

    np.testing.assert_array_equal(recorded(model, [FIRST, SECOND], tmp_path / "run"), np.full((6, 1), 4.0))


@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict")
def test_the_normalised_network_takes_the_same_keys(tmp_path):
    import keras

    model = difference(("zeta", "alpha"), lambda first, second: {"alpha": first, "zeta": second})
    data = {"alpha": FIRST, "zeta": SECOND}
    result = run(model, data, output=tmp_path / "run", settings={"report": {"enabled": False}})
    normalised = keras.saving.load_model(result.folder.network_path)

    found = normalised.predict(data, verbose=0) * result.factors().by_point()["sum"]
    np.testing.assert_allclose(found, model.predict(data, verbose=0), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict")
def test_the_drop_in_takes_a_dict_as_its_refusal_of_a_list_says(tmp_path):
    from actisketch.pipeline.conversion import get_activations_batch

    model = difference(("a", "b"), lambda first, second: {"k2": first, "k1": second})
    with pytest.raises(InputError, match="give a dict"):
        get_activations_batch(model, [FIRST, SECOND])
    activations = {name: array for array, name in get_activations_batch(model, {"k2": FIRST, "k1": SECOND})}

    np.testing.assert_array_equal(activations["sum"], np.full((6, 1), 4.0))
