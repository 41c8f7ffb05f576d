"""How large blocks are by default: what a kill may cost, and what the records of many blocks may take."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from actisketch.pipeline import plan, run
from actisketch.pipeline.cli import commands
from actisketch.pipeline.cli.session import run_command
from actisketch.pipeline.events import StageDone
from actisketch.pipeline.graph import read_graph, select_points
from actisketch.pipeline.planning.plan import Plan, make_plan
from actisketch.pipeline.planning.savings import plan_with_savings
from actisketch.pipeline.record.producer import KerasProducer
from actisketch.pipeline.settings.sizes import parse_bytes
from actisketch.pipeline.sketch import SketchSpec
from actisketch.pipeline.sources import as_source
from actisketch.storage import Cache, PointSpec, spec

from .planned import plan_arguments

MNIST = [PointSpec(name="conv", shape=(28, 28, 16)), PointSpec(name="classes", shape=(10,))]
GIB = 2**30


def plan_of(points: list[PointSpec], n_samples: int, batch_size: int = 32, **changes: Any) -> Plan:
    given = {"memory_limit": 4 * GIB, "n_samples": n_samples, "batch_size": batch_size, **changes}
    settings, network, others = plan_arguments(points, **given)
    return make_plan(settings, network, **others)


def producer_of(layers: list[Any], shape: tuple[int | None, ...], n_values: tuple[int, ...]) -> KerasProducer:
    graph = read_graph(keras.Sequential([keras.Input(shape), *layers]))
    source = as_source(np.zeros((2, *n_values), np.float32))
    return KerasProducer(graph, select_points(graph, "parameters"), source, batch_size=2)


@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize(
    ("n_samples", "batch_size"), [(4000, 32), (10_000, 32), (10_000, 100), (512, 32), (1797, 64), (10**6, 7)]
)
def test_a_kill_costs_at_most_a_sixteenth_of_the_run(n_samples: int, batch_size: int, record: bool) -> None:
    plan = plan_of(MNIST, n_samples, batch_size, record=record)

    assert plan.n_blocks >= 16
    assert plan.block_samples * 16 <= n_samples
    assert plan.block_samples % batch_size == 0
    if n_samples <= 10_000:  # nothing else makes them smaller: with another batch they would be larger
        assert (plan.block_samples + batch_size) * 16 > n_samples


@pytest.mark.parametrize(("n_samples", "batch_size"), [(100, 32), (1, 1), (31, 32), (15, 1)])
def test_a_run_of_few_batches_has_a_block_for_each(n_samples: int, batch_size: int) -> None:
    plan = plan_of(MNIST, n_samples, batch_size)

    assert plan.block_samples == batch_size
    assert plan.n_blocks == math.ceil(n_samples / batch_size)


@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize("milliards", [5, 17, 1000, 10**6])
def test_a_block_is_at_most_a_minute_of_work_for_a_slow_core(milliards: int, record: bool) -> None:
    """At 20 milliard multiplications a second; a batch is never divided."""
    plan = plan_of(MNIST, 10**5, 4, record=record, multiplications=milliards * 10**9)

    assert plan.block_samples <= max(4, 60 * 20 / milliards)
    assert plan.block_samples >= min(100, max(4, 60 * 20 / milliards - 4))


@pytest.mark.parametrize("record", [True, False])
def test_a_block_that_is_asked_for_is_as_large_as_it_was_asked(record: bool) -> None:
    for asked, expected in ((33, 64), (1000, 1024), (4000, 4000), (9999, 4000)):
        assert plan_of(MNIST, 4000, max_block_samples=asked, record=record).block_samples == expected
    large = [PointSpec(name="conv", shape=(2**20,))]
    wide = plan_of(large, 4096, max_block_samples=512, record=record)
    tight = plan_of(large, 4096, max_block_samples=512, record=record, memory_limit=GIB)

    assert wide.block_samples == 512  # four times a block that is chosen here
    assert tight.memory.total <= GIB


def test_a_cache_that_is_there_keeps_its_own_block_size() -> None:
    assert plan_of(MNIST, 4000, block_samples=4000, multiplications=10**13).n_blocks == 1


def resnet50() -> KerasProducer:
    graph = read_graph(keras.applications.ResNet50(weights=None))
    source = as_source(np.zeros((1, 224, 224, 3), np.float32))
    return KerasProducer(graph, select_points(graph, "parameters"), source, batch_size=8)


def test_sketches_alone_take_no_more_disk_than_sketches_beside_activations() -> None:
    """ResNet50 on 50,000 images in batches of 8: 6,250 blocks and 49 GiB of records with blocks of half a gigabyte."""
    producer = resnet50()
    counts = {"n_samples": 50_000, "batch_size": 8, "multiplications": producer.multiplications()}
    kept, alone = (plan_of([*producer.points], record=record, **counts) for record in (True, False))

    assert alone.n_blocks <= 300
    assert alone.records_nbytes < kept.records_nbytes < 8 * GIB
    assert alone.memory.total < kept.memory.total


@pytest.mark.parametrize(
    ("n_values", "bits"), [((112, 112, 64), 20), ((56, 56, 256), 16), ((3000, 300), 20)], ids=str
)
def test_blocks_of_sketches_grow_beyond_those_of_activations(n_values: tuple[int, ...], bits: int) -> None:
    points = [PointSpec(name=f"layer{i}", shape=n_values) for i in range(20)]
    kept, alone = (
        plan_of(points, 50_000, 8, record=record, sketch=SketchSpec(bits=bits)) for record in (True, False)
    )

    assert kept.block_samples < alone.block_samples
    assert alone.records_nbytes < kept.records_nbytes


@pytest.mark.parametrize(
    ("layers", "shape", "expected"),
    [
        # 64 outputs of 36 products each at 10 x 10 places; the bias counts as one more.
        ([keras.layers.Conv2D(64, 3)], (12, 12, 4), 100 * 64 * 37),
        ([keras.layers.DepthwiseConv2D(3)], (12, 12, 4), 100 * 4 * 10),
        ([keras.layers.Dense(7)], (5,), 35),
        ([keras.layers.Dense(7)], (11, 5), 11 * 42),
        ([keras.layers.Conv2DTranspose(6, 2, strides=2)], (5, 5, 3), 100 * 78),
        # Its parameters are used at each of 11 steps, though one state comes out.
        ([keras.layers.SimpleRNN(6)], (11, 5), 11 * 5 * 6),
        # A table of 50,000 rows is looked up, not multiplied.
        ([keras.layers.Embedding(50_000, 8)], (4,), 4 * 32),
    ],
    ids=lambda value: value[0].name if isinstance(value, list) else str(value),
)
def test_work_is_the_parameters_times_the_places_they_are_used_at(
    layers: list[Any], shape: tuple[int, ...], expected: int
) -> None:
    found = producer_of(layers, shape, shape).multiplications()

    assert 0.8 * expected <= found <= 1.25 * expected


def test_work_of_a_network_of_open_size_is_that_at_the_size_of_the_samples() -> None:
    layers = [keras.layers.Conv2D(8, 3, padding="same") for _ in range(3)]
    fixed = producer_of(layers, (20, 20, 3), (20, 20, 3)).multiplications()
    open_size = producer_of(layers, (None, None, 3), (20, 20, 3)).multiplications()

    assert fixed / 10 <= open_size <= fixed


def test_a_run_by_default_goes_on_within_a_sixteenth_and_its_numbers_are_those_of_one_block(
    tmp_path: Any,
) -> None:
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, activation="relu", name="hidden")])
    samples = np.random.default_rng(7).standard_normal((515, 5)).astype(np.float32)
    settings: dict[str, Any] = {"normalize": {"enabled": False}, "report": {"enabled": False}}
    small = run(model, samples, output=tmp_path / "small", settings=settings)
    settings["record"] = {"block_samples": 515}
    whole = run(model, samples, output=tmp_path / "whole", settings=settings)

    assert (len(small.cache.blocks), len(whole.cache.blocks)) == (17, 1)
    assert small.statistics() == whole.statistics()
    assert small.factors() == whole.factors()


def channel_points(n_points: int) -> list[PointSpec]:
    return [PointSpec(name=f"layer{i}", shape=(28, 28, 512)) for i in range(n_points)]


@pytest.mark.parametrize(
    ("changes", "settings"),
    [
        (
            {"sketch": SketchSpec(per_channel=True), "record": False, "memory_limit": 32 * GIB // 10},
            ["sketch.channel_bits = 12", "sketch.per_channel = false", "record.memory_limit = '"],
        ),
        (
            {"sketch": SketchSpec(per_channel=True), "memory_limit": 64 * GIB},
            ["sketch.channel_bits = 12", "sketch.per_channel = false", "record.block_samples = 144"],
        ),
        (
            {"sketch": SketchSpec(bits=16), "max_block_samples": 8, "record": False},
            ["record.block_samples = 144"],
        ),
        (
            {"sketch": SketchSpec(per_channel=True, channel_bits=12)},
            ["sketch.per_channel = false", "record.block_samples = 144"],
        ),
        ({"sketch": SketchSpec(bits=22), "record": False}, ["sketch.bits = 16"]),
        # Beside activations of 2 TiB the sketches of layers are not worth a word; nor are those of a small run.
        ({"sketch": SketchSpec()}, []),
        ({"sketch": SketchSpec(per_channel=True), "n_samples": 8, "memory_limit": 64 * GIB}, []),
        # What is there keeps its settings.
        ({"sketch": SketchSpec(per_channel=True), "block_samples": 8}, []),
    ],
    ids=[
        "memory",
        "activations",
        "asked",
        "coarse channels",
        "layers",
        "small part",
        "small",
        "a cache is there",
    ],
)
def test_a_plan_of_large_records_names_the_settings_that_bring_them_down(
    changes: dict[str, Any], settings: list[str]
) -> None:
    given = {
        "n_samples": 50_000,
        "batch_size": 8,
        "memory_limit": 4 * GIB,
        "multiplications": 4 * 10**9,
        **changes,
    }
    job, network, others = plan_arguments(channel_points(50), **given)
    plan = plan_with_savings(job, network, **others)

    assert len(plan.savings) == len(settings)
    for setting, wanted in zip(plan.savings, settings, strict=True):
        assert setting.startswith(wanted)
    for setting, nbytes in plan.savings.items():
        # What is promised is what a plan with that setting says.
        section, key, value = re.fullmatch(r"(\w+)\.(\w+) = (.+)", setting).groups()  # type: ignore[union-attr]
        if section == "sketch":
            changed = {"sketch": replace(given["sketch"], **{key: json.loads(value)})}
        elif key == "memory_limit":
            changed = {key: parse_bytes(value.strip("'"))}
        else:
            changed = {"max_block_samples": int(value)}
        again = plan_of(channel_points(50), **{**given, **changed})
        assert again.records_nbytes == nbytes <= 0.8 * plan.records_nbytes
        again.check(cache_path=None)


def test_plan_tells_what_brings_records_down(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A network of 60 x 256 channels on 100,000 samples, which are not there: a file of zeros takes no room."""
    inputs = tensor = keras.Input((4, 4, 3))
    for i in range(60):
        tensor = keras.layers.Conv2D(256, 1, name=f"conv{i}")(tensor)
    keras.Model(inputs, tensor).save(tmp_path / "net.keras")
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (100_000, 4, 4, 3)).flush()
    flags = ["--data", str(tmp_path / "x.npy"), "--batch-size", "8", "--no-normalize", "--sketch-only"]
    command = ["plan", "--model", str(tmp_path / "net.keras"), *flags, "--output", str(tmp_path / "run")]

    # The limit stands in for the disk, which may have less room than this asks for.
    assert (
        run_command(commands, [*command, "--per-channel", "--memory-limit", "3 GiB", "--disk-limit", "1 TB"])
        == 0
    )
    said = capsys.readouterr().out
    assert re.search(r"sketches \d+\.\d GiB\), about", said)
    assert re.search(r"\n  sketches \d+\.\d [GM]iB with sketch\.channel_bits = 12\n", said)
    assert run_command(commands, [*command, "--per-channel", "--disk-limit", "1 MB"]) == 5
    assert re.search(r"; with sketch\.per_channel = false the sketches take \d", capsys.readouterr().err)


