"""What lies in a file is what was given and what was written, or an error: other files at its path, flips, masks."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from actisketch.pipeline.sources import DataSpec, PreparedSource, as_source, npyfiles, open_source
from actisketch.pipeline.sources.npyfiles import FileColumn
from actisketch.storage.errors import InputError

X = np.arange(24_000, dtype=np.float32).reshape(400, 60)


def saved(path: Path, x: NDArray[Any]) -> Path:
    np.save(path, x)
    return path


def values(source: Any, start: int = 0, stop: int = 400) -> NDArray[Any]:
    found: NDArray[Any] = source.read(start, stop).inputs[0]
    return found


def replace(path: Path) -> None:
    os.replace(saved(path.with_name("other.npy"), -X), path)


def move_away(path: Path) -> None:
    path.rename(path.with_name("moved.npy"))


def link_elsewhere(path: Path) -> None:
    path.unlink()
    path.symlink_to(saved(path.with_name("other.npy"), -X))


def write_anew(path: Path) -> None:
    path.unlink()
    saved(path, -X)


@pytest.mark.parametrize("mode", ["r", "r+"])
@pytest.mark.parametrize("harm", [replace, Path.unlink, move_away, link_elsewhere, write_anew])
def test_a_map_whose_file_was_replaced_is_read_as_the_array_that_was_given(
    tmp_path: Path, harm: Callable[[Path], Any], mode: Any
) -> None:
    mapped = np.load(saved(tmp_path / "x.npy", X), mmap_mode=mode)
    harm(tmp_path / "x.npy")

    np.testing.assert_array_equal(values(as_source(mapped)), X)
    np.testing.assert_array_equal(values(as_source(mapped[100:300]), 0, 200), X[100:300])


def test_a_map_whose_file_is_there_is_read_through_the_file(tmp_path: Path) -> None:
    """Mapped pages count as memory of the process."""
    first = np.load(saved(tmp_path / "x.npy", X), mmap_mode="r")
    reader: Any = as_source(first[7:]).reader  # type: ignore[attr-defined] # arrays make a PreparedSource

    assert isinstance(reader._columns[0], FileColumn)
    np.testing.assert_array_equal(reader.rows(0, 393).inputs[0], X[7:])


def archive(path: Path, save: Callable[..., None], x: NDArray[Any] = X) -> Path:
    save(path, first=np.zeros(900), x=x)
    return path


def flip(path: Path, member: str, place: float) -> None:
    """Flip a bit in the bytes of a member."""
    with zipfile.ZipFile(path) as file:
        info = file.getinfo(member)
    data = bytearray(path.read_bytes())
    data[info.header_offset + 200 + int(place * (info.compress_size - 200))] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("keep", [10, 2**30], ids=["streamed", "kept"])
@pytest.mark.parametrize("place", [0.01, 0.5, 0.999])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_flipped_bit_in_an_archive_is_never_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Any, keep: int, place: float, order: Any
) -> None:
    if order == "F" and save is np.savez_compressed:
        pytest.skip("refused, in whatever state")
    monkeypatch.setattr(npyfiles, "KEEP_NBYTES", keep)
    path = archive(tmp_path / "x.npz", save, np.asarray(X, order=order))
    flip(path, "x.npy", place)
    source = open_source(DataSpec(path=str(path), inputs="x"))

    for start, stop in ((0, 1), (3, 7), (399, 400)):
        with pytest.raises(InputError, match=r"x\.npy.*x\.npz.* is damaged.*write the file again"):
            values(source, start, stop)
    with pytest.raises(InputError, match="is damaged"):
        values(pickle.loads(pickle.dumps(source)))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_flipped_bit_in_another_member_does_no_harm(tmp_path: Path, save: Any) -> None:
    path = archive(tmp_path / "x.npz", save)
    flip(path, "first.npy", 0.0)

    np.testing.assert_array_equal(values(open_source(DataSpec(path=str(path), inputs="x"))), X)


def test_labels_with_a_flipped_bit_are_never_read(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, x=X, y=np.arange(400))
    flip(path, "y.npy", 0.5)

    with pytest.raises(InputError, match=r"y\.npy.* is damaged"):
        open_source(DataSpec(path=str(path))).read(0, 1)


def test_an_archive_is_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened = archive(tmp_path / "x.npz", np.savez), []
    real = zipfile.ZipFile
    monkeypatch.setattr(zipfile, "ZipFile", lambda *args: (opened.append(args), real(*args))[1])
    source = open_source(DataSpec(path=str(path), inputs="x"))
    for start in range(0, 400, 40):
        values(source, start, start + 40)

    assert len(opened) == 2  # to find the arrays, and to check one


def masked(n_masked: int) -> np.ma.MaskedArray[Any, Any]:
    mask = np.zeros(X.shape, bool)
    mask.flat[:n_masked] = True
    return np.ma.array(X, mask=mask)


class Batches:
    def __init__(self, x: Any) -> None:
        self.x = x

    def __call__(self) -> Any:
        return (self.x[i : i + 100] for i in range(0, 400, 100))


def in_dask(x: Any) -> Any:
    import dask.array

    return dask.array.from_array(x, chunks=(100, 60), asarray=False)


def py_dataset(x: Any) -> Any:
    import keras

    class Data(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            return x[100 * index : 100 * index + 100]

    return Data()


MAKERS: list[Callable[[Any], PreparedSource]] = [
    as_source,
    lambda x: as_source([X, x]),
    lambda x: as_source({"a": X, "b": x}),
    lambda x: as_source(Batches(x), num_samples=400),
    lambda x: as_source(in_dask(x)),
    lambda x: as_source(py_dataset(x)),
]  # type: ignore[list-item] # as_source promises a Source
IDS = ["array", "list", "dict", "function", "dask", "PyDataset"]


@pytest.mark.parametrize("make", MAKERS, ids=IDS)
def test_masked_values_are_refused(make: Any) -> None:
    with pytest.raises(InputError, match=r"3 masked values of .*numpy\.ma\.filled"):
        make(masked(3)).read(0, 400)


@pytest.mark.parametrize("make", MAKERS, ids=IDS)
def test_a_masked_array_without_masked_values_is_an_array(make: Any) -> None:
    np.testing.assert_array_equal(make(masked(0)).read(0, 400).inputs[-1], X)


def test_masked_labels_are_refused() -> None:
    with pytest.raises(InputError, match="y has 1 masked values of 400"):
        as_source(X, np.ma.array(np.arange(400), mask=np.arange(400) == 5))
