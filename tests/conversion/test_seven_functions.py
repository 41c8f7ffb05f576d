"""The seven functions one by one: what SNN toolbox documents, and what it does at its edges where that is right."""

from __future__ import annotations

import inspect
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import dask.array
import keras
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from actisketch.pipeline import conversion
from actisketch.pipeline.conversion import (
    apply_normalization_schedule,
    get_activations_batch,
    get_activations_layer,
    get_percentile,
    get_scale_fac,
    try_reload_activations,
)
from actisketch.storage.errors import InputError

SIGNATURES = {
    "normalize_parameters": "(model, config, **kwargs)",
    "get_scale_fac": "(activations, percentile)",
    "get_percentile": "(config, layer_idx=None)",
    "apply_normalization_schedule": "(perc, layer_idx)",
    "get_activations_layer": "(layer_in, layer_out, x, batch_size=None)",
    "get_activations_batch": "(ann, x_batch)",
    "try_reload_activations": "(layer, model, x_norm, batch_size, activ_dir)",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_names_and_signatures_are_those_of_the_toolbox(name: str) -> None:
    signature = inspect.signature(getattr(conversion, name))
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]

    assert str(inspect.Signature(bare)) == SIGNATURES[name]


# get_scale_fac


@given(
    hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(-1e6, 1e6, width=32)),
    st.floats(0, 100),
)
@settings(max_examples=50)
def test_a_scale_factor_is_the_percentile_of_all_values(
    activations: NDArray[np.float32], percentile: float
) -> None:
    assert get_scale_fac(activations, percentile) == pytest.approx(np.percentile(activations, percentile))


def test_no_activations_give_factor_one() -> None:
    assert get_scale_fac(np.zeros((0, 3)), 99.9) == 1


