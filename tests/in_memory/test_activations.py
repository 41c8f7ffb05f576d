"""`activations`: what Keras computes, by name, in memory or read from a folder."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as L

from actisketch.pipeline import activations, open_run
from actisketch.pipeline.events import StageDone
from actisketch.storage.errors import InputError, OverBudgetError

RNG = np.random.default_rng(13)


def test_layers_of_a_chain_give_what_keras_computes(small_model, small_data):
    found = activations(small_model, small_data, batch_size=8)

    values = small_data
    for layer in small_model.layers:
        values = np.asarray(layer(values))
        assert isinstance(found[layer.name], np.ndarray)
        np.testing.assert_allclose(found[layer.name], values, atol=1e-6)
    assert list(found) == ["first", "second", "classes"]


def test_one_layer_of_one_sample_and_a_pattern(small_model, small_data):
    one = activations(small_model, small_data[:1], "second")
    two = activations(small_model, small_data, ["first", "cl*"], num_samples=5)

    assert {name: array.shape for name, array in one.items()} == {"second": (1, 7)}
    assert {name: array.shape for name, array in two.items()} == {"first": (5, 8), "classes": (5, 3)}


def test_samples_are_divided_as_those_of_a_run(small_model, small_data, tmp_path):
    plain = activations(small_model, small_data / np.float32(4), "first")["first"]
    divided = activations(small_model, small_data, "first", divide_by=np.float32(4))["first"]
    kept = activations(small_model, small_data, "first", divide_by=4, output=tmp_path / "r")["first"]

    assert np.array_equal(divided, plain)
    assert np.array_equal(kept[:], plain)


class Own(keras.Model):
    """Subclassed, of two inputs, with a layer inside a layer."""

    def __init__(self):
        super().__init__()
        self.left = keras.Sequential([L.Dense(3, name="inner")], name="left")
        self.right = L.Dense(3, name="right")

    def call(self, x):
        return self.left(x["l"]) + self.right(x["r"])


def test_a_subclassed_network_of_a_dict_of_inputs():
    model = Own()
    x = {"l": RNG.random((11, 4), np.float32), "r": RNG.random((11, 6), np.float32)}
    model({name: values[:1] for name, values in x.items()})
    found = activations(model, x)

    assert sorted(found) == ["left/inner", "right"]
    np.testing.assert_allclose(found["right"], np.asarray(model.right(x["r"])), atol=1e-6)
    np.testing.assert_allclose(found["left/inner"], np.asarray(model.left(x["l"])), atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask attached:UserWarning")
def test_a_backbone_of_keras_hub_is_looked_into():
    from keras_hub import models

    model = models.BertBackbone(
        num_layers=1,
        hidden_dim=8,
        intermediate_dim=12,
        vocabulary_size=31,
        num_heads=2,
        max_sequence_length=5,
    )
    x = {
        "token_ids": RNG.integers(0, 31, (4, 5), dtype=np.int32),
        "segment_ids": np.zeros((4, 5), np.int32),
        "padding_mask": np.ones((4, 5), np.int32),
    }
    found = activations(model, x)

    assert found["transformer_layer_0/self_attention_layer/query"].shape == (4, 5, 2, 4)
    # The last normalisation of the only block is the output.
    (last,) = [name for name in found if name.endswith("feedforward_layer_norm")]
    np.testing.assert_allclose(found[last], model.predict(x, verbose=0)["sequence_output"], atol=1e-5)


def test_where_nan_begins_is_there_to_be_found(small_model, small_data):
    """One sample is so large that the second layer overflows, and the softmax of that is NaN."""
    small_model.layers[0].set_weights([np.eye(6, 8, dtype=np.float32), np.zeros(8, np.float32)])
    small_model.layers[1].set_weights([np.full((8, 7), 9.0, np.float32), np.zeros(7, np.float32)])
    data = small_data.copy()
    data[30] = 3e38

    found = activations(small_model, data)

    assert np.isfinite(found["first"]).all()
    assert np.flatnonzero(np.isinf(found["second"]).any(axis=1)).tolist() == [30]
    assert np.flatnonzero(np.isnan(found["classes"]).any(axis=1)).tolist() == [30]
    assert "<svg" in found._repr_html_()


def test_nothing_is_written_without_a_folder(small_model, small_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    activations(small_model, small_data)

    assert list(tmp_path.iterdir()) == []


def test_with_a_folder_only_what_is_indexed_is_read_and_another_call_reloads(
    small_model, small_data, tmp_path
):
    told = []
    found = activations(small_model, small_data, output=tmp_path / "r", batch_size=8)
    again = activations(small_model, small_data, output=tmp_path / "r", batch_size=8, on_event=told.append)

    plain = activations(small_model, small_data, batch_size=8)
    assert "read when indexed" in repr(found)
    assert "read when indexed" in repr(found["second"])
    for name in plain:
        assert np.array_equal(found[name][:], plain[name])
        assert np.array_equal(again[name][10:3:-2], plain[name][10:3:-2])
    done = {event.stage: event.reloaded for event in told if isinstance(event, StageDone)}
    assert done == {"record": True, "factors": True}
    assert open_run(tmp_path / "r").points == tuple(found)
    assert found.run.points == tuple(found)


def test_arrays_that_do_not_fit_in_memory_are_refused_with_the_way_out(small_model, small_data):
    with pytest.raises(OverBudgetError, match=r"3 points for 53 samples take 3.7 KiB.*output='FOLDER'"):
        activations(small_model, small_data, memory_limit=3_000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"points": "nothing*"}, "nothing"),
        ({"settings": {"cache": {"dtype": "float16"}}}, "output='FOLDER'"),
        ({"settings": 3}, "settings = 3"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_what_cannot_be_done_is_refused(small_model, small_data, arguments, message):
    with pytest.raises(InputError, match=message):
        activations(small_model, small_data, **arguments)


def test_an_unknown_name_is_a_key_error_as_of_any_mapping(small_model, small_data):
    found = activations(small_model, small_data[:2])

    assert "third" not in found
    with pytest.raises(KeyError):
        found["third"]


def test_arrays_of_a_folder_feed_keras_batch_by_batch(small_model, small_data, tmp_path):
    found = activations(small_model, small_data, output=tmp_path / "r", batch_size=8)
    head = keras.Sequential([keras.Input((7,)), L.Dense(3, "softmax")])
    labels = np.arange(53) % 3
    batches = found["second"].as_py_dataset(labels, batch_size=10)

    x, y = batches[5]
    assert (len(batches), x.shape, y.tolist()) == (6, (3, 7), labels[50:].tolist())
    expected = head.predict(np.asarray(found["second"]), verbose=0)
    np.testing.assert_allclose(head.predict(found["second"], verbose=0), expected, atol=1e-6)
    np.testing.assert_allclose(
        head.predict(found["second"].as_py_dataset(batch_size=10), verbose=0), expected, atol=1e-6
    )
    head.compile(loss="sparse_categorical_crossentropy")
    head.fit(batches, epochs=1, verbose=0, shuffle=False)
    with pytest.raises(InputError, match="52 labels for 53 samples"):
        found["second"].as_py_dataset(labels[1:])
