"""Merge the sketches of all blocks into the statistics of each point."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...storage import Cache, PointSpec, is_url
from ...storage.claim import writer_of
from ...storage.errors import IncompleteError
from ..record.point_sketch import forecast_of
from ..sketch import PointSketch, SketchSpec, merge_sketches
from ..sketch.forecast import MANY_SAMPLES, MERGING_NBYTES
from .packed_sketches import ASKED_PER_BYTE, KEPT_NBYTES, UNPACKED_PER_BYTE, PackedSketches, unpacked

__all__ = [
    "check_complete",
    "how_to_go_on",
    "merge_records",
    "merged_nbytes",
    "merged_sketches",
    "statistics_by_point",
    "unknown_point",
]

# Records wait, packed, until they reach this size: many sketches of a point are merged faster together.
WAITING_NBYTES = 32 * 2**20
# Of these, one point's are unpacked at a time, at most so much at once: neither the number of blocks nor that of
# points or channels decides how much memory a merge takes.
UNPACKED_NBYTES = 32 * 2**20


def merged_sketches(cache: Cache) -> PackedSketches:
    """Return the merged sketch of each point, in model order.

    Parameters
    ----------
    cache : Cache
        A cache whose blocks are all committed.

    Raises
    ------
    IncompleteError
        If blocks are missing: their statistics would be those of a part of the data.
    """
    check_complete(cache)
    return merge_records(cache.all_sketches(), [point.name for point in cache.spec.points])


def merge_records(records: Iterable[Mapping[str, bytes]], names: Sequence[str]) -> PackedSketches:
    """Return the merged sketch of each point from the stored ones of some blocks, or of some groups of blocks.

    Parameters
    ----------
    records : iterable of mapping
        Stored sketches by point: each has one of every point. Read one after the other; at most ``WAITING_NBYTES`` and
        one more record are held.
    names : sequence of str
        The points, in the order of the result.
    """
    merged = _Merged(names)
    waiting: list[Mapping[str, bytes]] = []
    n_waiting = 0
    for record in records:
        waiting.append(record)
        n_waiting += sum(len(record[name]) for name in names)
        if n_waiting >= WAITING_NBYTES:
            merged.add(waiting)
            waiting, n_waiting = [], 0
    merged.add(waiting)
    return merged.packed()


class _Merged:
    """The merged sketch of each point, while records are added.

    It is packed from one addition to the next. Not so sketches of channels of which each record is added alone: packing
    would take as much time as adding, and they are compact in memory too.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._packed: dict[str, bytes] = {}
        self._unpacked: dict[str, PointSketch] = {}

    def add(self, records: list[Mapping[str, bytes]]) -> None:
        """Add the sketches of some records."""
        for name in self._names if records else ():
            stored = [record[name] for record in records]
            before = self._packed.pop(name, None)
            merged = self._unpacked.pop(name, None) if before is None else unpacked(before)
            sketch = _merge_stored(merged, stored)
            if len(records) == 1 and sketch.channels is not None:
                self._unpacked[name] = sketch
            else:
                self._packed[name] = sketch.to_bytes()

    def packed(self) -> PackedSketches:
        """Return what is merged; nothing is added any more."""
        for name in list(self._unpacked):
            self._packed[name] = self._unpacked.pop(name).to_bytes()
        return PackedSketches({name: self._packed[name] for name in self._names if name in self._packed})


def merged_nbytes(
    points: Sequence[PointSpec], spec: SketchSpec, *, block_samples: int, n_samples: int
) -> int:
    """Return the memory of merging the sketches of all blocks and of asking them, in bytes."""
    # Only here: questions about a finished run shall not load what records.
    from ..record.block_memory import block_record_nbytes, stored_sketches_nbytes

    n_blocks, block_samples = -(-n_samples // block_samples), min(block_samples, n_samples)
    foreseen = [forecast_of(point, spec, min(n_samples, MANY_SAMPLES)) for point in points]
    packed = sum(each.stored_nbytes for each in foreseen)
    record = block_record_nbytes(points, spec, block_samples)
    between = sum(each.merged_nbytes for each in foreseen) if spec.per_channel else packed
    one = max(each.asked_nbytes + each.widened_nbytes for each in foreseen)
    largest = UNPACKED_PER_BYTE * max(stored_sketches_nbytes([p], spec, block_samples) for p in points)
    at_once = min(max(UNPACKED_NBYTES, largest), n_blocks * largest)
    # The record that is read is there whole and in parts, beside those that wait.
    read = min(WAITING_NBYTES, n_blocks * record) + 2 * record
    merging = between + read + at_once + MERGING_NBYTES + one
    # Those that were asked last are kept as they were asked.
    asking = packed + min(KEPT_NBYTES * ASKED_PER_BYTE, sum(each.asked_nbytes for each in foreseen)) + one
    return max(merging, asking)


def _merge_stored(merged: PointSketch | None, stored: Sequence[bytes]) -> PointSketch:
    """Return the merged sketch of a point and of more of its blocks, unpacking a bounded number of them at once."""
    group = [] if merged is None else [merged]
    n_unpacked = 0
    for packed in stored:
        group.append(PointSketch.from_bytes(packed))
        n_unpacked += UNPACKED_PER_BYTE * len(packed)
        if n_unpacked >= UNPACKED_NBYTES:
            group, n_unpacked = [merge_sketches(group)], 0
    return merge_sketches(group)


def check_complete(cache: Cache) -> None:
    """Raise IncompleteError if blocks are missing.

    Raises
    ------
    IncompleteError
        With the numbers of the missing blocks.
    """
    missing = cache.missing()
    if missing:
        raise IncompleteError(
            f"{len(missing)} of {len(cache.blocks)} blocks are not recorded yet: {how_to_go_on(cache)}",
            missing=[block.index for block in missing],
        )


def how_to_go_on(cache: Cache) -> str:
    """Return what to do about blocks that are missing: wait for the process that records them, or run the job again."""
    holder = None if is_url(cache.url) else writer_of(cache.url)
    if holder is None or holder.pid == os.getpid():
        return "run the job again to resume"
    n_done = len(cache.blocks) - len(cache.missing())
    return (
        f"process {holder.pid} on {holder.host} is recording ({n_done} of {len(cache.blocks)} blocks), ask again "
        "when it has ended"
    )


def unknown_point(name: str, names: Sequence[str]) -> str:
    """Return the error message for an unknown point, with near names."""
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or list(names[:8])
    more = f", ... ({len(names)} in all)" if len(names) > len(near) else ""
    return f"no point {name!r} was recorded: there are {', '.join(repr(n) for n in near)}{more}"


def statistics_by_point(
    sketches: Mapping[str, PointSketch], shapes: Mapping[str, Sequence[int]]
) -> dict[str, dict[str, Any]]:
    """Return the statistics of each point as plain JSON values, in the units of the activation.

    ``std`` is None where the sketch does not determine it within 1 %: see :attr:`~..sketch.Sketch.std`.
    """
    table = {}
    for name, sketch in sketches.items():
        layer = sketch.layer
        table[name] = {
            "shape": list(shapes[name]),
            "n_values": layer.n,
            "n_zeros": layer.n_zeros,
            "n_nan": layer.n_nan,
            "n_inf": layer.n_inf,
            "minimum": _number(layer.minimum, layer.n),
            "maximum": _number(layer.maximum, layer.n),
            "mean": _number(layer.mean, layer.n),
            "std": _number(layer.std, layer.n),
        }
    return table


def _number(value: float, n: int) -> float | None:
    return float(value) if n and not math.isnan(value) else None
