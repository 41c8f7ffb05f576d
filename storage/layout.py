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

# A kill costs the blocks in flight: a block is worth at most about this many bytes of activations...
_BLOCK_NBYTES = 2 * 2**30
# ... and so many batches, so that networks with small activations commit often too.
_MOST_BATCHES = 64
# A file smaller than this costs more in its name than in its bytes.
_WORTHWHILE_NBYTES = 256 * 2**10
# What a commit record of one point takes at most, seen with 20-bit sketches; and of a channel each.
_SKETCH_NBYTES = 400_000


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
        Sketch-only blocks are bounded by the number of batches alone.

    Raises
    ------
    OverBudgetError
        If even blocks of one batch need more than `memory_bytes`.
    """
    points = tuple(points)
    if batch_size < 1 or n_samples < 1:
        raise InputError(f"batch_size and n_samples must be at least 1, got {batch_size} and {n_samples}")
    n_batches = -(-n_samples // batch_size)
    batch_nbytes = batch_size * sum(p.n_values for p in points) * ITEM_NBYTES[dtype] if record else 0
    smallest = batch_size * min((p.n_values for p in points), default=1) * ITEM_NBYTES[dtype]
    wanted = max(1, min(_MOST_BATCHES, -(-_WORTHWHILE_NBYTES // smallest)))
    wanted = max(wanted, min(_MOST_BATCHES, _BLOCK_NBYTES // 8 // max(batch_nbytes, 1)))
    k = max(1, min(wanted, n_batches, max(1, _BLOCK_NBYTES // max(batch_nbytes, 1))))
    # Powers of two have the most divisors to make chunks of.
    k = 1 << (k.bit_length() - 1)
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
