"""What a run will take, before it runs: blocks, bytes on disk, files, memory; refused when over a limit.

A block is at most a sixteenth of the run and about a minute of work, estimated and not timed, whether activations are
kept or sketches only: :mod:`.blocks` has the rule.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...storage import CacheSpec, PointSpec, projection
from ...storage.errors import InputError, OverBudgetError
from ...storage.files import STAGING_NBYTES
from ..record.point_sketch import empty_sketch
from ..record.recorder import BLOCKS_IN_FLIGHT, JOINED_NBYTES, RECORDING_THREADS, SLAB_NBYTES, slab_samples
from ..settings.sizes import format_bytes
from ..sketch import SketchSpec
from .block_size import choose_block_samples
from .sketch_memory import counter_bits, merged_nbytes, open_block_nbytes, records_nbytes

__all__ = ["MemoryProjection", "Plan", "PointPlan", "make_plan"]

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
    loading: int
    """Of a network's file, beside the weights: what reading it leaves, or its peak beyond what recording takes."""
    batch: int
    """The samples of one batch, and the network's largest tensors."""
    blocks: int
    """Activations in flight: two slabs, and the chunks that are filled by more than one batch."""
    codec: int
    """Encoding the largest chunks, one for each thread: padded or rounded copies, compressed forms, aligned memory."""
    sketches: int
    """Of all points in open blocks; and the larger of: counters of one point and a joint for each thread, or what is
    merged."""
    runtime: int = RUNTIME_NBYTES
    """The traced network, compiled loops, threads."""
    certificate: int = 0
    """What normalising and certifying take beyond batch, blocks and encoding, which are gone by then."""

    @property
    def total(self) -> int:
        """Sum of all causes, in bytes."""
        recording = self.batch + self.blocks + self.codec
        return self.model + self.loading + recording + self.certificate + self.sketches + self.runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run before it runs."""

    points: tuple[PointPlan, ...]
    n_samples: int
    batch_size: int
    block_samples: int
    slab_samples: int
    """So many samples of a block are collected before they are sketched and written: no matter of its bytes."""
    memory: MemoryProjection
    memory_limit: int
    activations_nbytes: int
    """On disk before compression, in bytes, padded to whole chunks; 0 when only sketches are kept."""
    records_nbytes: int
    """The sketches of all blocks and what else describes the cache, in bytes on disk: up to so much."""
    n_files: int
    has_cache: bool = False
    """Whether the block size is that of a cache which is there already."""
    savings: Mapping[str, int] = field(default_factory=dict)
    """Where records are large: settings that bring them down, each with the bytes that they would take then."""

    @property
    def disk_nbytes(self) -> int:
        """What the cache takes in all, in bytes: up to so much."""
        return self.activations_nbytes + self.records_nbytes

    @property
    def n_blocks(self) -> int:
        """How many blocks the samples make."""
        return -(-self.n_samples // self.block_samples)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        memory = {**asdict(self.memory), "total": self.memory.total}
        whole = {"n_blocks": self.n_blocks, "disk_nbytes": self.disk_nbytes}
        return {**asdict(self), "memory": memory, **whole}

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
        needed, free = self.disk_nbytes, None if disk_limit is not None else _free_nbytes(cache_path)
        allowed = disk_limit if free is None else free + n_done_nbytes
        if allowed is None or needed <= allowed:
            return
        room = (
            f"record.disk_limit allows {format_bytes(allowed)}"
            if free is None
            else f"the disk of {cache_path} has {format_bytes(free)} left"
        )
        done = f" ({format_bytes(n_done_nbytes)} of it are there)" if n_done_nbytes else ""
        fewer = "use fewer samples (data.num_samples), fewer points (record.points)"
        if self.activations_nbytes:
            fewer += ", cache.dtype = 'float16', or sketches only (record.activations = false)"
        else:
            fewer += ", larger record.block_samples, or a smaller sketch.bits"
        if self.savings:
            least = min(self.savings, key=lambda setting: self.savings[setting])
            fewer += f"; with {least} the sketches take {format_bytes(self.savings[least])}"
        raise OverBudgetError(
            f"the cache needs up to {format_bytes(needed)}{done}, {room}: {fewer}",
            needed=needed,
            allowed=allowed,
        )

    def _check_memory(self) -> None:
        if self.memory.total <= self.memory_limit:
            return
        m = self.memory
        fixed = m.model + m.loading + m.sketches + m.runtime
        advice = f"raise record.memory_limit to {format_bytes(m.total * 1.05)}"
        if fixed + m.batch + m.blocks + m.codec <= self.memory_limit:
            advice += ", or stop at the factors (normalize.enabled = false, --no-normalize)"
        if fixed <= self.memory_limit and self.batch_size > 1:
            smaller = f"a smaller record.batch_size than {self.batch_size}"
            # The batch size is part of what a cache is: another one would only be refused by the cache.
            advice = (
                f"{advice}, or choose another output folder and {smaller}: the existing cache keeps the batch "
                "size that it was made with"
                if self.has_cache
                else f"use {smaller}, or {advice}"
            )
        raise OverBudgetError(
            f"the run needs {format_bytes(m.total)} of memory (network {format_bytes(m.model)}, loading it "
            f"{format_bytes(m.loading)}, one batch "
            f"{format_bytes(m.batch)}, {BLOCKS_IN_FLIGHT} blocks {format_bytes(m.blocks)}, encoding "
            f"{format_bytes(m.codec)}, sketches {format_bytes(m.sketches)}, runtime {format_bytes(m.runtime)}, "
            f"the certificate beyond batch, blocks and encoding {format_bytes(m.certificate)}), "
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
    sketch: SketchSpec | None = None,
    n_open_blocks: int = 1,
    model_nbytes: int = 0,
    loading_nbytes: int = 0,
    sample_nbytes: int = 0,
    largest_tensor_nbytes: int = 0,
    certificate_nbytes: int = 0,
    multiplications: int = 0,
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
    sketch : SketchSpec, optional
        How finely is sketched; default: as ``SketchSpec()``.
    n_open_blocks : int
        Blocks whose sketches are in memory together: one in process, ``BLOCKS_IN_FLIGHT`` in a worker.
    loading_nbytes : int
        What reading the network's file takes at most beside the weights; 0 where it is no file.
    model_nbytes, sample_nbytes, largest_tensor_nbytes : int
        Bytes of the weights, of one sample, and of the network's largest tensor per sample.
    certificate_nbytes : int
        Bytes that normalising and certifying take beside the network; 0 where the run stops at the factors.
    multiplications : int
        What one sample costs the network, about.
    record : bool
        Whether activations are kept.
    stored_itemsize : int
        Bytes per stored value: 4 or 2.
    compresses : bool
        Whether the cache's codec compresses: then the compressed form of a chunk is held beside it.
    max_block_samples : int, optional
        At most so many samples per block (rounded up to a whole batch), as memory allows; default: as
        :mod:`.blocks` says.
    block_samples : int, optional
        Samples per block where an existing cache has fixed it.

    Raises
    ------
    InputError
        If there are no points or no samples, or a point has more channels than can be sketched apart.
    """
    if not points:
        raise InputError(
            "no points to record: the network has no layer with parameters; try record.points = 'all'"
        )
    if n_samples < 1:
        raise InputError("the data has no samples: check data.path and data.num_samples")
    for point in points:
        empty_sketch(
            sketch or SketchSpec(), point
        )  # refuses too many channels now, and not in the first block
    run = _Run(
        points=tuple(points),
        n_samples=n_samples,
        batch_size=batch_size,
        sketch=sketch or SketchSpec(),
        n_open_blocks=n_open_blocks,
        model_nbytes=model_nbytes,
        loading_nbytes=loading_nbytes,
        certificate_nbytes=certificate_nbytes,
        # Recorded tensors are counted with the slab they are collected for; beside them the network holds a few
        # that are not recorded: input, output and workspace of the layer at work.
        batch_nbytes=min(batch_size, n_samples) * (2 * sample_nbytes + 3 * largest_tensor_nbytes),
        record=record,
        stored_itemsize=stored_itemsize,
        compresses=compresses,
    )
    has_cache = block_samples is not None
    block_samples = block_samples or choose_block_samples(
        [4 * point.n_values for point in points],
        n_samples=n_samples,
        batch_size=batch_size,
        multiplications=multiplications,
        record=record,
        asked=max_block_samples,
        fits=lambda n: run.memory(n).total <= memory_limit,
    )
    slab = run.slab_within(memory_limit, block_samples=block_samples)
    stored = projection(run.spec(block_samples))
    return Plan(
        points=tuple(
            PointPlan(
                name=point.name,
                layer_type=str(point.meta.get("layer_type", "")),
                shape=point.shape,
                n_params=int(point.meta.get("n_params", 0)),
                nbytes=point.n_values * stored_itemsize * n_samples,
            )
            for point in points
        ),
        n_samples=n_samples,
        batch_size=batch_size,
        block_samples=block_samples,
        slab_samples=slab,
        memory=run.memory(block_samples, slab),
        memory_limit=memory_limit,
        activations_nbytes=stored.nbytes,
        records_nbytes=records_nbytes(
            run.points,
            run.sketch,
            block_samples=block_samples,
            n_samples=n_samples,
            n_chunks=stored.n_files - stored.n_blocks - len(points) if record else 0,
        ),
        n_files=stored.n_files,
        has_cache=has_cache,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What a run takes, for any size of its blocks and slabs."""

    points: tuple[PointSpec, ...]
    n_samples: int
    batch_size: int
    sketch: SketchSpec
    n_open_blocks: int
    model_nbytes: int
    loading_nbytes: int
    certificate_nbytes: int
    batch_nbytes: int
    record: bool
    stored_itemsize: int
    compresses: bool

    @property
    def sample_nbytes(self) -> int:
        """Bytes of the activations of a sample in memory."""
        return 4 * sum(point.n_values for point in self.points)

    def spec(self, block_samples: int) -> CacheSpec:
        """Return what the cache would be with such blocks."""
        return CacheSpec(
            points=self.points,
            n_samples=self.n_samples,
            batch_size=self.batch_size,
            block_samples=block_samples,
            identity={},
            dtype="float16" if self.stored_itemsize == 2 else "float32",
            keeps_activations=self.record,
        )

    def slab_within(self, limit: int, *, block_samples: int) -> int:
        """Return how many samples of such blocks are collected at a time: fewer where the limit leaves less room."""
        slab_nbytes = SLAB_NBYTES
        while True:
            slab = slab_samples(
                self.points, batch_size=self.batch_size, block_samples=block_samples, slab_nbytes=slab_nbytes
            )
            if slab == self.batch_size or self.memory(block_samples, slab).total <= limit:
                return slab
            slab_nbytes = (slab - 1) * self.sample_nbytes

    def memory(self, block_samples: int, slab: int | None = None) -> MemoryProjection:
        """Return what a run with such blocks takes, collected so many samples at a time."""
        if slab is None:
            slab = slab_samples(self.points, batch_size=self.batch_size, block_samples=block_samples)
        sizes = self.spec(block_samples).chunk_samples if self.record else {}
        chunk_nbytes = {point.name: sizes[point.name] * point.n_values * 4 for point in self.points if sizes}
        of_slab = {point.name: slab * point.n_values * 4 for point in self.points}
        gathered = sum(nbytes for name, nbytes in chunk_nbytes.items() if nbytes > of_slab[name])
        n_slabs = min(BLOCKS_IN_FLIGHT, -(-self.n_samples // slab))
        of_threads = sorted(chunk_nbytes.values())[-RECORDING_THREADS:]
        recording = {
            "batch": self.batch_nbytes,
            "blocks": n_slabs * min(slab, self.n_samples) * self.sample_nbytes + gathered,
            "codec": STAGING_NBYTES * len(of_threads)
            + (1 + self.compresses) * sum(of_threads) * self.stored_itemsize // 4,
            "sketches": self._sketches_nbytes(block_samples, slab),
        }
        # Up to as much as the weights was seen to stay with the allocator; the rest of loading's peak is used again.
        stays = min(self.model_nbytes, self.loading_nbytes)
        loading = max(stays, self.loading_nbytes - sum(recording.values()))
        later = max(0, self.certificate_nbytes + recording["sketches"] - sum(recording.values()))
        return MemoryProjection(model=self.model_nbytes, loading=loading, certificate=later, **recording)

    def _sketches_nbytes(self, block_samples: int, slab: int) -> int:
        n_open = min(self.n_open_blocks, -(-self.n_samples // block_samples))
        of_thread = (SKETCH_BYTES_PER_BUCKET << counter_bits(self.sketch)) + JOINED_NBYTES
        block = min(block_samples, self.n_samples)
        opened = open_block_nbytes(self.points, self.sketch, block_samples=block, slab_samples=slab)
        merged = merged_nbytes(
            self.points, self.sketch, block_samples=block_samples, n_samples=self.n_samples
        )
        # Merging begins when the threads are gone with their counters; small pieces of what open blocks took may not
        # have been given back by then.
        return n_open * opened + max(of_thread * RECORDING_THREADS, merged)


def _free_nbytes(path: Path | None) -> int | None:
    """Return the free bytes of the disk on which a folder lies or will lie."""
    if path is None:
        return None
    while not path.exists() and path != path.parent:
        path = path.parent
    usage = shutil.disk_usage(path)
    # Pseudo file systems (/proc) have no size; that nothing can be written there is told when it is tried.
    return usage.free if usage.total else None
