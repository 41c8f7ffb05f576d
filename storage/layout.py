"""Say where the chunks of a cache are kept, and foresee what it takes in bytes, files and memory.

Arithmetic only.
"""

from __future__ import annotations

from dataclasses import dataclass

from .codecs import CODECS
from .files import STAGING_NBYTES
from .keys import chunk_key
from .spec import Block, CacheSpec, sample_nbytes

__all__ = ["Layout", "Projection", "encoding_nbytes", "projection", "record_nbytes"]

# Of each commit record, whatever it holds, and of each chunk or document that it names.
_RECORD_NBYTES = 512
_NAMED_NBYTES = 32
# What Zarr and this program write about a point, and about the cache as a whole.
_DOCUMENTS_NBYTES = 4096


class Layout:
    """Keys and sizes of the chunks of one cache, worked out once."""

    def __init__(self, spec: CacheSpec) -> None:
        self.spec = spec
        self.array_keys = spec.keys
        """Key of each point's array, by name."""
        self.chunk_samples = spec.chunk_samples
        """Samples per chunk of each point's array, by name."""

    def n_chunks(self, name: str, block: Block) -> int:
        """Return the number of chunks that one point has in one block."""
        return -(-block.n_samples // self.chunk_samples[name]) if self.spec.keeps_activations else 0

    def chunk_keys(self, name: str, block: Block) -> list[str]:
        """Return the keys of the chunks of one point in one block, in order along axis 0."""
        n_axes = len(self.spec.point(name).shape) + 1
        first = block.index * (self.spec.block_samples // self.chunk_samples[name])
        return [
            chunk_key(self.array_keys[name], first + i, n_axes) for i in range(self.n_chunks(name, block))
        ]

    def has_block(self, block: Block) -> bool:
        """Whether the cache has this block, with these bounds."""
        return 0 <= block.index < self.spec.n_blocks and self.spec.block(block.index) == block


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """What a cache will take."""

    n_blocks: int
    n_files: int
    """Chunks, commit records and documents."""
    nbytes: int
    """Bytes of the activations before compression (the last block padded to a whole chunk)."""
    documents_nbytes: int
    """Bytes of the documents, and of the records without their sketches: at most."""


def projection(spec: CacheSpec) -> Projection:
    """Return bytes and files of the finished cache.

    Notes
    -----
    Exact for codec ``none``; a compressing codec takes less of ``nbytes``. The sketches in the commit records
    come on top.
    """
    sizes = _chunk_nbytes(spec)
    n_chunks = {name: -(-spec.n_samples // spec.chunk_samples[name]) for name in sizes}
    n_named = sum(n_chunks.values()) + 3 if sizes else 0
    return Projection(
        n_blocks=spec.n_blocks,
        n_files=sum(n_chunks.values()) + spec.n_blocks + len(sizes) + 3,
        nbytes=sum(n * (sizes[name] + 4) for name, n in n_chunks.items()),
        documents_nbytes=_DOCUMENTS_NBYTES * (1 + len(spec.points))
        + _NAMED_NBYTES * n_named
        + _RECORD_NBYTES * spec.n_blocks,
    )


def record_nbytes(sketches_nbytes: int) -> int:
    """Return the bytes of a commit record with `sketches_nbytes` of sketches, without the checksums of chunks."""
    return _RECORD_NBYTES + sketches_nbytes


def encoding_nbytes(spec: CacheSpec, *, n_threads: int, is_remote: bool = False) -> int:
    """Return the memory, in bytes, that `n_threads` threads take to encode and send the largest chunks."""
    largest = sorted(_chunk_nbytes(spec).values())[-n_threads:]
    # A file is written from where the values lie, a request holds a copy. Blosc writes into memory for the worst case,
    # and what it wrote is copied.
    n_copies = is_remote + (0 if CODECS[spec.codec] is None else 2)
    return STAGING_NBYTES * len(largest) + n_copies * sum(largest)


def _chunk_nbytes(spec: CacheSpec) -> dict[str, int]:
    """Return the bytes of a chunk of each point before compression; none where only sketches are kept."""
    if not spec.keeps_activations:
        return {}
    sizes = spec.chunk_samples
    return {point.name: sizes[point.name] * sample_nbytes([point], spec.dtype) for point in spec.points}
