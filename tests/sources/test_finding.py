"""Data are found where they lie, whatever folders and files are called; damage is named."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actisketch.pipeline.sources import DataSpec, open_source
from actisketch.storage.errors import InputError

from .conftest import FEATURES, N_SAMPLES, classes, images, write_records

X, Y = images(), classes()

NAMES = ["images [64x64]", "what?", "a*b", "[]", "plain"]


def make_images(folder: Path) -> Path:
    from PIL import Image

    for index, (pixels, label) in enumerate(zip(X, Y, strict=True)):
        place = folder / "abc"[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{index:04d}.png")
    return folder


def make_npz(folder: Path) -> Path:
    folder.mkdir()
    np.savez(folder / "d [1].npz", x=X, y=Y)
    return folder / "d [1].npz"


def make_zarr(folder: Path) -> Path:
    import zarr

    zarr.open_group(folder, mode="w").create_array("x", data=X, chunks=X.shape)
    return folder


def make_record(folder: Path) -> Path:
    folder.mkdir()
    write_records(folder / "all [1].tfrecord", X, Y)
    return folder / "all [1].tfrecord"


def make_records(folder: Path) -> Path:
    make_shards(folder)
    return folder / "x.tfrecord-*"


def make_shards(folder: Path) -> Path:
    folder.mkdir()
    write_records(folder / "x.tfrecord-00000-of-00002", X[:11], Y[:11])
    write_records(folder / "x.tfrecord-00001-of-00002", X[11:], Y[11:])
    (folder / "dataset_info.json").write_text("{}")
    (folder / "._x.tfrecord-00000-of-00002").write_text("a Mac's")
    return folder


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", [make_images, make_npz, make_zarr, make_record, make_records, make_shards])
def test_brackets_and_stars_in_names_are_letters(
    tmp_path: Path, make: Callable[[Path], Path], name: str
) -> None:
    source = open_source(DataSpec(path=str(make(tmp_path / name)), features=FEATURES))

    np.testing.assert_array_equal(source.read(0, N_SAMPLES).inputs[0], X)


@pytest.mark.parametrize(
    "ending", ["tfrecord-00000-of-00001", "TFRecord", "tfrec", "tfrecords", "tfrecord.gz"]
)
def test_a_folder_of_records_by_any_ending_is_one(tmp_path: Path, ending: str) -> None:
    write_records(tmp_path / f"x.{ending}", X, Y, compression="GZIP" if ending.endswith("gz") else "")

    source = open_source(DataSpec(path=str(tmp_path), features=FEATURES))
    np.testing.assert_array_equal(source.read(0, N_SAMPLES).inputs[0], X)


@pytest.mark.parametrize("name", ["train-{}-of-00002", "validation-{}-of-00002", "my_set [1]-{}-of-00002"])
@pytest.mark.parametrize("kind", [None, "tfrecord"])
def test_shards_without_an_ending_are_records(tmp_path: Path, name: str, kind: Any) -> None:
    write_records(tmp_path / name.format("00000"), X[:11], Y[:11])
    write_records(tmp_path / name.format("00001"), X[11:], Y[11:])
    (tmp_path / "labels-00000-of-00002.txt").write_text("no record")

    source = open_source(DataSpec(path=str(tmp_path), format=kind, features=FEATURES))
    np.testing.assert_array_equal(source.read(0, N_SAMPLES).inputs[0], X)


LABELS = {
    "arr_0": ({"arr_0": X}, {"arr_0": Y}),
    "x": ({"x": X}, {"x": Y}),
    "y": ({"arr_0": X}, {"y": Y}),
    "x beside others": ({"x": X, "arr_0": X[:3]}, {"arr_0": Y}),
}


@pytest.mark.parametrize(("inputs", "labels"), LABELS.values(), ids=LABELS)
def test_the_key_of_labels_apart_is_of_their_file(tmp_path: Path, inputs: Any, labels: Any) -> None:
    np.savez(tmp_path / "x.npz", **inputs)
    np.savez(tmp_path / "y.npz", **labels)
    (key,) = labels
    spec = DataSpec(path=str(tmp_path / "x.npz"), labels_path=str(tmp_path / "y.npz"), labels=key)

    batch = open_source(spec).read(0, N_SAMPLES)
    np.testing.assert_array_equal(batch.inputs[0], X)
    np.testing.assert_array_equal(batch.labels, Y)


@pytest.mark.parametrize("extra", ["__MACOSX/._x.npy", "._x.npy", "__MACOSX/folder/._x.npy", ".DS_Store"])
def test_what_a_mac_adds_to_an_archive_is_no_array(tmp_path: Path, extra: str) -> None:
    np.savez(tmp_path / "x.npz", x=X)
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        archive.writestr(extra, b"\0\5\x16\7 resource fork")

    source = open_source(DataSpec(path=str(tmp_path / "x.npz")))
    np.testing.assert_array_equal(source.read(0, N_SAMPLES).inputs[0], X)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("where", ["npy", "npz", "compressed"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_version_of_the_format_is_read(tmp_path: Path, version: Any, where: str, order: Any) -> None:
    if (where, order) == ("compressed", "F"):
        pytest.skip("refused, in whatever version")
    path = tmp_path / "x.npy"
    with path.open("wb") as file:
        np.lib.format.write_array(file, np.asarray(X, order=order), version=version)
    if where != "npy":
        method = zipfile.ZIP_DEFLATED if where == "compressed" else zipfile.ZIP_STORED
        with zipfile.ZipFile(tmp_path / "x.npz", "w", method) as archive:
            archive.write(path, "x.npy")
        path = tmp_path / "x.npz"

    source = open_source(DataSpec(path=str(path)))
    np.testing.assert_array_equal(source.read(0, N_SAMPLES).inputs[0], X)


@pytest.mark.parametrize("save", [np.save, np.savez, np.savez_compressed])
def test_whatever_is_damaged_is_an_error_of_ours_or_changes_nothing(tmp_path: Path, save: Any) -> None:
    """A bit of every byte of a small file, and the file cut off at every length."""
    path = tmp_path / ("x.npy" if save is np.save else "x.npz")
    x = np.arange(30, dtype=np.int16).reshape(10, 3)
    save(path, x) if save is np.save else save(path, x=x)
    whole, n_read = path.read_bytes(), 0
    # An .npy has no checksum of its values: there only the header is harmed.
    n_flipped = len(whole) - (x.nbytes if save is np.save else 0)
    harmed = [whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :] for at in range(n_flipped)]
    for stored in harmed + [whole[:length] for length in range(len(whole))]:
        path.write_bytes(stored)
        try:
            found = open_source(DataSpec(path=str(path))).read(0, 10).inputs[0]
        except InputError:
            continue
        n_read += 1
        if save is not np.save:
            np.testing.assert_array_equal(found, x)

    print(f"{save.__name__}: {len(harmed)} flipped, {len(whole)} cut off, {n_read} read all the same")
    assert n_read < len(harmed) / 2


@pytest.mark.parametrize("change", ["password", "method", "empty member", "folder"])
def test_archives_that_cannot_be_read_are_named(tmp_path: Path, change: str) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, x=X)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\1\2")
    if change == "password":
        data[6] |= 1
        data[at + 8] |= 1
    if change == "method":
        data[8] = data[at + 10] = 99
    path.write_bytes(data)
    if change == "empty member":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", b"")
    if change == "folder":
        os.remove(path)
        path.mkdir()

    with pytest.raises(InputError, match=r"x\.np"):
        open_source(DataSpec(path=str(path))).read(0, 1)
    shutil.rmtree(path, ignore_errors=True)
