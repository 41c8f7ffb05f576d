"""What normalising takes when the factors are given, and what the certificate costs beside the networks themselves.

``pytest tests/benchmarks/test_normalizer_speed.py --benchmark-enable -s`` prints the figures for VGG16; without the
option everything runs once, small. Memory is measured in a process of its own: this file is its program.
"""

from __future__ import annotations

import json
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

N_ROUNDS = 3
TARGET_S, TARGET_MEMORY, TARGET_RATIO = 2.0, 2.5, 1.3


def rss_nbytes() -> int:
    """Memory of this process now; its peak would hide behind that of building the network."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def peak_nbytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def timed(action: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    action()
    return time.perf_counter() - start_s


def vgg16(size: int, n_classes: int) -> Any:
    import keras

    keras.utils.set_random_seed(7)
    return keras.applications.VGG16(weights=None, input_shape=(size, size, 3), classes=n_classes)


def normalize_and_measure(size: int, n_classes: int) -> dict[str, float]:
    """Normalise VGG16 once; seconds, and bytes by which the peak lies above what there was before."""
    from actisketch.pipeline.graph import read_graph, select_points
    from actisketch.pipeline.normalizer import normalize_model

    model = vgg16(size, n_classes)
    factors = {point.name: 1.0 + i / 8 for i, point in enumerate(select_points(read_graph(model)))}
    before, peak_before = rss_nbytes(), peak_nbytes()
    start_s = time.perf_counter()
    normalized = normalize_model(model, factors)
    elapsed_s = time.perf_counter() - start_s
    assert normalized.scales["block1_conv1"] == 1.0
    return {
        "elapsed_s": elapsed_s,
        "weights_nbytes": 4 * model.count_params(),
        "added_nbytes": peak_nbytes() - before,
        "hidden_nbytes": peak_before - before,
        "peak_nbytes": peak_nbytes(),
    }


def test_normalising_vgg16_takes_seconds_and_little_more_than_its_weights(*, is_measured: bool) -> None:
    size, n_classes, n_rounds = (224, 1000, N_ROUNDS) if is_measured else (32, 10, 1)
    command = [sys.executable, __file__, str(size), str(n_classes)]
    found = []
    for _ in range(n_rounds):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        found.append(json.loads(done.stdout.splitlines()[-1]))
    elapsed_s = statistics.median(each["elapsed_s"] for each in found)
    weights = found[0]["weights_nbytes"]
    added = max(each["added_nbytes"] for each in found) / weights
    total = max(each["peak_nbytes"] for each in found) / weights
    hidden = max(each["hidden_nbytes"] for each in found) / weights
    if is_measured:
        print(
            f"\nVGG16, {weights / 1e6:.0f} MB of weights, {n_rounds} processes: median {elapsed_s:.2f} s; peak "
            f"{added:.2f} x the weights above what stood before (building the network: {hidden:.2f}); whole process "
            f"with TensorFlow and the original {total:.2f} x; wanted: under {TARGET_S:.0f} s, under {TARGET_MEMORY} x"
        )
        assert added < TARGET_MEMORY


def test_a_certificate_costs_little_more_than_two_forward_passes(*, is_measured: bool) -> None:
    import tensorflow as tf

    from actisketch.pipeline.certifier import certify
    from actisketch.pipeline.graph import read_graph, select_points
    from actisketch.pipeline.normalizer import normalize_model
    from actisketch.pipeline.sketch import SketchSpec
    from actisketch.pipeline.sources import as_source

    size, n_samples, batch_size = (128, 64, 16) if is_measured else (32, 4, 2)
    model = vgg16(size, 10)
    images = np.random.default_rng(3).random((n_samples, size, size, 3), dtype=np.float32)
    normalized = normalize_model(model, {point.name: 0.5 for point in select_points(read_graph(model))})
    bare = [
        tf.function(lambda x, each=each: each(x, training=False), autograph=False)
        for each in (model, normalized.model)
    ]
    batches = [tf.constant(images[i : i + batch_size]) for i in range(0, n_samples, batch_size)]

    def forward() -> None:
        for batch in batches:
            for run in bare:
                memoryview(run(batch))

    def certified(spec: SketchSpec | None = None) -> None:
        found = certify(model, normalized, as_source(images), batch_size=batch_size, sketch_spec=spec)
        assert found.passed, found.summary()

    ways = {"two bare passes": forward, "certificate": certified}
    ways["certificate with sketches"] = lambda: certified(SketchSpec())
    forward()  # compiled once; the certificate is compiled in every round, as in a command
    n_rounds = N_ROUNDS if is_measured else 1
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(n_rounds):
        for name, way in ways.items():
            seconds[name].append(timed(way))
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    if is_measured:
        print(f"\nVGG16 at {size} px, {n_samples} samples in batches of {batch_size}, median of {n_rounds}:")
        for name, median_s in medians.items():
            ratio = median_s / medians["two bare passes"]
            print(f"  {name:26s} {median_s:6.2f} s   {ratio:5.2f} x")
        print(f"  wanted: the certificate at most {TARGET_RATIO} x")


if __name__ == "__main__":
    print(json.dumps(normalize_and_measure(int(sys.argv[1]), int(sys.argv[2]))))
