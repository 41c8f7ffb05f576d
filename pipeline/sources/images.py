"""Images in a folder, in the order of ``keras.utils.image_dataset_from_directory(shuffle=False)``.

Sub-folders are classes, sorted by name; without sub-folders there are no labels. Files are decoded by PIL
when they are read. Knows no network.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from .data_spec import DataSpec
from .pixels import PixelSettings, decode_image, encoded_size
from .protocol import Batch, InputSpec
from .states import files_state

__all__ = ["IMAGE_ENDINGS", "ImageFolder", "list_images"]

IMAGE_ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
"""The endings that Keras reads; with others, the samples would have another order than in training."""


def list_images(folder: str) -> tuple[tuple[str, ...], NDArray[np.int64] | None, tuple[str, ...]]:
    """Return the files of a folder relative to it, their classes and the names of the classes.

    Returns
    -------
    files : tuple of str
        In order.
    labels : ndarray of shape (n_files,), int64, or None
        Index into ``class_names``; None if the folder has no sub-folders.
    class_names : tuple of str

    Raises
    ------
    InputError
        If there are no images, or there are images both beside the sub-folders and in them.
    """
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    class_names = tuple(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    loose = tuple(entry.name for entry in entries if entry.is_file() and _is_image(entry.name))
    if not class_names:
        if not loose:
            raise InputError(f"{folder!r} holds no images ({', '.join(IMAGE_ENDINGS)})", path=folder)
        return loose, None, ()
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(class_names):
        found = _walk(folder, name)
        files += found
        labels += [label] * len(found)
    if not files and loose:  # the sub-folders hold something else
        return loose, None, ()
    if not files:
        raise InputError(
            f"neither {folder!r} nor its sub-folders hold images ({', '.join(IMAGE_ENDINGS)})", path=folder
        )
    if loose:
        raise InputError(
            f"{folder!r} holds images ({loose[0]!r}) beside the class folders ({class_names[0]!r}): "
            "move them into a class, or away",
            path=folder,
        )
    return tuple(files), np.asarray(labels, np.int64), class_names


class ImageFolder:
    """A :class:`~.protocol.Reader` over the images of a folder.

    Raises
    ------
    InputError
        If there are none, or the first one cannot be read.
    """

    has_labels: bool

    def __init__(self, folder: str, spec: DataSpec) -> None:
        if spec.inputs is not None or spec.labels is not None:
            raise InputError(
                "data.inputs and data.labels name arrays, but a folder of images has none: leave them out"
            )
        if spec.labels_path is not None:
            raise InputError(
                "labels_path is not read for a folder of images: its sub-folders are the classes"
            )
        self.origin = repr(folder)
        self._folder = Path(folder)
        self._files, self._labels, self.class_names = list_images(folder)
        self.has_labels = self._labels is not None
        self.n_rows = len(self._files)
        self._settings = PixelSettings.from_spec(spec)
        first = self._decode(0, self._encoded(0))
        self._shape = first.shape
        self.inputs = (InputSpec(None, first.shape, first.dtype.name),)

    def rows(self, start: int, stop: int) -> Batch:
        """Return decoded images, uint8 (float32 for ``keras_bilinear``), and their classes."""
        return self.rows_and_hashes(start, stop, ())[0]

    def rows_and_hashes(self, start: int, stop: int, hashed: Sequence[int]) -> tuple[Batch, list[bytes]]:
        """Return decoded images, and a hash of each file in ``hashed``, which is read once for both."""
        images = np.empty((stop - start, *self._shape), self.inputs[0].dtype)
        hashes, wanted = [], set(hashed)
        for row in range(start, stop):
            encoded = self._encoded(row)
            if row in wanted:
                hashes.append(_hash(encoded))
            image = self._decode(row, encoded)
            if image.shape != self._shape:
                raise InputError(
                    f"image {self._files[row]!r} has shape {image.shape}, but {self._files[0]!r} has "
                    f"{self._shape}: set image_size",
                    path=str(self._folder / self._files[row]),
                    sample=row,
                )
            images[row - start] = image
        return Batch((images,), None if self._labels is None else self._labels[start:stop]), hashes

    def encoded_sizes(self, rows: Sequence[int]) -> list[tuple[int, int]]:
        """Return height and width of these images as their files have them, without decoding them."""
        sizes = (encoded_size(str(self._folder / self._files[row])) for row in rows)
        return [size for size in sizes if size is not None]

    def labels(self, start: int, stop: int) -> NDArray[Any]:
        """Return the classes of these images, without the images; only if ``has_labels``."""
        assert self._labels is not None
        return self._labels[start:stop]

    def _decode(self, row: int, encoded: bytes) -> NDArray[Any]:
        return decode_image(encoded, self._settings, name=str(self._folder / self._files[row]))

    def _encoded(self, row: int) -> bytes:
        path = self._folder / self._files[row]
        try:
            return path.read_bytes()
        except OSError as error:
            raise InputError(
                f"image {str(path)!r} cannot be read: {error.strerror}", path=str(path)
            ) from None

    def row_nbytes(self) -> int:
        """Return the size of the first file: the encoded bytes are hashed."""
        return (self._folder / self._files[0]).stat().st_size

    def row_hashes(self, rows: Sequence[int]) -> list[bytes]:
        """Return a hash of the encoded bytes of each of these files; their names do not matter."""
        return [_hash(self._encoded(row)) for row in rows]

    def state(self) -> str | None:
        """Return the state of the files, in the order of the samples."""
        return files_state(self._folder / name for name in self._files)

    def identity(self) -> dict[str, Any]:
        """Return what turns encoded bytes into pixels."""
        return {"kind": "images", **self._settings.identity(self._shape)}


def _hash(encoded: bytes) -> bytes:
    return hashlib.blake2b(encoded, digest_size=16).digest()


def _walk(folder: str, name: str) -> list[str]:
    """Return the images below a class folder as Keras lists them: by directory, then by name."""
    files = []
    for root, _, names in sorted(os.walk(os.path.join(folder, name)), key=lambda step: step[0]):
        relative = os.path.relpath(root, folder)
        files += [os.path.join(relative, file) for file in sorted(names) if _is_image(file)]
    return files


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_ENDINGS)
