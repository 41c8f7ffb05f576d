"""Exact percentiles of recorded values, usually in one pass, in bounded memory.

The sketch says in which buckets the wanted order statistics lie. A pass over the values stores the lows of these
buckets: counted where a bucket holds many more values than there are lows, listed otherwise. Knows tallies, and chunks
that can be read again. Does not know where they come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import MismatchError
from . import bits as fb
from .arrays import channel_slabs, layer_slabs, parse_array
from .channels import ChannelSketch, parse_channel_axis
from .compiled import is_compiled
from .ladder import build_ladder, find_ranks, lerp, parse_percent, virtual_ranks
from .layer import Sketch

EXACT_NBYTES = 128 * 2**20
"""Memory that a pass may hold, in bytes; if that is not enough for all, there are more passes."""
TESTED_SLOTS = 12
"""Up to this many buckets of a layer are tested for each value; more are looked up in a table."""


def exact_percentiles(
    chunks: Callable[[], Iterable[NDArray[Any]]],
    qs: Sequence[float],
    sketch: Sketch,
    nonzero: bool = False,
    *,
    is_selection: bool = False,
) -> list[float]:
    """Return the exact percentiles of recorded values.

    Parameters
    ----------
    chunks : callable
        Gives the chunks of the values that ``sketch`` was made of, in any order; called once for each pass.
    qs : sequence of float
        From 0 to 100.
    sketch : Sketch
    nonzero : bool, default=False
        Leave the zeros out.
    is_selection : bool, default=False
        The chunks hold all values of the buckets in which the percentiles lie, and may lack the others.

    Returns
    -------
    list of float
        Each equal to ``np.percentile(values, q, method="linear")`` of the float32 values, ``q`` a Python float; NaN
        if there are none.

    Raises
    ------
    MismatchError
        If the chunks do not hold the values that were sketched.

    Notes
    -----
    Holds at most 32 KiB for each bucket of 20 bits that it looks for, besides a chunk.
    """
    refinement = Refinement(sketch, qs, nonzero=nonzero, is_selection=is_selection)
    return [float(value) for value in _refined(refinement, chunks)[:, 0]]


def exact_channel_percentiles(
    chunks: Callable[[], Iterable[NDArray[Any]]],
    qs: Sequence[float],
    sketch: ChannelSketch,
    nonzero: bool = False,
    *,
    channel_axis: int = -1,
) -> NDArray[np.float64]:
    """Return the exact percentiles of each channel, of shape (n_qs, n_channels); as `exact_percentiles`."""
    return _refined(Refinement(sketch, qs, nonzero=nonzero, channel_axis=channel_axis), chunks)


def _refined(refinement: Refinement, chunks: Callable[[], Iterable[NDArray[Any]]]) -> NDArray[np.float64]:
    while not refinement.is_settled:
        refinement.begin_pass(EXACT_NBYTES)
        for chunk in chunks():
            refinement.show(chunk)
        refinement.end_pass()
    return refinement.percentiles()


class Refinement:
    """Exact percentiles of one point: it is shown all values that were sketched.

    Parameters
    ----------
    sketch : Sketch or ChannelSketch
        Of exactly the values that will be shown.
    qs : sequence of float
        Percentiles from 0 to 100.
    nonzero : bool, default=False
        Leave the zeros out.
    channel_axis : int, default=-1
        Of the arrays that will be shown; only for a ChannelSketch.
    is_selection : bool, default=False
        Values of other buckets than those that are looked for may be left out.
    """

    def __init__(
        self,
        sketch: Sketch | ChannelSketch,
        qs: Sequence[float],
        *,
        nonzero: bool = False,
        channel_axis: int = -1,
        is_selection: bool = False,
    ) -> None:
        self._is_selection = is_selection
        self._per_channel = isinstance(sketch, ChannelSketch)
        self._channel_axis = channel_axis
        tally = sketch.tally
        self._low_bits, self._n_channels = tally.low_bits, tally.n_channels
        self._n_values = tally.n_values
        self._n_shown = 0
        self._ladder = build_ladder(tally, nonzero=nonzero)
        self._find([parse_percent(q) for q in qs])
        self._pass = _Pass(np.empty(0, np.intp), self._ladder.counts, self._low_bits)

    def _find(self, percents: Sequence[float]) -> None:
        """Find the ranks, and so the rungs, between which each percentile of each channel lies."""
        ladder = self._ladder
        self._filled = np.flatnonzero(ladder.sizes)
        wanted = [virtual_ranks(percent, ladder.sizes[self._filled]) for percent in percents]
        shape = (len(percents), self._filled.size)
        self._gammas = np.array([ranks.gamma for ranks in wanted], np.float64).reshape(shape)
        both = np.array([[ranks.previous, ranks.following] for ranks in wanted], np.int64).reshape(-1)
        channels = np.tile(self._filled, 2 * len(percents))
        found = find_ranks(ladder, both, channels)
        self._keys, self._rungs, self._within = found.lo.copy(), found.rungs, found.within
        self._open = found.lo < found.hi

    @property
    def is_settled(self) -> bool:
        """Whether the percentiles are exact without another pass."""
        return not self._open.any()

    def begin_pass(self, nbytes: int) -> None:
        """Choose the buckets that one more pass resolves in about ``nbytes``."""
        rungs = np.unique(self._rungs[self._open])
        costs = np.cumsum(_slot_nbytes(self._ladder.counts[rungs], self._low_bits))
        # At least one bucket, or the passes would never end.
        chosen = rungs[: max(1, int(np.searchsorted(costs, nbytes, side="right")))] if rungs.size else rungs
        self._pass = _Pass(chosen, self._ladder.counts, self._low_bits)
        self._n_shown = 0

    def show(self, array: Any) -> None:
        """Look through an array of the values that were sketched."""
        if not self._pass.rungs.size:
            return
        array = parse_array(array)
        self._n_shown += array.size
        if not self._per_channel:
            for slab in layer_slabs(array):
                self._show_layer(slab.view(np.uint32))
            return
        axis = parse_channel_axis(array, self._channel_axis, self._n_channels, point=None, block=None)
        for slab in channel_slabs(array, axis):
            self._show_channels(slab.view(np.uint32))

    def _show_layer(self, patterns: NDArray[np.uint32]) -> None:
        step, bases = self._pass, self._pattern_bases()
        if not is_compiled():
            _collect_plainly(patterns, range(bases.size), bases, step)
            return
        from . import collecting  # Numba takes half a second to import

        if bases.size <= TESTED_SLOTS:
            collecting.collect_run(patterns, 0, bases.size, bases, step.low_mask, *step.storage)
            return
        table = np.full(1 << (32 - self._low_bits), -1, np.int32)
        table[self._ladder.base_keys[step.rungs] >> np.uint32(self._low_bits)] = np.arange(bases.size)
        collecting.collect_table(patterns, table, self._low_bits, *step.storage)

    def _show_channels(self, patterns: NDArray[np.uint32]) -> None:
        step, bases = self._pass, self._pattern_bases()
        starts = np.searchsorted(
            step.rungs, np.searchsorted(self._ladder.cumulative, self._ladder.offsets, "right")
        )
        if not is_compiled():
            for channel in np.flatnonzero(np.diff(starts)).tolist():
                own = np.ascontiguousarray(patterns[:, channel]).reshape(-1)
                _collect_plainly(own, range(starts[channel], starts[channel + 1]), bases, step)
            return
        from . import collecting  # Numba takes half a second to import

        if patterns.shape[2] == 1:
            slots, row_bases = _slot_layers(starts, bases)
            flat = patterns.reshape(-1)
            collecting.collect_rows(flat, self._n_channels, slots, row_bases, step.low_mask, *step.storage)
            return
        for channel in np.flatnonzero(np.diff(starts)).tolist():
            first, last = int(starts[channel]), int(starts[channel + 1])
            for row in patterns[:, channel]:
                collecting.collect_run(row, first, last, bases, step.low_mask, *step.storage)

    def _pattern_bases(self) -> NDArray[np.uint32]:
        """Return the lowest pattern of each slot's bucket."""
        keys = self._ladder.base_keys[self._pass.rungs]
        top = np.uint32((1 << self._low_bits) - 1)
        return np.where(keys >= np.uint32(fb.ZERO_KEY), keys ^ np.uint32(fb.ZERO_KEY), ~(keys + top))

    def end_pass(self) -> None:
        """Settle the order statistics whose buckets were looked for; MismatchError if values are missing."""
        step = self._pass
        if self._n_shown != self._n_values and not self._is_selection:
            raise MismatchError(
                f"{self._n_shown} values were shown, the sketch is of {self._n_values}: "
                "was the sketch made of another cache?"
            )
        if not np.array_equal(step.fill, step.sizes):
            slot = int(np.flatnonzero(step.fill != step.sizes)[0])
            raise MismatchError(
                f"the values shown are not those of the sketch: a bucket has {int(step.fill[slot])} of them and was "
                f"counted with {int(step.sizes[slot])}: was the sketch made of another cache?"
            )
        for slot, rung in enumerate(step.rungs.tolist()):
            here = (
                np.flatnonzero(self._open & (self._rungs == rung))
                if step.rungs.size <= 64
                else self._at(rung)
            )
            lows = step.order(slot, self._within[here])
            self._keys[here] = int(self._ladder.base_keys[rung]) + lows
            self._open[here] = False
        self._pass = _Pass(np.empty(0, np.intp), self._ladder.counts, self._low_bits)

    def _at(self, rung: int) -> NDArray[np.intp]:
        if not hasattr(self, "_by_rung"):
            self._by_rung = np.argsort(self._rungs, kind="stable")
        sorted_rungs = self._rungs[self._by_rung]
        begin, end = np.searchsorted(sorted_rungs, [rung, rung + 1])
        here = self._by_rung[begin:end]
        return here[self._open[here]]

    def percentiles(self) -> NDArray[np.float64]:
        """Return the percentiles, of shape (n_qs, n_channels); NaN where a channel has no values."""
        values = fb.floats_of(self._keys).reshape(len(self._gammas), 2, -1)
        result = np.full((len(self._gammas), self._n_channels), np.nan)
        result[:, self._filled] = lerp(values[:, 0], values[:, 1], self._gammas)
        return result


