"""How many samples make a block: the one rule, for every new cache; one that is there keeps its own size.

A block is what a kill costs and what workers share out, and each has a record and files of its own. So it is as large
as all of these allow, in whole batches, and at least one:

* a sixteenth of the run;
* about a minute of work, estimated from the network's multiplications and the bytes of its activations. No clock is
  asked: the same job makes the same blocks on every machine;
* where activations are kept, one slab, or several until the chunks of the smallest layer are worth a file. Where only
  sketches are kept nothing waits to be written: such a block has as many slabs as fit the lines above, since each
  block's record is nearly as large as that of a block with twice the samples;
* the memory limit.

``record.block_samples`` takes the place of all but the last. Statistics follow from none of it.

Arithmetic only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..record.recorder import SLAB_NBYTES

__all__ = ["choose_block_samples"]

# Never more than this part of the run.
FEWEST_BLOCKS = 16
# Nor more work than this, on a machine of such a pace: one slow core. Two cores of a server compute 35 (MobileNetV2) to
# 220 (VGG16) milliard multiplications a second, and sketch a gigabyte.
LONGEST_BLOCK_S = 60
MULTIPLICATIONS_PER_S = 20e9
SKETCHED_BYTES_PER_S = 400e6

# Chunks smaller than this are not worth a file, unless the block is so large that losing it would hurt: a minute for a
# disk behind a network.
WORTHWHILE_CHUNK_NBYTES = 256 * 2**10
LARGEST_BLOCK_NBYTES = 4 * 2**30


def choose_block_samples(
    points_nbytes: Sequence[int],
    *,
    n_samples: int,
    batch_size: int,
    multiplications: int,
    record: bool,
    asked: int | None,
    fits: Callable[[int], bool],
) -> int:
    """Return the samples of a block.

    Parameters
    ----------
    points_nbytes : sequence of int
        Bytes of one sample of each point, as it is computed.
    n_samples, batch_size : int
        Samples in all, and per batch.
    multiplications : int
        What one sample costs the network, about.
    record : bool
        Whether activations are kept.
    asked : int or None
        ``record.block_samples``: rounded up to a whole batch.
    fits : callable
        Whether blocks of so many samples keep to the memory limit.

    Returns
    -------
    int
        A multiple of `batch_size`; one batch where not even that fits.
    """
    sample_nbytes = sum(points_nbytes)
    per_slab = max(1, SLAB_NBYTES // sample_nbytes // batch_size)
    if asked is not None:
        n_batches = -(-min(asked, n_samples) // batch_size)
    else:
        sample_s = multiplications / MULTIPLICATIONS_PER_S + sample_nbytes / SKETCHED_BYTES_PER_S
        most = max(1, min(n_samples // FEWEST_BLOCKS, int(LONGEST_BLOCK_S / sample_s)) // batch_size)
        n_batches = min(most, per_slab)
        if record and n_batches == per_slab:
            n_batches = _joined(n_batches, batch_size, points_nbytes, most)
        elif not record:
            # Whole slabs, so that a block is no odd number of batches that are collected one by one.
            n_batches = max(n_batches, most // per_slab * per_slab)
    while n_batches > 1 and not fits(n_batches * batch_size):
        slabs = n_batches // 2 // per_slab * per_slab
        n_batches = slabs or min(per_slab, n_batches * 7 // 8)
    return n_batches * batch_size


def _joined(n_batches: int, batch_size: int, points_nbytes: Sequence[int], most: int) -> int:
    """Return the batches of a block of one slab, doubled until its smallest chunk is worth a file."""
    while (
        n_batches * batch_size * min(points_nbytes) < WORTHWHILE_CHUNK_NBYTES
        and 2 * n_batches * batch_size * sum(points_nbytes) <= LARGEST_BLOCK_NBYTES
        and 2 * n_batches <= most
    ):
        n_batches *= 2
    return n_batches