@pytest.mark.parametrize("kind", ["memmap", "zarr", "dask"])
def test_activations_on_disk_give_the_same_factor_chunk_by_chunk(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actisketch.pipeline.conversion.percentiles.CHUNK_VALUES", 1000)
    values = np.random.default_rng(61).normal(0, 1, (701, 13)).astype(np.float32)
    np.save(tmp_path / "x.npy", values)
    array: Any = np.load(tmp_path / "x.npy", mmap_mode="r")
    if kind == "zarr":
        array = zarr.create_array(tmp_path / "x.zarr", data=values, chunks=(100, 13))
    elif kind == "dask":
        array = dask.array.from_array(values, chunks=(97, 13))

    assert get_scale_fac(array, 99.9) == np.percentile(values, 99.9)


@pytest.mark.parametrize("percentile", [-1, 150, float("nan")])
def test_an_impossible_percentile_is_refused(percentile: float) -> None:
    with pytest.raises(InputError, match="between 0 and 100"):
        get_scale_fac(np.ones(3), percentile)


def test_activations_that_are_not_finite_are_refused() -> None:
    with pytest.raises(InputError, match="NaN"):
        get_scale_fac(np.array([1.0, np.nan]), 50)


# get_percentile, apply_normalization_schedule


@pytest.mark.parametrize(
    ("percentile", "by_layer"),
    [
        (100.0, [100, 99, 99, 99, 99, 99]),
        (99.99, [99, 99, 99, 99, 99, 99]),
        (99.9, [99, 99, 99, 99, 99, 99]),
        (99.0, [99, 98, 98, 98, 98, 98]),
    ],
)
def test_the_schedule_truncates_as_the_toolbox_does(percentile: float, by_layer: list[int]) -> None:
    assert [apply_normalization_schedule(percentile, index) for index in range(6)] == by_layer


def test_without_a_schedule_every_layer_has_the_percentile_of_the_settings(config: ConfigParser) -> None:
    assert get_percentile(config) == get_percentile(config, 7) == 99.9


def test_with_a_schedule_the_layer_counts(config: ConfigParser) -> None:
    config.set("normalization", "normalization_schedule", "True")

    assert get_percentile(config, 0) == 99
    with pytest.raises(InputError, match="layer_idx=None"):
        get_percentile(config)


@pytest.mark.parametrize("text", ["150", "-1", "high", ""])
def test_an_unusable_percentile_in_the_settings_is_refused(text: str, config: ConfigParser) -> None:
    config.set("normalization", "percentile", text)
    with pytest.raises(InputError, match="percentile"):
        get_percentile(config)


# get_activations_layer, get_activations_batch


def test_activations_of_a_layer_are_those_of_keras_for_whole_batches(
    small_model: Any, small_data: Any
) -> None:
    layer = small_model.get_layer("second")
    found = get_activations_layer(small_model.inputs[0], layer.output, small_data, 25)
    oracle = keras.Model(small_model.inputs[0], layer.output)(small_data[:50])

    # Of the layer's largest: 25 rows and 50 are multiplied in other orders, and a value that is a small difference of
    # large products is then 2e-5 of itself away from its float64 twin, with Keras as with us.
    np.testing.assert_allclose(found, oracle, rtol=1e-6, atol=1e-6 * np.max(oracle))


def unparsed() -> keras.Model:
    """A convolution and a BatchNormalization, each followed by a ReLU layer; a Dense at the end."""
    keras.utils.set_random_seed(7)
    layers = keras.layers
    x = keras.Input((8, 8, 1), name="image")
    y = layers.ReLU(name="relu")(layers.Conv2D(3, 3, name="conv")(x))
    y = layers.BatchNormalization(name="norm")(layers.Conv2D(2, 3, name="second")(y))
    y = layers.Activation("relu", name="spike")(y)
    return keras.Model(x, layers.Dense(3, name="dense")(layers.Flatten()(y)))


@pytest.mark.parametrize("n_channels", [4, 8, 1, 5])
def test_as_many_samples_as_channels_are_not_mixed(n_channels: int) -> None:
    # Keras' add takes the one value of each of 4 samples for a bias of 4 channels, where it knows how many there are.
    x = keras.Input((6,))
    wide, gate = keras.layers.Dense(n_channels, name="wide")(x), keras.layers.Dense(1, name="gate")(x)
    model = keras.Model(x, keras.layers.Add(name="both")([wide, gate]))
    samples = np.random.default_rng(257).random((2 * n_channels, 6), dtype=np.float32)

    found = [get_activations_layer(model.input, each, samples, n_channels) for each in (wide, gate)]
    both = get_activations_layer(model.input, model.output, samples, n_channels)
    at_once = {name: values for values, name in get_activations_batch(model, samples[:n_channels])}

    np.testing.assert_allclose(both, found[0] + found[1], atol=1e-6)
    np.testing.assert_allclose(at_once["both"], both[:n_channels], atol=1e-6)


@pytest.mark.parametrize("layer", ["conv", "second", "norm", "spike", "dense"])
def test_three_functions_agree_on_what_a_layer_gives(layer: str, digits: Any, tmp_path: Path) -> None:
    model, x = unparsed(), digits[0][:20]
    chosen = model.get_layer(layer)
    oracle = keras.Model(model.inputs, chosen.output).predict(x, verbose=0)
    found = [
        get_activations_layer(model.input, chosen.output, x),
        get_activations_layer(model.layers[0], chosen, x),
        try_reload_activations(chosen, model, x, 10, tmp_path),
        try_reload_activations(chosen, model, x, None, tmp_path),
        try_reload_activations(chosen, model, None, 10, tmp_path),
        dict(map(reversed, get_activations_batch(model, x)))[layer],
    ]

    for each in found:
        np.testing.assert_allclose(each, oracle, rtol=1e-5, atol=1e-5)


def test_several_outputs_come_in_the_form_that_was_asked_for(digits: Any) -> None:
    model, x = unparsed(), digits[0][:20]
    conv, dense = model.get_layer("conv"), model.get_layer("dense")
    oracles = [keras.Model(model.inputs, layer.output).predict(x, verbose=0) for layer in (conv, dense)]

    as_list = get_activations_layer(model.input, [conv.output, dense.output], x)
    as_dict = get_activations_layer(model.input, {"a": conv, "b": dense}, x)

    assert isinstance(as_list, list)
    for each, named, oracle in zip(as_list, as_dict.values(), oracles, strict=True):
        np.testing.assert_allclose(each, oracle, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(each, named)
    assert isinstance(get_activations_layer(model.input, [conv.output], x), list)


def test_samples_of_another_shape_are_refused_by_all(digits: Any, tmp_path: Path) -> None:
    model, x = unparsed(), digits[0][:20]
    conv = model.get_layer("conv")
    for wrong in (x[:, :7], x[..., 0], np.repeat(x, 3, axis=3), x.reshape(20, 64)):
        for call in (
            lambda: get_activations_layer(model.input, conv.output, wrong),  # noqa: B023  # called at once
            lambda: get_activations_batch(model, wrong),  # noqa: B023
            lambda: try_reload_activations(conv, model, wrong, 10, tmp_path),  # noqa: B023
        ):
            with pytest.raises(InputError, match=r"takes samples of shape \(8, 8, 1\)"):
                call()


def test_a_batch_may_be_a_list(digits: Any) -> None:
    model, x = unparsed(), digits[0][:6]
    expected = get_activations_batch(model, x)
    for form in (x.tolist(), [x], (x,), x.astype(np.float64), list(x)):
        for (found, _), (wanted, _) in zip(get_activations_batch(model, form), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)
    for wrong in ([[1.0], [1.0, 2.0]], "samples", None, [x, x]):
        with pytest.raises(InputError):
            get_activations_batch(model, wrong)


def test_of_a_shared_layer_its_first_call_is_meant(digits: Any, tmp_path: Path) -> None:
    x = keras.Input((8,))
    twice = keras.layers.Dense(8, name="twice")
    first = twice(x)
    model = keras.Model(x, keras.layers.ReLU()(twice(keras.layers.ReLU()(first))))
    samples = digits[0][:20].reshape(160, 8)
    oracle = keras.Model(x, first).predict(samples, verbose=0)

    for found in (
        get_activations_layer(model.input, twice, samples),
        try_reload_activations(twice, model, samples, 10, tmp_path),
    ):
        np.testing.assert_allclose(found, oracle, rtol=1e-5, atol=1e-6)


def test_what_has_no_output_in_the_network_is_refused_by_name(digits: Any, tmp_path: Path) -> None:
    inner = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, name="inside"), keras.layers.ReLU()])
    x = keras.Input((8,))
    model = keras.Model(x, keras.layers.Dense(3)(inner(x)))
    samples = digits[0][:20].reshape(160, 8)
    with pytest.raises(InputError, match="'inside' has not exactly one output"):
        try_reload_activations(inner.layers[0], model, samples, 10, tmp_path)
    with pytest.raises(InputError, match="'never' has not exactly one output"):
        get_activations_layer(model.input, keras.layers.Dense(3, name="never"), samples)
    with pytest.raises(InputError, match="'middle' has not exactly one input"):
        get_activations_layer("middle", model.output, samples)