class _Pass:
    """What one pass stores: for each chosen rung (slot) its lows, counted or listed."""

    def __init__(self, rungs: NDArray[np.intp], counts: NDArray[np.int64], low_bits: int) -> None:
        self.rungs = rungs
        self.sizes = counts[rungs]
        self.low_mask = np.uint32((1 << low_bits) - 1)
        self._span = 1 << low_bits
        dense = self.sizes > self._span * _DENSE_FACTOR
        self.dense_at = np.where(dense, np.cumsum(dense) * self._span - self._span, -1)
        self.cells = np.zeros(int(dense.sum()) * self._span, np.int64)
        listed = np.where(dense, 0, self.sizes)
        self.list_at = np.cumsum(listed) - listed
        self.lows = np.empty(int(listed.sum()), np.uint32)
        self.fill = np.zeros(rungs.size, np.int64)
        self.storage = (self.dense_at, self.cells, self.list_at, self.sizes, self.fill, self.lows)

    def order(self, slot: int, ranks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the lows of the given ranks in a slot."""
        if self.dense_at[slot] >= 0:
            cells = self.cells[self.dense_at[slot] : self.dense_at[slot] + self._span]
            return np.searchsorted(np.cumsum(cells), ranks, side="right")
        lows = np.sort(self.lows[self.list_at[slot] : self.list_at[slot] + self.sizes[slot]])
        return lows[ranks].astype(np.int64)


_DENSE_FACTOR = 2
"""Counting takes 8 bytes for each possible low, listing 4 bytes for each value: the smaller one is chosen."""


def _slot_nbytes(counts: NDArray[np.int64], low_bits: int) -> NDArray[np.int64]:
    return np.minimum(counts * 4, 8 << low_bits)


def _slot_layers(
    starts: NDArray[np.intp], bases: NDArray[np.uint32]
) -> tuple[NDArray[np.int32], NDArray[np.uint32]]:
    """Return slots and bases by layers, of shape (most slots of a channel, n_channels)."""
    sizes = np.diff(starts)
    slots = np.full((int(sizes.max(initial=0)), sizes.size), -1, np.int32)
    for layer in range(slots.shape[0]):
        has = sizes > layer
        slots[layer, has] = starts[:-1][has] + layer
    # Patterns from here on are infinities and NaN: never counted, and refused by their slot of -1.
    row_bases = np.full(slots.shape, 0x7F80_0000, np.uint32)
    row_bases[slots >= 0] = bases[slots[slots >= 0]]
    return slots, row_bases


def _collect_plainly(
    patterns: NDArray[np.uint32], slots: range, bases: NDArray[np.uint32], step: _Pass
) -> None:
    """Do what the compiled loops do, in numpy."""
    for slot in slots:
        offsets = patterns - bases[slot]
        hit = (offsets <= step.low_mask) & ((patterns & np.uint32(0x7FFF_FFFF)) != 0)
        negative = bool(bases[slot] >= np.uint32(fb.ZERO_KEY))
        lows = step.low_mask - offsets[hit] if negative else offsets[hit]
        done, size = int(step.fill[slot]), int(step.sizes[slot])
        kept = lows[: max(0, size - done)]
        if step.dense_at[slot] >= 0:
            at = int(step.dense_at[slot])
            counted = np.bincount(kept, minlength=int(step.low_mask) + 1)
            step.cells[at : at + counted.size] += counted
        else:
            at = int(step.list_at[slot]) + done
            step.lows[at : at + kept.size] = kept
        step.fill[slot] += lows.size
