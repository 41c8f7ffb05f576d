"""The arguments of a plan from the few that a test sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actisketch.pipeline.planning.memory import NetworkNeeds
from actisketch.pipeline.settings.job_settings import JobSettings
from actisketch.pipeline.settings.loading import validate_job
from actisketch.pipeline.sketch import SketchSpec
from actisketch.storage import PointSpec

_IN_RECORD = {
    "batch_size": "batch_size",
    "max_block_samples": "block_samples",
    "memory_limit": "memory_limit",
    "record": "activations",
}


def plan_arguments(
    points: Sequence[PointSpec],
    *,
    sketch: SketchSpec | None = None,
    stored_itemsize: int = 4,
    **given: Any,
) -> tuple[JobSettings, NetworkNeeds, dict[str, Any]]:
    """Return settings, network and the other arguments of `make_plan`."""
    record = {name: given.pop(key) for key, name in _IN_RECORD.items() if key in given}
    others = {key: given.pop(key) for key in ("n_samples", "block_samples") if key in given}
    chosen = (sketch or SketchSpec()).to_dict()
    chosen["nonfinite"] = chosen.pop("on_nonfinite")
    cache = {"dtype": {2: "float16", 4: "float32"}[stored_itemsize], "codec": "none"}
    settings = validate_job({"record": record, "cache": cache, "sketch": chosen})
    return settings, NetworkNeeds(points=tuple(points), **given), others
