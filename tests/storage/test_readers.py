"""Other programs open the cache without knowing of actisketch: zarr, xarray, dask."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import dask.array
import numpy as np
import pytest
import xarray
import zarr
from obstore.store import S3Store
from zarr.storage import ObjectStore

from actisketch.storage import Cache
from actisketch.storage.codecs import CODECS

from . import made_up
from .conftest import BUCKET, S3Server


@pytest.fixture(
    scope="module", params=[(codec, dtype) for codec in CODECS for dtype in ("float32", "float16")]
)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    codec, dtype = request.param
    path = tmp_path_factory.mktemp("readers") / "cache"
    with Cache.create_or_resume(path, made_up.spec(codec=codec, dtype=dtype)) as cache:
        made_up.fill(cache)
    return path


def check(keys: dict[str, str], read: dict[str, np.ndarray]) -> None:
    for point in made_up.POINTS:
        values = read[keys[point.name]]

        np.testing.assert_array_equal(values, made_up.activations(point, 0, 37).astype(values.dtype))


def test_zarr_opens_the_cache_and_names_the_points(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open(folder, mode="r")
        assert isinstance(group, zarr.Group)
        arrays = dict(group.arrays())
        str(group.tree())

    check(Cache.open(folder).spec.keys, {key: np.asarray(array[:]) for key, array in arrays.items()})
    assert {array.attrs["point"] for array in arrays.values()} == {point.name for point in made_up.POINTS}
    conv = next(array for key, array in arrays.items() if key.startswith("block1_conv"))
    assert conv.attrs["layer_type"] == "Conv2D"
    assert conv.attrs["channel_axis"] == 3
    assert conv.chunks == (8, 5, 3, 2)


def test_xarray_opens_the_cache_in_one_call(folder: Path) -> None:
    # In this process, whatever Dask client another test has left behind as the default one.
    with dask.config.set(scheduler="synchronous"), xarray.open_zarr(folder) as dataset:
        check(
            Cache.open(folder).spec.keys, {str(key): array.values for key, array in dataset.data_vars.items()}
        )
        assert dataset.sizes["sample"] == 37
        assert all(array.dims[0] == "sample" for array in dataset.data_vars.values())
        assert {len(set(array.dims)) == array.ndim for array in dataset.data_vars.values()} == {True}


def test_dask_reads_a_point_chunk_by_chunk(folder: Path) -> None:
    keys = Cache.open(folder).spec.keys
    arrays = {key: dask.array.from_zarr(str(folder), component=key) for key in keys.values()}

    assert arrays[keys["schicht ü"]].chunks == ((8, 8, 8, 8, 5), (11,))
    check(keys, {key: array.compute(scheduler="synchronous") for key, array in arrays.items()})


def test_zarr_writes_the_bytes_that_we_write(folder: Path, tmp_path: Path) -> None:
    """Our encoder against zarr-python's, chunk by chunk: equal bytes without compression, equal values with it."""
    cache = Cache.open(folder)
    for point in made_up.POINTS:
        key = cache.spec.keys[point.name]
        (tmp_path / key).mkdir()
        (tmp_path / key / "zarr.json").write_bytes((folder / key / "zarr.json").read_bytes())
        array = zarr.open_array(tmp_path / key, mode="r+", config={"write_empty_chunks": True})
        array[:] = made_up.activations(point, 0, 37).astype(cache.spec.dtype)
        for path in (folder / key).glob("c.*"):
            theirs = (tmp_path / key / path.name).read_bytes()
            assert cache.spec.codec != "none" or path.read_bytes() == theirs
            (tmp_path / key / path.name).write_bytes(path.read_bytes())
        np.testing.assert_array_equal(
            np.asarray(array[:]), made_up.activations(point, 0, 37).astype(cache.spec.dtype)
        )


def test_zarr_and_xarray_read_a_cache_on_s3(s3: S3Server) -> None:
    url = f"s3://{BUCKET}/readers"
    with Cache.create_or_resume(url, made_up.spec(), s3.options) as cache:
        made_up.fill(cache)
        keys = cache.spec.keys
    options = {key: value for key, value in s3.options.items() if key != "client_options"}
    store = ObjectStore(
        S3Store(BUCKET, prefix="readers", client_options={"allow_http": True}, **options), read_only=True
    )

    group = zarr.open_group(store, mode="r")
    check(keys, {key: np.asarray(array[:]) for key, array in group.arrays()})
    with xarray.open_zarr(store) as dataset:
        check(keys, {str(key): array.values for key, array in dataset.data_vars.items()})


def test_reading_and_resuming_import_neither_zarr_nor_dask_nor_tensorflow(folder: Path) -> None:
    code = """
import sys
from actisketch.storage import Cache
cache = Cache.open(sys.argv[1])
assert len(cache.committed()) == 5
list(cache.chunks("all zero"))
cache.close()
heavy = {"zarr", "dask", "tensorflow", "keras", "obstore", "numba"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)
