"""Make a source from raw rows: limit, check, preprocess, identify.

Knows what all sources have in common. Does not know where rows come from.
"""

from __future__ import annotations

import copy
import hashlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from .data_spec import parse_count
from .preprocessing import Preprocessing, is_float, preprocessing_for
from .protocol import Batch, InputSpec, Reader, Source
from .states import states_of

__all__ = ["HASH_BUDGET_NBYTES", "HashedReads", "PreparedSource", "hashed_rows"]

# "sampled" hashes this much of a block, in about 30 ms; "full" takes that long for each 32 MiB.
HASH_BUDGET_NBYTES = 32 * 2**20


def hashed_rows(start: int, stop: int, row_nbytes: int, *, full: bool) -> Sequence[int]:
    """Return which rows of a range are hashed.

    All of them if ``full`` or if they fit into :data:`HASH_BUDGET_NBYTES`; else as many as fit, at least two: the
    first, the last and evenly spaced ones between. It depends only on the range and the size of a row, so that two
    runs hash the same rows.
    """
    if full:
        return range(start, stop)
    n_rows, n_hashed = stop - start, max(2, HASH_BUDGET_NBYTES // max(row_nbytes, 1))
    if n_hashed >= n_rows:
        return list(range(start, stop))
    return [start + index * (n_rows - 1) // (n_hashed - 1) for index in range(n_hashed)]


class PreparedSource:
    """A :class:`~.protocol.Source` over a :class:`~.protocol.Reader`.

    Parameters
    ----------
    reader : Reader
        Where rows come from.
    preparation : mapping
        ``scale``, ``offset``, ``divide_by``, ``preprocessing``: see :class:`~.data_spec.DataSpec`.
    num_samples : int, optional
        Use only the first N samples.
    full_fingerprint : bool
        Hash every byte instead of evenly spaced samples of large ranges.

    Raises
    ------
    InputError
        If there are no rows or fewer than asked for, or the preprocessing does not fit the shapes.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        preparation: Mapping[str, Any] | None = None,
        num_samples: int | None = None,
        full_fingerprint: bool = True,
    ) -> None:
        parse_count(num_samples)
        self.reader = reader
        self._full = full_fingerprint
        self.n_samples = _limit(reader, num_samples)
        settings = dict(preparation or {})
        _check_names(reader, settings)
        self._preparations = tuple(preprocessing_for(raw.name, settings) for raw in reader.inputs)
        for raw, preparation_ in zip(reader.inputs, self._preparations, strict=True):
            preparation_.check(raw.shape, _called(raw, reader))
            if raw.dtype == "object" and preparation_.changes_values:
                raise InputError(
                    f"{_called(raw, reader)} holds texts, which cannot be scaled: leave scale, offset, divide_by and "
                    "preprocessing out, or name the inputs they are for"
                )
        self.inputs = tuple(map(_prepared_spec, reader.inputs, self._preparations))

    @property
    def has_labels(self) -> bool:
        """Whether batches carry labels."""
        return self.reader.has_labels

    def __len__(self) -> int:
        return self.n_samples

    def __repr__(self) -> str:
        return f"<{self.n_samples} samples of {self.reader.origin}: {', '.join(map(str, self.inputs))}>"

    def with_hashing(self, hashed: str) -> PreparedSource:
        """Return the same samples, identified by ``"full"`` or ``"sampled"`` hashes, as an existing cache has them."""
        if hashed == self.hashed:
            return self
        again = copy.copy(self)
        again._full = hashed == "full"
        again.reader = (
            self.reader.with_hashing(hashed) if hasattr(self.reader, "with_hashing") else self.reader
        )
        return again

    @property
    def hashed(self) -> str:
        """``"full"`` or ``"sampled"``: see :class:`~.data_spec.DataSpec`."""
        return "full" if self._full else "sampled"

    def read(self, start: int, stop: int) -> Batch:
        """Return the samples ``start`` to ``stop``, preprocessed; see :meth:`.protocol.Source.read`."""
        self._check_range(start, stop)
        return self._prepared(start, self.reader.rows(start, stop))

    def read_hashed(self, start: int, stop: int, hashed: Sequence[int]) -> tuple[Batch, list[bytes]]:
        """Return what :meth:`read` does, and the hash of each of the rows ``hashed``."""
        self._check_range(start, stop)
        raw, hashes = self.reader.rows_and_hashes(start, stop, hashed)
        return self._prepared(start, raw), hashes

    def _prepared(self, start: int, raw: Batch) -> Batch:
        """Return raw rows, of which the first is ``start``, as the network takes them."""
        arrays = []
        for spec, preparation, values in zip(self.inputs, self._preparations, raw.inputs, strict=True):
            # A float64 that is too large for float32 becomes infinite here, and is refused just below.
            with np.errstate(over="ignore", invalid="ignore"):
                prepared = np.ascontiguousarray(preparation.apply(values))
            if is_float(prepared.dtype):
                self._check_finite(prepared, values, start, spec)
            arrays.append(prepared)
        return Batch(tuple(arrays), raw.labels)

    def fingerprint(self) -> dict[str, Any]:
        """Return what identifies the data apart from its length; see :meth:`.protocol.Source.fingerprint`."""
        inputs = [
            {"name": raw.name, "shape": list(raw.shape), "dtype": raw.dtype, "preprocessing": step.identity()}
            for raw, step in zip(self.reader.inputs, self._preparations, strict=True)
        ]
        return {
            "inputs": inputs,
            "reading": self.reader.identity(),
            "hashed": self.hashed,
            "first_sample": self.content_hash(0, 1),
        }

    def content_hash(self, start: int, stop: int) -> str:
        """Return a hash of the raw content and order of a range; see :meth:`.protocol.Source.content_hash`."""
        self._check_range(start, stop)
        hasher = _hasher(stop - start)
        for row_hash in self.reader.row_hashes(self.hashed_rows(start, stop)):
            hasher.update(row_hash)
        return hasher.hexdigest()

    def hashed_rows(self, start: int, stop: int) -> Sequence[int]:
        """Return which rows of a range its content hash is made of; see :func:`hashed_rows`."""
        return hashed_rows(start, stop, self.reader.row_nbytes(), full=self._full)

    def state(self) -> str | None:
        """Return what tells cheaply whether the samples have changed, or None: see :mod:`.states`."""
        return states_of([self.reader])

    def _check_range(self, start: int, stop: int) -> None:
        if not 0 <= start < stop <= self.n_samples:
            raise InputError(
                f"samples {start} to {stop} of {self.reader.origin} cannot be read: there are samples 0 to "
                f"{self.n_samples}, and a range must not be empty"
            )

    def _check_finite(self, prepared: NDArray[Any], raw: NDArray[Any], start: int, spec: InputSpec) -> None:
        # No temporary array: a NaN or an infinity shows in the smallest or the largest value.
        if prepared.size == 0 or (np.isfinite(prepared.min()) and np.isfinite(prepared.max())):
            return
        flat = prepared.reshape(len(prepared), -1)
        row = int(np.flatnonzero(~np.isfinite(flat).all(axis=1))[0])
        value = flat[row][~np.isfinite(flat[row])][0]
        found = str(value)
        if np.isfinite(raw[row].astype(np.float64)).all():
            found = f"{np.abs(raw[row]).max()}, which float32 cannot hold"
        raise InputError(
            f"sample {start + row} of {_called(spec, self.reader)} holds {found}: "
            "clean the data, or leave that sample out",
            sample=start + row,
        )


class HashedReads:
    """Reads a range of samples in order, and hashes what it returns.

    :meth:`.protocol.Source.content_hash` may read again: what was written to in between would be hashed as it is then.

    Parameters
    ----------
    source : Source
    start, stop : int
        The range.
    """

    def __init__(self, source: Source, start: int, stop: int) -> None:
        self._source, self._range = source, (start, stop)
        self._hasher = _hasher(stop - start)
        self._rows: Sequence[int] = ()
        self._prepared: PreparedSource | None = None
        if isinstance(source, PreparedSource):
            self._prepared, self._rows = source, source.hashed_rows(start, stop)

    def read(self, start: int, stop: int) -> Batch:
        """Return the next samples of the range, preprocessed."""
        if self._prepared is None:
            return self._source.read(start, stop)
        first, last = (bisect_left(self._rows, row) for row in (start, stop))
        batch, hashes = self._prepared.read_hashed(start, stop, self._rows[first:last])
        self._hasher.update(b"".join(hashes))
        return batch

    def content_hash(self) -> str:
        """Return the content hash of the range, of which all was read."""
        return self._source.content_hash(*self._range) if self._prepared is None else self._hasher.hexdigest()


def _hasher(n_rows: int) -> hashlib.blake2b:
    """Return what hashes a range of so many rows, from the hashes of some of them."""
    return hashlib.blake2b(n_rows.to_bytes(8, "little"), digest_size=16)


def _limit(reader: Reader, num_samples: int | None) -> int:
    if reader.n_rows < 1:
        raise InputError(f"{reader.origin} holds no samples: at least one is needed")
    if num_samples is None:
        return reader.n_rows
    if num_samples > reader.n_rows:
        raise InputError(
            f"num_samples = {num_samples}, but there are {reader.n_rows} in {reader.origin}: "
            "ask for fewer, or leave num_samples out"
        )
    return num_samples


def _check_names(reader: Reader, settings: Mapping[str, Any]) -> None:
    names = [raw.name for raw in reader.inputs]
    for setting, value in settings.items():
        unknown = [key for key in value if key not in names] if isinstance(value, Mapping) else []
        if unknown:
            raise InputError(f"{setting} names the input {unknown[0]!r}, but {reader.origin} has {names}")


def _called(spec: InputSpec, reader: Reader) -> str:
    return reader.origin if spec.name is None else f"{spec.name!r} of {reader.origin}"


def _prepared_spec(raw: InputSpec, preparation: Preprocessing) -> InputSpec:
    dtype = np.dtype(raw.dtype) if raw.dtype != "bfloat16" else np.dtype(np.float32)
    keeps = not preparation.changes_values and not is_float(dtype)
    return InputSpec(raw.name, raw.shape, raw.dtype if keeps else "float32")
