"""Run a whole job in a process of its own and print, as JSON, what was planned and what it took: bytes."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np


def memory_nbytes(name: str) -> int:
    """Return VmRSS, the memory of this process now, or VmHWM, its peak."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) * 1024


def network(kind: str, policy: str) -> tuple[Any, tuple[int, ...]]:
    """Return a network, and the shape of its samples."""
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(1)
    if kind == "dense":
        x = keras.Input((768,))
        y = layers.Dense(20_000, activation="relu", dtype=policy)(x)
        y = layers.Dense(1000, activation="relu", dtype=policy)(y)
        return keras.Model(x, layers.Dense(10, dtype="float32")(y)), (768,)
    x = y = keras.Input((64, 64, 3))
    for _ in range(4):
        y = layers.Conv2D(48, 3, padding="same", activation="relu", dtype=policy)(y)
        if kind == "norms":
            y = layers.BatchNormalization(dtype=policy)(y)
    y = layers.GlobalAveragePooling2D(dtype=policy)(y)
    return keras.Model(x, layers.Dense(10, activation="softmax", dtype="float32")(y)), (64, 64, 3)


def main(kind: str, policy: str, n_samples: int, batch_size: int) -> None:
    """Run the job; the baseline is Python and TensorFlow with all their parts loaded."""
    import tensorflow as tf

    from actisketch.pipeline import run
    from actisketch.pipeline.job import plan_job
    from actisketch.pipeline.settings.loading import validate_job
    from actisketch.pipeline.sources import as_source

    assert tf.constant(1.0).shape == ()
    model, shape = network(kind, policy)
    # Drawing weights leaves memory behind, and loading them does not.
    before = memory_nbytes("VmRSS") - sum(4 * int(np.prod(weight.shape)) for weight in model.weights)
    samples = np.random.default_rng(0).random((n_samples, *shape), dtype=np.float32)
    data_nbytes = samples.nbytes
    # Its peak starts anew: building a network, and drawing its weights, is no part of the run.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = {"report": {"enabled": False}, "record": {"batch_size": batch_size}}
        plan = plan_job(
            validate_job({**settings, "output": folder}), model=model, source=as_source(samples)
        ).plan
        stages: dict[str, int] = {}

        def listen(event: Any) -> None:
            if type(event).__name__ == "StageDone":
                stages[event.stage] = (memory_nbytes("VmHWM") - before - data_nbytes) >> 20

        result = run(model, samples, output=f"{folder}/r", settings=settings, on_event=listen)
        assert result.certificate()["passed"]
    taken = memory_nbytes("VmHWM") - before - data_nbytes
    print(json.dumps({"planned": plan.memory.total, "taken": taken, "MiB by stage": stages}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
