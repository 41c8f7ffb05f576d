"""Describe what a cache holds: points, samples, blocks and the identity of what was computed.

Pure values: no files, no Zarr. `CacheSpec` is the whole contract between a run and its cache.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from .codecs import CODECS, DEFAULT_CODEC
from .errors import FormatError, InputError
from .keys import array_keys
from .typed import flag, items, table, text, whole

__all__ = ["Block", "CacheSpec", "PointSpec", "SampleRange", "sample_nbytes"]

ITEM_NBYTES = {"float32": 4, "float16": 2}
"""Bytes of one stored value, by dtype."""

# A chunk is one object or file: large enough that a request or an fsync is cheap beside it, small
# enough that a reader (dask, exact percentiles) holds several.
CHUNK_NBYTES = 64 * 2**20
_SMALL_CHUNK_NBYTES = 4 * 2**20
# Blosc takes at most 2**31 - 1 bytes at once, less 16 bytes of header.
LARGEST_CHUNK_NBYTES = 2**31 - 2**16

# More than any network or data set has: a description that claims more would keep the program busy for hours.
MOST_AXES = 32
MOST_POINTS = 100_000
MOST_SAMPLES = 2**48
MOST_BLOCK_SAMPLES = 2**31
MOST_BATCH_SAMPLES = 1_000_000
MOST_BLOCKS = 1_000_000
"""Each is a file: a listing of more takes minutes."""


@dataclass(frozen=True, slots=True)
class SampleRange:
    """Samples `start` to `stop` (exclusive), one range of several."""

    index: int
    start: int
    stop: int

    @property
    def n_samples(self) -> int:
        """Number of samples; the last range may have fewer than the others."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Block(SampleRange):
    """The unit of commit: the samples of one run of whole batches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointSpec:
    """A place in the graph whose activations are stored.

    Parameters
    ----------
    name : str
        Unique within the cache, any text.
    shape : tuple of int
        Shape of one sample's activations (no sample axis). Each axis at least 1.
    channel_axis : int, default=-1
        The axis of channels, counted with the sample axis in front: -1 or ``len(shape)`` is the last one.
    meta : mapping, optional
        Facts, as JSON values, kept as attributes of the array (layer type, activation); not part of the identity.
    chunk_samples : int, optional
        Samples per chunk, a divisor of ``CacheSpec.block_samples``. None lets `CacheSpec` choose.
    """

    name: str
    shape: tuple[int, ...]
    channel_axis: int = -1
    meta: Mapping[str, Any] = field(default_factory=dict)
    chunk_samples: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "meta", _plain(self.meta, f"meta of point {self.name!r}"))
        if any(n < 1 for n in self.shape):
            raise InputError(
                f"point {self.name!r} has shape {self.shape!r}: each axis must have a known length of at least "
                "1, give the network inputs of a fixed shape",
                point=self.name,
            )
        n_axes = len(self.shape) + 1
        if self.shape and not (-n_axes < self.channel_axis < 0 or 0 < self.channel_axis < n_axes):
            raise InputError(
                f"channel_axis of point {self.name!r} is {self.channel_axis}, its array has {n_axes} axes and "
                f"axis 0 is the sample: use 1 to {n_axes - 1} or -1 to {1 - n_axes}",
                point=self.name,
            )

    @property
    def n_values(self) -> int:
        """Values of one sample."""
        return math.prod(self.shape)

    def to_dict(self) -> dict[str, Any]:
        """Return the point as JSON values."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "channel_axis": self.channel_axis,
            "meta": dict(self.meta),
            "chunk_samples": self.chunk_samples,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> PointSpec:
        """Return the point that `to_dict` wrote; FormatError if it cannot be one."""
        name = text(document["name"], "the name of a point")
        what = f"of point {name!r}"
        shape = items(document["shape"], f"the shape {what}", most=MOST_AXES)
        chunk_samples = document["chunk_samples"]
        if chunk_samples is not None:
            whole(chunk_samples, f"chunk_samples {what}", least=1)
        return cls(
            **{
                **document,
                "shape": tuple(whole(n, f"an axis {what}", least=1, most=2**31) for n in shape),
                "channel_axis": whole(document["channel_axis"], f"channel_axis {what}", least=-MOST_AXES),
                "meta": table(document["meta"], f"meta {what}"),
            }
        )


