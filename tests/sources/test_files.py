"""Files of arrays: where they are found, how they are chosen, and what is wrong with broken ones."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from actisketch.pipeline.sources import DataSpec, PreparedSource, Source, as_source, npyfiles, open_source
from actisketch.storage.errors import InputError, StorageError

X = np.arange(7 * 3, dtype=np.float32).reshape(7, 3)


def opened(path: Path | str, **settings: Any) -> PreparedSource:
    return open_source(DataSpec(path=str(path), **settings))


def values(source: Source) -> NDArray[Any]:
    return source.read(0, source.n_samples).inputs[0]


def test_paths_start_at_the_folder_of_the_job(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)

    source = open_source(DataSpec(path="x.npy"), base_dir=tmp_path)

    np.testing.assert_array_equal(values(source), X)


def test_a_file_url_is_a_path_of_this_machine_in_percent_encoding(tmp_path: Path) -> None:
    np.save(tmp_path / "a b%.npy", X)

    np.testing.assert_array_equal(values(opened(f"file://{tmp_path}/a%20b%25.npy")), X)
    with pytest.raises(InputError, match="names the host 'elsewhere'"):
        opened(f"file://elsewhere{tmp_path}/a%20b%25.npy")
    with pytest.raises(InputError, match="percent-encode"):
        opened(f"file://{tmp_path}/a?b.npy")


def test_arrays_that_are_named_as_the_inputs_of_the_network_are_taken(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", right=X + 1, left=X, ids=np.arange(7))
    names = {"input_names": ("left", "right")}

    source = opened(tmp_path / "two.npz", **names)

    assert [spec.name for spec in source.inputs] == ["left", "right"]
    np.testing.assert_array_equal(source.read(0, 7).inputs[1], X + 1)
    assert opened(tmp_path / "two.npz", inputs="right", **names).inputs[0].name is None
    with pytest.raises(InputError, match="say which is the input"):
        opened(tmp_path / "two.npz", input_names=("left", "other"))


def test_an_npy_file_travels_as_its_path(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1000, 1000), np.float32))

    assert len(pickle.dumps(opened(tmp_path / "x.npy"))) < 5000


def test_memory_maps_and_runs_of_their_rows_are_read_from_their_file(tmp_path: Path) -> None:
    big = np.arange(100_000, dtype=np.float32).reshape(1000, 100)
    np.save(tmp_path / "x.npy", big)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")

    for array, expected in [
        (mapped, big),
        (mapped[300:], big[300:]),
        (mapped[300:][200:700], big[500:1000]),
        (mapped[:, :7], big[:, :7]),
        (mapped[::-1], big[::-1]),
    ]:
        source = as_source(array)
        np.testing.assert_array_equal(values(source), expected)
        np.testing.assert_array_equal(values(pickle.loads(pickle.dumps(source))), expected)
    assert len(pickle.dumps(as_source(mapped[300:]))) < 5000


def test_a_map_that_was_changed_in_memory_is_taken_from_memory(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    changed = np.load(tmp_path / "x.npy", mmap_mode="c")
    changed[2] = 99

    assert as_source(changed).read(2, 3).inputs[0] == pytest.approx(99)


@pytest.mark.parametrize("order", ["C", "F"])
def test_reading_through_a_file_does_not_count_as_memory(tmp_path: Path, order: Any) -> None:
    shape = (400, 256, 512)  # 200 MiB
    array = np.lib.format.open_memmap(
        tmp_path / "x.npy", mode="w+", dtype=np.float32, shape=shape, fortran_order=order == "F"
    )
    array[-1] = 1  # the rest of the file stays a hole, which reads as zeros
    del array
    code = """
import sys, psutil
from actisketch.pipeline.sources import DataSpec, open_source
source = open_source(DataSpec(path=sys.argv[1]))
source.read(0, 40)
before = psutil.Process().memory_info().rss
for start in range(0, 400, 40):
    source.read(start, start + 40)
print((psutil.Process().memory_info().rss - before) >> 20)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.npy")], capture_output=True, text=True, check=True
    )

    assert int(done.stdout) < 60


def test_a_file_that_becomes_shorter_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1000, 1000), np.float32))
    source = opened(tmp_path / "x.npy")
    with (tmp_path / "x.npy").open("r+b") as file:
        file.truncate(5000)

    with pytest.raises(InputError, match="has become shorter"):
        source.read(500, 600)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npz_members_are_read_as_numpy_reads_them(tmp_path: Path, save: Any, order: str) -> None:
    x = np.asarray(np.arange(60).reshape(5, 4, 3), order=order)  # type: ignore[call-overload] # "C" or "F"
    save(tmp_path / "d.npz", before=np.zeros(999), x=x, after=np.ones(3))
    if save is np.savez_compressed and order == "F":
        with pytest.raises(InputError, match="ascontiguousarray"):
            opened(tmp_path / "d.npz")
        return

    source = opened(tmp_path / "d.npz")

    np.testing.assert_array_equal(source.read(1, 4).inputs[0], x[1:4])


def test_a_large_compressed_member_is_streamed_forward_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npyfiles, "KEEP_NBYTES", 10)
    np.savez_compressed(tmp_path / "d.npz", x=X)
    source = opened(tmp_path / "d.npz")

    for start, stop in [(0, 3), (3, 7), (1, 2), (6, 7)]:
        np.testing.assert_array_equal(source.read(start, stop).inputs[0], X[start:stop])


