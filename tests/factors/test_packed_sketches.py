"""Merged sketches are held packed: whatever the number of points and blocks, few are unpacked at a time."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from actisketch.pipeline.factors.merge import merge_records
from actisketch.pipeline.factors.packed_sketches import KEPT_NBYTES, PackedSketches
from actisketch.pipeline.sketch import PointSketch, SketchSpec, merge_sketches


def sketch_of(seed: int, n_values: int = 100_000, spec: SketchSpec | None = None) -> PointSketch:
    sketch = PointSketch.empty(spec or SketchSpec(), n_channels=1)
    sketch.update(np.random.default_rng(seed).standard_normal((4, n_values // 4, 1), np.float32))
    return sketch


@pytest.fixture(scope="module")
def packed() -> dict[str, bytes]:
    return {f"point {i}": sketch_of(i).to_bytes() for i in range(3)}


def test_they_are_read_as_they_were_packed_and_in_this_order(packed: dict[str, bytes]) -> None:
    sketches = PackedSketches(packed)

    assert list(sketches) == list(packed)
    assert len(sketches) == 3
    assert sketches.packed == packed
    assert {name: sketch.to_bytes() for name, sketch in sketches.items()} == packed
    assert sketches["point 1"] == sketch_of(1)
    with pytest.raises(KeyError):
        sketches["point 3"]


def test_what_was_asked_last_is_not_unpacked_again(packed: dict[str, bytes]) -> None:
    sketches = PackedSketches(packed)

    assert all(sketches[name] is sketches[name] for name in packed)


def traced_peak(work: Iterator[object]) -> int:
    """Return the most bytes that were allocated at a time, beyond those at the start."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in work:
            pass
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def test_asking_all_of_many_points_takes_the_memory_of_those_that_are_kept() -> None:
    one = sketch_of(0, 1_000_000).to_bytes()
    few, many = (PackedSketches({f"point {i}": one for i in range(n)}) for n in (40, 160))

    def asked(sketches: Mapping[str, PointSketch]) -> Iterator[float]:
        for name in sketches:
            yield sketches[name].layer.percentile(99.9).value

    peaks = [traced_peak(asked(sketches)) for sketches in (few, many)]

    assert 40 * len(one) > 1.5 * KEPT_NBYTES  # else all of them were kept
    assert max(peaks) < 1.1 * min(peaks)
    assert max(peaks) < 25 * KEPT_NBYTES


@pytest.mark.parametrize("per_channel", [False, True])
def test_merging_more_records_takes_no_more_memory(
    per_channel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The records are made one by one, of 12 points each; three wait to be merged together."""
    spec = SketchSpec(per_channel=per_channel)
    stored = [sketch_of(i, 40_000, spec).to_bytes() for i in range(4)]
    names = [f"point {i}" for i in range(12)]
    monkeypatch.setattr("actisketch.pipeline.factors.merge.WAITING_NBYTES", 3 * 12 * len(stored[0]))

    def record(i: int) -> dict[str, bytes]:
        return {name: bytes(bytearray(stored[i % 4])) for name in names}

    def merged(n_records: int) -> Iterator[object]:
        yield merge_records(map(record, range(n_records)), names)

    few, many = (traced_peak(merged(n)) for n in (8, 32))

    # A number takes more bytes packed as counts grow.
    assert many < 1.1 * few
    expected = merge_sketches([PointSketch.from_bytes(stored[i % 4]) for i in range(8)])
    assert set(merge_records(map(record, range(8)), names).packed.values()) == {expected.to_bytes()}


def test_records_that_are_merged_alone_give_the_same_sketches(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SketchSpec(per_channel=True)
    records = [{name: sketch_of(i, spec=spec).to_bytes() for name in ("b", "a")} for i in range(5)]
    together = merge_records(records, ["a", "b"])
    for nbytes in (1, 2 * len(records[0]["a"]) + 1, 2**30):
        monkeypatch.setattr("actisketch.pipeline.factors.merge.WAITING_NBYTES", nbytes)
        found = merge_records(records, ["a", "b"])

        assert found.packed == together.packed
        assert list(found) == ["a", "b"]
    assert together["a"] == merge_sketches([sketch_of(i, spec=spec) for i in range(5)])


def test_merging_more_points_takes_the_memory_of_their_packed_sketches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each record is merged alone, so that every point is merged before the next is read."""
    stored = [sketch_of(i, 40_000).to_bytes() for i in range(2)]
    whole = merge_sketches([PointSketch.from_bytes(one) for one in stored])
    monkeypatch.setattr("actisketch.pipeline.factors.merge.WAITING_NBYTES", 1)

    def merged(n_points: int) -> Iterator[object]:
        names = [f"point {i}" for i in range(n_points)]
        yield merge_records((dict.fromkeys(names, one) for one in stored * 2), names)

    few, many = (traced_peak(merged(n)) for n in (20, 100))

    assert many - few < 1.2 * 80 * len(whole.to_bytes())
