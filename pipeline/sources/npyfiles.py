"""Arrays in ``.npy`` and ``.npz`` files, read at random where possible, streamed where not; never unpickled.

Knows the two formats. The members of an uncompressed ``.npz`` are plain ``.npy`` files at some offset: they are read in
place too, which ``numpy.load`` does not do. A compressed member has no random access: it is inflated forward, and again
from its start when a read goes back. The CRC-32 of a member is checked before its first value is returned.
"""

from __future__ import annotations

import mmap
import os
import threading
import tokenize
import weakref
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from .states import file_state

__all__ = ["FileColumn", "StoredMember", "StreamedMember", "npy_column", "npz_columns"]

# A smaller compressed member is inflated once and kept: random access for workers and plots.
KEEP_NBYTES = 128 * 2**20
_PIECE_NBYTES = 16 * 2**20
# What zipfile and zlib raise for a member that is damaged, of an unknown method or locked by a password.
_DAMAGES = (OSError, EOFError, zipfile.BadZipFile, zlib.error, ValueError, NotImplementedError, RuntimeError)


class FileColumn:
    """Rows of an array that starts at some byte of a file. Pickles as the path, not as the data.

    In C order, rows are consecutive bytes, and are read as such. A mapped file would count as memory of the process
    (2,000 MiB after a pass over 2 GB, instead of 32 MiB) against the limits of Dask's workers, and kill the process if
    it is cut off. In Fortran order, rows are scattered over the file: it is mapped, and the
    pages are freed after each read.
    """

    def __init__(
        self, path: str, *, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any], fortran: bool
    ) -> None:
        self._args = {"path": path, "offset": offset, "shape": shape, "dtype": dtype, "fortran": fortran}
        self._path, self._offset = path, offset
        self.shape = shape
        self.dtype = dtype
        self._row_nbytes = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
        self._map: Any = None
        self._file = _opened(path)
        weakref.finalize(self, os.close, self._file)
        needed, found = offset + shape[0] * self._row_nbytes if shape else 0, os.fstat(self._file).st_size
        if found < needed:
            raise InputError(f"{path!r} is cut off: it has {found} bytes of {needed}", path=path)
        if fortran and len(shape) > 1:
            self._map = np.memmap(path, dtype, mode="r", offset=offset, shape=shape, order="F")

    def state(self) -> str | None:
        """Return the state of the file, with the place of the array in it."""
        return file_state(os.fstat(self._file), self._offset, self.shape, self.dtype.str)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows in fresh memory."""
        rows = np.empty((stop - start, *self.shape[1:]), self.dtype)
        if self._map is not None:
            rows[...] = self._map[start:stop]
            self._map._mmap.madvise(mmap.MADV_DONTNEED)
            return rows
        view = rows.reshape(-1).view(np.uint8).data
        at = self._offset + start * self._row_nbytes
        while len(view):  # one call reads 2 GiB at most
            n_read = os.preadv(self._file, [view], at)
            if n_read == 0:
                raise InputError(f"{self._path!r} has become shorter while it was read", path=self._path)
            view, at = view[n_read:], at + n_read
        return rows

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (type(self), self._args)


def _reopen(kind: type[Any], args: dict[str, Any]) -> Any:
    return kind(**args)


def _opened(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{path!r} cannot be read: {error.strerror}", path=path) from None


class StoredMember(FileColumn):
    """Rows of a ``.npz`` member that is not compressed, read in place once its CRC-32 has been checked."""

    def __init__(self, path: str, member: str, **place: Any) -> None:
        super().__init__(path, **place)
        self._args["member"] = self._member = member

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows in fresh memory; the first read goes through the whole member once, for its CRC-32."""
        _check_crc(self._path, self._member)
        return super().read(start, stop)


def _check_crc(path: str, member: str) -> None:
    """Refuse a member that does not have its CRC-32; each is read for that once in a process."""
    try:
        at = os.stat(path)
        _whole(path, member, at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns)
    except _DAMAGES as error:
        raise _damaged(path, member, error) from None


@lru_cache(maxsize=1024)
def _whole(path: str, member: str, *_seen: int) -> None:
    with zipfile.ZipFile(path) as archive, archive.open(member) as file:
        while file.read(_PIECE_NBYTES):  # at its end zipfile compares the checksum
            pass


def _damaged(path: str, member: str, error: Exception) -> InputError:
    return InputError(
        f"{member!r} in {path!r} is damaged, it cannot be inflated to what was written: {str(error) or type(error)}; "
        "write the file again",
        path=path,
    )


