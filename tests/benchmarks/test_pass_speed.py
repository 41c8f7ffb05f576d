"""What recording costs beside the network itself: five networks, every way in turn.

``pytest tests/benchmarks/test_pass_speed.py --benchmark-enable -s`` prints, for each network, medians of the ratios to
the bare network of the same round, and what none can be better than: taps that do nothing; the same cores doing the
work of the network and of the sketch kernel, on all of them at once, with nothing between; and the disk that writes the
files of the cache, with nothing between. Blocks of sketches are as large as those of a run over ``n_planned`` samples,
those of activations as of a run over the samples here: the larger ones of a long run fill gigabytes of memory, which it
touches for the first time once. Without the option each way runs once, on small networks.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actisketch.pipeline import plan
from actisketch.pipeline.graph import forward_function, read_graph, select_points
from actisketch.pipeline.record.point_sketch import channel_axis_of, empty_sketch, with_channels
from actisketch.pipeline.record.producer import KerasProducer
from actisketch.pipeline.record.recorder import record_missing
from actisketch.pipeline.sketch import SketchSpec
from actisketch.pipeline.sources import as_source
from actisketch.storage import Cache, CacheSpec

from .conftest import disk_s, timed

N_ROUNDS = 5


@dataclass(frozen=True)
class Case:
    """A network, and how it is recorded when figures are wanted."""

    make: Callable[[int], Any]
    """Takes the size of an image."""
    size: int
    small_size: int
    batch_size: int
    n_batches: int
    n_planned: int
    """Samples of a data set that such a network is recorded over."""


def application(name: str) -> Callable[[int], Any]:
    """Return what makes a network of Keras' own."""
    import keras

    return lambda size: getattr(keras.applications, name)(
        input_shape=(size, size, 3), weights=None, classes=10
    )


def cifar_vgg(size: int) -> Any:
    """VGG16's convolutions but the last three, for small images."""
    import keras

    layers = keras.layers
    x = inputs = keras.Input((size, size, 3))
    for n_filters, n in ((64, 2), (128, 2), (256, 3), (512, 3)):
        for _ in range(n):
            x = layers.Conv2D(n_filters, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Dense(512, activation="relu")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x))


def lenet(size: int) -> Any:
    """Return the small network whose pass costs little beside its calls."""
    import keras

    layers = keras.layers
    x = inputs = keras.Input((size, size, 1))
    for n_filters in (6, 16):
        x = layers.Conv2D(n_filters, 5, padding="same", activation="relu")(x)
        x = layers.AveragePooling2D(2)(x)
    x = layers.Flatten()(x)
    for units in (120, 84):
        x = layers.Dense(units, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x))


CASES = {
    "VGG16": Case(application("VGG16"), 224, 32, 8, 4, 1024),
    "ResNet50": Case(application("ResNet50"), 224, 32, 16, 8, 1024),
    "MobileNetV2": Case(application("MobileNetV2"), 224, 32, 32, 8, 1024),
    "CIFAR-VGG": Case(cifar_vgg, 32, 16, 64, 16, 10_000),
    "LeNet": Case(lenet, 28, 28, 128, 469, 60_000),
}


class Nobody:
    """Takes values and does nothing with them."""

    def take(self, point: str, values: Any) -> None:
        pass

    def end_batch(self, n_samples: int) -> None:
        pass


def kernel_s(points: Sequence[Any], samples: Sequence[Any], n_cores: int) -> float:
    """Return the seconds that each core sketches the values of a batch, all cores at once, hot from a first time."""
    total_s = 0.0
    for point, values in zip(points, samples, strict=True):
        sketches = [empty_sketch(SketchSpec(), point) for _ in range(n_cores)]

        def update(sketch: Any, values: Any = values, axis: int = channel_axis_of(point)) -> None:
            sketch.update(with_channels(values), channel_axis=axis)

        with ThreadPoolExecutor(n_cores) as cores:
            list(cores.map(update, sketches))
            total_s += timed(lambda on=cores, of=sketches, do=update: list(on.map(do, of)))
    return total_s


