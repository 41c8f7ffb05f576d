"""The same samples as every kind of data that a source is made of, written beside the code under test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from actisketch.pipeline.sources import DataSpec, Source, as_source, open_source

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Make = Callable[[Path, Images, Labels, int | None], Source]

N_SAMPLES = 23
SHAPE = (5, 7, 3)


def images(n_samples: int = N_SAMPLES) -> Images:
    """Samples that give themselves away: no two alike, no axis like another."""
    values = np.random.default_rng(31).integers(0, 256, (n_samples, *SHAPE))
    return values.astype(np.uint8)


def classes(n_samples: int = N_SAMPLES) -> Labels:
    """Sorted, so that class folders keep the order of the samples."""
    return np.sort(np.arange(n_samples, dtype=np.int64) % 3)


def numpy_array(folder: Path, x: Images, y: Labels, n: int | None) -> Source:
    return as_source(x, y, num_samples=n)


def npy(folder: Path, x: Images, y: Labels, n: int | None) -> Source:
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    return open_source(DataSpec(path="x.npy", labels_path="y.npy", num_samples=n), base_dir=folder)


def npz(folder: Path, x: Images, y: Labels, n: int | None) -> Source:
    np.savez(folder / "d.npz", x=x, y=y, other=np.zeros(3))
    return open_source(DataSpec(path=str(folder / "d.npz"), num_samples=n))


def npz_compressed(folder: Path, x: Images, y: Labels, n: int | None) -> Source:
    np.savez_compressed(folder / "d.npz", x=x, y=y)
    return open_source(DataSpec(path=str(folder / "d.npz"), num_samples=n))


def zarr_group(folder: Path, x: Images, y: Labels, n: int | None) -> Source:
    import zarr

    group = zarr.open_group(folder / "d.zarr", mode="w")
    group.create_array("x", data=x, chunks=(4, 5, 4, 3))
    group.create_array("y", data=y)
    return open_source(DataSpec(path=str(folder / "d.zarr"), num_samples=n))


def zarr_array(folder: Path, x: Images, y: Labels, n: int | None) -> Source:
    import zarr

    array = zarr.create_array(folder / "x.zarr", data=x, chunks=(4, *SHAPE), overwrite=True)
    return as_source(array, y, num_samples=n)


def dask_array(folder: Path, x: Images, y: Labels, n: int | None) -> Source:
    import dask.array

    return as_source(dask.array.from_array(x, chunks=(4, 5, 7, 3)), y, num_samples=n)


def image_folder(folder: Path, x: Images, y: Labels, n: int | None) -> Source:
    from PIL import Image

    for index, (pixels, label) in enumerate(zip(x, y, strict=True)):
        place = folder / "images" / "abc"[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{index:04d}.png")
    return open_source(DataSpec(path=str(folder / "images"), num_samples=n))


def tfrecord(folder: Path, x: Images, y: Labels, n: int | None) -> Source:
    write_records(folder / "a.tfrecord", x[:11], y[:11])
    write_records(folder / "b.tfrecord", x[11:], y[11:])
    return open_source(DataSpec(path=str(folder / "*.tfrecord"), num_samples=n, features=FEATURES))


def tfrecord_gzip(folder: Path, x: Images, y: Labels, n: int | None) -> Source:
    write_records(folder / "a.tfrecord", x, y, compression="GZIP")
    return open_source(DataSpec(path=str(folder / "a.tfrecord"), num_samples=n, features=FEATURES))


FEATURES: Mapping[str, Any] = {"image": {"shape": SHAPE, "dtype": "uint8"}, "label": {"dtype": "int64"}}


def write_records(path: Path, x: Images, y: Labels, *, compression: str = "") -> None:
    """Written by TensorFlow itself: the oracle of the reader."""
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for pixels, label in zip(x, y, strict=True):
            features = {
                "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[pixels.tobytes()])),
                "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[int(label)])),
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())


def tf_dataset(folder: Path, x: Images, y: Labels, n: int | None) -> Source:
    import tensorflow as tf

    return as_source(tf.data.Dataset.from_tensor_slices((x, y)), num_samples=n)


def tf_dataset_batched(folder: Path, x: Images, y: Labels, n: int | None) -> Source:
    import tensorflow as tf

    return as_source(tf.data.Dataset.from_tensor_slices((x, y)).batch(5).prefetch(2), num_samples=n)


def py_dataset(folder: Path, x: Images, y: Labels, n: int | None) -> Source:
    import keras

    class Batches(keras.utils.PyDataset):  # type: ignore[misc] # Keras has no types
        def __len__(self) -> int:
            return -(-len(x) // 5)

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            return x[index * 5 : index * 5 + 5], y[index * 5 : index * 5 + 5]

    return as_source(Batches(), num_samples=n)


def generator_function(folder: Path, x: Images, y: Labels, n: int | None) -> Source:
    def batches() -> Iterator[tuple[Any, Any]]:
        for start in range(0, len(x), 5):
            yield x[start : start + 5], y[start : start + 5]

    return as_source(batches, num_samples=n or len(x))


def iterable_of_samples(folder: Path, x: Images, y: Labels, n: int | None) -> Source:
    class Samples:
        def __iter__(self) -> Iterator[tuple[Any, Any]]:
            return iter(zip(x, y, strict=True))

    return as_source(Samples(), num_samples=n or len(x), batched=False)


KINDS: dict[str, Make] = {
    make.__name__: make
    for make in (
        numpy_array,
        npy,
        npz,
        npz_compressed,
        zarr_group,
        zarr_array,
        dask_array,
        image_folder,
        tfrecord,
        tfrecord_gzip,
        tf_dataset,
        tf_dataset_batched,
        py_dataset,
        generator_function,
        iterable_of_samples,
    )
}

# An object that cannot travel itself: the function or class was made inside another.
UNPICKLABLE = {"py_dataset", "generator_function", "iterable_of_samples", "tf_dataset", "tf_dataset_batched"}
# The bytes that are hashed are encoded ones.
ENCODED = {"image_folder", "tfrecord", "tfrecord_gzip"}


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    """Every kind, one after the other."""
    return str(request.param)


@pytest.fixture
def make(kind: str) -> Make:
    """Makes a source of that kind from a folder to write in, samples, labels and num_samples."""
    return KINDS[kind]


@pytest.fixture
def hashes_values(kind: str) -> bool:
    """Whether the values are hashed, not encoded bytes."""
    return kind not in ENCODED


@pytest.fixture
def travels(kind: str) -> bool:
    """Whether what it is made of can be pickled."""
    return kind not in UNPICKLABLE


@pytest.fixture
def x() -> Images:
    return images()


@pytest.fixture
def y() -> Labels:
    return classes()
