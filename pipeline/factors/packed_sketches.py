"""The merged sketches of a run, packed, as its files hold them; unpacked one at a time, when they are asked for.

Knows sketches. Does not know where they came from.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

from ..sketch import PointSketch

__all__ = ["ASKED_PER_BYTE", "KEPT_NBYTES", "UNPACKED_PER_BYTE", "PackedSketches", "packed_in", "unpacked"]

KEPT_NBYTES = 2 * 2**20
"""Of packed sketches whose unpacked form is kept for the next question: those that were asked last."""

UNPACKED_PER_BYTE, ASKED_PER_BYTE = 7, 17
"""A bucket takes 3 to 6 bytes packed, 21 in memory, and 50 with what answers percentiles."""


def unpacked(packed: bytes) -> PointSketch:
    """Return a sketch that this process has packed, or unpacked before: its checksums are not compared again."""
    return PointSketch.from_bytes(packed, is_checked=True)


def packed_in(sketches: Mapping[str, PointSketch], name: str) -> bytes:
    """Return the packed sketch of a point."""
    return sketches.packed[name] if isinstance(sketches, PackedSketches) else sketches[name].to_bytes()


class PackedSketches(Mapping[str, PointSketch]):
    """The sketch of each point. To be read: what is added to a sketch that it gives may be lost.

    Parameters
    ----------
    packed : mapping of str to bytes
        What `PointSketch.to_bytes` gave, by point; in this order. Checked, if it was read from somewhere.

    Notes
    -----
    Unpacked, and with what answers percentiles, a sketch takes ten times the bytes: 130 MiB for all of ResNet50.
    """

    def __init__(self, packed: Mapping[str, bytes]) -> None:
        self.packed = dict(packed)
        """What was given."""
        self._kept: dict[str, PointSketch] = {}
        """The last one is the one that was asked last."""
        self._guard = threading.Lock()

    def __getitem__(self, name: str) -> PointSketch:
        packed = self.packed[name]
        with self._guard:
            sketch = self._kept.pop(name, None)
            if sketch is None:
                self._make_room(len(packed))
                sketch = unpacked(packed)
            self._kept[name] = sketch
        return sketch

    def _make_room(self, nbytes: int) -> None:
        while self._kept and nbytes + sum(len(self.packed[name]) for name in self._kept) > KEPT_NBYTES:
            del self._kept[next(iter(self._kept))]

    def __iter__(self) -> Iterator[str]:
        return iter(self.packed)

    def __len__(self) -> int:
        return len(self.packed)

    def __repr__(self) -> str:
        return f"PackedSketches({', '.join(map(repr, self.packed))})"
