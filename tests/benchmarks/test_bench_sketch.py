"""How fast values are sketched, merged, asked and refined, beside the peers in the same run.

``pytest tests/benchmarks/test_bench_sketch.py --benchmark-enable -s`` prints values per second and ratios, best of
several alternating turns. Without the option each is run once, small, against the laws only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from actisketch.pipeline.sketch import (
    ChannelSketch,
    PointSketch,
    Sketch,
    SketchSpec,
    exact_percentiles,
    merge_sketches,
)

Values = NDArray[np.float32]


def half_zeros(n: int, seed: int = 0) -> Values:
    values = np.random.default_rng(seed).standard_normal(n, dtype=np.float32)
    return np.maximum(values, 0, out=values)


def best_seconds(contestants: Mapping[str, Callable[[], object]], *, turns: int) -> dict[str, float]:
    """Return the best time of each, in seconds, taking turns so that a busy minute hits all."""
    best = dict.fromkeys(contestants, float("inf"))
    for _ in range(turns):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def show(title: str, sizes: Mapping[str, int], seconds: Mapping[str, float], *, subject: str) -> None:
    print(f"\n{title}")
    own = sizes[subject] / seconds[subject]
    for name, taken in seconds.items():
        rate = sizes[name] / taken
        print(f"  {name:<28} {rate / 1e6:>10.2f} million/s   {own / rate:>8.2f} x")


def sketch_of(values: Values) -> Sketch:
    sketch = Sketch()
    sketch.update(values)
    return sketch


def peers_of_layers(values: Values) -> dict[str, tuple[int, Callable[[], object]]]:
    """Return name, values that it gets (fewer for the slow ones) and the call, of each peer."""
    crick = pytest.importorskip("crick")
    fastdigest = pytest.importorskip("fastdigest")
    pytdigest = pytest.importorskip("pytdigest")
    datasketches = pytest.importorskip("datasketches")
    tdigest = pytest.importorskip("tdigest")
    some, few = values[: 1 << 22], values[: 1 << 14].astype(np.float64)
    wide = some.astype(np.float64)
    return {
        "crick 100": (some.size, lambda: crick.TDigest(100).update(some)),
        "fastdigest 100": (wide.size, lambda: fastdigest.TDigest.from_values(wide, max_centroids=100)),
        "pytdigest 100": (wide.size, lambda: pytdigest.TDigest.compute(wide, compression=100)),
        "datasketches KLL 200": (some.size, lambda: datasketches.kll_floats_sketch(200).update(some)),
        "datasketches t-digest 100": (some.size, lambda: datasketches.tdigest_float(100).update(some)),
        "tdigest": (few.size, lambda: tdigest.TDigest().batch_update(few)),
        "np.sort": (some.size, lambda: np.sort(some)),
        "np.percentile": (some.size, lambda: np.percentile(some, 99.9)),
        "np.max": (values.size, lambda: values.max()),
    }


def test_ingest_of_a_layer(is_measured: bool) -> None:
    values = half_zeros(100_000_000 if is_measured else 100_000)

    assert sketch_of(values).n == values.size
    if is_measured:
        peers = peers_of_layers(values)
        runs: dict[str, Callable[[], object]] = {
            "actisketch": lambda: sketch_of(values),
        }
        runs |= {name: run for name, (_, run) in peers.items()}
        sizes = dict.fromkeys(runs, values.size) | {name: size for name, (size, _) in peers.items()}
        show("layer, half zeros, 1e8 values", sizes, best_seconds(runs, turns=5), subject="actisketch")


def cpu_seconds(runs: Mapping[str, Callable[[], object]], *, turns: int) -> dict[str, float]:
    """Return the least processor time of each, in seconds: other programs do not count."""
    least = dict.fromkeys(runs, float("inf"))
    for _ in range(turns):
        for name, run in runs.items():
            start = time.process_time_ns()
            run()
            least[name] = min(least[name], (time.process_time_ns() - start) / 1e9)
    return least


@pytest.mark.parametrize("shape", [(16, 112, 112, 64), (16, 14, 14, 256), (16, 7, 7, 512), (128, 120)])
@pytest.mark.parametrize("kind", ["rectified", "normal"])
def test_an_update_is_as_fast_as_its_kernel(shape: tuple[int, ...], kind: str, is_measured: bool) -> None:
    """Of a point whose counters are open, beside its two loops and what they could not be faster than."""
    from actisketch.pipeline.sketch import kernels
    from actisketch.pipeline.sketch.counters import lend
    from actisketch.pipeline.sketch.counting import nothing_found

    shape = shape if is_measured else (4, 50)
    values = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    values = np.maximum(values, 0) if kind == "rectified" else values
    point, patterns = PointSketch.empty(SketchSpec()), values.reshape(-1).view(np.uint32)
    (words,), (state,), (found,) = lend(1, 3, 1 << 20), nothing_found(1), nothing_found(1)
    maxima, copied = np.zeros(len(values), np.uint32), np.empty_like(values)

    def ask() -> None:
        point.update(values)
        _ = point.layer.tally

    runs: dict[str, Callable[[], object]] = {
        "update": lambda: point.update(values),
        "survey of it": lambda: kernels.survey_rows(patterns, patterns.size // len(values), maxima, found),
        "count of it": lambda: kernels.count(patterns, found, words, state, 12),
        "update and tally": ask,
        "np.copyto": lambda: np.copyto(copied, values),
        "np.max": lambda: values.max(),
    }
    seconds = cpu_seconds(runs, turns=30 if is_measured else 1)
    assert point.layer.n == values.size * 2 * (30 if is_measured else 1)
    if is_measured:
        show(f"{kind} {shape}, cpu", dict.fromkeys(runs, values.size), seconds, subject="update")
        print(f"  an update takes {seconds['update'] * 1e6:.1f} us")


def test_ingest_of_channels(is_measured: bool) -> None:
    n_channels = 512 if is_measured else 16
    values = half_zeros((100 if is_measured else 1) * 16_384 * n_channels // 32).reshape(
        -1, 16, 16, n_channels
    )

    def channels() -> ChannelSketch:
        sketch = ChannelSketch(n_channels)
        sketch.update(values)
        return sketch

    assert channels().channel(3).n == values[..., 3].size
    if is_measured:
        crick = pytest.importorskip("crick")
        rows = values.reshape(-1, n_channels)

        def loop_of_crick() -> None:
            for channel in range(n_channels):
                crick.TDigest(100).update(rows[:, channel])

        runs: dict[str, Callable[[], object]] = {
            "channels": channels,
            "layer": lambda: sketch_of(values),
            "loop of crick 100": loop_of_crick,
        }
        sizes = dict.fromkeys(runs, values.size)
        show(f"{n_channels} channels, NHWC", sizes, best_seconds(runs, turns=3), subject="channels")


def test_merge_percentile_and_bytes(is_measured: bool) -> None:
    n_sketches, n_values = (1000, 200_000) if is_measured else (20, 5_000)
    points = []
    for seed in range(n_sketches):
        point = PointSketch.empty(SketchSpec())
        point.update(half_zeros(n_values, seed).reshape(10, -1))
        points.append(point)
    merged, packed = merge_sketches(points), [point.to_bytes() for point in points]

    assert merged == merge_sketches(PointSketch.from_bytes(data) for data in packed)
    if is_measured:
        layer = merged.layer
        layer.percentile(99.9)
        seconds = best_seconds(
            {
                "merge": lambda: merge_sketches(points),
                "read and merge": lambda: merge_sketches(PointSketch.from_bytes(data) for data in packed),
                "percentile": lambda: [layer.percentile(99.9) for _ in range(100)],
            },
            turns=5,
        )
        print(f"\n{n_sketches} sketches of {len(packed[0])} bytes, {len(layer.tally.buckets)} buckets merged")
        print(f"  merge           {seconds['merge'] * 1e5 / n_sketches:8.2f} ms each 100")
        print(f"  read and merge  {seconds['read and merge'] * 1e5 / n_sketches:8.2f} ms each 100")
        print(f"  percentile      {seconds['percentile'] * 1e4:8.1f} us")


def test_exact_percentile(is_measured: bool) -> None:
    values = half_zeros(100_000_000 if is_measured else 100_000)
    chunks = np.array_split(values, 25)
    sketch, expected = sketch_of(values), float(np.percentile(values, 99.9))

    assert exact_percentiles(lambda: chunks, [99.9], sketch) == [expected]
    if is_measured:
        runs: dict[str, Callable[[], object]] = {
            "exact, 1 q": lambda: exact_percentiles(lambda: chunks, [99.9], sketch),
            "exact, 5 q": lambda: exact_percentiles(lambda: chunks, [60, 90, 99, 99.9, 99.99], sketch),
            "np.percentile, 1 q": lambda: np.percentile(values, 99.9),
        }
        sizes = dict.fromkeys(runs, values.size)
        show("exact percentile, chunks in memory", sizes, best_seconds(runs, turns=3), subject="exact, 1 q")
