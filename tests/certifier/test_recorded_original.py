"""The certificate from recorded activations: the numbers of running the original, and nothing is taken on trust.

The oracle is the same certificate with both networks running, which the other tests hold to Keras' own outputs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from actisketch.pipeline import run
from actisketch.pipeline.certifier import Certificate, certify
from actisketch.pipeline.certifier.value_comparison import ComparedValue, ValueComparison
from actisketch.pipeline.normalizer import NormalizedModel, normalize_model
from actisketch.pipeline.sketch import SketchSpec
from actisketch.pipeline.sources import as_source
from actisketch.storage import Cache

layers = keras.layers
N_SAMPLES, BATCH_SIZE = 45, 8
QUIET: dict[str, Any] = {"report": {"enabled": False}}


def images(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(11).random((N_SAMPLES, *shape), dtype=np.float32)


def residual() -> Any:
    x = keras.Input((6, 6, 3))
    a = layers.ReLU()(layers.BatchNormalization(name="n")(layers.Conv2D(8, 3, padding="same", name="c1")(x)))
    b = layers.Add(name="sum")([a, layers.Conv2D(8, 3, padding="same", name="c2")(a)])
    y = layers.GlobalAveragePooling2D()(layers.ReLU(name="r")(b))
    return keras.Model(x, layers.Dense(4, activation="softmax", name="out")(y))


def two_of_each() -> Any:
    one, other = keras.Input((5,), name="one"), keras.Input((3,), name="other")
    hidden = layers.Concatenate()(
        [layers.Dense(7, "relu", name="a")(one), layers.Dense(6, "relu", name="b")(other)]
    )
    outputs = [layers.Dense(3, "softmax", name="p")(hidden), layers.Dense(2, name="q")(hidden)]
    return keras.Model([one, other], outputs)


def pooled_output() -> Any:
    x = keras.Input((6, 6, 3))
    return keras.Model(
        x, layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu", name="c1")(x))
    )


NETWORKS: dict[str, tuple[Callable[[], Any], Any]] = {
    "pooled output": (pooled_output, images(6, 6, 3)),
    "residual": (residual, images(6, 6, 3)),
    "two inputs and outputs": (two_of_each, [images(5), images(3)]),
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Record a network once, and return the network and the finished run."""
    made: dict[Any, Any] = {}

    def record(name: str = "residual", **tables: Any) -> tuple[Any, Any]:
        key = name, json.dumps(tables, sort_keys=True)
        if key not in made:
            keras.utils.set_random_seed(23)
            build, samples = NETWORKS[name]
            model = build()
            settings = {**QUIET, **tables}
            folder = tmp_path_factory.mktemp("run") / "r"
            made[key] = model, run(model, samples, output=folder, batch_size=BATCH_SIZE, settings=settings)
        return made[key]

    return record


def normalized_of(model: Any, result: Any) -> NormalizedModel:
    return normalize_model(model, {p.name: p.factor for p in result.factors().points})


def certified(model: Any, normalized: Any, name: str, cache: Cache | None) -> Certificate:
    samples = NETWORKS[name][1]
    source = as_source(samples, np.arange(N_SAMPLES) % 3)
    return certify(model, normalized, source, batch_size=BATCH_SIZE, sketch_spec=SketchSpec(), cache=cache)


@pytest.mark.parametrize("name", ["residual", "two inputs and outputs"])
def test_recorded_activations_give_the_certificate_of_both_networks(name: str, recorded: Any) -> None:
    model, result = recorded(name)
    normalized = normalized_of(model, result)
    ran = certified(model, normalized, name, None)
    read = certified(model, normalized, name, result.cache)

    assert ran.passed
    assert (ran.n_recorded, read.n_recorded) == (0, N_SAMPLES)
    assert replace(read, n_recorded=0) == ran
    assert read.sketches == ran.sketches
    assert read.accuracy_before is not None
    assert ran.summary().endswith("; both networks ran")
    assert read.summary().endswith("; recorded activations were read")


