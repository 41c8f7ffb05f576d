"""Read ``tf.train.Example`` messages without TensorFlow or a protobuf library.

Only what an Example can hold (``tensorflow/core/example/feature.proto``): a map from name to a list of bytes,
floats or int64. Wire format: a tag (field number << 3 | type), then a varint (0), 8 bytes (1), a length
and bytes (2), or 4 bytes (5). Unknown fields are skipped, as protobuf does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from .data_spec import Feature
from .pixels import PixelSettings, decode_image

__all__ = ["Example", "FeatureDecoder", "parse_example"]

Values = list[bytes] | NDArray[np.float32] | NDArray[np.int64]
Example = dict[str, Values]

_IMAGE_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM")


def parse_example(record: bytes, *, name: str) -> Example:
    """Return the features of one serialised ``tf.train.Example``.

    Raises
    ------
    InputError
        If the bytes are not such a message; ``name`` is in the message.
    """
    try:
        features: Example = {}
        for number, message in _fields(memoryview(record)):
            if number == 1 and isinstance(message, memoryview):
                features.update(_feature_map(message))
    except (IndexError, ValueError, TypeError) as error:
        raise InputError(f"{name} is not a tf.train.Example: {error}") from None
    return features


def _feature_map(message: memoryview) -> Iterator[tuple[str, Values]]:
    for number, entry in _fields(message):
        if number != 1 or not isinstance(entry, memoryview):
            continue
        key, values = "", None
        for part, content in _fields(entry):
            if part == 1 and isinstance(content, memoryview):
                key = str(content, "utf-8")
            elif part == 2 and isinstance(content, memoryview):
                values = _values(content)
        if values is not None:
            yield key, values


def _values(feature: memoryview) -> Values | None:
    for number, content in _fields(feature):
        if not isinstance(content, memoryview):
            continue
        if number == 1:
            return [
                bytes(item) for part, item in _fields(content) if part == 1 and isinstance(item, memoryview)
            ]
        if number == 2:
            # Packed, or one field of 4 bytes each: both are the same bytes joined.
            return np.frombuffer(b"".join(_chunks(content)), "<f4")
        if number == 3:
            return np.asarray([_signed(value) for value in _integers(content)], np.int64)
    return None


def _chunks(message: memoryview) -> Iterator[bytes]:
    for number, content in _fields(message):
        if number == 1 and isinstance(content, memoryview):
            yield bytes(content)


def _integers(message: memoryview) -> Iterator[int]:
    for number, content in _fields(message):
        if number != 1:
            continue
        if isinstance(content, int):
            yield content
            continue
        at = 0
        while at < len(content):
            value, at = _varint(content, at)
            yield value


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        wire = tag & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        if wire == 2:
            nbytes, at = _varint(message, at)
        elif wire in (1, 5):
            nbytes = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if at + nbytes > len(message):
            raise ValueError(f"a field ends {at + nbytes - len(message)} bytes after the record")
        yield tag >> 3, message[at : at + nbytes]
        at += nbytes


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError(f"a number of more than 64 bits before byte {at}")


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
        if len(feature.shape) == 3 and feature.shape[2] in (1, 3, 4):
            channels = {1: "grayscale", 3: "rgb", 4: "rgba"}[feature.shape[2]]
            size = pixels.image_size or (feature.shape[0], feature.shape[1])
            pixels = PixelSettings(
                color_mode=channels,
                image_size=size,
                interpolation=pixels.interpolation,
                crop_to_aspect_ratio=pixels.crop_to_aspect_ratio,
            )
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
