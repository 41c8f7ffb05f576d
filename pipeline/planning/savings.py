"""Which settings make the records of a run smaller, and by how much: told with the plan, where records are large.

Arithmetic only: the same plan, made again with one setting changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from ...storage import PointSpec
from ..sketch import SketchSpec
from ..sketch.sketch_spec import MIN_BITS
from .plan import Plan, make_plan

__all__ = ["plan_with_savings"]

# Records of less than this, or than a twentieth of the cache, are not worth a word.
LARGE_NBYTES = 2**30
LARGE_PART = 0.05
# What saves less is not worth a change.
WORTHWHILE = 0.8
# As fine as sketches of layers get while they still answer to 2^-7.
COARSE_BITS = 16


def plan_with_savings(points: Sequence[PointSpec], **settings: Any) -> Plan:
    """Return :func:`~.plan.make_plan` of the same settings, with ``savings`` where its records are large."""
    plan = make_plan(points, **settings)
    if plan.has_cache or plan.records_nbytes < max(LARGE_NBYTES, LARGE_PART * plan.disk_nbytes):
        return plan
    savings = {
        setting: again.records_nbytes
        for setting, again in _changed(plan, points, settings)
        if again.records_nbytes <= WORTHWHILE * plan.records_nbytes
    }
    return replace(plan, savings=savings)


def _changed(plan: Plan, points: Sequence[PointSpec], settings: dict[str, Any]) -> Iterator[tuple[str, Plan]]:
    """Yield a setting as a job file has it, and the plan with it."""

    def again(**change: Any) -> Plan:
        return make_plan(points, **{**settings, **change})

    sketch: SketchSpec = settings["sketch"]
    if sketch.per_channel and sketch.channel_bits > MIN_BITS:
        coarse = replace(sketch, channel_bits=MIN_BITS)
        yield f"sketch.channel_bits = {MIN_BITS}", again(sketch=coarse)
    if sketch.per_channel:
        yield "sketch.per_channel = false", again(sketch=replace(sketch, per_channel=False))
    elif sketch.bits > COARSE_BITS:
        yield f"sketch.bits = {COARSE_BITS}", again(sketch=replace(sketch, bits=COARSE_BITS))
    # Each block has a record: larger blocks have fewer. Those of sketches alone are as large as a kill may cost.
    largest = again(record=False, max_block_samples=None).block_samples
    if largest > plan.block_samples:
        larger = again(max_block_samples=largest)
        yield f"record.block_samples = {larger.block_samples}", larger
    unbounded = again(memory_limit=2**62)
    if unbounded.block_samples > plan.block_samples:
        gib = math.ceil(10 * unbounded.memory.total / 2**30) / 10
        yield f"record.memory_limit = '{gib:g} GiB'", again(memory_limit=int(gib * 2**30))
