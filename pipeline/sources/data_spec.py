"""Which data, in which order, prepared how: the settings of a source, validated once.

Knows names and limits. Opens nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ...storage.errors import InputError
from .preprocessing import preprocessing_for

__all__ = [
    "COLOR_MODES",
    "COLOR_MODE_OF",
    "FORMATS",
    "INTERPOLATIONS",
    "DataSpec",
    "Feature",
    "input_keys",
    "parse_count",
]

FORMATS = ("npz", "npy", "zarr", "images", "tfrecord")
COLOR_MODES: Mapping[str, int] = {"grayscale": 1, "rgb": 3, "rgba": 4}
"""Channels of each."""
COLOR_MODE_OF: Mapping[int, str] = {n_channels: mode for mode, n_channels in COLOR_MODES.items()}
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming", "keras_bilinear")


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One feature of the ``tf.train.Example`` records in TFRecord files."""

    shape: tuple[int, ...] = ()
    """Of one sample. ``()`` is a single number, such as a label. Not needed for images."""
    dtype: str = "float32"
    """NumPy name of the type: of the raw bytes (little-endian), or what a list of numbers is converted to."""
    encoding: Literal["auto", "image", "raw", "values"] = "auto"
    """``image``: JPEG, PNG, BMP or GIF bytes. ``raw``: the bytes of the array. ``values``: a float or int64
    list. ``auto`` looks at the first record."""

    def __post_init__(self) -> None:
        if self.encoding not in ("auto", "image", "raw", "values"):
            raise InputError(f"encoding = {self.encoding!r} is refused: auto, image, raw or values")
        try:
            is_number = np.dtype(self.dtype).kind in "fiub"
        except TypeError:
            is_number = False
        if not is_number:
            raise InputError(
                f"dtype = {self.dtype!r} of a feature is refused: name a NumPy number type, as 'uint8'"
            )
        if not all(map(_is_count, self.shape)):
            raise InputError(
                f"shape = {list(self.shape)} of a feature is refused: whole numbers of at least 1"
            )

    @classmethod
    def parse(cls, name: str, value: Feature | Mapping[str, Any]) -> Feature:
        """Return the feature that a table of a job file describes.

        Raises
        ------
        InputError
            For an unknown key or an impossible value, with the name of the feature.
        """
        if isinstance(value, Feature):
            return value
        if not isinstance(value, Mapping):
            raise InputError(
                f"feature {name!r} is {value!r}: write a table such as "
                "{shape = [28, 28, 1], dtype = 'uint8'}"
            )
        unknown = sorted(set(value) - {"shape", "dtype", "encoding"})
        if unknown:
            raise InputError(
                f"feature {name!r} has an unknown key {unknown[0]!r}; allowed: shape, dtype, encoding"
            )
        return cls(**{**value, "shape": tuple(value.get("shape", ()))})


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSpec:
    """Samples in files. Frozen and picklable: every worker opens its own.

    Settings that do not concern the kind of data are ignored, except where they contradict it.
    """

    path: str
    """A file, a folder, a glob of TFRecord files, or the URL of a zarr array or group."""
    format: str | None = None
    """One of :data:`FORMATS`; default: by the path's ending and what is there."""
    inputs: str | tuple[str, ...] | Mapping[str, str] | None = None
    """Array (or feature) of each input: one name, several in the order of the network's inputs, or
    ``{input name: array name}``. Default: the only array, or ``x``."""
    input_names: tuple[str, ...] = ()
    """Names of the network's inputs: if ``inputs`` is not set and the data has an array of each name, these
    are taken."""
    labels: str | None = None
    """Array (or feature) of the labels; default: ``y`` where there is one."""
    labels_path: str | None = None
    """File of the labels if they are not with the samples (``y_test.npy``, or ``.npz`` with ``labels``)."""
    num_samples: int | None = None
    """Use only the first N samples; default: all."""
    scale: float | tuple[float, ...] | Mapping[str, Any] = 1.0
    """``y = x * scale + offset``; one number, one for each channel, or a mapping by input name."""
    offset: float | tuple[float, ...] | Mapping[str, Any] = 0.0
    divide_by: float | Mapping[str, float] | None = None
    """Instead of ``scale``: ``y = x / divide_by + offset``, an exact division (255 for bytes)."""
    preprocessing: str | Mapping[str, str] | None = None
    """``preprocess_input`` of a module of ``keras.applications`` by name, applied after the scaling."""
    image_size: tuple[int, int] | None = None
    """(height, width) to resize images to; default: they must all have one size."""
    color_mode: str | None = None
    """``rgb`` (default), ``grayscale`` or ``rgba``."""
    interpolation: str = "bilinear"
    """For resizing: the filters of PIL, which use every pixel when they shrink an image, as
    ``keras.utils.load_img`` does; or ``keras_bilinear``, as in ``image_dataset_from_directory``."""
    crop_to_aspect_ratio: bool = False
    """Crop the centre to the proportions of ``image_size`` before resizing, so that nothing is distorted."""
    features: Mapping[str, Feature | Mapping[str, Any]] | None = None
    """TFRecord files only: the features to read."""
    fingerprint: Literal["sampled", "full"] = "full"
    """``full`` hashes every byte of each range; ``sampled`` at most 32 MiB of it, evenly spaced."""
    storage_options: Mapping[str, Any] = field(default_factory=dict)
    """Endpoint, region and the like for object stores."""

    def __post_init__(self) -> None:
        if not _is_text(self.path):
            raise InputError(f"the path of the data is {self.path!r}: name a file, a folder or a URL")
        _choice("format", self.format, (None, *FORMATS))
        _choice("color_mode", self.color_mode, (None, *COLOR_MODES))
        _choice("interpolation", self.interpolation, INTERPOLATIONS)
        _choice("fingerprint", self.fingerprint, ("sampled", "full"))
        object.__setattr__(self, "inputs", _frozen(self.inputs))
        if self.image_size is not None:
            object.__setattr__(self, "image_size", _parse_size(self.image_size))
        if self.features is not None:
            parsed = {name: Feature.parse(name, value) for name, value in self.features.items()}
            object.__setattr__(self, "features", parsed)
        parse_count(self.num_samples)
        for name in self._named_inputs():
            preprocessing_for(name, self.preparation())

    def preparation(self) -> dict[str, Any]:
        """Return the settings of :func:`~.preprocessing.preprocessing_for`."""
        return {key: getattr(self, key) for key in ("scale", "offset", "divide_by", "preprocessing")}

    def _named_inputs(self) -> set[str | None]:
        names: set[str | None] = {None}
        for value in self.preparation().values():
            names.update(value if isinstance(value, Mapping) else ())
        return names


