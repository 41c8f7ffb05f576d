"""Scaling and Keras' preprocessing functions, against Keras itself."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actisketch.pipeline.sources import KERAS_MODES, as_source
from actisketch.pipeline.sources.preprocessing import parse_function
from actisketch.storage.errors import InputError

RNG = np.random.default_rng(5)
PIXELS = RNG.integers(0, 256, (3, 4, 6, 3)).astype(np.uint8)


def prepared(x: Any, **settings: Any) -> Any:
    source = as_source(x, **settings)
    return source.read(0, source.n_samples).inputs[0]


@pytest.mark.parametrize("module", sorted(KERAS_MODES))
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_each_function_gives_the_bits_that_keras_gives(module: str, dtype: str) -> None:
    keras_function = importlib.import_module(f"keras.applications.{module}").preprocess_input
    expected = keras_function(PIXELS.astype(dtype).copy())

    result = prepared(PIXELS.astype(dtype), preprocessing=f"keras.applications.{module}.preprocess_input")

    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, np.asarray(expected, np.float32))


@pytest.mark.parametrize(
    "name", ["vgg16", "keras.applications.vgg16", "tf.keras.applications.vgg16.preprocess_input"]
)
def test_a_function_has_several_spellings(name: str) -> None:
    assert parse_function(name) == "vgg16"


@pytest.mark.parametrize("name", ["vgg", "os.system", "keras.applications.vgg16.VGG16", "", "vgg16.x.y"])
def test_a_name_that_is_no_module_of_keras_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(InputError, match=r"known are .*vgg16"):
        prepared(PIXELS, preprocessing=name)


def test_dividing_by_255_is_the_exact_division_that_scaling_is_not() -> None:
    x = np.arange(256, dtype=np.uint8)[:, None]

    np.testing.assert_array_equal(prepared(x, divide_by=255), x.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(prepared(x, scale=1 / 255), x.astype(np.float32) * np.float32(1 / 255))
    assert (prepared(x, divide_by=255) != prepared(x, scale=1 / 255)).any()


def test_scale_and_offset_may_differ_by_channel() -> None:
    result = prepared(PIXELS, scale=(2.0, 3.0, 5.0), offset=(7.0, 11.0, 13.0))

    expected = PIXELS.astype(np.float32) * np.array([2, 3, 5], "f4") + np.array([7, 11, 13], "f4")
    np.testing.assert_array_equal(result, expected)


def test_scaling_comes_before_the_function() -> None:
    unit = (PIXELS / 255).astype(np.float32)

    np.testing.assert_allclose(
        prepared(unit, scale=255.0, preprocessing="vgg16"), prepared(PIXELS, preprocessing="vgg16"), atol=1e-4
    )


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "bool"])
def test_whole_numbers_stay_whole_unless_scaling_is_asked_for(dtype: str) -> None:
    x = np.arange(6).reshape(2, 3).astype(dtype)

    assert prepared(x).dtype == dtype
    assert prepared(x, divide_by=2).dtype == np.float32


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", ">f8"])
def test_floats_become_float32(dtype: str) -> None:
    x = RNG.random((2, 3)).astype(dtype)

    assert prepared(x).dtype == np.dtype("=f4")
    np.testing.assert_array_equal(prepared(x), x.astype("=f4"))


def test_bfloat16_becomes_float32() -> None:
    import ml_dtypes

    x = RNG.random((2, 3)).astype(ml_dtypes.bfloat16)

    np.testing.assert_array_equal(prepared(x), x.astype(np.float32))


def test_big_endian_whole_numbers_come_in_the_order_of_the_machine() -> None:
    x = np.arange(6, dtype=">i4").reshape(2, 3)

    assert prepared(x).dtype == np.dtype("=i4")
    np.testing.assert_array_equal(prepared(x), x)


def test_the_users_array_is_never_written_to() -> None:
    x = RNG.random((4, 3)).astype(np.float32)
    kept = x.copy()

    view = as_source(x).read(0, 4).inputs[0]
    prepared(x, scale=2.0, offset=1.0)

    np.testing.assert_array_equal(x, kept)
    assert not view.flags.writeable
    assert x.flags.writeable


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scale": 0.0}, "must not be 0"),
        ({"divide_by": 0}, "must not be 0"),
        ({"scale": float("nan")}, "finite"),
        ({"offset": float("inf")}, "finite"),
        ({"scale": "255"}, "give a number"),
        ({"scale": 2.0, "divide_by": 255}, "both set"),
        ({"scale": (1.0, 2.0)}, "last axis"),
        ({"scale": {"nothing": 2.0}}, "nothing"),
    ],
)
def test_an_impossible_scaling_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        prepared(PIXELS, **settings)


def test_a_function_for_colours_refuses_grey_images() -> None:
    with pytest.raises(InputError, match=r"3 colours.*\(4, 6, 1\)"):
        prepared(PIXELS[..., :1], preprocessing="vgg16")


@given(st.floats(0.1, 1000), st.floats(-10, 10))
def test_the_same_formula_has_the_same_identity_and_another_one_has_not(scale: float, offset: float) -> None:
    one, same = (as_source(PIXELS, scale=value, offset=offset) for value in (scale, (scale,) * 3))
    other = as_source(PIXELS, scale=scale, offset=offset + 1)

    assert one.fingerprint() == same.fingerprint() != other.fingerprint()
