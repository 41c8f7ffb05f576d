"""Counts of the values of many channels, in little memory.

Open counters of thousands of channels would take pages for each of them. So some channels at a time are counted: what
is known of them is put into counters, values are added, and the counters are emptied again. Knows values of channels.
Does not know layouts of arrays, or what NaN means to the user.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .counting import channels_at_once, count_channels
from .open_tally import is_worth_counting
from .sorting import sort_channels
from .tally import CompactTally, Tally, join_channels, merge_tallies, part_of_channels

LOOSE_VALUES = 512
"""So many values of a channel are collected before they are counted: 2 KiB, where its buckets take 10 to 20."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelCounts:
    """What is known of some channels. Adding values gives new counts; the old ones are kept only on an error."""

    groups: tuple[CompactTally, ...]
    """Of channels that are counted together."""
    loose: NDArray[np.float32] | None = None
    """Memory of shape (n_channels, LOOSE_VALUES) for values that are not counted yet."""
    n_loose: int = 0
    """Values of each channel in it."""

    @classmethod
    def of(cls, tally: Tally) -> ChannelCounts:
        """Return the counts of a tally."""
        step = channels_at_once(tally.bits)
        firsts = range(0, tally.n_channels, step)
        return cls(
            groups=tuple(CompactTally.of(part_of_channels(tally, first, first + step)) for first in firsts)
        )

    @property
    def bits(self) -> int:
        """Resolution."""
        return self.groups[0].rest.bits

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return sum(group.rest.n_channels for group in self.groups)

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(group.nbytes for group in self.groups) + 4 * self.n_loose * self.n_channels

    def tally(self) -> Tally:
        """Return the tally of all values."""
        return join_channels([group.expand() for group in self.settled().groups])

    def settled(self) -> ChannelCounts:
        """Return the same counts, all values counted."""
        return self._counted([]) if self.n_loose else self

    def plus(self, slabs: Iterable[NDArray[np.float32]]) -> ChannelCounts:
        """Return the counts of these and of values of shape (outer, n_channels, inner); these are not used again."""
        counts = self
        for slab in slabs:
            if slab.size:
                counts = counts._plus_slab(slab)
        return counts

    def _plus_slab(self, slab: NDArray[np.float32]) -> ChannelCounts:
        n_loose = self.n_loose + slab.shape[0] * slab.shape[2]
        if n_loose > LOOSE_VALUES:
            return self._counted([slab])
        loose = np.empty((self.n_channels, LOOSE_VALUES), np.float32) if self.loose is None else self.loose
        place = loose[:, self.n_loose : n_loose].reshape(self.n_channels, slab.shape[0], slab.shape[2])
        place[:] = slab.transpose(1, 0, 2)
        return replace(self, loose=loose, n_loose=n_loose)

    def _counted(self, slabs: Sequence[NDArray[np.float32]]) -> ChannelCounts:
        if self.loose is not None and self.n_loose:
            slabs = [np.ascontiguousarray(self.loose[None, :, : self.n_loose]), *slabs]
        count = count_channels if is_worth_counting(sum(slab.size for slab in slabs)) else _sort_groups
        # Not with the same memory: these counts may be kept, and their loose values with them.
        return ChannelCounts(groups=tuple(count(slabs, self.groups, bits=self.bits)))


def _sort_groups(
    slabs: Sequence[NDArray[np.float32]], groups: Sequence[CompactTally], *, bits: int
) -> list[CompactTally]:
    tallies = [sort_channels(slab, bits=bits) for slab in slabs]
    merged = merge_tallies([join_channels([group.expand() for group in groups]), *tallies])
    return list(ChannelCounts.of(merged).groups)