def test_samples_of_whole_numbers_are_counted_as_the_network_takes_them() -> None:
    """Pictures of bytes become float32 before they wait."""
    model = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    of_bytes, of_floats = (
        plan(model, np.zeros((512, 64, 64, 3), dtype), batch_size=256) for dtype in (np.uint8, np.float32)
    )

    assert of_bytes.memory.batch == of_floats.memory.batch >= 256 * 3 * 4 * 64 * 64 * 3


def test_a_cache_that_is_there_keeps_its_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Earlier versions joined batches to chunks of up to 64 MiB, which take more memory."""
    model = keras.Sequential([keras.Input((256, 256, 1)), keras.layers.Conv2D(4, 1)])
    images = np.random.default_rng(5).random((64, 256, 256, 1), dtype=np.float32)
    settings = {"record": {"block_samples": 32}}

    def planned(folder: str) -> Plan:
        return plan(model, images, output=tmp_path / folder, batch_size=8, settings=settings)

    with monkeypatch.context() as earlier:
        earlier.setattr(spec, "choose_chunk_samples", lambda nbytes, batch_size, block_samples: block_samples)
        run(model, images, output=tmp_path / "old", batch_size=8, settings=settings)
    run(model, images, output=tmp_path / "new", batch_size=8, settings=settings)

    for folder, chunk_samples in (("old", 32), ("new", 8)):
        cache = Cache.open(tmp_path / folder / "cache")
        assert set(cache.spec.chunk_samples.values()) == {chunk_samples}
    # A chunk of 32 MiB is filled, where batches of 8 MiB go through.
    assert planned("old").memory.blocks - planned("new").memory.blocks > 24 * 2**20
    done: list[StageDone] = []
    run(
        model,
        images,
        output=tmp_path / "old",
        batch_size=8,
        settings=settings,
        on_event=lambda event: done.append(event) if isinstance(event, StageDone) else None,
    )
    assert all(event.reloaded for event in done)
