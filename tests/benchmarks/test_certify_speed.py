"""What a certificate costs beside one prediction of the same samples, for networks with many layers.

``pytest tests/benchmarks/test_certify_speed.py --benchmark-enable -s`` prints seconds and CPU seconds of ``certify``
and of the first ``predict``, which traces the network too, and their ratio, for five networks of keras.applications at
64 px; asked for DenseNet169 are 30 s and a ratio of 10. Statistics of BatchNormalization are those of a batch, as in
a trained network, so that rounding is measured as well. Without the option one small network is certified.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from .conftest import as_trained

NETWORKS = ("DenseNet169", "ResNet50", "MobileNetV2", "EfficientNetB0", "VGG16")


def timed(action: Callable[[], Any]) -> tuple[float, float]:
    """Return seconds and CPU seconds."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - wall_s, time.process_time() - cpu_s


def peaks(model: Any, images: Any) -> dict[str, float]:
    from actisketch.pipeline.graph import read_graph, select_points, values_in_turn

    graph = read_graph(model)
    points = select_points(graph)
    by_value = {
        value: max(float(np.abs(np.asarray(tensor)).max()), 1e-3)
        for value, tensor in values_in_turn(graph, [images], [point.value for point in points])
    }
    return {point.name: by_value[point.value] for point in points}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_certificate_costs_few_predictions(name: str, *, is_measured: bool) -> None:
    import keras

    from actisketch.pipeline.certifier import certify
    from actisketch.pipeline.normalizer import normalize_model
    from actisketch.pipeline.sketch import SketchSpec
    from actisketch.pipeline.sources import as_source

    if not is_measured and name != "MobileNetV2":
        pytest.skip("measured with --benchmark-enable")
    size, n_samples, batch_size = (64, 64, 32) if is_measured else (64, 16, 8)
    keras.utils.set_random_seed(7)
    images = np.random.default_rng(3).random((n_samples, size, size, 3), dtype=np.float32)
    build = getattr(keras.applications, name)
    model = as_trained(build(weights=None, input_shape=(size, size, 3), classes=10), images[:16])
    factors = peaks(model, images[:16])
    # Compiled by Numba once for a process, and kept by no run.
    certify_small()
    predict_s, predict_cpu_s = timed(lambda: model.predict(images, batch_size=batch_size, verbose=0))
    normalized = normalize_model(model, factors)
    found: list[Any] = []
    wall_s, cpu_s = timed(
        lambda: found.append(
            certify(model, normalized, as_source(images), batch_size=batch_size, sketch_spec=SketchSpec())
        )
    )
    (certificate,) = found
    n_measured = sum(point.rounding is not None for point in certificate.points)
    print(
        f"\n{name:15s} certify {wall_s:6.1f} s ({cpu_s:5.1f} CPU), first predict {predict_s:5.1f} s "
        f"({predict_cpu_s:5.1f} CPU), ratio {wall_s / predict_s:5.1f} ({cpu_s / predict_cpu_s:4.1f} CPU); rounding "
        f"measured at {n_measured} of {len(certificate.points)} points"
    )

    assert certificate.passed, certificate.summary()


def certify_small() -> None:
    import keras

    from actisketch.pipeline.certifier import certify
    from actisketch.pipeline.normalizer import normalize_model
    from actisketch.pipeline.sketch import SketchSpec
    from actisketch.pipeline.sources import as_source

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")])
    samples = np.ones((4, 4), np.float32)
    certify(
        model,
        normalize_model(model, {"a": 2.0}),
        as_source(samples),
        batch_size=4,
        sketch_spec=SketchSpec(),
    )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size", "batch_size"), [("ResNet50", 224, 16), ("MobileNetV2", 160, 32)])
def test_recorded_activations_are_read_for_less_than_the_original_costs(
    name: str, size: int, batch_size: int, tmp_path: Any, *, is_measured: bool
) -> None:
    """Prints CPU seconds of the samples alone, beside the bare pass: each way twice, in turn; the lesser counts."""
    import keras
    import tensorflow as tf

    from actisketch.pipeline import run
    from actisketch.pipeline.certifier import Comparison, ComparisonSettings
    from actisketch.pipeline.normalizer import normalize_model
    from actisketch.pipeline.sketch import SketchSpec
    from actisketch.pipeline.sources import as_source

    if not is_measured:
        pytest.skip("measured with --benchmark-enable")
    keras.utils.set_random_seed(7)
    n_samples = 6 * batch_size
    images = np.random.default_rng(3).random((n_samples, size, size, 3), dtype=np.float32)
    build = getattr(keras.applications, name)
    model = as_trained(build(weights=None, input_shape=(size, size, 3), classes=10), images[:8])
    settings = {"normalize": {"enabled": False}, "report": {"enabled": False}}
    result = run(model, images, output=tmp_path / "r", batch_size=batch_size, settings=settings)
    normalized = normalize_model(model, {p.name: p.factor for p in result.factors().points})
    how = ComparisonSettings(batch_size=batch_size, sketch_spec=SketchSpec())
    spec = tf.TensorSpec((None, size, size, 3))
    bare = tf.function(lambda x: model(x, training=False)).get_concrete_function(spec)
    comparisons = {
        "read": Comparison(model, normalized, as_source(images), how, cache=result.cache),
        "both run": Comparison(model, normalized, as_source(images), how),
    }
    ways: dict[str, Callable[[], Any]] = {
        "bare": lambda: [
            bare(tf.constant(images[i : i + batch_size])) for i in range(0, n_samples, batch_size)
        ],
        **{way: comparison.totals for way, comparison in comparisons.items()},
    }
    for comparison in comparisons.values():
        comparison.compare(0, batch_size)  # traces
    ways["bare"]()
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(2):
        for way, action in ways.items():
            found[way].append(timed(action)[1])
    least = {way: min(each) for way, each in found.items()}
    ratios = ", ".join(f"{way} {each:.1f} s ({each / least['bare']:.2f}x)" for way, each in least.items())
    print(f"\n{name} {size} px, batches of {batch_size}, CPU: {ratios}")

    assert least["read"] < least["both run"]
