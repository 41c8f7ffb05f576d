"""TFRecord files at random access: an index of record offsets, built in one scan without TensorFlow.

A file is a sequence of ``length (8 bytes) | masked crc32c of the length | data | masked crc32c of the data``.
The scan reads the 16 bytes between records and skips the data; gzip files are inflated forward.
Knows files and records. What is in a record: see :mod:`.example`.
"""

from __future__ import annotations

import copy
import gzip
import hashlib
import os
import threading
import weakref
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from .data_spec import DataSpec, input_keys
from .example import FeatureDecoder, parse_example
from .pixels import PixelSettings
from .protocol import Batch, InputSpec
from .states import files_state

__all__ = ["RecordFile", "RecordIndex", "RecordReader", "index_records", "masked_crc32c"]

_HEADER_NBYTES = 12
_MASK_DELTA = 0xA282EAD8


def masked_crc32c(data: bytes) -> int:
    """Return the checksum of a record as TensorFlow writes it (``tsl/lib/hash/crc32c.h``)."""
    import google_crc32c

    crc = int(google_crc32c.value(data))
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


class RecordFile:
    """The bytes of a file, inflated if it is gzip. Pickles as its path."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            with open(path, "rb") as file:
                head = file.read(_HEADER_NBYTES)
        except OSError as error:
            raise InputError(f"{path!r} cannot be read: {error.strerror}", path=path) from None
        self._is_plain = len(head) == _HEADER_NBYTES and _crc_fits(head[:8], head[8:])
        if not self._is_plain and len(head) > 1 and head[0] == 0x78 and int.from_bytes(head[:2]) % 31 == 0:
            raise InputError(
                f"{path!r} is compressed as ZLIB, which is not read: write it with GZIP, or without compression",
                path=path,
            )
        if not self._is_plain and head[:2] != b"\x1f\x8b":
            raise InputError(
                f"{path!r} is not a TFRecord file (plain or gzip): its first length has a wrong checksum",
                path=path,
            )
        self._file: Any = None

    def read(self, offset: int, nbytes: int) -> bytes:
        """Return bytes from an offset; fewer at the end of the file."""
        with self._lock:
            try:
                if self._file is None:
                    self._file = open(self.path, "rb") if self._is_plain else gzip.open(self.path)  # noqa: SIM115
                    self._closing = weakref.finalize(self, self._file.close)
                self._file.seek(offset)
                return bytes(self._file.read(nbytes))
            except (OSError, EOFError, zlib.error) as error:
                raise InputError(
                    f"{self.path!r} cannot be read at byte {offset}: {error}", path=self.path
                ) from None

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        with self._lock:
            if self._file is not None:
                self._closing()
                self._file = None

    def __reduce__(self) -> tuple[Any, ...]:
        return RecordFile, (self.path,)


@dataclass(frozen=True, slots=True)
class RecordIndex:
    """Where the records of some files are."""

    file_of: NDArray[np.int32]
    offset: NDArray[np.int64]
    """Of the data, in the inflated file."""
    nbytes: NDArray[np.int64]
    crc: NDArray[np.uint32]
    """Masked crc32c of the data, as the file states it."""

    def __len__(self) -> int:
        return len(self.offset)


def index_records(files: Sequence[RecordFile], *, limit: int | None = None) -> RecordIndex:
    """Return where each record is, reading 16 bytes of each.

    Parameters
    ----------
    files : sequence of RecordFile
        In order.
    limit : int, optional
        Stop after this many records.

    Raises
    ------
    InputError
        If a length is damaged or a file ends within a record: with the file and the record.
    """
    entries: list[tuple[int, int, int, int]] = []
    for number, file in enumerate(files):
        for offset, nbytes, crc in _scan(file):
            entries.append((number, offset, nbytes, crc))
            if limit is not None and len(entries) == limit:
                break
        file.close()
        if limit is not None and len(entries) == limit:
            break
    columns = list(zip(*entries, strict=True)) or [(), (), (), ()]
    return RecordIndex(
        np.asarray(columns[0], np.int32),
        np.asarray(columns[1], np.int64),
        np.asarray(columns[2], np.int64),
        np.asarray(columns[3], np.uint32),
    )


def _scan(file: RecordFile) -> Iterator[tuple[int, int, int]]:
    head = file.read(0, _HEADER_NBYTES)
    at, record = _HEADER_NBYTES, 0
    while head:
        if len(head) < _HEADER_NBYTES or not _crc_fits(head[:8], head[8:12]):
            what = (
                "is cut off" if len(head) < _HEADER_NBYTES else "is damaged: its length has a wrong checksum"
            )
            raise InputError(f"record {record} of {file.path!r} {what}", path=file.path, record=record)
        nbytes = int.from_bytes(head[:8], "little")
        between = file.read(at + nbytes, 4 + _HEADER_NBYTES)  # this record's checksum, the next one's header
        if len(between) < 4:
            raise InputError(f"record {record} of {file.path!r} is cut off", path=file.path, record=record)
        yield at, nbytes, int.from_bytes(between[:4], "little")
        head = between[4:]
        at += nbytes + 4 + _HEADER_NBYTES
        record += 1


def _crc_fits(data: bytes, stated: bytes) -> bool:
    return masked_crc32c(data) == int.from_bytes(stated, "little")


class RecordReader:
    """A :class:`~.protocol.Reader` over ``tf.train.Example`` records.

    Parameters
    ----------
    paths : sequence of str
        Files, in the order of the samples.
    spec : DataSpec
        ``features``, ``inputs``, ``labels``, ``num_samples`` and the settings of images.
    origin : str
        For messages.

    Raises
    ------
    InputError
        If the features do not fit the first record, or a file is damaged.
    """

    def __init__(self, paths: Sequence[str], spec: DataSpec, *, origin: str) -> None:
        self.origin = origin
        self._files = [RecordFile(path) for path in paths if os.path.getsize(path) > 0]
        self._limit = spec.num_samples
        self._indexed = files_state(file.path for file in self._files)
        """The state of the files, from before they were indexed."""
        self._index = index_records(self._files, limit=self._limit)
        self.n_rows = len(self._index)
        if self.n_rows == 0:
            raise InputError(f"{origin} holds no records: at least one is needed")
        self._open = 0
        self._full = spec.fingerprint == "full"
        self._seen: tuple[NDArray[np.bool_], NDArray[np.void]] | None = None
        """Which records were read in full, and their hashes."""
        first = parse_example(self._record(0), name=self._name(0))
        inputs, label = _chosen(spec, sorted(first), origin)
        pixels = PixelSettings.from_spec(spec)
        self._decoders = [
            (name, FeatureDecoder.fit(key, spec.features or {}, first, pixels))
            for name, key in inputs.items()
        ]
        self._label = None if label is None else FeatureDecoder.fit(label, spec.features or {}, first, pixels)
        self.inputs = tuple(InputSpec(name, one.shape, one.dtype.name) for name, one in self._decoders)

    @property
    def has_labels(self) -> bool:
        """Whether a feature is the label."""
        return self._label is not None

    def rows(self, start: int, stop: int) -> Batch:
        """Return decoded features; the checksum of every record is verified."""
        arrays = tuple(np.empty((stop - start, *one.shape), one.dtype) for _, one in self._decoders)
        labels = (
            None if self._label is None else np.empty((stop - start, *self._label.shape), self._label.dtype)
        )
        for row in range(start, stop):
            example = parse_example(self._record(row), name=self._name(row))
            for array, (_, decoder) in zip(arrays, self._decoders, strict=True):
                array[row - start] = decoder.decode(example, name=self._name(row))
            if labels is not None and self._label is not None:
                labels[row - start] = self._label.decode(example, name=self._name(row))
        return Batch(arrays, labels)

    def rows_and_hashes(self, start: int, stop: int, hashed: Sequence[int]) -> tuple[Batch, list[bytes]]:
        """Return raw rows, and a hash of each in ``hashed``: those of what was read are remembered."""
        return self.rows(start, stop), self.row_hashes(hashed)

    def labels_identity(self) -> dict[str, Any]:
        """Return which feature is the label: its values are in the records, which :meth:`row_hashes` covers."""
        return {} if self._label is None else self._label.identity()

    def _record(self, row: int) -> bytes:
        index = self._index
        number = int(index.file_of[row])
        if number != self._open:
            # One open file at a time: there may be more files than a process may open.
            self._files[self._open].close()
            self._open = number
        data: bytes = self._files[number].read(int(index.offset[row]), int(index.nbytes[row]))
        if masked_crc32c(data) != int(index.crc[row]):
            raise InputError(f"{self._name(row)} is damaged: its data has a wrong checksum", sample=row)
        if self._full:
            self._remember(row, data)
        return data

    def _remember(self, row: int, data: bytes) -> None:
        # Remembered: reading a gzip file again inflates it from its start.
        if self._seen is None:
            self._seen = np.zeros(self.n_rows, np.bool_), np.zeros(self.n_rows, "V16")
        went_by, hashes = self._seen
        hashes[row] = np.void(hashlib.blake2b(data, digest_size=16).digest())
        went_by[row] = True

    def _row_hash(self, row: int) -> bytes:
        if self._seen is None or not self._seen[0][row]:
            self._record(row)
        assert self._seen is not None
        row_hash: bytes = self._seen[1][row].tobytes()
        return row_hash

    def with_hashing(self, hashed: str) -> RecordReader:
        """Return the same records, with ``"full"`` or ``"sampled"`` hashes."""
        again = copy.copy(self)
        again._full = hashed == "full"
        return again

    def state(self) -> str | None:
        """Return the state of the files, in order; if it is another or unknown, they are indexed anew.

        Raises
        ------
        InputError
            If they hold fewer records than before, or are damaged.
        """
        state = files_state(file.path for file in self._files)
        if state is None or state != self._indexed:
            for file in self._files:
                file.close()
            self._index, self._seen = index_records(self._files, limit=self._limit), None
            if len(self._index) < self.n_rows:
                raise InputError(
                    f"{self.origin} held {self.n_rows} records when it was opened, and holds {len(self._index)} now: "
                    "open the data again"
                )
        self._indexed = state
        return state

    def _name(self, row: int) -> str:
        number = int(self._index.file_of[row])
        record = row - int(np.searchsorted(self._index.file_of, number))
        return f"record {record} of {self._files[number].path!r}"

    def row_nbytes(self) -> int:
        """Return the bytes that are read for one hash: a whole record, or the 16 that the scan has read."""
        return int(self._index.nbytes[0]) if self._full else 16

    def row_hashes(self, rows: Sequence[int]) -> list[bytes]:
        """Return for each record its length and stated checksum; with ``"full"`` its hash."""
        if self._full:
            return [self._row_hash(row) for row in rows]
        picked = np.asarray(rows, np.intp)
        lengths = self._index.nbytes[picked].astype("<i8").tobytes()
        crcs = self._index.crc[picked].astype("<u4").tobytes()
        return [lengths[8 * at : 8 * at + 8] + crcs[4 * at : 4 * at + 4] for at in range(len(rows))]

    def identity(self) -> dict[str, Any]:
        """Return which features are read and how."""
        return {"kind": "tfrecord", "features": [decoder.identity() for _, decoder in self._decoders]}


def _chosen(spec: DataSpec, found: list[str], origin: str) -> tuple[dict[str | None, str], str | None]:
    """Return the feature of each input and of the label."""
    features = dict(spec.features or {})
    if not features:
        raise InputError(
            f"{origin}: say what is in the records with features ([data.features] in a job file), as "
            f"{{image = {{shape = [28, 28, 1], "
            f"dtype = 'uint8'}}}}; the first record holds {found}"
        )
    label = spec.labels or ("label" if "label" in features and len(features) > 1 else None)
    if label is None and "y" in features and len(features) > 1:
        label = "y"
    named = input_keys(spec.inputs)
    if not named:
        named = input_keys(tuple(name for name in features if name != label))
    for setting, key in [("data.inputs", key) for key in named.values()] + [("data.labels", label)]:
        if key is not None and key not in features:
            raise InputError(
                f"{setting} = {key!r}, but features describes {sorted(features)}: add it there", key=key
            )
    if not named:
        raise InputError(
            f"{origin}: the only feature {label!r} is the label: describe the input in features too"
        )
    return named, label
