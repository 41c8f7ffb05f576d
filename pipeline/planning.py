"""What a run will take, before it runs: blocks, bytes on disk, files, memory; refused when over a limit."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..storage import CacheSpec, PointSpec, Projection, projection
from ..storage.errors import InputError, OverBudgetError
from ..storage.files import STAGING_NBYTES
from .recorder import BLOCKS_IN_FLIGHT, JOINED_NBYTES, RECORDING_THREADS, SLAB_NBYTES, slab_samples
from .sizes import format_bytes

__all__ = ["MemoryProjection", "Plan", "PointPlan", "make_plan"]

# Of a network so large that few batches fill a slab, a block is several slabs, until the chunks of its smallest layer
# are worth a file, or the block is so large that losing it would hurt.
WORTHWHILE_CHUNK_NBYTES = 256 * 2**10
LARGEST_BLOCK_NBYTES = 4 * 2**30
# And never more than this part of the run: what a kill costs, what workers share out among them.
FEWEST_BLOCKS = 16

# What tracing the network, the compiled loops of the sketch, threads and the allocator take beside all that is
# counted: 60 to 100 MiB were measured, from a small network to blocks of half a gigabyte.
RUNTIME_NBYTES = 128 * 2**20

# Dense counters and low-bit sums of the sketch kernel, 8 bytes each, for one point at a time per thread.
SKETCH_BYTES_PER_BUCKET = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PointPlan:
    """What one point takes."""

    name: str
    layer_type: str
    shape: tuple[int, ...]
    n_params: int
    nbytes: int
    """On disk before compression, all samples, in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryProjection:
    """Peak memory beyond that of Python and TensorFlow themselves, in bytes, by cause."""

    model: int
    """Weights, as loaded."""
    batch: int
    """The samples of one batch, and the network's largest tensors."""
    blocks: int
    """Activations in flight: two slabs, and the chunks that are filled by more than one batch."""
    codec: int
    """Encoding the largest chunks, one for each thread: padded or rounded copies, compressed forms, aligned memory."""
    sketches: int
    """And for each thread the counters of one sketch, and where small batches are joined."""
    runtime: int = RUNTIME_NBYTES
    """The traced network, compiled loops, threads."""

    @property
    def total(self) -> int:
        """Sum of all causes, in bytes."""
        return self.model + self.batch + self.blocks + self.codec + self.sketches + self.runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run before it runs."""

    points: tuple[PointPlan, ...]
    n_samples: int
    batch_size: int
    block_samples: int
    memory: MemoryProjection
    memory_limit: int
    disk_nbytes: int
    """Activations before compression, in bytes; 0 when only sketches are kept."""
    n_files: int

    @property
    def n_blocks(self) -> int:
        """How many blocks the samples make."""
        return -(-self.n_samples // self.block_samples)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        memory = {**asdict(self.memory), "total": self.memory.total}
        return {**asdict(self), "memory": memory, "n_blocks": self.n_blocks}

    def check(
        self, *, cache_path: Path | None, disk_limit: int | None = None, n_done_nbytes: int = 0
    ) -> None:
        """Refuse the run if it would not fit.

        Parameters
        ----------
        cache_path : path or None
            Local folder of the cache, whose disk is asked for its free space; None for object stores.
        disk_limit : int, optional
            Bytes the cache may take; default: what is free.
        n_done_nbytes : int
            Bytes that an earlier run has written already.

        Raises
        ------
        OverBudgetError
            With the numbers, and the setting to change.
        """
        self._check_memory()
        needed = self.disk_nbytes - n_done_nbytes
        free = disk_limit - n_done_nbytes if disk_limit is not None else _free_nbytes(cache_path)
        if free is not None and needed > free:
            allowed = (
                "record.disk_limit allows" if disk_limit is not None else f"the disk of {cache_path} has"
            )
            raise OverBudgetError(
                f"the cache needs up to {format_bytes(needed)}, {allowed} {format_bytes(free)}: use fewer samples "
                "(data.num_samples), fewer points (record.points), cache.dtype = 'float16', or sketches only "
                "(record.activations = false)",
                needed=needed,
                allowed=free,
            )

    def _check_memory(self) -> None:
        if self.memory.total <= self.memory_limit:
            return
        m = self.memory
        fixed = m.model + m.sketches + m.runtime
        advice = (
            f"raise record.memory_limit to {format_bytes(m.total * 1.05)}"
            if fixed > self.memory_limit or self.batch_size == 1
            else f"use a smaller record.batch_size than {self.batch_size}, or raise record.memory_limit "
            f"to {format_bytes(m.total * 1.05)}"
        )
        raise OverBudgetError(
            f"the run needs {format_bytes(m.total)} of memory (network {format_bytes(m.model)}, one batch "
            f"{format_bytes(m.batch)}, {BLOCKS_IN_FLIGHT} blocks {format_bytes(m.blocks)}, encoding "
            f"{format_bytes(m.codec)}, sketches {format_bytes(m.sketches)}, runtime {format_bytes(m.runtime)}), "
            "record.memory_limit allows "
            f"{format_bytes(self.memory_limit)}: {advice}",
            needed=m.total,
            allowed=self.memory_limit,
        )


def make_plan(
    points: Sequence[PointSpec],
    *,
    n_samples: int,
    batch_size: int,
    memory_limit: int,
    sketch_bits: int = 20,
    n_channel_sketches: int = 0,
    model_nbytes: int = 0,
    sample_nbytes: int = 0,
    largest_tensor_nbytes: int = 0,
    record: bool = True,
    stored_itemsize: int = 4,
    compresses: bool = False,
    max_block_samples: int | None = None,
    block_samples: int | None = None,
) -> Plan:
    """Return the plan of a run.

    Parameters
    ----------
    points : sequence of PointSpec
        Where is recorded.
    n_samples, batch_size : int
        Samples in all, and per batch.
    memory_limit : int
        Bytes allowed beyond Python and TensorFlow themselves.
    sketch_bits : int
        Resolution of the sketches.
    n_channel_sketches : int
        Channels that are sketched apart, over all points.
    model_nbytes, sample_nbytes, largest_tensor_nbytes : int
        Bytes of the weights, of one sample, and of the network's largest tensor per sample.
    record : bool
        Whether activations are kept.
    stored_itemsize : int
        Bytes per stored value: 4 or 2.
    compresses : bool
        Whether the cache's codec compresses: then the compressed form of a chunk is held beside it.
    max_block_samples : int, optional
        At most so many samples per block (rounded up to a whole batch).
    block_samples : int, optional
        Samples per block where an existing cache has fixed it; default: the largest that fits.

    Raises
    ------
    InputError
        If there are no points or no samples.
    """
    if not points:
        raise InputError(
            "no points to record: the network has no layer with parameters; try record.points = 'all'"
        )
    if n_samples < 1:
        raise InputError("the data has no samples: check data.path and data.num_samples")
    per_sample = [4 * int(np.prod(point.shape, dtype=np.int64)) for point in points]
    # Recorded tensors are counted with the slab they are collected for; beside them the network holds a few
    # that are not recorded: input, output and workspace of the layer at work.
    batch = min(batch_size, n_samples) * (2 * sample_nbytes + 3 * largest_tensor_nbytes)
    of_thread = (SKETCH_BYTES_PER_BUCKET << sketch_bits) + JOINED_NBYTES
    sketches = of_thread * RECORDING_THREADS + n_channel_sketches * 2**15
    fixed = model_nbytes + batch + sketches + RUNTIME_NBYTES
    dtype = "float16" if stored_itemsize == 2 else "float32"

    def stored_spec(samples: int) -> CacheSpec:
        return CacheSpec(
            points=tuple(points),
            n_samples=n_samples,
            batch_size=batch_size,
            block_samples=samples,
            identity={},
            dtype=dtype,
            record=record,
        )

    def stored(samples: int) -> Projection:
        return projection(stored_spec(samples))

    def chunk_nbytes(samples: int) -> dict[str, int]:
        """Return the bytes in memory of a chunk of each point that is kept."""
        sizes = stored_spec(samples).chunk_samples if record else {}
        return {point.name: sizes[point.name] * point.n_values * 4 for point in points if sizes}

    def encoding(samples: int) -> int:
        of_threads = sorted(chunk_nbytes(samples).values())[-RECORDING_THREADS:]
        return STAGING_NBYTES * len(of_threads) + (1 + compresses) * sum(of_threads) * stored_itemsize // 4

    def in_flight(samples: int) -> int:
        slab = slab_samples(points, batch_size=batch_size, block_samples=samples)
        n_slabs = min(BLOCKS_IN_FLIGHT, -(-n_samples // slab))
        of_slab = {point.name: slab * point.n_values * 4 for point in points}
        gathered = sum(nbytes for name, nbytes in chunk_nbytes(samples).items() if nbytes > of_slab[name])
        return n_slabs * min(slab, n_samples) * sum(per_sample) + gathered

    if block_samples is None:
        small_enough = SLAB_NBYTES // sum(per_sample) // batch_size
        n_batches = max(1, min(small_enough, -(-n_samples // batch_size)))
        if max_block_samples is not None:
            n_batches = min(n_batches, -(-max_block_samples // batch_size))
        room = memory_limit - fixed
        while n_batches > 1 and (in_flight(n_batches * batch_size) + encoding(n_batches * batch_size) > room):
            n_batches = n_batches * 7 // 8
        if record and max_block_samples is None and n_batches >= small_enough:
            n_batches = _joined(n_batches, batch_size, per_sample, n_samples)
            while (
                n_batches > 1 and in_flight(n_batches * batch_size) + encoding(n_batches * batch_size) > room
            ):
                n_batches //= 2
        block_samples = n_batches * batch_size
    memory = MemoryProjection(
        model=model_nbytes,
        batch=batch,
        blocks=in_flight(block_samples),
        codec=encoding(block_samples) if record else 0,
        sketches=sketches,
    )
    return Plan(
        points=tuple(
            PointPlan(
                name=point.name,
                layer_type=str(point.meta.get("layer_type", "")),
                shape=point.shape,
                n_params=int(point.meta.get("n_params", 0)),
                nbytes=nbytes // 4 * stored_itemsize * n_samples,
            )
            for point, nbytes in zip(points, per_sample, strict=True)
        ),
        n_samples=n_samples,
        batch_size=batch_size,
        block_samples=block_samples,
        memory=memory,
        memory_limit=memory_limit,
        disk_nbytes=sum(per_sample) // 4 * stored_itemsize * n_samples if record else 0,
        n_files=stored(block_samples).n_files,
    )


def _joined(n_batches: int, batch_size: int, per_sample: list[int], n_samples: int) -> int:
    """Return the batches of a block of one slab, doubled until its smallest chunk is worth a file."""
    while (
        n_batches * batch_size * min(per_sample) < WORTHWHILE_CHUNK_NBYTES
        and 2 * n_batches * batch_size * sum(per_sample) <= LARGEST_BLOCK_NBYTES
        and 2 * n_batches * batch_size * FEWEST_BLOCKS <= n_samples
    ):
        n_batches *= 2
    return n_batches


def _free_nbytes(path: Path | None) -> int | None:
    """Return the free bytes of the disk on which a folder lies or will lie."""
    if path is None:
        return None
    while not path.exists() and path != path.parent:
        path = path.parent
    usage = shutil.disk_usage(path)
    # Pseudo file systems (/proc) have no size; that nothing can be written there is told when it is tried.
    return usage.free if usage.total else None
