"""Say where the chunks of a cache are kept, and foresee what it takes in bytes and files.

Arithmetic only.
"""

from __future__ import annotations

from dataclasses import dataclass

from .keys import chunk_key
from .spec import ITEM_NBYTES, Block, CacheSpec

__all__ = ["Layout", "Projection", "projection"]


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


def projection(spec: CacheSpec) -> Projection:
    """Return bytes and files of the finished cache.

    Notes
    -----
    Exact for codec ``none``; a compressing codec takes less of ``nbytes``. Sketches in the commit records come on top.
    """
    sizes = spec.chunk_samples if spec.keeps_activations else {}
    n_chunks = {name: -(-spec.n_samples // size) for name, size in sizes.items()}
    value_nbytes = ITEM_NBYTES[spec.dtype]
    chunk_nbytes = {p.name: sizes[p.name] * p.n_values * value_nbytes + 4 for p in spec.points if sizes}
    return Projection(
        n_blocks=spec.n_blocks,
        n_files=sum(n_chunks.values()) + spec.n_blocks + len(n_chunks) + 3,
        nbytes=sum(n * chunk_nbytes[name] for name, n in n_chunks.items()),
    )