def parse_count(num_samples: object) -> None:
    """Refuse a number of samples that is not a whole number of at least 1.

    Raises
    ------
    InputError
        With the value.
    """
    if num_samples is not None and not _is_count(num_samples):
        raise InputError(
            f"num_samples = {num_samples!r} is refused: a whole number of at least 1, or leave it out"
        )


def input_keys(inputs: str | Sequence[str] | Mapping[str, str] | None) -> dict[str | None, str]:
    """Return the array of each input by the name of the input, None for one input; empty if ``inputs`` is not set."""
    keys = [inputs] if isinstance(inputs, str) else inputs
    named: dict[str | None, str] = {}
    if isinstance(keys, Mapping):
        named.update(keys)
    elif keys is not None:
        named.update((key if len(keys) > 1 else None, key) for key in keys)
    return named


def _is_count(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 1)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _choice(setting: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value in allowed:
        return
    words = [word for word in allowed if word is not None]
    near = difflib.get_close_matches(str(value), words, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InputError(f"{setting} = {value!r} is refused: {hint}allowed are {', '.join(words)}")


def _frozen(keys: Any) -> Any:
    return tuple(keys) if isinstance(keys, list) else keys


def _parse_size(size: Any) -> tuple[int, int]:
    sides = tuple(size) if isinstance(size, tuple | list) else ()
    if len(sides) != 2 or not all(map(_is_count, sides)):
        raise InputError(f"image_size = {size!r} is refused: (height, width) in pixels, both at least 1")
    return int(sides[0]), int(sides[1])
