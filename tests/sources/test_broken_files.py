"""Files and settings that cannot be samples: named, with what is wrong and what would do."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from actisketch.pipeline.sources import DataSpec
from actisketch.storage.errors import InputError

from .test_files import X, opened, values


def write_text(path: Path) -> None:
    path.write_text("not an array")


def write_cut_off(path: Path) -> None:
    np.save(path, X)
    path.write_bytes(path.read_bytes()[:-5])


def write_objects(path: Path) -> None:
    np.save(path, np.array([1, "a"], object), allow_pickle=True)


def write_empty_array(path: Path) -> None:
    np.save(path, X[:0])


def write_scalar(path: Path) -> None:
    np.save(path, np.float32(3))


def write_table(path: Path) -> None:
    np.save(path, np.zeros(3, [("a", "f4"), ("b", "i4")]))


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (Path.touch, "empty file"),
        (write_text, "not a NumPy array"),
        (write_cut_off, "cut off"),
        (write_objects, "Python objects"),
        (write_empty_array, "is empty"),
        (write_scalar, "single number"),
        (write_table, "dtype"),
        (Path.mkdir, "is a folder"),
    ],
)
def test_a_broken_npy_file_is_named_with_what_is_wrong(tmp_path: Path, write: Any, words: str) -> None:
    write(tmp_path / "x.npy")

    with pytest.raises(InputError, match=words) as caught:
        opened(tmp_path / "x.npy")
    assert "x.npy" in str(caught.value)


@pytest.mark.parametrize("content", [b"PK\x03\x04 and nothing more", b"text"])
def test_a_broken_npz_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d.npz").write_bytes(content)

    with pytest.raises(InputError, match=r"d\.npz.* is not an \.npz file"):
        opened(tmp_path / "d.npz")


def test_a_damaged_compressed_member_is_named(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez_compressed(path, x=np.random.default_rng(3).random((50, 50)))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)

    with pytest.raises(InputError, match="cannot be inflated"):
        values(opened(path))


def test_an_object_array_beside_the_input_does_no_harm_until_it_is_asked_for(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X, names=np.array(["a", None], object))

    np.testing.assert_array_equal(values(opened(tmp_path / "d.npz")), X)
    with pytest.raises(InputError, match=r"'names' .*Python objects"):
        opened(tmp_path / "d.npz", inputs="names")


def test_an_archive_without_arrays_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")

    with pytest.raises(InputError, match="no arrays"):
        opened(tmp_path / "d.npz")


def test_a_wrong_key_lists_the_keys_and_the_nearest(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", images=X, classes=np.arange(7))

    with pytest.raises(InputError, match=r"'image'.*\['classes', 'images'\], did you mean 'images'"):
        opened(tmp_path / "d.npz", inputs="image")
    with pytest.raises(InputError, match=r"data\.labels = 'label'"):
        opened(tmp_path / "d.npz", inputs="images", labels="label")
    with pytest.raises(InputError, match=r"holds the arrays \['classes', 'images'\]: say which"):
        opened(tmp_path / "d.npz")


def test_a_missing_file_is_named_with_what_lies_nearby(tmp_path: Path) -> None:
    np.save(tmp_path / "digits.npy", X)

    with pytest.raises(InputError, match=r"no data at .*did you mean 'digits\.npy'"):
        opened(tmp_path / "digit.npy")
    with pytest.raises(InputError, match="there is no folder"):
        opened(tmp_path / "nowhere" / "digits.npy")
    with pytest.raises(InputError, match="no data at"):
        opened(tmp_path / "missing.zarr")
    with pytest.raises(InputError, match="no file matches"):
        opened(tmp_path / "*.tfrecord")


def test_a_folder_that_is_no_zarr_is_named(tmp_path: Path) -> None:
    (tmp_path / "d.zarr").mkdir()

    with pytest.raises(InputError, match="neither a zarr array nor a zarr group"):
        opened(tmp_path / "d.zarr")


def test_a_zarr_group_without_arrays_is_refused(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "d.zarr", mode="w").create_group("inner")

    with pytest.raises(InputError, match=r"no arrays \(groups: \['inner'\]\)"):
        opened(tmp_path / "d.zarr")


def test_a_file_of_unknown_kind_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    write_text(tmp_path / "data.csv")

    with pytest.raises(InputError, match=r"\.npz, \.npy, \.zarr or \.tfrecord"):
        opened(tmp_path / "data.csv")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"format": "csv"}, "allowed are npz, npy"),
        ({"color_mode": "rbg"}, "did you mean 'rgb'"),
        ({"interpolation": "cubic"}, "did you mean 'bicubic'"),
        ({"fingerprint": "none"}, "sampled, full"),
        ({"image_size": (224,)}, "height, width"),
        ({"image_size": (0, 5)}, "height, width"),
        ({"num_samples": 0}, "at least 1"),
        ({"path": ""}, "name a file"),
        ({"preprocessing": "vgg17"}, "did you mean 'vgg1[69]'"),
        ({"features": {"a": {"shap": [1]}}}, "unknown key 'shap'"),
        ({"features": {"a": {"dtype": "picture"}}}, "NumPy number type"),
        ({"features": {"a": {"encoding": "jpeg"}}}, "image, raw or values"),
        ({"features": {"a": {"shape": [0]}}}, "at least 1"),
        ({"features": {"a": 7}}, "write a table"),
    ],
)
def test_an_impossible_setting_is_refused_with_what_is_allowed(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        DataSpec(**{"path": "x.npy", **settings})


def test_keys_for_a_file_of_one_array_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    zarr.create_array(tmp_path / "x.zarr", data=X)

    for path in ("x.npy", "x.zarr"):
        with pytest.raises(InputError, match="leave"):
            opened(tmp_path / path, inputs="x")
