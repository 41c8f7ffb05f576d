"""What a run will take: blocks, bytes on disk, files, memory; refused if it is over a limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...storage import projection, sample_nbytes
from ...storage.errors import InputError, OverBudgetError
from ...storage.files import free_nbytes
from ..events import counted
from ..record.block_memory import stored_sketches_nbytes
from ..record.point_sketch import empty_sketch
from ..settings.job_settings import JobSettings
from ..settings.sizes import format_bytes
from .block_size import choose_block_samples
from .memory import MemoryProjection, NetworkNeeds, RunNeeds
from .memory_limit import CLUSTER_NBYTES, PROCESS_NBYTES, DefaultLimit, default_limit

if TYPE_CHECKING:
    from ..display.shown_table import ShownTable

__all__ = ["Plan", "PointPlan", "make_plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PointPlan:
    """What one point takes on disk."""

    name: str
    layer_type: str
    shape: tuple[int, ...]
    n_params: int
    nbytes: int
    """Of all samples, before compression."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run takes."""

    points: tuple[PointPlan, ...]
    n_samples: int
    batch_size: int
    block_samples: int
    memory: MemoryProjection
    memory_limit: int
    activations_nbytes: int
    """On disk before compression, padded to whole chunks; 0 if only sketches are kept."""
    records_nbytes: int
    """Upper bound on disk of the sketches of all blocks, and of what describes the cache."""
    n_files: int
    default_limit: DefaultLimit | None = None
    """What ``memory_limit`` is a share of; None if the settings name it."""
    has_cache: bool = False
    """Whether the block size is that of an existing cache."""
    savings: Mapping[str, int] = field(default_factory=dict)
    """Settings that make large records smaller, each with the bytes that the records would take."""

    @property
    def disk_nbytes(self) -> int:
        """Upper bound of what the cache takes on disk."""
        return self.activations_nbytes + self.records_nbytes

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return -(-self.n_samples // self.block_samples)

    def __repr__(self) -> str:
        return self._shown().text()

    def _repr_html_(self) -> str:
        return self._shown().html()

    def _shown(self) -> ShownTable:
        # Only here: most plans are not looked at.
        from ..display.shown_table import ShownTable
        from ..display.small_pictures import bar_svg

        m, largest = self.memory, max((point.nbytes for point in self.points), default=0)
        blocks = (
            f"{counted(self.n_blocks, 'block')} of {self.block_samples:,} (batches of {self.batch_size:,})"
        )
        limit = "" if self.default_limit is None else f", {self.default_limit.sentence()}"
        over = "" if m.total <= self.memory_limit else "OVER THE LIMIT: "
        memory = (
            f"{format_bytes(m.total)} of {format_bytes(self.memory_limit)} allowed{limit} ({m.by_cause()})"
        )
        return ShownTable(
            title=f"plan: {counted(self.n_samples, 'sample')} in {blocks}",
            lines=[
                f"disk: up to {format_bytes(self.disk_nbytes)} in about {self.n_files:,} files",
                f"memory: {over}{memory}",
            ],
            columns={
                "point": [p.name for p in self.points],
                "layer": [p.layer_type for p in self.points],
                ">shape": ["x".join(map(str, p.shape)) or "1" for p in self.points],
                ">parameters": [f"{p.n_params:,}" for p in self.points],
                ">activations": [format_bytes(p.nbytes) for p in self.points],
            },
            pictures=[
                bar_svg(p.nbytes / max(largest, 1), alt=f"{format_bytes(p.nbytes)} of activations")
                for p in self.points
            ],
            picture_head="bytes",
            more="plan.points has all",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        memory = {**asdict(self.memory), "total": self.memory.total}
        whole = {"n_blocks": self.n_blocks, "disk_nbytes": self.disk_nbytes}
        # An earlier program collected several batches before they were sketched.
        whole["slab_samples"] = self.batch_size
        return {**asdict(self), "memory": memory, **whole}

    def check(
        self, *, cache_path: Path | None, disk_limit: int | None = None, n_done_nbytes: int = 0
    ) -> None:
        """Refuse the run if it does not fit.

        Parameters
        ----------
        cache_path : path or None
            Local folder of the cache, for the free space of its disk; None for object stores.
        disk_limit : int, optional
            Bytes that the cache may take; default: what is free.
        n_done_nbytes : int
            Bytes that are written already.

        Raises
        ------
        OverBudgetError
            With the numbers, and the settings to change.
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
        done = f" ({format_bytes(n_done_nbytes)} of it are written already)" if n_done_nbytes else ""
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
        advice = self._more_memory()
        default = "" if self.default_limit is None else f", {self.default_limit.sentence()}"
        if fixed + m.batch + m.blocks + m.codec <= self.memory_limit:
            advice += ", or stop at the factors (normalize.enabled = false, --no-normalize)"
        if fixed <= self.memory_limit and self.batch_size > 1:
            smaller = f"a smaller record.batch_size than {self.batch_size}"
            # Another batch size would be refused by the cache: activations depend on it.
            advice = (
                f"{advice}, or choose another output folder and {smaller}: the existing cache keeps the batch "
                "size that it was made with"
                if self.has_cache
                else f"use {smaller}, or {advice}"
            )
        raise OverBudgetError(
            f"the run needs {format_bytes(m.total)} of memory ({m.by_cause()}), record.memory_limit allows "
            f"{format_bytes(self.memory_limit)}{default}: {advice}",
            needed=m.total,
            allowed=self.memory_limit,
        )

    def _more_memory(self) -> str:
        """Return how the run gets the memory that it needs: on another machine, if this one does not have it."""
        wanted, limit = int(self.memory.total * 1.05), self.default_limit
        n_processes = 0 if limit is None else limit.n_processes
        all_of_it = None if limit is None else limit.of_nbytes
        if all_of_it is not None and n_processes * (wanted + PROCESS_NBYTES) > all_of_it:
            fewer = ", or use fewer record.workers" if n_processes > 1 else ""
            return f"run it on a machine with more memory{fewer}"
        raised = "raise" if limit is None else "set"
        return f"{raised} record.memory_limit to {format_bytes(wanted)}"


def make_plan(
    settings: JobSettings,
    network: NetworkNeeds,
    *,
    n_samples: int,
    block_samples: int | None = None,
    is_remote: bool = False,
) -> Plan:
    """Return the plan of a run.

    Parameters
    ----------
    settings : JobSettings
    network : NetworkNeeds
    n_samples : int
        Samples of the run.
    block_samples : int, optional
        Samples per block of an existing cache; default: as :mod:`.block_size` says.
    is_remote : bool
        Whether a cluster of the caller's does the work, so that this machine's memory says nothing.

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
    limit = default_limit(record, is_remote=is_remote)
    memory_limit = record.memory_limit if limit is None else limit.nbytes
    assert memory_limit is not None  # one of both
    needs = RunNeeds(settings=settings, network=network, n_samples=n_samples, memory_limit=memory_limit)
    for point in points:
        empty_sketch(needs.sketch, point)  # refuses too many channels now, and not in the first block
    has_cache = block_samples is not None
    block_samples = block_samples or _block_samples(needs, is_default=limit is not None)
    stored = projection(needs.cache(block_samples))
    last = n_samples - (stored.n_blocks - 1) * block_samples
    whole, rest = (stored_sketches_nbytes(points, needs.sketch, n) for n in (block_samples, last))
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
        memory=needs.memory(block_samples),
        memory_limit=memory_limit,
        default_limit=limit,
        activations_nbytes=stored.nbytes,
        records_nbytes=stored.documents_nbytes + (stored.n_blocks - 1) * whole + rest,
        n_files=stored.n_files,
        has_cache=has_cache,
    )


def _block_samples(needs: RunNeeds, *, is_default: bool) -> int:
    """Return the samples of a block of a new cache: under a default limit, the same on machines of all sizes.

    They are chosen as for one of 4 GiB, unless the machine allows less or a batch needs more.
    """
    if is_default and needs.memory_limit > CLUSTER_NBYTES:
        usual = replace(needs, memory_limit=CLUSTER_NBYTES)
        block_samples = choose_block_samples(usual)
        if usual.fits(block_samples):
            return block_samples
    return choose_block_samples(needs)
