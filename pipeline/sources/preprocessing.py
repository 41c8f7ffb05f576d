"""What happens to raw values before the network gets them: scaling, and the preprocessing functions of Keras.

The functions of ``keras.applications`` are three formulas, written here in NumPy: using one must not import TensorFlow
in every process, and no name is ever imported or evaluated.
``tests/sources/test_preprocessing.py`` compares each one with that of Keras, bit by bit.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError

__all__ = ["KERAS_MODES", "Preprocessing", "is_float", "parse_function", "preprocessing_for"]

KERAS_MODES: Mapping[str, str] = {
    "convnext": "none",
    "densenet": "torch",
    "efficientnet": "none",
    "efficientnet_v2": "none",
    "imagenet_utils": "caffe",
    "inception_resnet_v2": "tf",
    "inception_v3": "tf",
    "mobilenet": "tf",
    "mobilenet_v2": "tf",
    "mobilenet_v3": "none",
    "nasnet": "tf",
    "resnet": "caffe",
    "resnet50": "caffe",
    "resnet_v2": "tf",
    "vgg16": "caffe",
    "vgg19": "caffe",
    "xception": "tf",
}
"""Module of ``keras.applications`` and the formula that its ``preprocess_input`` applies."""

_MEAN = {"caffe": (103.939, 116.779, 123.68), "torch": (0.485, 0.456, 0.406)}
_STD_TORCH = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """``y = x / divide_by * scale + offset``, then a Keras function; all in float32.

    ``scale`` and ``offset`` are one number, or one for each entry of the last axis.
    """

    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)
    divide_by: float | None = None
    function: str | None = None
    """A key of :data:`KERAS_MODES`."""

    @property
    def changes_values(self) -> bool:
        """Whether anything is done at all; if not, whole numbers keep their type."""
        return self != Preprocessing()

    def apply(self, raw: NDArray[Any]) -> NDArray[Any]:
        """Return raw values of shape (n, ...) as the network gets them, float32 or whole numbers."""
        if not self.changes_values:
            # In the byte order of the machine, the only one that TensorFlow takes.
            dtype = np.dtype(np.float32) if is_float(raw.dtype) else raw.dtype.newbyteorder("=")
            return raw.astype(dtype, copy=False)
        values = raw.astype(np.float32)  # a copy, always: the formulas work in place
        if self.divide_by is not None:
            values /= np.float32(self.divide_by)
        if self.scale != (1.0,):
            values *= np.asarray(self.scale, np.float32)
        if self.offset != (0.0,):
            values += np.asarray(self.offset, np.float32)
        return values if self.function is None else _apply_mode(values, KERAS_MODES[self.function])

    def check(self, shape: tuple[int, ...], name: str) -> None:
        """Refuse an input whose last axis does not have the length that the settings need.

        Raises
        ------
        InputError
            With the input, its shape and the setting.
        """
        last = shape[-1] if shape else 1
        for setting, values in (("scale", self.scale), ("offset", self.offset)):
            if len(values) not in (1, last):
                raise InputError(
                    f"{setting} has {len(values)} numbers, but samples of {name} have shape {shape}: "
                    f"give one number, or {last}, one for each entry of the last axis",
                    input=name,
                )
        mode = "none" if self.function is None else KERAS_MODES[self.function]
        if mode in ("caffe", "torch") and last != 3:
            raise InputError(
                f"preprocessing {self.function!r} wants images with 3 colours on the last axis, but samples "
                f"of {name} have shape {shape}: choose another preprocessing, or color_mode = 'rgb'",
                input=name,
            )

    def identity(self) -> dict[str, Any]:
        """Return the formula in numbers; two names of one formula give the same."""
        return {
            "scale": list(self.scale),
            "offset": list(self.offset),
            "divide_by": 1.0 if self.divide_by is None else self.divide_by,
            "function": "none" if self.function is None else KERAS_MODES[self.function],
        }


def is_float(dtype: np.dtype[Any]) -> bool:
    """Return whether a type is floating point, those of ``ml_dtypes`` (bfloat16) included."""
    return dtype.kind == "f" or dtype.name.startswith(("bfloat", "float"))


def parse_function(name: str) -> str:
    """Return the key of :data:`KERAS_MODES` that a user's spelling names.

    Parameters
    ----------
    name : str
        ``"vgg16"``, ``"keras.applications.vgg16"`` or ``"keras.applications.vgg16.preprocess_input"``.

    Raises
    ------
    InputError
        If it is not one of Keras' modules, with the nearest names.
    """
    parts = str(name).removeprefix("tf.").removeprefix("tensorflow.").split(".")
    parts = parts[2:] if parts[:2] == ["keras", "applications"] else parts
    parts = parts[:-1] if parts[-1:] == ["preprocess_input"] else parts
    if len(parts) == 1 and parts[0] in KERAS_MODES:
        return parts[0]
    near = difflib.get_close_matches(parts[0] if parts else "", KERAS_MODES, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InputError(f"preprocessing {name!r} is not known; {hint}known are {', '.join(KERAS_MODES)}")


def preprocessing_for(name: str | None, settings: Mapping[str, Any]) -> Preprocessing:
    """Return the preprocessing of one input.

    Parameters
    ----------
    name : str or None
        Of the input; settings that are mappings are looked up by it and default to nothing.
    settings : mapping
        ``scale``, ``offset``, ``divide_by``, ``preprocessing`` as in :class:`~.data_spec.DataSpec`.

    Raises
    ------
    InputError
        If a number is not finite, a divisor or scale is zero, or two settings exclude each other.
    """
    picked = {
        key: (value.get(name) if isinstance(value, Mapping) else value) for key, value in settings.items()
    }
    scale = _numbers("scale", picked.get("scale"), 1.0)
    divide_by = picked.get("divide_by")
    if divide_by is not None:
        (divide_by,) = _numbers("divide_by", float(divide_by), 1.0)
        if scale != (1.0,):
            raise InputError(f"scale = {scale} and divide_by = {divide_by} are both set: keep one of them")
    if 0.0 in scale or divide_by == 0.0:
        raise InputError("scale and divide_by must not be 0: every sample would be the same, or infinite")
    function = picked.get("preprocessing")
    return Preprocessing(
        scale=scale,
        offset=_numbers("offset", picked.get("offset"), 0.0),
        divide_by=None if divide_by == 1.0 else divide_by,
        function=None if function is None else parse_function(function),
    )


def _numbers(setting: str, value: Any, default: float) -> tuple[float, ...]:
    values = np.atleast_1d(np.asarray(default if value is None else value))
    if values.ndim != 1 or values.dtype.kind not in "fiu" or values.size == 0:
        raise InputError(
            f"{setting} = {value!r} is refused: give a number, or one for each entry of the last axis"
        )
    numbers = tuple(float(number) for number in values)
    if not all(map(math.isfinite, numbers)):
        raise InputError(f"{setting} = {value!r} is refused: the numbers must be finite")
    # The same formula has the same identity, however it was written.
    return numbers[:1] if len(set(numbers)) == 1 else numbers


def _apply_mode(values: NDArray[np.float32], mode: str) -> NDArray[np.float32]:
    """Keras' ``imagenet_utils.preprocess_input`` for channels last, operation by operation."""
    if mode == "none":
        return values
    if mode == "tf":
        values /= np.float32(127.5)
        values -= np.float32(1.0)
        return values
    if mode == "torch":
        values /= np.float32(255.0)
        values -= np.asarray(_MEAN["torch"], np.float32)
        values /= np.asarray(_STD_TORCH, np.float32)
        return values
    out = np.ascontiguousarray(values[..., ::-1])  # RGB to BGR
    out -= np.asarray(_MEAN["caffe"], np.float32)
    return out