@pytest.mark.parametrize("keep", [10, 2**30], ids=["streamed", "kept"])
def test_a_compressed_member_that_was_written_again_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int
) -> None:
    monkeypatch.setattr(npyfiles, "KEEP_NBYTES", keep)
    np.savez_compressed(tmp_path / "d.npz", x=X)
    source = opened(tmp_path / "d.npz")
    source.read(0, 3)
    before = source.content_hash(0, 7)
    np.savez_compressed(tmp_path / "d.npz", x=X + 1)

    np.testing.assert_array_equal(values(source), X + 1)
    assert source.content_hash(0, 7) != before
    np.savez_compressed(tmp_path / "d.npz", x=X.astype(np.int32))
    with pytest.raises(
        InputError, match=r"dtype float32 when it was opened, and .* int32 now: open the data again"
    ):
        values(source)


def test_a_member_whose_date_is_in_the_future_is_inflated_once_while_it_is_read_forward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "d.npz", x=X)
    os.utime(tmp_path / "d.npz", (2**32, 2**32))
    source, inflated = opened(tmp_path / "d.npz"), []
    inflate = npyfiles.StreamedMember._inflate
    monkeypatch.setattr(
        npyfiles.StreamedMember,
        "_inflate",
        lambda self, *part: (inflated.append(part), inflate(self, *part))[1],
    )

    for start in range(7):
        np.testing.assert_array_equal(source.read(start, start + 1).inputs[0], X[start : start + 1])
    assert inflated == [(0, 7)]


def test_a_local_zarr_array_in_one_chunk_that_was_written_again_is_read_again(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "x.zarr", data=X, chunks=X.shape)
    source = as_source(array)
    source.read(0, 7)
    before = source.content_hash(0, 7)
    array[:] = X + 1

    assert source.content_hash(0, 7) != before
    np.testing.assert_array_equal(values(source), X + 1)


def test_the_only_array_is_the_input(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", X)  # arr_0, as SNN toolbox writes

    source = opened(tmp_path / "d.npz")

    np.testing.assert_array_equal(values(source), X)
    assert not source.has_labels


def test_keys_choose_inputs_and_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", a=X, b=X * 2, c=np.arange(7))

    source = opened(tmp_path / "d.npz", inputs=["b", "a"], labels="c")
    renamed = opened(tmp_path / "d.npz", inputs={"left": "a"}, labels="c")

    assert [spec.name for spec in source.inputs] == ["b", "a"]
    assert [spec.name for spec in renamed.inputs] == ["left"]
    np.testing.assert_array_equal(source.read(0, 7).inputs[0], X * 2)
    assert source.read(5, 7).labels == pytest.approx([5, 6])


def test_labels_may_lie_in_a_file_apart(tmp_path: Path) -> None:
    np.savez(tmp_path / "x_test.npz", X)
    np.savez(tmp_path / "y_test.npz", np.arange(7))

    source = opened(tmp_path / "x_test.npz", labels_path=str(tmp_path / "y_test.npz"))

    assert source.read(2, 4).labels == pytest.approx([2, 3])


@pytest.mark.parametrize("store", ["folder", "zip", "file url"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_groups_of_both_formats_are_read(tmp_path: Path, store: str, zarr_format: Any) -> None:
    path = tmp_path / ("d.zarr.zip" if store == "zip" else "d.zarr")
    target: Any = zarr.storage.ZipStore(path, mode="w") if store == "zip" else path
    group = zarr.open_group(target, mode="w", zarr_format=zarr_format)
    group.create_array("x", data=X, chunks=(2, 3))
    group.create_array("sub/deep", data=X * 3)
    if store == "zip":
        target.close()

    url = path.as_uri() if store == "file url" else str(path)

    np.testing.assert_array_equal(values(opened(url)), X)
    np.testing.assert_array_equal(values(opened(url, inputs="sub/deep")), X * 3)


def test_a_sharded_zarr_array_is_read(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "x.zarr", data=X, chunks=(1, 3), shards=(4, 3))

    np.testing.assert_array_equal(values(opened(tmp_path / "x.zarr")), X)


def test_array_files_are_read_without_tensorflow(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X)
    np.save(tmp_path / "x.npy", X)
    zarr.create_array(tmp_path / "x.zarr", data=X)
    code = """
import sys
import urllib.request
from actisketch.pipeline.sources import DataSpec, as_source, open_source
for path in sys.argv[1:]:
    source = open_source(DataSpec(path=path, preprocessing="vgg16"))
    source.read(0, 7), source.fingerprint(), source.content_hash(0, 7)
print([name for name in ("tensorflow", "keras", "dask", "distributed") if name in sys.modules])
"""
    paths = [str(tmp_path / name) for name in ("d.npz", "x.npy", "x.zarr")]

    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore.*")
def test_zarr_groups_in_an_object_store_are_read_by_url(monkeypatch: pytest.MonkeyPatch) -> None:
    import obstore.store
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/bucket", method="PUT")).close()
        options: dict[str, Any] = {
            "endpoint": endpoint,
            "access_key_id": "a",
            "secret_access_key": "b",
            "region": "us-east-1",
            "client_options": {"allow_http": True},
        }
        store = zarr.storage.ObjectStore(obstore.store.from_url("s3://bucket/data.zarr", **options))
        group = zarr.open_group(store, mode="w")
        group.create_array("x", data=X, chunks=(2, 3))
        group.create_array("y", data=np.arange(7))

        source = opened("s3://bucket/data.zarr", storage_options=options)

        np.testing.assert_array_equal(values(source), X)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).read(2, 5).inputs[0], X[2:5])
        with pytest.raises(InputError, match="neither a zarr array nor a zarr group"):
            opened("s3://bucket/nothing.zarr", storage_options=options)
        closed = {**options, "endpoint": "http://127.0.0.1:9", "retry_config": {"max_retries": 0}}
        with pytest.raises(StorageError, match="cannot be opened"):
            opened("s3://bucket/data.zarr", storage_options=closed)
    finally:
        server.stop()