def test_the_default_batch_is_ten_and_the_tail_is_dropped(small_model: Any, small_data: Any) -> None:
    output = small_model.get_layer("first").output

    assert get_activations_layer(small_model.inputs[0], output, small_data).shape == (50, 8)
    with pytest.raises(InputError, match="do not fill one batch of 64"):
        get_activations_layer(small_model.inputs[0], output, small_data, 64)


def test_activations_of_a_batch_leave_out_layers_that_only_move_values(digits: Any) -> None:
    layers = keras.layers
    x = keras.Input((8, 8, 1))
    y = layers.Conv2D(2, 3, name="conv")(layers.ZeroPadding2D()(x))
    y = layers.Concatenate()(
        [layers.AveragePooling2D(2, name="pool")(y), layers.MaxPooling2D(2, name="max")(y)]
    )
    model = keras.Model(x, layers.Dense(3, name="dense")(layers.Flatten()(y)))
    found = get_activations_batch(model, digits[0][:7])

    assert [name for _, name in found] == ["conv", "pool", "max", "dense"]
    assert [array.shape for array, _ in found] == [(7, 8, 8, 2), (7, 4, 4, 2), (7, 4, 4, 2), (7, 3)]
    np.testing.assert_allclose(found[-1][0], model(digits[0][:7]), rtol=1e-5, atol=1e-6)


# try_reload_activations


def test_a_dask_array_of_unknown_size_gives_the_percentile_of_what_it_holds() -> None:
    import dask.array as da

    values = np.random.default_rng(31).normal(size=(400, 7)).astype(np.float32)
    values[values < 0] = 0
    chosen = da.from_array(values, chunks=(50, 7))

    factor = get_scale_fac(chosen[chosen != 0], 99.9)

    assert factor == np.percentile(values[values != 0], 99.9)
    assert get_scale_fac(chosen[chosen > 1e9], 99.9) == 1


def test_activations_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="bool"):
        get_scale_fac(np.ones(3, bool), 50)


@pytest.mark.parametrize("batch_size", [0, -5, True, 2.5])
def test_an_impossible_batch_size_is_refused(batch_size: Any, small_model: Any, small_data: Any) -> None:
    with pytest.raises(InputError, match="batch_size"):
        get_activations_layer(small_model.inputs[0], small_model.outputs[0], small_data, batch_size)
