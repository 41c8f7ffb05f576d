"""The stage that records: the missing blocks go to the cache, a description of the run goes to its manifest."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...storage import Block, Cache
from ...storage.errors import InputError
from ...storage.options import StorageOptions
from ..events import OnEvent, Remark, StageDone, StageStarted, counted
from ..graph import graph_points, toolbox_names
from ..settings.sizes import format_bytes
from .describe import describe_data
from .engine import Engine
from .prepare import Prepared
from .stage import Stage
from .versions import noted_versions

__all__ = ["random_layers", "record", "write_manifest"]

logger = logging.getLogger(__name__)


def random_layers(job: Prepared) -> tuple[str, ...]:
    """Return the layers that are random at inference.

    Raises
    ------
    InputError
        If they are not allowed, or the network would have to be certified.
    """
    random = job.producer.check()
    if random and job.settings.normalize.enabled:
        raise InputError(
            f"a network that is random at inference ({', '.join(map(repr, random[:5]))}) cannot be certified, because "
            "two passes differ: stop at the factors with normalize.enabled = false (--no-normalize)",
            layers=random,
        )
    return random


def record(job: Prepared, engine: Engine, on_event: OnEvent) -> tuple[Cache, int]:
    """Record missing blocks; return the cache, which can be read from now on, and the number of computed blocks."""
    with job.open_to_write() as cache:
        job.folder.clean()
        _tell_of_data(job, on_event)
        stage = _RecordStage(job=job, cache=cache, engine=engine, on_event=on_event)
        n_blocks, n_total = len(cache.blocks), cache.spec.n_samples
        n_done = n_total - sum(block.n_samples for block in stage.missing)
        on_event(StageStarted(stage="record", n_total=n_total, n_done=n_done, unit="samples"))
        n_computed = stage.reload_or_compute()
        nbytes = cache.nbytes()
    done = f"computed {counted(n_computed, 'block')}," if n_computed else "nothing to compute:"
    kept = f"reloaded {n_blocks - n_computed:,} of {counted(n_blocks, 'block')}"
    message = f"{done} {kept}; the cache holds {format_bytes(nbytes)}"
    logger.info("record: %s", message)
    on_event(StageDone(stage="record", message=message, reloaded=n_computed == 0))
    return cache, n_computed


@dataclass(frozen=True, kw_only=True)
class _RecordStage(Stage[int]):
    """Its results are the blocks of a cache, which belongs to one network, data set and settings."""

    job: Prepared
    cache: Cache
    engine: Engine
    on_event: OnEvent

    @cached_property
    def missing(self) -> tuple[Block, ...]:
        return self.cache.missing()

    def is_current(self) -> bool:
        return not self.missing

    def reload(self) -> int:
        return 0

    def compute(self) -> int:
        is_new = len(self.missing) == len(self.cache.blocks)
        # Before the first block, so that a run that is interrupted is recognised as one.
        write_manifest(self.job, noted_versions(self.job.folder, is_new=is_new))
        return self.engine.record_missing(self.job, self.cache, self.on_event)

    def replace(self, result: int) -> None:
        """Do nothing: each block is committed as soon as it is computed."""


def _tell_of_data(job: Prepared, on_event: OnEvent) -> None:
    found = describe_data(job)
    on_event(Remark(topic="data", message=found.sentence()))
    for warning in found.warnings:
        logger.warning("%s", warning)


def write_manifest(job: Prepared, versions: Mapping[str, Any] | None = None) -> None:
    """Describe the run in its manifest; with ``versions``, if something will be computed by them."""
    if versions is None and "versions" not in job.folder.manifest():
        versions = noted_versions(job.folder)
    job.folder.update_manifest(
        {
            "settings": job.settings.model_dump(mode="json"),
            "withheld": sorted(StorageOptions(job.settings.cache.storage_options).secrets()),
            "model": {"name": job.model.name, "fingerprint": dict(job.fingerprint)},
            "n_samples": job.plan.n_samples,
            "ties": job.ties.to_dict(),
            "toolbox": toolbox_names(job.graph, graph_points(job.points)),
            **(versions or {}),
            **({"random_layers": list(job.random)} if job.random else {}),
        }
    )
