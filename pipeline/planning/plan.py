"""What a run will take, before it runs: blocks, bytes on disk, files, memory; refused when over a limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...storage import projection, sample_nbytes
from ...storage.errors import InputError, OverBudgetError
from ...storage.local import free_nbytes
from ..record.block_memory import stored_sketches_nbytes
from ..record.point_sketch import empty_sketch
from ..record.recorder import BLOCKS_IN_FLIGHT
from ..settings.job import JobSettings
from ..settings.sizes import format_bytes
from .block_size import choose_block_samples
from .memory import MemoryProjection, NetworkNeeds, RunNeeds

__all__ = ["Plan", "PointPlan", "make_plan"]


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
class Plan:
    """A run before it runs."""

    points: tuple[PointPlan, ...]
    n_samples: int
    batch_size: int
    block_samples: int
    slab_samples: int
    """Samples of a block that are collected before they are sketched and written; does not affect the bytes."""
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
        needed, free = self.disk_nbytes, None
        if disk_limit is None and cache_path is not None:
            free = free_nbytes(cache_path)
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
    settings: JobSettings, network: NetworkNeeds, *, n_samples: int, block_samples: int | None = None
) -> Plan:
    """Return the plan of a run.

    Parameters
    ----------
    settings : JobSettings
        The job.
    network : NetworkNeeds
        What its network takes, with the points to record.
    n_samples : int
        Samples in all.
    block_samples : int, optional
        Samples per block of the cache that exists already; default: as :mod:`.block_size` says.

    Raises
    ------
    InputError
        If there are no points or no samples, or a point has too many channels for a sketch of each.
    """
    points, record = network.points, settings.record
    if not points:
        raise InputError(
            "no points to record: the network has no layer with parameters; try record.points = 'all'"
        )
    if n_samples < 1:
        raise InputError("the data has no samples: check data.path and data.num_samples")
    needs = RunNeeds(settings=settings, network=network, n_samples=n_samples)
    for point in points:
        empty_sketch(needs.sketch, point)  # refuses too many channels now, and not in the first block
    has_cache = block_samples is not None
    block_samples = block_samples or choose_block_samples(
        [sample_nbytes([point]) for point in points],
        n_samples=n_samples,
        batch_size=record.batch_size,
        multiplications=network.multiplications,
        record=record.activations,
        asked=record.block_samples,
        fits=needs.fits,
    )
    slab = needs.largest_slab(block_samples)
    stored = projection(needs.cache(block_samples))
    last = n_samples - (stored.n_blocks - 1) * block_samples
    sketches_nbytes = (stored.n_blocks - 1) * stored_sketches_nbytes(
        points, needs.sketch, block_samples
    ) + stored_sketches_nbytes(points, needs.sketch, last)
    return Plan(
        points=tuple(
            PointPlan(
                name=point.name,
                layer_type=str(point.meta.get("layer_type", "")),
                shape=point.shape,
                n_params=int(point.meta.get("n_params", 0)),
                nbytes=n_samples * sample_nbytes([point], settings.cache.dtype),
            )
            for point in points
        ),
        n_samples=n_samples,
        batch_size=record.batch_size,
        block_samples=block_samples,
        slab_samples=slab,
        memory=needs.memory(block_samples, slab),
        memory_limit=record.memory_limit,
        activations_nbytes=stored.nbytes,
        records_nbytes=stored.documents_nbytes + sketches_nbytes,
        n_files=stored.n_files,
        has_cache=has_cache,
    )
