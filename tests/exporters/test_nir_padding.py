"""Zeros around maps in NIR graphs: as Keras puts them for every size, or refused; never another graph."""

import itertools

import numpy as np
import pytest

from actisketch.storage.errors import InputError

nir = pytest.importorskip("nir")
from actisketch.pipeline.exporters.nir_writer import NirWriter  # noqa: E402

from .nir_reader import at_once  # noqa: E402

RNG = np.random.default_rng(29)
SIZES, KERNELS, STRIDES = range(1, 13), range(1, 6), range(1, 4)


def computed(model, x):
    """What the graph of a network gives for maps with their channels last."""
    return at_once(NirWriter(model).graph(), {model.inputs[0].name: np.moveaxis(x, -1, 1)})["output"]


def same_as_tensorflow(x, kernel, strides):
    """A convolution of one channel with "same", by the definition that TensorFlow gives."""
    n_results = [-(-n // s) for n, s in zip(x.shape, strides, strict=True)]
    padded, pairs = x, zip(n_results, strides, kernel.shape, x.shape, strict=True)
    totals = [max((n - 1) * s + k - size, 0) for n, s, k, size in pairs]
    padded = np.pad(x, [(total // 2, total - total // 2) for total in totals])
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape)[:: strides[0], :: strides[1]]
    return np.einsum("hwij,ij->hw", windows[: n_results[0], : n_results[1]], kernel)


@pytest.mark.parametrize("strides", list(itertools.product(STRIDES, STRIDES)), ids=str)
def test_same_is_said_for_every_size_and_kernel(strides):
    """What is written for a convolution, computed with NIR's definition; NIR's shapes take the height for the width."""
    from actisketch.pipeline.exporters.nir_parts import explicit_padding, same_padding

    for size in itertools.product(SIZES, SIZES):
        x = RNG.normal(size=size)
        for shape in itertools.product(KERNELS, KERNELS):
            kernel = RNG.normal(size=shape).astype(np.float32)
            padding = tuple(same_padding(n, k, s, 1) for n, k, s in zip(size, shape, strides, strict=True))
            weight, even, dilation = explicit_padding(
                kernel[None, None], padding, (1, 1), strides=strides, sizes=size
            )

            assert weight.shape[2] == weight.shape[3], (size, shape)
            assert dilation == (1, 1)
            padded = np.pad(x, [(n, n) for n in even])
            windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:])
            found = np.einsum("hwij,ij->hw", windows[:: strides[0], :: strides[1]], weight[0, 0])
            expected = same_as_tensorflow(x, kernel, strides)
            assert found.shape == expected.shape, (size, shape)
            assert np.abs(found - expected).max() <= 1e-9, (size, shape)


@pytest.mark.parametrize(
    ("size", "kernel", "strides"),
    [
        ((3, 4), 3, 2),
        ((4, 3), 3, 2),
        ((5, 6), 2, 2),
        ((12, 7), (5, 2), (1, 3)),
        ((6, 9), (4, 3), (3, 1)),
        ((1, 12), (1, 4), (2, 1)),
        ((8, 5), (2, 5), (3, 2)),
    ],
    ids=str,
)
def test_same_with_strides_gives_what_keras_gives(size, kernel, strides):
    from keras import Input, Model, layers

    inputs = Input((*size, 2), name="image")
    x = layers.Conv2D(3, kernel, strides, padding="same", activation="relu")(inputs)
    model = Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    given = RNG.normal(size=(3, *size, 2)).astype(np.float32)

    assert computed(model, given) == pytest.approx(np.asarray(model(given)), abs=1e-5)


@pytest.mark.parametrize(
    "layer", ["AveragePooling2D", "BatchNormalization", "Flatten", "Add", "Concatenate", "end"]
)
@pytest.mark.parametrize("between", ["Dropout", "ReLU", "Identity", None])
def test_zeros_that_nothing_takes_over_are_refused(layer, between):
    from keras import Input, Model, layers

    inputs = Input((4, 4, 2))
    x = layers.ZeroPadding2D(1)(layers.Conv2D(2, 1)(inputs))
    if between is not None:
        x = getattr(layers, between)(*([0.5] if between == "Dropout" else []))(x)
    if layer in ("Add", "Concatenate"):
        x = getattr(layers, layer)()([x, layers.Conv2D(2, 3, padding="same")(x)])
    elif layer != "end":
        x = getattr(layers, layer)(*([2] if "Pooling" in layer else []))(x)
    if layer not in ("Flatten", "end"):
        x = layers.Flatten()(x)
    model = Model(inputs, x if layer == "end" else layers.Dense(2)(x))

    with pytest.raises(InputError, match="ZeroPadding2D"):
        NirWriter(model).graph()


def test_padding_twice_where_nir_pads_once_is_refused():
    from keras import Input, Model, layers

    inputs = Input((5, 5, 2))
    x = layers.Dropout(0.5)(layers.ZeroPadding2D(1)(inputs))
    x = layers.Conv2D(2, 3, padding="same", name="odd")(x)

    with pytest.raises(InputError, match="'odd' pads what a ZeroPadding2D padded"):
        NirWriter(Model(inputs, layers.Dense(2)(layers.Flatten()(x)))).graph()


@pytest.mark.parametrize("layer", ["ZeroPadding2D", "AveragePooling2D", "Flatten", "BatchNormalization"])
def test_another_order_of_axes_is_refused_by_name(layer):
    """With as many channels as rows, every shape would fit."""
    from keras import Input, Model, layers

    given = {"axis": 1} if layer == "BatchNormalization" else {"data_format": "channels_first"}
    inputs = Input((4, 4, 4))
    if layer == "AveragePooling2D":
        given["pool_size"] = 2
    x = getattr(layers, layer)(**given, name="odd")(inputs)
    x = x if layer == "Flatten" else layers.Flatten()(x)

    with pytest.raises(
        InputError, match=r"'odd' (has its channels first|normalises a flattened map, or other axes)"
    ):
        NirWriter(Model(inputs, layers.Dense(2)(x))).graph()