class StreamedMember:
    """Rows of a compressed ``.npz`` member, inflated forward."""

    def __init__(
        self, path: str, member: str, *, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self._args = {"path": path, "member": member, "offset": offset, "shape": shape, "dtype": dtype}
        self._path, self._member, self._offset = path, member, offset
        self.shape = shape
        self.dtype = dtype
        self._row_nbytes = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
        self._file: IO[bytes] | None = None
        self._kept: NDArray[Any] | None = None
        self._state: str | None = None
        """From before what is kept or open was read."""
        self._lock = threading.Lock()

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows; small members are kept in memory, large ones are read forward as a stream."""
        with self._lock:
            _check_crc(self._path, self._member)
            state = self.state()
            # Of a file dated in the future the state is never known: only a pass from its start inflates it anew.
            if state != self._state or (state is None and start == 0):
                self._let_go()
                self._kept, self._state = None, state
            if self.shape[0] * self._row_nbytes > KEEP_NBYTES:
                return self._inflate(start, stop)
            if self._kept is None:
                self._kept = self._inflate(0, self.shape[0])
                self._kept.flags.writeable = False
                self._let_go()
            return self._kept[start:stop]

    def state(self) -> str | None:
        """Return the state of the file, with the name of the member; None if it is gone."""
        try:
            return file_state(os.stat(self._path), self._member)
        except OSError:
            return None

    def _inflate(self, start: int, stop: int) -> NDArray[Any]:
        try:
            if self._file is None:
                archive = zipfile.ZipFile(self._path)
                self._file = archive.open(self._member)
                # By finalizer: a source that is no longer used closes its files, without a warning.
                self._close_file = weakref.finalize(self, _close, self._file, archive)
                self._check_header(self._file)
            # Going back starts the member again; going forward inflates what is between.
            self._file.seek(self._offset + start * self._row_nbytes)
            data = self._file.read((stop - start) * self._row_nbytes)
        except _DAMAGES as error:
            raise _damaged(self._path, self._member, error) from None
        if len(data) != (stop - start) * self._row_nbytes:
            raise InputError(f"{self._member!r} in {self._path!r} ends before sample {stop}", path=self._path)
        return np.frombuffer(data, self.dtype).reshape(stop - start, *self.shape[1:])

    def _check_header(self, file: IO[bytes]) -> None:
        shape, _, dtype = _header(file, f"{self._member!r} in {self._path!r}")
        if (shape, dtype, file.tell()) != (self.shape, self.dtype, self._offset):
            self._let_go()
            raise InputError(
                f"{self._member!r} in {self._path!r} was of shape {self.shape} and dtype {self.dtype} when it was "
                f"opened, and is of shape {shape} and dtype {dtype} now: open the data again",
                path=self._path,
            )

    def _let_go(self) -> None:
        if self._file is not None:
            self._close_file()
            self._file = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (type(self), self._args)


def _close(*files: IO[bytes] | zipfile.ZipFile) -> None:
    for file in files:
        file.close()


def npy_column(path: Path) -> FileColumn:
    """Return the array of a ``.npy`` file.

    Raises
    ------
    InputError
        If it is not such a file, holds objects, is empty or cut off.
    """
    with path.open("rb") as file:
        shape, fortran, dtype = _header(file, str(path))
        return FileColumn(str(path), offset=file.tell(), shape=shape, dtype=dtype, fortran=fortran)


def npz_columns(path: Path) -> dict[str, StoredMember | StreamedMember]:
    """Return the arrays of a ``.npz`` file by name, in the order of the file.

    Object arrays are listed, but refused when read (:func:`~.columns.check_column`): the other arrays of the file can
    be used.

    Raises
    ------
    InputError
        If it is not a zip file or a member is not an array.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{str(path)!r} is not an .npz file: {error}", path=str(path)) from None
    columns: dict[str, StoredMember | StreamedMember] = {}
    with archive:
        for info in archive.infolist():
            # Zip on a Mac adds a file __MACOSX/._x.npy for each member: these are not arrays.
            is_mac = info.filename.startswith("__MACOSX/") or Path(info.filename).name.startswith("._")
            if info.filename.endswith(".npy") and not is_mac:
                columns[info.filename.removesuffix(".npy")] = _member(path, archive, info)
    if not columns:
        raise InputError(f"{str(path)!r} holds no arrays: save them with numpy.savez", path=str(path))
    return columns


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> StoredMember | StreamedMember:
    origin = f"{info.filename!r} in {str(path)!r}"
    try:
        with archive.open(info) as file:
            shape, fortran, dtype = _header(file, origin)
            header_nbytes = file.tell()
    except InputError:
        raise
    except _DAMAGES as error:
        raise _damaged(str(path), info.filename, error) from None
    if dtype.hasobject or not shape or 0 in shape:  # refused when read: nothing to map
        return StreamedMember(str(path), info.filename, offset=header_nbytes, shape=shape, dtype=dtype)
    if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1:
        offset = _data_offset(path, info) + header_nbytes
        return StoredMember(
            str(path), info.filename, offset=offset, shape=shape, dtype=dtype, fortran=fortran
        )
    if fortran and len(shape) > 1:
        raise InputError(
            f"{origin} is compressed and in Fortran order, in which samples are scattered over the whole "
            "array: save it with numpy.ascontiguousarray"
        )
    return StreamedMember(str(path), info.filename, offset=header_nbytes, shape=shape, dtype=dtype)


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    # The local header repeats the name and has an extra field of its own length (APPNOTE.TXT 4.3.7).
    with path.open("rb") as file:
        file.seek(info.header_offset)
        local = file.read(30)
    return (
        info.header_offset
        + 30
        + int.from_bytes(local[26:28], "little")
        + int.from_bytes(local[28:30], "little")
    )


def _header(file: IO[bytes], origin: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    # Version 3 differs from 2 only in the encoding of field names.
    readers = {
        1: np.lib.format.read_array_header_1_0,
        2: np.lib.format.read_array_header_2_0,
        3: np.lib.format.read_array_header_2_0,
    }
    try:
        major, _ = np.lib.format.read_magic(file)
        shape, fortran, dtype = readers[major](file)
    except zipfile.BadZipFile:
        raise
    except (ValueError, OSError, EOFError, KeyError, TypeError, SyntaxError, tokenize.TokenError) as error:
        raise InputError(f"{origin} is not a NumPy array: {error}") from None
    return tuple(shape), fortran, dtype
