"""Compare a normalised network with its original: stream samples through both, in any number of parts.

Gives totals, not a verdict. Memory holds the totals and one batch, or part of a large batch. Each part may be compared
in another process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...storage import Cache
from ...storage.errors import InputError, MismatchError
from ..graph import Graph, check_model, match_inputs, read_graph, refusals_explained
from ..normalizer.normalizing import NormalizedModel
from ..sketch import PointSketch, SketchSpec
from ..sources import Source
from .batch_pass import BatchPass
from .comparison_memory import compared_together
from .decisions import Decisions
from .doubts import Doubt, Measured
from .pairing import Pairing, Span
from .recorded import RecordedSamples, recorded_points
from .rounding import measure_doubts
from .totals import ComparisonTotals, ValueTotals
from .value_comparison import ComparedValue, ValueComparison

__all__ = ["DEFAULT_TOLERANCE", "Comparer", "Comparison", "ComparisonSettings"]

DEFAULT_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonSettings:
    """How two networks are compared."""

    batch_size: int
    """Samples that go through both networks together, or in equal parts if the original runs too and they are large."""
    n_samples: int | None = None
    """Use only the first N samples; default: all of them."""
    sketch_spec: SketchSpec | None = None
    """Sketch the normalised activations as they pass by, for plots; default: do not."""
    tolerance: float = DEFAULT_TOLERANCE
    """Largest residual in proportion to the peak, dimensionless. An activation above 1 + tolerance is saturated."""


class Comparer(Protocol):
    """What sends samples through both networks: a `Comparison` in this process, or the workers of a cluster."""

    def totals(self, progress: Callable[[int], None], *, from_cache: bool = True) -> ComparisonTotals:
        """Return what is found on all samples; ``progress`` is told how many are done.

        ``from_cache``: take the original's activations from the cache of the comparison, if it has one.
        """
        ...

    def rounding(self, doubts: Mapping[int, Doubt]) -> Mapping[int, Measured]:
        """Measure the rounding error of the original itself; see :func:`~.rounding.measure_doubts`."""
        ...


class Comparison:
    """Two networks, and the samples to compare them on; a :class:`Comparer`.

    Parameters
    ----------
    original : keras.Model
        The network that was normalised.
    normalized : NormalizedModel
    source : Source
        Samples, with labels if it has any.
    settings : ComparisonSettings
    cache : Cache, optional
        Of the original's activations on these samples. Where it holds all that is compared, in float32, the original
        does not run.

    Raises
    ------
    InputError
        If the samples do not fit the network, or there are none.
    MismatchError
        If ``original`` is not the network that was normalised.
    """

    def __init__(
        self,
        original: Any,
        normalized: NormalizedModel,
        source: Source,
        settings: ComparisonSettings,
        *,
        cache: Cache | None = None,
    ) -> None:
        self.graph = _checked_graph(original, normalized)
        self.n_samples = _checked_count(source, settings.n_samples)
        self.normalized, self.source, self.settings = normalized, source, settings
        self.compared = _compared(self.graph, normalized)
        """The points, followed by the outputs of the network."""
        self.cache = cache
        first: dict[tuple[int, int], int] = {}
        self._pair_of = [first.setdefault((e.value, e.place), i) for i, e in enumerate(self.compared)]
        """For each compared value, the first one of the same places: an output may be a point too."""
        self._pairs = {index: self.compared[index] for index in first.values()}
        found = recorded_points(cache, self.graph, self._pairs, n_samples=self.n_samples)
        self._recorded = None if isinstance(found, str) else found
        self.why_both_run = found if isinstance(found, str) else ""
        """Why the cache is not read; empty if it is, or there is none."""
        self._order = [index for index, _ in match_inputs(self.graph, source.inputs)]

    def empty(self) -> ComparisonTotals:
        """Return the totals of no samples."""
        spec, points = self.settings.sketch_spec, self.normalized.points
        sketches = {} if spec is None else {p.name: PointSketch.empty(spec, p.n_channels) for p in points}
        values = tuple(ValueTotals() for _ in self.compared)
        return ComparisonTotals(values=values, decisions=Decisions(self.graph), sketches=sketches)

    def totals(
        self, progress: Callable[[int], None] | None = None, *, from_cache: bool = True
    ) -> ComparisonTotals:
        """Return what is found on all samples; ``progress`` is told how many are done."""
        return self.compare(0, self.n_samples, from_cache=from_cache, progress=progress)

    def compare(
        self,
        start: int,
        stop: int,
        *,
        from_cache: bool = True,
        progress: Callable[[int], None] | None = None,
    ) -> ComparisonTotals:
        """Return what is found on the samples start..stop-1; ``start`` is a multiple of the batch size."""
        found, size = self.empty(), self.settings.batch_size
        batches = [(first, min(first + size, stop)) for first in range(start, stop, size)]
        with self._reading(batches if from_cache else []) as recorded:
            for batch in batches:
                self._compare_batch(found, batch, recorded)
                if progress is not None:
                    progress(found.n_samples)
        return found

    def rounding(self, doubts: Mapping[int, Doubt]) -> dict[int, Measured]:
        """Measure the rounding error of the original itself; see :func:`~.rounding.measure_doubts`."""
        if not doubts:
            return {}

        def read(start: int) -> list[NDArray[Any]]:
            batch = self.source.read(*next(self._parts(start, self.n_samples)))
            return [batch.inputs[i] for i in self._order]

        return measure_doubts(self.normalized, self.compared, doubts, read)

    def _reading(
        self, batches: Sequence[Span]
    ) -> AbstractContextManager[RecordedSamples] | AbstractContextManager[None]:
        if self.cache is None or self._recorded is None or not batches:
            return nullcontext()
        return RecordedSamples(self.cache, list(self._recorded.values()), batches)

    def _compare_batch(self, found: ComparisonTotals, span: Span, recorded: RecordedSamples | None) -> None:
        """Add what is found on one batch; parts of it go through both networks if no recorded values can be read."""
        start, stop = span
        batch = self.source.read(start, stop)
        inputs = [batch.inputs[i] for i in self._order]
        sketches = found.sketches
        if recorded is not None:
            parts = list(self._parts(start, stop))
            pairing = self._passed(inputs, parts, sketches, recorded)
            if pairing.problem is None:
                self._add(found, pairing, parts, batch.labels)
                found.n_recorded += len(batch)
                return
            found.problems.add(str(pairing.problem))
            sketches = {}
        elif start == 0:
            with refusals_explained(start, stop, self.graph):
                check_model(self.graph, inputs)
        for part in self._parts(start, stop):
            rows = slice(part[0] - start, part[1] - start)
            pairing = self._passed([array[rows] for array in inputs], [part], sketches)
            self._add(found, pairing, [part], None if batch.labels is None else batch.labels[rows])

    def _passed(
        self,
        inputs: Sequence[NDArray[Any]],
        parts: Sequence[Span],
        sketches: Mapping[str, PointSketch],
        recorded: RecordedSamples | None = None,
    ) -> Pairing:
        """Send samples through the normalised network, and through the original unless it is recorded."""
        points, names = self.normalized.points, self._recorded or {}

        def sketch(index: int, array: NDArray[np.float32]) -> None:
            if index < len(points) and (mine := sketches.get(points[index].name)) is not None:
                point = points[index]
                mine.update(array, channel_axis=point.channel_axis, point=point.name)

        def original(index: int, start: int, stop: int) -> Iterator[NDArray[np.float32]]:
            return iter(()) if recorded is None else recorded.parts(names[index], start, stop)

        pairing = Pairing(
            self._value_comparisons,
            parts,
            kept=frozenset(self._pair_of[len(points) :]),
            sketch=sketch,
            recorded=original if recorded is not None else None,
        )
        run = self._both if recorded is None else self._normalized_alone
        with refusals_explained(parts[0][0], parts[-1][1], self.graph):
            run(inputs, pairing.take)
        return pairing

    def _add(
        self, found: ComparisonTotals, pairing: Pairing, parts: Sequence[Span], labels: NDArray[Any] | None
    ) -> None:
        for index, totals in zip(self._pair_of, found.values, strict=True):
            for (start, _), one in zip(parts, pairing.found[index], strict=True):
                totals.add(one.numbers, n_values=one.n_values, start=start)
        outputs = [pairing.kept[index] for index in self._pair_of[len(self.normalized.points) :]]
        found.decisions.add([old for old, _ in outputs], [new for _, new in outputs], labels)
        found.n_samples += parts[-1][1] - parts[0][0]

    def _parts(self, start: int, stop: int) -> Iterator[Span]:
        """Yield the samples that results are noted for: batches, or equal parts of large ones."""
        while start < stop:
            batch_ends = start - start % self.settings.batch_size + self.settings.batch_size
            last = min(start + self._n_together, batch_ends, stop)
            yield start, last
            start = last

    @cached_property
    def _n_together(self) -> int:
        shapes = [*self._shapes.values(), *(value.shape for value in self.graph.values)]
        largest = max((math.prod(n for n in shape if n is not None) for shape in shapes), default=1)
        return compared_together(self.settings.batch_size, 4 * largest)

    @property
    def _shapes(self) -> Mapping[int, tuple[int, ...]]:
        return (self._both if self._recorded is None else self._normalized_alone).shapes

    @cached_property
    def _both(self) -> BatchPass:
        return self._traced(with_original=True)

    @cached_property
    def _normalized_alone(self) -> BatchPass:
        return self._traced(with_original=False)

    def _traced(self, *, with_original: bool) -> BatchPass:
        """Trace networks, when the first batch comes."""
        with refusals_explained(graph=self.graph):
            return BatchPass(
                self.graph,
                self.normalized,
                list(self._pairs.values()),
                shapes=[self.source.inputs[i].shape for i in self._order],
                batch_size=self.settings.batch_size,
                with_original=with_original,
            )

    @cached_property
    def _value_comparisons(self) -> dict[int, tuple[ComparedValue, ValueComparison]]:
        margin = self.settings.tolerance
        return {index: (each, ValueComparison(each, margin=margin)) for index, each in self._pairs.items()}


def _checked_graph(original: Any, normalized: NormalizedModel) -> Graph:
    graph = read_graph(original)
    mine = [(node.name, node.type) for node in graph.nodes]
    theirs = [(node.name, node.type) for node in normalized.graph.nodes]
    if mine != theirs:
        differ = next((a for a, b in zip(mine, theirs, strict=False) if a != b), ("the number of layers", ""))
        raise MismatchError(
            f"the certificate needs the network that was normalised: this one differs at {differ[0]!r}",
            layer=differ[0],
        )
    return graph


def _checked_count(source: Source, n_samples: int | None) -> int:
    total = source.n_samples if n_samples is None else n_samples
    if not 1 <= total <= source.n_samples:
        raise InputError(
            f"the certificate was asked for {total} samples, the data has {source.n_samples}: "
            "give a number between 1 and that",
            n_samples=total,
        )
    return total


def _compared(graph: Graph, normalized: NormalizedModel) -> list[ComparedValue]:
    """Return the points, followed by the outputs of the network."""
    named = [(point.name, point.value, normalized.nodes.get(point.node)) for point in normalized.points]
    named += [(graph.producer(value).name, value, None) for value in graph.outputs]
    return [
        ComparedValue(
            name=name,
            value=value,
            place=normalized.places[value],
            scales=normalized.value_scales[value],
            channel_axis=graph.values[value].channel_axis,
            node=node,
        )
        for name, value, node in named
    ]
