"""Workers need the secrets of the store; what a cluster logs and shows of the work holds none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actisketch.pipeline.cluster.merge_tree import exact_percentiles_on, merged_sketches_on
from actisketch.pipeline.cluster.record_blocks import record_missing_on
from actisketch.pipeline.cluster.rehearsal import RehearsalRecipe, rehearsal_spec
from actisketch.pipeline.sketch import SketchSpec
from actisketch.storage import Cache
from actisketch.storage.keys import record_key

SECRETS = {"access_key_id": "ID-of-nobody-31", "secret_access_key": "KEY-of-nobody-37"}


def told(client: Any) -> str:
    """Everything that the cluster says of its work: logs, task names and states, events, stories."""
    keys = [*client.run_on_scheduler(lambda dask_scheduler: [str(k) for k in dask_scheduler.tasks])]
    parts = [
        client.get_worker_logs(),
        client.get_scheduler_logs(),
        client.get_events(),
        client.get_task_stream(),
        client.run_on_scheduler(lambda dask_scheduler: repr(dask_scheduler.tasks)),
        client.run_on_scheduler(lambda dask_scheduler: [s.erred_on for s in dask_scheduler.tasks.values()]),
        keys,
    ]
    return re.sub(r"\s+", " ", repr(parts))


def test_logs_task_names_and_events_hold_no_secret(shared_client: Any, s3: Any, tmp_path: Path) -> None:
    client, options = shared_client, {**s3.options, **SECRETS}
    url, spec = (
        "s3://activations/secret-cluster",
        rehearsal_spec(RehearsalRecipe(), n_blocks=2, block_samples=16),
    )
    seen = []

    with Cache.create_or_resume(url, spec, storage_options=options) as cache:
        record_missing_on(client, cache, RehearsalRecipe(), sketch=SketchSpec(), storage_options=options)
        sketches = merged_sketches_on(client, cache, storage_options=options)
        exact_percentiles_on(
            client, cache, "point1", [50.0], sketches["point1"], nonzero=True, storage_options=options
        )
        seen.append(told(client))
        # A task that fails is logged with its arguments.
        block = cache.blocks[0]
        key = record_key(block.index, block.start, block.stop)
        whole = cache.store.read(key) or b""
        cache.store.write(key, [np.frombuffer(whole, np.uint8)[:-1]])
        with pytest.raises(ValueError, match="record"):
            merged_sketches_on(client, cache, storage_options=options)
        seen.append(told(client))

    assert "merge_blocks" in seen[1]
    assert [secret for secret in SECRETS.values() if any(secret in text for text in seen)] == []
