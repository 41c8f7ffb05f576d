"""From the ``tf.train.Example`` in a record of a TFRecord file to arrays.

TensorFlow is imported with the first record that is read, and not before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from .data_spec import COLOR_MODE_OF, Feature
from .pixels import PixelSettings, decode_image

__all__ = ["Example", "FeatureDecoder", "parse_example"]

Values = list[bytes] | NDArray[np.float32] | NDArray[np.int64]
Example = dict[str, Values]

_IMAGE_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM")


@cache
def _messages() -> tuple[type[Any], type[Exception]]:
    """Return the class of the messages, and what it raises for other bytes."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    return tf.train.Example, DecodeError


def parse_example(record: bytes, *, name: str) -> Example:
    """Return the features of one serialised ``tf.train.Example``.

    Raises
    ------
    InputError
        If the bytes are not such a message; ``name`` is in the message.
    """
    message, decode_error = _messages()
    try:
        features = message.FromString(record).features.feature
    except decode_error as error:
        raise InputError(f"{name} is not a tf.train.Example: {error}") from None
    found = {key: _values(feature) for key, feature in features.items()}
    return {key: values for key, values in found.items() if values is not None}


def _values(feature: Any) -> Values | None:
    kind = feature.WhichOneof("kind")
    if kind == "bytes_list":
        return list(feature.bytes_list.value)
    if kind == "float_list":
        return np.array(feature.float_list.value, np.float32)
    return None if kind is None else np.array(feature.int64_list.value, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureDecoder:
    """From one feature of a record to an array of a fixed shape and type."""

    key: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    encoding: str
    pixels: PixelSettings

    @classmethod
    def fit(
        cls, key: str, features: Mapping[str, Any], first: Example, pixels: PixelSettings
    ) -> FeatureDecoder:
        """Return the decoder of a feature, its open settings taken from the first record.

        Raises
        ------
        InputError
            If the record has no such feature, or it does not fit the settings.
        """
        feature: Feature = features[key]
        encoding: str = feature.encoding
        if encoding == "auto":
            encoding = _guess(_lookup(first, key, "the first record"))
        if encoding != "image":
            dtype = np.dtype(feature.dtype).newbyteorder("<" if encoding == "raw" else "=")
            decoder = cls(key=key, shape=feature.shape, dtype=dtype, encoding=encoding, pixels=pixels)
            decoder.decode(first, name="the first record")
            return decoder
        if len(feature.shape) == 3 and feature.shape[2] in COLOR_MODE_OF:
            size = pixels.image_size or (feature.shape[0], feature.shape[1])
            pixels = replace(pixels, color_mode=COLOR_MODE_OF[feature.shape[2]], image_size=size)
        image = decode_image(
            _single(first, key, "the first record"), pixels, name=f"{key!r} of the first record"
        )
        return cls(key=key, shape=image.shape, dtype=image.dtype, encoding="image", pixels=pixels)

    def decode(self, example: Example, *, name: str) -> NDArray[Any]:
        """Return the feature of one record.

        Raises
        ------
        InputError
            If it is not there, or has another size or kind than the settings say; ``name`` is in the message.
        """
        if self.encoding == "image":
            values: Any = decode_image(
                _single(example, self.key, name), self.pixels, name=f"{self.key!r} of {name}"
            )
            if values.shape != self.shape:
                raise InputError(
                    f"the image {self.key!r} of {name} has shape {values.shape}, the first one "
                    f"{self.shape}: set image_size"
                )
            return np.asarray(values)
        if self.encoding == "raw":
            raw = _single(example, self.key, name)
            if len(raw) % self.dtype.itemsize:
                raise InputError(
                    f"{self.key!r} of {name} has {len(raw)} bytes, no whole number of {self.dtype.name}"
                )
            values = np.frombuffer(raw, self.dtype)
        else:
            values = _lookup(example, self.key, name)
            if isinstance(values, list):
                raise InputError(
                    f"{self.key!r} of {name} holds bytes, not numbers: set encoding = 'raw' or 'image'"
                )
        if values.size != int(np.prod(self.shape, dtype=np.int64)):
            raise InputError(
                f"{self.key!r} of {name} holds {values.size} values of {self.dtype.name}, shape "
                f"{list(self.shape)} was expected: correct shape or dtype in features"
            )
        return _cast(values, self.dtype, f"{self.key!r} of {name}").reshape(self.shape)

    def identity(self) -> dict[str, Any]:
        """Return what decides the values beyond the bytes of the record."""
        identity = {"key": self.key, "encoding": self.encoding}
        return identity | (self.pixels.identity(self.shape) if self.encoding == "image" else {})


def _cast(values: NDArray[Any], dtype: np.dtype[Any], origin: str) -> NDArray[Any]:
    """Return the values in another type; InputError if they are other values there, but for a float's last bits."""
    with np.errstate(invalid="ignore", over="ignore"):
        cast = np.asarray(values.astype(dtype, copy=False))
        if values.dtype.kind == dtype.kind == "f":
            same = (cast == values) | (np.isfinite(values) == np.isfinite(cast))
        else:
            same = cast == values
    if not np.all(same):
        found = values[~same][0]
        raise InputError(
            f"{origin} holds {found.item()!r} as {values.dtype.name}, which is {cast[~same][0].item()!r} as "
            f"{dtype.name}: correct its dtype in features"
        )
    return cast


def _guess(values: Values) -> str:
    if not isinstance(values, list):
        return "values"
    return "image" if values and values[0].startswith(_IMAGE_MAGIC) else "raw"


def _lookup(example: Example, key: str, name: str) -> Values:
    if key not in example:
        raise InputError(
            f"{name} has no feature {key!r}, it holds {sorted(example)}: correct features", key=key
        )
    return example[key]


def _single(example: Example, key: str, name: str) -> bytes:
    values = _lookup(example, key, name)
    if not isinstance(values, list) or len(values) != 1:
        found = f"{len(values)} strings of bytes" if isinstance(values, list) else "numbers"
        raise InputError(
            f"{key!r} of {name} holds {found}, one string of bytes was expected: set encoding = 'values'"
        )
    return values[0]
