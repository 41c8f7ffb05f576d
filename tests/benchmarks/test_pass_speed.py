"""What recording costs beside the network itself, and beside one run of the network per layer.

``pytest tests/benchmarks/test_pass_speed.py --benchmark-enable -s`` prints images/s and ratios, all from one
run, alternating. Without the option each way runs once, on a small network.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from actisketch.pipeline.graph import read_graph, select_points
from actisketch.pipeline.record.producer import KerasProducer
from actisketch.pipeline.record.recorder import record_missing
from actisketch.pipeline.sketch import SketchSpec
from actisketch.pipeline.sources import as_source
from actisketch.storage import Cache, CacheSpec

from .conftest import timed

N_ROUNDS = 3


def test_recording_every_layer_against_the_bare_network_and_a_run_per_layer(
    tmp_path: Path, *, is_measured: bool
) -> None:
    import keras
    import tensorflow as tf

    size, n_samples, batch_size = (160, 128, 32) if is_measured else (32, 8, 4)
    model = keras.applications.MobileNetV2(input_shape=(size, size, 3), weights=None)
    images = np.random.default_rng(3).random((n_samples, size, size, 3), dtype=np.float32)
    graph = read_graph(model)
    points = select_points(graph, "parameters")
    producer = KerasProducer(graph, points, as_source(images), batch_size=batch_size)
    bare = tf.function(lambda x: model(x, training=False), autograph=False)
    batches = [tf.constant(images[i : i + batch_size]) for i in range(0, n_samples, batch_size)]

    def forward() -> None:
        for batch in batches:
            memoryview(bare(batch))

    def all_points() -> None:
        for _ in producer.batches(0, n_samples):
            pass

    def recorded(*, keep: bool) -> None:
        folder = tmp_path / f"{time.perf_counter_ns()}"
        spec = CacheSpec(
            points=producer.points,
            n_samples=n_samples,
            batch_size=batch_size,
            block_samples=batch_size,
            identity={},
            keeps_activations=keep,
        )
        with Cache.create_or_resume(folder, spec) as cache:
            record_missing(cache, producer, sketch=SketchSpec())

    # SNN toolbox's way: a model that ends at the layer, and the whole data set through it, for each layer.
    tensors = [model.get_layer(point.layer_name).output for point in points]
    chosen = tensors[:: max(1, len(tensors) // 6)]
    per_layer_models = [keras.Model(model.inputs, tensor) for tensor in chosen]

    def per_layer() -> None:
        for each in per_layer_models:
            each.predict(images, batch_size=batch_size, verbose=0)

    ways: dict[str, Callable[[], Any]] = {
        "bare network": forward,
        "all points, one pass": all_points,
        "+ sketches": lambda: recorded(keep=False),
        "+ cache": lambda: recorded(keep=True),
        f"a run per layer ({len(chosen)} of {len(points)} layers)": per_layer,
    }
    for action in ways.values():
        action()  # traced and compiled, not measured
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(N_ROUNDS if is_measured else 1):
        for name, action in ways.items():
            seconds[name].append(timed(action))
    median_s = {name: statistics.median(times) for name, times in seconds.items()}
    for name, each_s in median_s.items():
        ratio = each_s / median_s["bare network"]
        print(f"{name:<40} {n_samples / each_s:8.0f} images/s  {ratio:6.2f} x the bare network")

    assert len(list(tmp_path.iterdir())) == 2 * (1 + (N_ROUNDS if is_measured else 1))