@pytest.mark.parametrize("name", CASES)
def test_recording_against_the_bare_network(tmp_path: Path, name: str, *, is_measured: bool) -> None:
    import tensorflow as tf

    case = CASES[name]
    size, batch_size = (case.size, case.batch_size) if is_measured else (case.small_size, 4)
    n_samples = batch_size * (case.n_batches if is_measured else 2)
    model = case.make(size)
    images = np.random.default_rng(3).random((n_samples, *model.input_shape[1:]), dtype=np.float32)
    graph = read_graph(model)
    chosen = select_points(graph, "parameters")
    producer = KerasProducer(graph, chosen, as_source(images), batch_size=batch_size)
    points = producer.points
    batches = [tf.constant(images[i : i + batch_size]) for i in range(0, n_samples, batch_size)]
    bare = tf.function(lambda x: model(x, training=False), autograph=False)
    forward = forward_function(graph, chosen)
    outputs = tf.function(lambda x: forward([x])[0], autograph=False)

    def network() -> None:
        for batch in batches:
            memoryview(bare(batch))

    def taps_alone() -> None:
        producer.hand_over(0, n_samples, Nobody())

    folder, block_samples = tmp_path / "cache", {}
    for keep, n in ((False, case.n_planned), (True, n_samples)):
        planned = plan(
            model,
            np.broadcast_to(images[:1], (n, *images.shape[1:])),
            output=tmp_path / "planned",
            batch_size=batch_size,
            settings={"record": {"activations": keep}},
        )
        block_samples[keep] = planned.block_samples if is_measured else batch_size

    def recorded(*, keep: bool) -> None:
        spec = CacheSpec(
            points=points,
            n_samples=n_samples,
            batch_size=batch_size,
            block_samples=block_samples[keep],
            identity={},
            keeps_activations=keep,
        )
        with Cache.create_or_resume(folder, spec) as cache:
            assert record_missing(cache, producer, sketch=SketchSpec()) == cache.spec.n_blocks

    ways: dict[str, Callable[[], Any]] = {
        "bare network": network,
        "taps that do nothing": taps_alone,
        "sketches only": lambda: recorded(keep=False),
        "with the cache": lambda: recorded(keep=True),
    }
    for action in ways.values():
        shutil.rmtree(folder, ignore_errors=True)
        action()  # traced and compiled, not measured
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    processor_s: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(N_ROUNDS if is_measured else 1):
        for way, action in ways.items():
            shutil.rmtree(folder, ignore_errors=True)
            before_s = time.process_time()
            seconds[way].append(timed(action))
            processor_s[way].append(time.process_time() - before_s)
    bare_s, n_cores = seconds["bare network"], len(os.sched_getaffinity(0))
    print(
        f"\n{name}, {size} px, batches of {batch_size}: {n_samples / statistics.median(bare_s):.0f} images/s, "
        f"blocks of {block_samples[False]:,} ({block_samples[True]:,} with the cache)"
    )
    for way in ways:
        of_wall, of_cores = (
            statistics.median(one / other for one, other in zip(of[way], of["bare network"], strict=True))
            for of in (seconds, processor_s)
        )
        print(f"  {way:<32} {of_wall:5.2f} x the bare network, {of_cores:5.2f} x its processor time")
    kernel = kernel_s(points, [np.asarray(memoryview(t)) for t in outputs(batches[0])], n_cores) / n_cores
    bound = 1 + len(batches) * kernel / statistics.median(bare_s)
    print(f"  {'bound for sketches':<32} {bound:5.2f} x")
    write_s, _ = disk_s(tmp_path / "alone", folder)
    print(
        f"  {'bound for the cache':<32} {max(bound, write_s / statistics.median(bare_s)):5.2f} x, the disk alone"
    )
