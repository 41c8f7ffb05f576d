"""Files that Keras 2 wrote: loaded to the same function, or refused by the name of the layer."""

import json
import logging

import h5py
import keras
import numpy as np
import pytest

from actisketch.pipeline.graph import forward_function, read_graph
from actisketch.pipeline.record.model import load_network
from actisketch.storage.errors import InputError

L = keras.layers


def written_by_keras_2(model, path, change=lambda config: None, version="2.15.0"):
    """Save as Keras 3 does; then let the file say what Keras 2 says."""
    model.save(path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change(config)
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = version
    return path


def every_layer(node):
    if isinstance(node, dict) and "class_name" in node and isinstance(node.get("config"), dict):
        yield node
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from every_layer(each)


def saying(kind, **settings):
    def change(config):
        for layer in every_layer(config):
            if layer["class_name"] == kind:
                layer["config"].update(settings)

    return change


def outputs(model, x):
    graph = read_graph(model)
    return np.asarray(forward_function(graph, [])([x])[1][0])


def same(path, model, shape):
    x = np.random.default_rng(3).random((4, *shape), dtype=np.float32)
    np.testing.assert_array_equal(outputs(load_network(path), x), outputs(model, x))


def chain(*layers, shape):
    keras.utils.set_random_seed(3)
    return keras.Sequential([keras.Input(shape), *layers, L.Flatten(), L.Dense(3, name="end")])


SEPARABLE = {"groups": 1, "kernel_initializer": {"class_name": "GlorotUniform", "config": {}}}
OLD_SETTINGS = [
    ("DepthwiseConv2D", lambda: L.DepthwiseConv2D(3), (8, 8, 3), {"groups": 1}),
    ("Conv2DTranspose", lambda: L.Conv2DTranspose(4, 3), (8, 8, 3), {"groups": 1}),
    ("SeparableConv2D", lambda: L.SeparableConv2D(4, 3), (8, 8, 3), SEPARABLE),
    ("SeparableConv1D", lambda: L.SeparableConv1D(4, 3), (8, 3), SEPARABLE),
    ("DepthwiseConv1D", lambda: L.DepthwiseConv1D(3), (8, 3), {"groups": 1}),
    ("Conv1DTranspose", lambda: L.Conv1DTranspose(4, 3), (8, 3), {"groups": 1}),
    ("Conv3DTranspose", lambda: L.Conv3DTranspose(2, 2), (4, 4, 4, 2), {"groups": 1}),
    ("LSTM", lambda: L.LSTM(4, return_sequences=True), (5, 3), {"time_major": False}),
    ("GRU", lambda: L.Bidirectional(L.GRU(4)), (5, 3), {"time_major": False}),
    (
        "SpatialDropout2D",
        lambda: L.SpatialDropout2D(0.2),
        (4, 4, 2),
        {"noise_shape": None, "trainable": True},
    ),
]


@pytest.mark.parametrize(
    ("kind", "layer", "shape", "settings"), OLD_SETTINGS, ids=[row[0] for row in OLD_SETTINGS]
)
def test_a_setting_that_keras_3_has_no_more_is_dropped_with_a_warning(
    tmp_path, caplog, kind, layer, shape, settings
):
    model = chain(layer(), shape=shape)
    path = written_by_keras_2(model, tmp_path / "old.h5", saying(kind, **settings))
    with caplog.at_level(logging.WARNING, logger="actisketch"):
        same(path, model, shape)

    assert f"old.h5 is of Keras 2: {next(iter(settings))}" in caplog.text


def test_inside_a_wrapper_and_a_nested_model_too(tmp_path):
    inner = keras.Sequential([keras.Input((6, 6, 2)), L.DepthwiseConv2D(2, name="deep")], name="inner")
    model = chain(L.TimeDistributed(L.DepthwiseConv2D(3)), shape=(3, 6, 6, 2))
    nested = chain(inner, shape=(6, 6, 2))
    for each, shape in ((model, (3, 6, 6, 2)), (nested, (6, 6, 2))):
        same(written_by_keras_2(each, tmp_path / "old.h5", saying("DepthwiseConv2D", groups=1)), each, shape)


def test_a_file_that_keras_3_reads_is_left_as_it_is(tmp_path, caplog):
    model = chain(L.Conv2D(4, 3, activation="relu"), L.MaxPooling2D(), shape=(8, 8, 3))
    with caplog.at_level(logging.WARNING, logger="actisketch"):
        same(written_by_keras_2(model, tmp_path / "old.h5"), model, (8, 8, 3))

    assert "Keras 2" not in caplog.text


def as_keras_2_names_calls(config):
    """Write calls as Keras 2 did: a list of [layer, call, tensor, keywords]; those of nested models from 1."""
    layers = config["config"]["layers"]
    nested = {each["name"] for each in layers if each["class_name"] in ("Sequential", "Functional")}

    def reference(node):
        history = node["config"]["keras_history"]
        return [history[0], history[1] + (history[0] in nested), history[2], {}]

    def tensors(node):
        if isinstance(node, dict) and node.get("class_name") == "__keras_tensor__":
            yield reference(node)
        elif isinstance(node, dict | list):
            for each in node.values() if isinstance(node, dict) else node:
                yield from tensors(each)

    for layer in layers:
        layer["inbound_nodes"] = [list(tensors(call)) for call in layer["inbound_nodes"]]
        for each in every_layer(layer["config"]):
            if "output_layers" in each["config"]:
                as_keras_2_names_calls(each)
        if layer["class_name"] == "Functional":
            as_keras_2_names_calls(layer)
    outputs_ = config["config"]["output_layers"]
    outputs_ = [outputs_] if isinstance(outputs_[0], str) else outputs_
    # Keras 3 counts those of functional models from 1 here, too.
    chains = {each["name"] for each in layers if each["class_name"] == "Sequential"}
    config["config"]["output_layers"] = [[n, i + (n in chains), t] for n, i, t in outputs_]
    inputs = config["config"]["input_layers"]
    config["config"]["input_layers"] = [inputs] if isinstance(inputs[0], str) else inputs


def _sequential():
    return keras.Sequential(
        [keras.Input((6, 6, 2)), L.Conv2D(2, 3, padding="same", name="deep")], name="inner"
    )


def _functional():
    x = keras.Input((6, 6, 2))
    return keras.Model(x, L.Conv2D(2, 3, padding="same", name="deep")(x), name="inner")


def _once(inner, x):
    return L.Dense(3)(L.Flatten()(inner(x)))


def _last(inner, x):
    return inner(L.ReLU()(x))


def _twice(inner, x):
    first = inner(x)
    # In the other order they would be another number.
    return L.Dense(3)(L.Flatten()(L.Subtract()([first, inner(L.ReLU()(first))])))


@pytest.mark.parametrize("use", [_once, _last, _twice])
@pytest.mark.parametrize("make", [_sequential, _functional])
def test_nested_models_are_called_where_keras_2_called_them(tmp_path, make, use):
    keras.utils.set_random_seed(3)
    x = keras.Input((6, 6, 2))
    model = keras.Model(x, use(make(), x))
    same(written_by_keras_2(model, tmp_path / "old.h5", as_keras_2_names_calls), model, (6, 6, 2))


def renamed(kind, new):
    def change(config):
        for layer in every_layer(config):
            if layer["class_name"] == kind:
                layer["class_name"] = new

    return change


REFUSED = [
    (L.DepthwiseConv2D(2, name="x"), saying("DepthwiseConv2D", groups=2), r"'x' \(Depthw.*groups = 2"),
    (L.Conv2DTranspose(2, 2, name="x"), saying("Conv2DTranspose", groups=4), r"'x' .*groups = 4"),
    (L.ReLU(name="x"), renamed("ReLU", "TFOpLambda"), r"'x' is a TFOpLambda of Keras 2"),
    (L.ReLU(name="x"), renamed("ReLU", "ThresholdedReLU"), r"'x' is a ThresholdedReLU .*threshold="),
    (L.Conv2D(2, 2, activation="hard_sigmoid", name="x"), saying("none"), r"'x' .*hard_sigmoid.*0\.2 x"),
    (L.Conv2D(2, 2, name="x"), saying("Conv2D", fancy=1), r"keyword arguments passed to Conv2D: \{'fancy'"),
]


@pytest.mark.parametrize(("layer", "change", "message"), REFUSED)
def test_what_would_be_another_network_is_refused_by_name(tmp_path, layer, change, message):
    path = written_by_keras_2(chain(layer, shape=(6, 6, 2)), tmp_path / "old.h5", change)

    with pytest.raises(InputError, match=message):
        load_network(path)


def test_the_same_function_of_keras_3_is_not_refused(tmp_path):
    model = chain(L.Conv2D(2, 2, activation="hard_sigmoid"), shape=(6, 6, 2))
    same(written_by_keras_2(model, tmp_path / "new.h5", version="3.9.0"), model, (6, 6, 2))


def test_a_keras_file_of_keras_2_is_told_to_come_as_h5(tmp_path):
    import zipfile

    chain(L.ReLU(), shape=(6, 2)).save(tmp_path / "new.keras")
    with (
        zipfile.ZipFile(tmp_path / "new.keras") as new,
        zipfile.ZipFile(tmp_path / "old.keras", "w") as old,
    ):
        for name in new.namelist():
            content = new.read(name)
            if name == "metadata.json":
                content = b'{"keras_version": "2.15.0"}'
            if name == "config.json":
                content = content.replace(b'"ReLU"', b'"Functional"')
            old.writestr(name, content)

    with pytest.raises(InputError, match=r"Keras 2\.15\.0 wrote it.*save it as \.h5.*save\('name\.h5'\)"):
        load_network(tmp_path / "old.keras")


def recorded(model, folder, shape):
    from actisketch.pipeline import run

    model.save(folder / "net.keras")
    np.save(folder / "x.npy", np.random.default_rng(3).random((20, *shape), dtype=np.float32))
    return run(
        folder / "net.keras",
        folder / "x.npy",
        output=folder / "r",
        settings={"report": {"enabled": False}},
    )


def _branches(x):
    y = L.Conv2D(2, 3, padding="same", activation="relu", name="b")(x)
    z = L.Conv2D(2, 3, padding="same", activation="relu", name="a")(x)
    return L.Dense(3)(L.Flatten()(L.Add()([L.ReLU()(L.Conv2D(2, 1, name="c")(z)), y])))


def _chain(x):
    return L.Dense(3)(L.Flatten()(L.MaxPooling2D()(L.Conv2D(2, 3, activation="relu")(x))))


def _shared(x):
    conv = L.Conv2D(2, 3, padding="same", activation="relu")
    return L.Dense(3)(L.Flatten()(conv(conv(x))))


@pytest.mark.parametrize("build", [_chain, _branches, _shared])
def test_the_weights_alone_make_the_original_compute_as_the_normalised_network(tmp_path, build):
    from actisketch.pipeline.rerun import normalize_run

    keras.utils.set_random_seed(3)
    x = keras.Input((6, 6, 2))
    model = keras.Model(x, build(x))
    result = recorded(model, tmp_path, (6, 6, 2))
    normalize_run(result, weights_h5=tmp_path / "weights.h5")
    # What Keras 2 does: the network from its JSON, the weights in the order of its layers.
    again = keras.models.model_from_json(model.to_json())
    again.load_weights(tmp_path / "weights.h5")
    normalised = keras.saving.load_model(result.folder.network_path)
    samples = np.load(tmp_path / "x.npy")

    np.testing.assert_allclose(outputs(again, samples), outputs(normalised, samples), rtol=1e-6, atol=1e-7)
    assert not np.allclose(outputs(again, samples), outputs(model, samples), rtol=1e-3)
    with h5py.File(tmp_path / "weights.h5") as file:
        assert list(file["model_weights"].attrs["layer_names"]) == [layer.name for layer in model.layers]


@pytest.mark.parametrize(
    ("layers", "name"),
    [
        ([L.Conv2D(2, 3, use_bias=False), L.BatchNormalization(name="norm"), L.ReLU()], "norm"),
        ([L.Conv2D(2, 3), L.ReLU(6.0, name="bounded")], "bounded"),
        ([keras.Sequential([keras.Input((6, 6, 2)), L.Conv2D(2, 3)], name="inner")], "inner"),
    ],
)
def test_where_more_than_weights_changed_no_weights_are_written(tmp_path, layers, name):
    from actisketch.pipeline.rerun import normalize_run

    result = recorded(chain(*layers, shape=(6, 6, 2)), tmp_path, (6, 6, 2))

    with pytest.raises(InputError, match=f"weights alone do not describe .*'{name}'"):
        normalize_run(result, weights_h5=tmp_path / "weights.h5")
    assert not (tmp_path / "weights.h5").exists()
