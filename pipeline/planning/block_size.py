"""Choose how many samples make a block of a new cache; an existing cache keeps its own size.

A killed run loses a block, and workers share out blocks; each block has a record and files of its own. So a block is
as large as all of these allow, in whole batches, and at least one batch:

* a sixteenth of the run;
* about a minute of work, estimated from the multiplications of the network and the bytes of its activations, and not
  measured: the same job makes the same blocks on every machine;
* with activations: half a gigabyte of them, or more until the chunks of the smallest layer are worth a file. Blocks of
  sketches alone have all that the lines above allow: the record of twice the samples is hardly larger;
* the memory limit. A default limit is another one on each machine: where it is more than 4 GiB, 4 GiB count.

``record.block_samples`` replaces all but the last. Statistics do not depend on the size of blocks.

Arithmetic only.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...storage import sample_nbytes
from .memory import RunNeeds

__all__ = ["choose_block_samples"]

# No block has more than this part of the run.
FEWEST_BLOCKS = 16
# Nor more work than this at the pace of one slow core. Two cores of a server compute 35e9 (MobileNetV2) to 220e9
# (VGG16) multiplications a second, and sketch a gigabyte.
LONGEST_BLOCK_S = 60
MULTIPLICATIONS_PER_S = 20e9
SKETCHED_BYTES_PER_S = 400e6

# A block of activations has so many bytes: a few seconds of a disk.
BLOCK_NBYTES = 512 * 2**20

# Smaller chunks are not worth a file, unless the block becomes so large that losing it would hurt: a minute for a disk
# behind a network.
WORTHWHILE_CHUNK_NBYTES = 256 * 2**10
LARGEST_BLOCK_NBYTES = 4 * 2**30


def choose_block_samples(needs: RunNeeds) -> int:
    """Return the samples of a block: a multiple of the batch size, one batch if not even that fits."""
    record, n_samples = needs.settings.record, needs.n_samples
    batch_size, nbytes = record.batch_size, sample_nbytes(needs.points)
    per_block = max(1, BLOCK_NBYTES // nbytes // batch_size)
    if record.block_samples is not None:
        n_batches = -(-min(record.block_samples, n_samples) // batch_size)
    else:
        sample_s = needs.network.multiplications / MULTIPLICATIONS_PER_S + nbytes / SKETCHED_BYTES_PER_S
        most = max(1, min(n_samples // FEWEST_BLOCKS, int(LONGEST_BLOCK_S / sample_s)) // batch_size)
        n_batches = most
        if record.activations and most >= per_block:
            n_batches = _joined(per_block, batch_size, [sample_nbytes([p]) for p in needs.points], most)
    while n_batches > 1 and not needs.fits(n_batches * batch_size):
        halved = n_batches // 2 // per_block * per_block
        n_batches = halved or min(per_block, n_batches * 7 // 8)
    return n_batches * batch_size


def _joined(n_batches: int, batch_size: int, points_nbytes: Sequence[int], most: int) -> int:
    """Double the batches of a block until its smallest chunk is worth a file."""
    while (
        n_batches * batch_size * min(points_nbytes) < WORTHWHILE_CHUNK_NBYTES
        and 2 * n_batches * batch_size * sum(points_nbytes) <= LARGEST_BLOCK_NBYTES
        and 2 * n_batches <= most
    ):
        n_batches *= 2
    return n_batches