def sample_nbytes(points: Iterable[PointSpec], dtype: str = "float32") -> int:
    """Return the bytes of one sample's activations at all these points together."""
    return ITEM_NBYTES[dtype] * sum(point.n_values for point in points)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSpec:
    """What a cache holds, for which model, data and settings.

    Parameters
    ----------
    points : tuple of PointSpec
        In the order of the graph.
    n_samples : int
        Samples that the finished cache holds. Grows when a cache is extended.
    batch_size : int
        Samples that went through the network together.
    block_samples : int
        Samples per block, a multiple of `batch_size`.
    identity : mapping of str to mapping
        Nested dicts of JSON values, by convention ``model``, ``data`` and ``settings``: everything that changes
        values. No paths, no dates, not `n_samples`.
    dtype : {"float32", "float16"}
        Of the stored activations. float16 halves the disk and rounds to 11 significant bits.
    codec : str
        One of `actisketch.storage.codecs.CODECS`.
    keeps_activations : bool, default=True
        Whether activations are stored; False keeps the sketches only.
    names : mapping of str to str
        What messages call a part, by its path, as ``identity.settings.batch_size``; not stored.

    Raises
    ------
    InputError
        If a value is out of range, two points share a name, or identity is not made of JSON values.
    """

    points: tuple[PointSpec, ...]
    n_samples: int
    batch_size: int
    block_samples: int
    identity: Mapping[str, Any]
    dtype: str = "float32"
    codec: str = DEFAULT_CODEC
    keeps_activations: bool = True
    names: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        self._check_numbers()
        points = tuple(self.points)
        names: set[str] = set()
        for point in points:
            if point.name in names:
                raise InputError(
                    f"several points are called {point.name!r}: give each point its own name",
                    point=point.name,
                )
            names.add(point.name)
            self._chunk_samples(point)
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "identity", _plain(self.identity, "identity"))

    def _check_numbers(self) -> None:
        most = {
            "n_samples": MOST_SAMPLES,
            "batch_size": MOST_BATCH_SAMPLES,
            "block_samples": MOST_BLOCK_SAMPLES,
        }
        for name in most:
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name} must be a whole number of at least 1, got {value!r}")
            if value > most[name]:
                raise InputError(f"{name} is more than the {most[name]} that a cache can hold")
        if self.block_samples % self.batch_size:
            raise InputError(
                f"block_samples={self.block_samples} is not a multiple of batch_size={self.batch_size}: a block "
                f"is a run of whole batches, use {-(-self.block_samples // self.batch_size) * self.batch_size}"
            )
        if self.n_blocks > MOST_BLOCKS:
            raise InputError(
                f"{self.n_samples} samples make {self.n_blocks} blocks of {self.block_samples}, at most {MOST_BLOCKS} "
                "can be stored: use a larger block_samples"
            )
        if self.codec not in CODECS:
            raise InputError(f"codec must be one of {', '.join(CODECS)}, got {self.codec!r}")
        if self.dtype not in ITEM_NBYTES:
            raise InputError(f"dtype must be one of {sorted(ITEM_NBYTES)}, got {self.dtype!r}")

    def _chunk_samples(self, point: PointSpec) -> int:
        nbytes = sample_nbytes([point], self.dtype)
        chosen = point.chunk_samples
        if chosen is None:
            chosen = choose_chunk_samples(
                nbytes, batch_size=self.batch_size, block_samples=self.block_samples
            )
        if chosen < 1 or self.block_samples % chosen:
            raise InputError(
                f"chunk_samples={chosen} of point {point.name!r} does not evenly divide "
                f"block_samples={self.block_samples}: a chunk belongs to one block",
                point=point.name,
            )
        if chosen * nbytes > LARGEST_CHUNK_NBYTES:
            raise InputError(
                f"a chunk of point {point.name!r} would be {chosen * nbytes} bytes, at most "
                f"{LARGEST_CHUNK_NBYTES} can be stored as one: leave chunk_samples out or choose fewer",
                point=point.name,
            )
        return chosen

    @property
    def n_blocks(self) -> int:
        """Number of blocks; the last may be shorter."""
        return -(-self.n_samples // self.block_samples)

    def block(self, index: int) -> Block:
        """Return block `index`, 0 to ``n_blocks - 1``."""
        start = index * self.block_samples
        return Block(index, start, min(start + self.block_samples, self.n_samples))

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks, in order."""
        return tuple(self.block(index) for index in range(self.n_blocks))

    @property
    def chunk_samples(self) -> dict[str, int]:
        """Samples per chunk of each point's array, by name."""
        return {point.name: self._chunk_samples(point) for point in self.points}

    def resolved(self) -> CacheSpec:
        """Return the spec with every ``chunk_samples`` filled in: the form that is stored."""
        return replace(
            self, points=tuple(replace(p, chunk_samples=self._chunk_samples(p)) for p in self.points)
        )

    @property
    def keys(self) -> dict[str, str]:
        """Key of each point's array, by name."""
        return array_keys([point.name for point in self.points])

    def point(self, name: str) -> PointSpec:
        """Return the point called `name`; InputError names the ones there are."""
        for point in self.points:
            if point.name == name:
                return point
        known = ", ".join(repr(p.name) for p in self.points)
        raise InputError(f"the cache holds no point {name!r}: it holds {known}", point=name)

    @property
    def content_hash(self) -> str:
        """SHA-256 of all that may not differ between a cache and a run that uses it (hexadecimal)."""
        return hashlib.sha256(_canonical(self._fixed()).encode()).hexdigest()

    @property
    def short_hash(self) -> bytes:
        """First 16 bytes of `content_hash`; every commit record holds them."""
        return bytes.fromhex(self.content_hash)[:16]

    def _fixed(self) -> dict[str, Any]:
        points = {
            p.name: {
                "position": i,
                "shape": list(p.shape),
                "channel_axis": p.channel_axis % (len(p.shape) + 1),
            }
            for i, p in enumerate(self.points)
        }
        return {"identity": self.identity, "points": points, "dtype": self.dtype}

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as JSON values."""
        return {
            "points": [point.to_dict() for point in self.resolved().points],
            "n_samples": self.n_samples,
            "batch_size": self.batch_size,
            "block_samples": self.block_samples,
            "identity": dict(self.identity),
            "dtype": self.dtype,
            "codec": self.codec,
            "record": self.keeps_activations,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> CacheSpec:
        """Return the spec that `to_dict` wrote; FormatError if it cannot be one."""
        try:
            listed = items(document["points"], "the list of points", most=MOST_POINTS)
            points = tuple(PointSpec.from_dict(table(point, "a point")) for point in listed)
            for name, part in table(document["identity"], "the identity").items():
                table(part, f"the identity of the {name}")
            keeps_activations = flag(document["record"], "record")
            for name in ("n_samples", "batch_size", "block_samples"):
                whole(document[name], name, least=1)
            settings = {name: value for name, value in document.items() if name != "record"}
            spec = cls(**{**settings, "points": points, "keeps_activations": keeps_activations})
            _ = spec.content_hash  # which no text that cannot be written has
        except (TypeError, KeyError, ValueError) as error:  # what is wrong with one of them is an InputError
            raise FormatError(f"the description of the cache is damaged: {error}") from error
        return spec


def choose_chunk_samples(sample_nbytes: int, *, batch_size: int, block_samples: int) -> int:
    """Return how many samples of one point share a chunk.

    Parameters
    ----------
    sample_nbytes : int
        Bytes of one sample of the point.
    batch_size, block_samples : int
        A chunk is the whole block, or some of its batches, or a part of one batch.

    Returns
    -------
    int
        A divisor of `block_samples`: as few whole batches as have 4 MiB to `CHUNK_NBYTES`. Where none have, the
        largest with at most `CHUNK_NBYTES`, unless that gives chunks under 4 MiB where the next larger one
        still fits `LARGEST_CHUNK_NBYTES`.

    Notes
    -----
    A point with few values gets one chunk per block, so that it makes one file per block and not one
    per batch. A point with many gets one per batch, which is written from where it was computed: it is not
    copied, and no buffer holds several batches of it.
    """
    candidates = _divisors(batch_size) + [
        batch_size * d for d in _divisors(block_samples // batch_size) if d > 1
    ]
    fitting = [c for c in candidates if c * sample_nbytes <= CHUNK_NBYTES]
    for c in fitting:
        if c >= batch_size and c * sample_nbytes >= _SMALL_CHUNK_NBYTES:
            return c
    best = fitting[-1] if fitting else candidates[0]
    if best * sample_nbytes < _SMALL_CHUNK_NBYTES:
        larger = [c for c in candidates if c > best and c * sample_nbytes <= LARGEST_CHUNK_NBYTES]
        best = larger[0] if larger else best
    return best


@lru_cache(maxsize=256)
def _divisors(n: int) -> list[int]:
    """Return the divisors of a number, ascending."""
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return small + [n // d for d in reversed(small) if d * d != n]


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _plain(value: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return `value` as it will come back from JSON, so that equality survives storage."""
    try:
        plain: dict[str, Any] = json.loads(_canonical(dict(value)))
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} must be JSON-able (text, numbers, lists, dicts, null): {error}") from error
    return plain
