"""Encoded image bytes to an array of pixels: decode, convert colours, crop, resize.

Knows PIL. Does not know where the bytes come from.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from .data_spec import COLOR_MODES, DataSpec

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["PixelSettings", "decode_image", "encoded_size", "resize_like_keras"]

_PIL_MODES = {"grayscale": "L", "rgb": "RGB", "rgba": "RGBA"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelSettings:
    """How an encoded image becomes an array; see :class:`~.data_spec.DataSpec` for the meaning of each."""

    color_mode: str = "rgb"
    image_size: tuple[int, int] | None = None
    interpolation: str = "bilinear"
    crop_to_aspect_ratio: bool = False

    @classmethod
    def from_spec(cls, spec: DataSpec) -> PixelSettings:
        """Return the part of a spec that concerns pixels."""
        return cls(
            color_mode=spec.color_mode or "rgb",
            image_size=spec.image_size,
            interpolation=spec.interpolation,
            crop_to_aspect_ratio=spec.crop_to_aspect_ratio,
        )

    def identity(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """Return what decides the values of the pixels; the filter does only if images are resized."""
        resized = self.image_size is not None
        return {
            "color_mode": self.color_mode,
            "image_size": list(shape[:2]),
            "interpolation": self.interpolation if resized else "none",
            "crop_to_aspect_ratio": self.crop_to_aspect_ratio and resized,
        }


def decode_image(encoded: bytes, settings: PixelSettings, *, name: str) -> NDArray[Any]:
    """Return the pixels of a JPEG, PNG, BMP or GIF (its first frame).

    Parameters
    ----------
    encoded : bytes
        The file's content.
    settings : PixelSettings
    name : str
        For the message.

    Returns
    -------
    ndarray of shape (height, width, channels)
        uint8; float32 after ``keras_bilinear``.

    Raises
    ------
    InputError
        If it is not an image, is cut off, has 16 bits per channel, or is so large that PIL refuses it.
    """
    import PIL.Image

    try:
        with warnings.catch_warnings():
            # PIL warns of an image that may be an attack; here it is a broken sample.
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(io.BytesIO(encoded)) as image:
                deep = image.mode.startswith(("I", "F"))
                converted = None if deep else image.convert(_PIL_MODES[settings.color_mode])
    except (
        OSError,
        ValueError,
        SyntaxError,  # PIL's word for a broken PNG
        PIL.Image.DecompressionBombWarning,
        PIL.Image.DecompressionBombError,
    ) as error:
        raise InputError(f"image {name!r} cannot be decoded: {_reason(error)}", path=name) from None
    if converted is None:
        raise InputError(f"image {name!r} has more than 8 bits per channel: convert it to 8 bits", path=name)
    return _pixels(converted, settings)


def encoded_size(path: str) -> tuple[int, int] | None:
    """Return height and width of an image as its file says; None if it is not an image: reading it gives the error."""
    import PIL.Image

    try:
        with PIL.Image.open(path) as image:
            return image.height, image.width
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError):
        return None


def _reason(error: Exception) -> str:
    text = str(error)
    return "it is not an image that PIL knows" if "cannot identify" in text else text


def _pixels(image: Image, settings: PixelSettings) -> NDArray[Any]:
    if settings.image_size is not None:
        if settings.crop_to_aspect_ratio:
            image = image.crop(_central_box(image.size, settings.image_size))
        if settings.interpolation == "keras_bilinear":
            return resize_like_keras(_array(image, settings), settings.image_size)
        height, width = settings.image_size
        if image.size != (width, height):
            from PIL.Image import Resampling

            image = image.resize((width, height), Resampling[settings.interpolation.upper()])
    return _array(image, settings)


def _array(image: Image, settings: PixelSettings) -> NDArray[np.uint8]:
    pixels = np.asarray(image, np.uint8)
    return pixels.reshape(image.height, image.width, COLOR_MODES[settings.color_mode])


def _central_box(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the largest centred box with the target's proportions, by Keras' ``smart_resize`` rounding."""
    width, height = size
    target_height, target_width = target
    crop_height = min(height, int(float(width * target_height) / target_width))
    crop_width = min(width, int(float(height * target_width) / target_height))
    top = int(float(height - crop_height) / 2)
    left = int(float(width - crop_width) / 2)
    return left, top, left + crop_width, top + crop_height


def resize_like_keras(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    r"""Return the image resized as ``tf.image.resize(method="bilinear", antialias=False)`` does it.

    From the four neighbours around the centre of each target pixel, whatever the factor: shrinking skips pixels, as
    it did for networks that were trained with ``image_dataset_from_directory``.

    Parameters
    ----------
    pixels : ndarray of shape (height, width, channels)
    size : (int, int)
        Target height and width.

    Returns
    -------
    ndarray of shape (\*size, channels), float32
    """
    values = pixels.astype(np.float32)
    if values.shape[:2] == size:
        return values
    (top, bottom, down), (left, right, across) = (
        _neighbours(old, new) for old, new in zip(values.shape[:2], size, strict=True)
    )
    across = across[:, None]
    upper, lower = values[top], values[bottom]
    upper = upper[:, left] + (upper[:, right] - upper[:, left]) * across
    lower = lower[:, left] + (lower[:, right] - lower[:, left]) * across
    return upper + (lower - upper) * down[:, None, None]


def _neighbours(old: int, new: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Half-pixel centres, in float32 as TensorFlow's kernel (resize_bilinear_op) computes them."""
    scale = np.float32(old) / np.float32(new)
    centre = (np.arange(new, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    floor = np.floor(centre)
    before = np.maximum(floor, 0).astype(np.int64)
    after = np.minimum(np.ceil(centre), old - 1).astype(np.int64)
    return before, after, (centre - floor).astype(np.float32)
