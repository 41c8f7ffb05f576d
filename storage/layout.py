"""Choose block sizes and foresee what a cache takes in bytes and files.

Arithmetic only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .codecs import CODECS
from .errors import InputError, OverBudgetError
from .spec import ITEM_NBYTES, CacheSpec, PointSpec

__all__ = ["Projection", "block_samples_for", "projection"]

# A kill costs the blocks in flight: none holds more bytes of activations than this, unless one batch does.
_MOST_NBYTES = 2 * 2**30
# Nor more than this part of the run; also what several workers share out among them.
_FEWEST_BLOCKS = 16
# A block with fewer bytes costs more in flushes and a record than in its activations ...
_WORTHWHILE_NBYTES = 256 * 2**20
# ... and a chunk of fewer more in its file's name than in its values.
_WORTHWHILE_CHUNK_NBYTES = 256 * 2**10


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """What a cache will take."""

    n_blocks: int
    n_files: int
    """Chunks, records and documents."""
    nbytes: int
    """Bytes of the activations before compression (the last block padded to a whole chunk)."""
    buffer_nbytes: int
    """Bytes that writing one block holds at most in chunk buffers, with the codec's output."""
    smallest_chunk_nbytes: int
    largest_chunk_nbytes: int


def projection(spec: CacheSpec) -> Projection:
    """Return bytes and files of the finished cache, and the buffers of one block being written.

    Notes
    -----
    Exact for codec ``none``; a compressing codec takes less of ``nbytes``. Sketches in the records come
    on top.
    """
    item = ITEM_NBYTES[spec.dtype]
    n_blocks = spec.n_blocks
    sizes = spec.chunk_samples if spec.record else {}
    chunk_nbytes = [sizes[p.name] * p.n_values * item for p in spec.points if p.name in sizes]
    n_chunks = [-(-spec.n_samples // size) for size in sizes.values()]
    # Buffers only where chunks hold several batches or parts of batches do not line up, and for the
    # last block.
    buffers = sum(chunk_nbytes) + (max(chunk_nbytes, default=0) if CODECS.get(spec.codec) is not None else 0)
    return Projection(
        n_blocks=n_blocks,
        n_files=sum(n_chunks) + n_blocks + len(chunk_nbytes) + 3,
        nbytes=sum(n * (nbytes + 4) for n, nbytes in zip(n_chunks, chunk_nbytes, strict=True)),
        buffer_nbytes=buffers,
        smallest_chunk_nbytes=min(chunk_nbytes, default=0),
        largest_chunk_nbytes=max(chunk_nbytes, default=0),
    )


def block_samples_for(
    points: Iterable[PointSpec],
    *,
    batch_size: int,
    n_samples: int,
    memory_bytes: int | None = None,
    dtype: str = "float32",
    record: bool = True,
) -> int:
    """Return the samples of a block: whole batches, large enough for few files, small enough to lose.

    Parameters
    ----------
    points : iterable of PointSpec
    batch_size, n_samples : int
    memory_bytes : int, optional
        What the buffers of one block being written may take. A block costs no memory for points whose chunks
        are batches; points with small chunks are buffered for the whole block.
    dtype : str
    record : bool
        Whether activations are stored: without, no memory is needed for chunks.

    Raises
    ------
    OverBudgetError
        If even blocks of one batch need more than `memory_bytes`.
    """
    points = tuple(points)
    if batch_size < 1 or n_samples < 1:
        raise InputError(f"batch_size and n_samples must be at least 1, got {batch_size} and {n_samples}")
    n_batches = -(-n_samples // batch_size)
    batch_nbytes = batch_size * sum(p.n_values for p in points) * ITEM_NBYTES[dtype]
    smallest_nbytes = batch_size * min((p.n_values for p in points), default=1) * ITEM_NBYTES[dtype]
    # Powers of two have the most divisors to make chunks of.
    k = 1
    while 2 * k * _FEWEST_BLOCKS <= n_batches and 2 * k * batch_nbytes <= _MOST_NBYTES:
        if k * batch_nbytes >= _WORTHWHILE_NBYTES and k * smallest_nbytes >= _WORTHWHILE_CHUNK_NBYTES:
            break
        k *= 2
    while memory_bytes is not None and record:
        needed = _buffers(points, batch_size, k * batch_size, dtype)
        if needed <= memory_bytes:
            break
        if k == 1:
            raise OverBudgetError(
                f"the buffers of a block of one batch ({batch_size} samples) need {needed:,} bytes, "
                f"{memory_bytes:,} are "
                "left for them: use a smaller batch size, fewer points, or raise the memory limit",
                needed_nbytes=needed,
                allowed_nbytes=memory_bytes,
            )
        k //= 2
    return k * batch_size


def _buffers(points: tuple[PointSpec, ...], batch_size: int, block_samples: int, dtype: str) -> int:
    spec = CacheSpec(
        points=points,
        n_samples=1,
        batch_size=batch_size,
        block_samples=block_samples,
        identity={},
        dtype=dtype,
    )
    return projection(spec).buffer_nbytes
