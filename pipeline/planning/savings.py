"""Find the settings that make the records of a run smaller, and by how much, where records are large.

Arithmetic only: the plan is made again with one setting changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ..settings.job_settings import JobSettings
from ..sketch.sketch_spec import MIN_BITS
from .memory import NetworkNeeds
from .plan import Plan, make_plan

__all__ = ["plan_with_savings"]

# Smaller records, or less than this part of the cache, need no advice.
LARGE_NBYTES = 2**30
LARGE_PART = 0.05
# A setting must bring the records down to this part.
WORTHWHILE = 0.8
# With so few bits, percentiles of layers are still known to 2^-7.
COARSE_BITS = 16


def plan_with_savings(
    settings: JobSettings,
    network: NetworkNeeds,
    *,
    n_samples: int,
    block_samples: int | None = None,
    is_remote: bool = False,
) -> Plan:
    """Return the plan that :func:`~.plan.make_plan` makes, with ``savings`` if its records are large."""
    plan = make_plan(settings, network, n_samples=n_samples, block_samples=block_samples, is_remote=is_remote)
    if plan.has_cache or plan.records_nbytes < max(LARGE_NBYTES, LARGE_PART * plan.disk_nbytes):
        return plan
    savings = {
        setting: again.records_nbytes
        for setting, again in _changed(plan, settings, network, is_remote=is_remote)
        if again.records_nbytes <= WORTHWHILE * plan.records_nbytes
    }
    return replace(plan, savings=savings)


def _changed(
    plan: Plan, settings: JobSettings, network: NetworkNeeds, *, is_remote: bool
) -> Iterator[tuple[str, Plan]]:
    """Yield a setting as in a job file, and the plan with it."""

    def again(changed: JobSettings) -> Plan:
        return make_plan(changed, network, n_samples=plan.n_samples, is_remote=is_remote)

    sketch = settings.sketch
    if sketch.per_channel and sketch.channel_bits > MIN_BITS:
        yield f"sketch.channel_bits = {MIN_BITS}", again(_with(settings, "sketch", channel_bits=MIN_BITS))
    if sketch.per_channel:
        yield "sketch.per_channel = false", again(_with(settings, "sketch", per_channel=False))
    elif sketch.bits > COARSE_BITS:
        yield f"sketch.bits = {COARSE_BITS}", again(_with(settings, "sketch", bits=COARSE_BITS))
    # Each block has a record. Blocks of sketches alone are as large as a killed run may lose.
    largest = again(_with(settings, "record", activations=False, block_samples=None)).block_samples
    if largest > plan.block_samples:
        larger = again(_with(settings, "record", block_samples=largest))
        yield f"record.block_samples = {larger.block_samples}", larger
    unbounded = again(_with(settings, "record", memory_limit=2**62))
    if unbounded.block_samples > plan.block_samples:
        gib = math.ceil(10 * unbounded.memory.total / 2**30) / 10
        enough = again(_with(settings, "record", memory_limit=int(gib * 2**30)))
        yield f"record.memory_limit = '{gib:g} GiB'", enough


def _with(settings: JobSettings, table: str, **changes: Any) -> JobSettings:
    return settings.model_copy(update={table: getattr(settings, table).model_copy(update=changes)})