def test_only_the_normalised_network_runs(recorded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, result = recorded()
    normalized = normalized_of(model, result)
    monkeypatch.setattr(type(model.get_layer("c2")), "call", _refusing(model.get_layer("c2")))

    assert certified(model, normalized, "residual", result.cache).n_recorded == N_SAMPLES
    with pytest.raises(Exception, match="the original was called"):
        certified(model, normalized, "residual", None)


def _refusing(mine: Any) -> Any:
    call = type(mine).call

    def refusing(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self is mine:
            raise RuntimeError("the original was called")
        return call(self, *args, **kwargs)

    return refusing


SABOTAGE: dict[str, tuple[str, str, float]] = {
    "one weight": ("c2", "kernel", 1.02),
    "a bias": ("c1", "bias", 1.02),
    "the classifier": ("out", "kernel", 1.02),
}


@pytest.mark.parametrize("fault", SABOTAGE)
@pytest.mark.parametrize("way", ["both run", "read"])
def test_a_wrong_number_in_the_normalised_network_is_found_either_way(
    way: str, fault: str, recorded: Any
) -> None:
    model, result = recorded()
    normalized = normalized_of(model, result)
    name, kind, by = SABOTAGE[fault]
    weight = getattr(normalized.model.get_layer(name), kind)
    values = np.asarray(weight).copy()
    largest = np.unravel_index(np.abs(values).argmax(), values.shape)
    values[largest] = values[largest] * by + 1e-2
    weight.assign(values)
    certificate = certified(model, normalized, "residual", result.cache if way == "read" else None)

    assert not certificate.passed
    assert not next(point for point in certificate.points if point.name.startswith(name)).passed
    # What fails is compared with the original itself.
    assert certificate.n_recorded == 0


def test_a_wrong_scale_is_found_either_way(recorded: Any) -> None:
    model, result = recorded()
    normalized = normalized_of(model, result)
    point = normalized.points[0]
    scales = {**normalized.value_scales, point.value: normalized.value_scales[point.value] * 1.001}

    for cache in (None, result.cache):
        certificate = certified(model, replace(normalized, value_scales=scales), "residual", cache)
        assert not certificate.passed


def test_activations_that_another_machine_rounded_otherwise_fail_no_network(
    recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, result = recorded()
    normalized = normalized_of(model, result)
    read = Cache.read_chunk

    def rounded(self: Cache, point: str, index: int, **options: Any) -> NDArray[np.float32]:
        return read(self, point, index, **options) * np.float32(1 + 2**-9)  # as TensorFloat-32 would

    monkeypatch.setattr(Cache, "read_chunk", rounded)
    certificate = certified(model, normalized, "residual", result.cache)
    kernel = normalized.model.get_layer("c2").kernel
    kernel.assign(kernel * 1.01)
    wrong = certified(model, normalized, "residual", result.cache)

    assert certificate.passed
    assert certificate.n_recorded == 0
    assert any("the activations in the cache differ" in note for note in certificate.notes)
    assert not wrong.passed
    assert not any("the activations in the cache differ" in note for note in wrong.notes)


UNFIT: dict[str, tuple[str, dict[str, Any], str]] = {
    "sketches only": ("residual", {"record": {"activations": False}}, "the cache holds sketches only"),
    "rounded": ("residual", {"cache": {"dtype": "float16"}}, "the cache holds float16, which rounds"),
    "an output that is no point": ("pooled output", {}, "'global_average_pooling2d.*' was not recorded"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_the_original_runs_where_the_cache_does_not_hold_what_is_compared(case: str, recorded: Any) -> None:
    name, tables, why = UNFIT[case]
    model, result = recorded(name, **tables)
    certificate = Certificate.from_dict(result.certificate())

    assert certificate.passed
    assert certificate.n_recorded == 0
    assert re.search(f"; both networks ran, because {why}$", certificate.summary())
    assert certified(model, normalized_of(model, result), name, result.cache).n_recorded == 0


def test_channels_with_factors_of_their_own_are_read_too(recorded: Any) -> None:
    per_channel = {"sketch": {"per_channel": True}, "factors": {"per_channel": True}}
    model, result = recorded("residual", **per_channel)
    certificate = Certificate.from_dict(result.certificate())
    factors = {p.name: p.factor for p in result.factors().points}
    ran = certified(model, normalize_model(model, factors, mode="channel"), "residual", None)

    assert certificate.passed
    assert certificate.n_recorded == N_SAMPLES
    assert certificate.points == ran.points


# Through the run's own doors


def test_a_run_reads_its_cache_and_its_report_says_so(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((5,)), layers.Dense(3, "relu", name="a")])
    pages = {}
    for kept in (True, False):
        settings = {"record": {"activations": kept}}
        result = run(model, images(5), output=tmp_path / str(kept), batch_size=BATCH_SIZE, settings=settings)
        assert result.certificate()["n_recorded"] == (N_SAMPLES if kept else 0)
        pages[kept] = (result.folder.report_path / "index.html").read_text(encoding="utf-8")

    assert "were read from the cache" in pages[True]
    assert "were read from the cache" not in pages[False]
    assert "both networks" in pages[False]
    assert "both networks" not in pages[True]


@pytest.mark.parametrize("fault", ["changed", "missing"])
def test_a_damaged_chunk_is_named_and_its_samples_are_computed(fault: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(23)
    model, samples = residual(), images(6, 6, 3)
    tables = {**QUIET, "record": {"block_samples": 16}}

    def job(**normalize: bool) -> Any:
        settings = {**tables, "normalize": normalize}
        return run(model, samples, output=tmp_path / "r", batch_size=BATCH_SIZE, settings=settings)

    job(enabled=False)
    chunk = tmp_path / "r" / "cache" / "c2" / "c.1.0.0.0"
    stored = chunk.read_bytes()
    chunk.unlink()
    if fault == "changed":
        chunk.write_bytes(stored[:100] + bytes([stored[100] ^ 1]) + stored[101:])
    resumed = Certificate.from_dict(job(enabled=True).certificate())
    sound = certified(model, normalized_of(model, job()), "residual", None)

    assert resumed.passed
    assert resumed.n_recorded == N_SAMPLES - 16
    assert resumed.summary().endswith(f"; recorded activations were read for {N_SAMPLES - 16} of them")
    (note,) = resumed.notes
    assert "'c2', block 1" in note
    assert "the original ran for 16 of 45 samples" in note
    assert resumed.points == sound.points
    assert resumed.outputs == sound.outputs


# Reading ahead


@pytest.mark.parametrize("axis", [1, 2, 3, -1])
@pytest.mark.parametrize("varied", [False, True])
def test_what_is_found_in_a_value_is_what_numpy_finds(axis: int, varied: bool) -> None:
    shape = (5, 7, 3)
    rng = np.random.default_rng(31)
    old = rng.normal(size=(6, *shape)).astype(np.float32)
    old.swapaxes(0, axis)[2 % old.shape[axis]] = 0
    sizes = [1, 1, 1, 1]
    sizes[axis] = old.shape[axis] if varied else 1
    scales = rng.uniform(0.2, 2, sizes[1:])
    new = (old / scales + rng.normal(scale=1e-3, size=old.shape)).astype(np.float32)
    each = ComparedValue(name="a", value=1, place=2, scales=scales, channel_axis=axis)
    comparison = ValueComparison(each, margin=0.25)
    for rows in (slice(0, 1), slice(1, 6)):
        comparison.add(old[rows], new[rows])
    found = comparison.end_batch()
    errors, squares, n_saturated, peaks = found.numbers
    others = tuple(a for a in range(4) if a != axis % 4)
    differences = np.abs(new - old * (1 / scales).astype(np.float32))

    np.testing.assert_array_equal(errors, differences.max(axis=others if varied else None).reshape(-1))
    np.testing.assert_array_equal(peaks, np.abs(old).max(axis=others))
    assert n_saturated == np.count_nonzero(new > 1.25)
    assert squares == pytest.approx(np.sum(differences.astype(np.float64) ** 2), rel=1e-12)
    assert found.n_values == new.size
    comparison.add(old[:2], new[:2])
    comparison.add(old[2:], new[2:])
    again = comparison.end_batch()
    assert all(np.array_equal(x, y) for x, y in zip(again.numbers, found.numbers, strict=True))


def test_parts_of_a_batch_may_have_another_length_each() -> None:
    rng = np.random.default_rng(32)
    each = ComparedValue(name="a", value=1, place=2, scales=np.full((1, 3), 2.0), channel_axis=-1)
    comparison = ValueComparison(each, margin=0.0)
    parts = [rng.normal(size=(2, n, 3)).astype(np.float32) for n in (5, 9, 4)]
    for part in parts:
        comparison.add(part, part)
    errors, _, _, peaks = comparison.end_batch().numbers
    values = np.concatenate([part.reshape(-1, 3) for part in parts])

    assert errors == np.abs(values - values / 2).max()
    np.testing.assert_array_equal(peaks, np.abs(values).max(axis=0))
