"""Record and reduce a small Keras network and print, as JSON, what was predicted and what was taken.

Usage: python record_and_measure.py OUTPUT SETTINGS, where SETTINGS is JSON: n_samples, batch_size, memory_limit,
block_samples, codec, activations, per_channel; n_layers for a network of many points, path for one in a file, and with
is_bare, that network is only run.
Run by test_memory.py: peak memory can only be measured in a process of its own.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

from actisketch.pipeline.factors.from_cache import factors_of
from actisketch.pipeline.factors.merge import merged_sketches
from actisketch.pipeline.job import plan_job
from actisketch.pipeline.record.model import import_keras, load_network
from actisketch.pipeline.record.recorder import record_missing
from actisketch.pipeline.settings.loading import validate_job
from actisketch.pipeline.sources import as_source
from actisketch.pipeline.stages.prepare import sketch_spec
from actisketch.storage import Cache


def process_nbytes(field: str) -> int:
    """Return a memory figure of this process, in bytes: VmRSS now, VmHWM its peak."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def network(keras: Any) -> Any:
    """Return four convolutions, whose activations are 96 times their input, and two dense layers."""
    layers = keras.layers
    inputs = x = keras.Input((64, 64, 3))
    for i, n_filters in enumerate((32, 32, 64, 64)):
        x = layers.Conv2D(n_filters, 3, padding="same", activation="relu", name=f"conv{i}")(x)
        x = layers.MaxPooling2D()(x) if i % 2 else x
    x = layers.Dense(100, activation="relu", name="dense")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(10, activation="softmax", name="classes")(x))


def many_points(keras: Any, n_layers: int) -> Any:
    """Return convolutions whose activations are spread like a bell curve, 8192 for a sample each."""
    inputs = x = keras.Input((16, 16, 8))
    for i in range(n_layers):
        x = keras.layers.Conv2D(32, 3, padding="same", kernel_initializer="he_normal", name=f"conv{i}")(x)
    return keras.Model(inputs, x)


def bare_pass(path: str, samples: Any, batch_size: int) -> int:
    """Load a network, send the samples through it, and return what that took."""
    import tensorflow as tf

    Path("/proc/self/clear_refs").write_text("5")
    before = process_nbytes("VmRSS")
    model = load_network(path)
    spec = tf.TensorSpec((None, *samples.shape[1:]), tf.float32)
    run = tf.function(lambda x: model(x, training=False), input_signature=[spec], autograph=False)
    for start in range(0, len(samples), batch_size):
        assert len(memoryview(run(tf.constant(samples[start : start + batch_size]))))
    return process_nbytes("VmHWM") - before


def main(output: str, settings_json: str) -> None:
    """Record, and print the figures."""
    chosen = json.loads(settings_json)
    keras = import_keras()
    import tensorflow as tf

    tf.function(lambda a: tf.matmul(a, a))(tf.ones((64, 64)))  # the runtime's threads belong to TensorFlow
    rng = np.random.default_rng(7)
    samples: Any
    if chosen["path"]:
        model = None  # reading the file is part of the run
        samples = rng.standard_normal((chosen["n_samples"], *chosen["shape"]), np.float32)
    elif chosen["n_layers"]:
        keras.utils.set_random_seed(7)
        model = many_points(keras, chosen["n_layers"])
        samples = rng.standard_normal((chosen["n_samples"], 16, 16, 8), np.float32)
    else:
        model = network(keras)
        # One sample, repeated: the samples themselves take no memory.
        sample = rng.standard_normal((1, 64, 64, 3), np.float32)
        samples = np.broadcast_to(sample, (chosen["n_samples"], 64, 64, 3))
    if chosen.get("is_bare"):
        print(json.dumps({"taken": bare_pass(chosen["path"], samples, chosen["batch_size"])}))
        return
    settings = validate_job(
        {
            "output": output,
            "model": {"path": chosen["path"]},
            "record": {
                key: chosen[key] for key in ("batch_size", "memory_limit", "block_samples", "activations")
            },
            "sketch": {"per_channel": chosen["per_channel"]},
            "factors": {"per_channel": chosen["per_channel"]},
            "normalize": {"enabled": False},
            "cache": {"codec": chosen["codec"]},
        }
    )
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far was the import's
    before = process_nbytes("VmRSS")
    job = plan_job(settings, model=model, source=as_source(samples))
    with Cache.create_or_resume(job.cache_url, job.spec) as cache:
        record_missing(cache, job.producer, sketch=sketch_spec(settings))
    recording = process_nbytes("VmHWM") - before
    factors_of(cache, merged_sketches(cache), settings)
    taken = process_nbytes("VmHWM") - before
    memory = job.plan.to_dict()["memory"]
    figures = {"taken": taken, "recording": recording, "predicted": memory["total"], "parts": memory}
    print(json.dumps({**figures, "n_blocks": job.plan.n_blocks}))


if __name__ == "__main__":
    main(*sys.argv[1:])
