"""Compare a normalised network with its original: stream samples through both, in any number of parts.

Gives totals, not a verdict. Memory holds the totals and one batch, or part of a large batch. Each part may be compared
in another process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError, MismatchError
from ..graph import Graph, check_model, match_inputs, read_graph, refusals_explained
from ..normalizer.normalizing import NormalizedModel
from ..sketch import PointSketch, SketchSpec
from ..sources import Source
from .batch_comparison import BatchComparison, ComparedValue
from .decisions import Decisions
from .doubts import Doubt, Measured
from .rounding import measure_doubts
from .totals import ComparisonTotals, ValueTotals

__all__ = ["DEFAULT_TOLERANCE", "Comparer", "Comparison", "ComparisonSettings", "comparison_nbytes"]

DEFAULT_TOLERANCE = 1e-5
COMPARED_NBYTES = 256 * 2**20
"""Activations of both networks that are compared at a time. A batch with more of them is compared in parts.

Not a setting, because a network may round differently in a batch of another size: same samples, same certificate.
"""


def comparison_nbytes(
    *,
    weight_nbytes: Sequence[int],
    sample_nbytes: int,
    largest_tensor_nbytes: int,
    batch_size: int,
    is_half: bool = False,
) -> int:
    """Return the memory in bytes that normalising and certifying a network needs, without the network itself.

    Parameters
    ----------
    weight_nbytes : sequence of int
        Bytes of each array of weights, in float32.
    sample_nbytes, largest_tensor_nbytes : int
        Bytes of one sample at all points together, and in the network's largest tensor, in float32.
    batch_size : int
    is_half : bool
        Whether the network computes in half precision. Then weights and activations exist in both precisions, and the
        normalised network is computed in float64 too.
    """
    most = max(1, COMPARED_NBYTES // (2 * sample_nbytes))
    n_together = -(-batch_size // -(-batch_size // most))
    # In addition to its points, each network holds input, output and workspace of the current layer.
    comparing = n_together * 2 * (sample_nbytes + 3 * largest_tensor_nbytes) * (3 if is_half else 2) // 2
    # The same without points, once in float32 and once or twice in float64; their difference, also cast and scaled;
    # and the weights of the current layer in float64.
    n_twins = 2 if is_half else 1
    n_tensors = 3 * (1 + 2 * n_twins) + 2 * (1 + n_twins)
    measuring = n_together * n_tensors * largest_tensor_nbytes + 2 * n_twins * max(weight_nbytes, default=0)
    return sum(weight_nbytes) * (2 if is_half else 1) + max(comparing, measuring)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonSettings:
    """How two networks are compared."""

    batch_size: int
    """Samples that go through both networks together, unless they have more than 256 MiB of activations."""
    n_samples: int | None = None
    """Use only the first N samples; default: all of them."""
    sketch_spec: SketchSpec | None = None
    """Sketch the normalised activations as they pass by, for plots; default: do not."""
    tolerance: float = DEFAULT_TOLERANCE
    """Largest residual in proportion to max(1, peak), dimensionless. An activation above 1 + tolerance is saturated."""


class Comparer(Protocol):
    """What sends samples through both networks: a `Comparison` in this process, or the workers of a cluster."""

    def totals(self, progress: Callable[[int], None]) -> ComparisonTotals:
        """Return what is found on all samples; ``progress`` is told how many are done."""
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

    Raises
    ------
    InputError
        If the samples do not fit the network, or there are none.
    MismatchError
        If ``original`` is not the network that was normalised.
    """

    def __init__(
        self, original: Any, normalized: NormalizedModel, source: Source, settings: ComparisonSettings
    ) -> None:
        self.graph = _checked_graph(original, normalized)
        self.n_samples = _checked_count(source, settings.n_samples)
        self.normalized, self.source, self.settings = normalized, source, settings
        self.compared = _compared(self.graph, normalized)
        """The points, followed by the outputs of the network."""
        self._order = [index for index, _ in match_inputs(self.graph, source.inputs)]

    def empty(self) -> ComparisonTotals:
        """Return the totals of no samples."""
        spec, points = self.settings.sketch_spec, self.normalized.points
        sketches = {} if spec is None else {p.name: PointSketch.empty(spec, p.n_channels) for p in points}
        values = tuple(ValueTotals() for _ in self.compared)
        return ComparisonTotals(values=values, decisions=Decisions(self.graph), sketches=sketches)

    def totals(self, progress: Callable[[int], None] | None = None) -> ComparisonTotals:
        """Return what is found on all samples; ``progress`` is told how many are done."""
        return self.compare(0, self.n_samples, progress=progress)

    def compare(
        self, start: int, stop: int, *, progress: Callable[[int], None] | None = None
    ) -> ComparisonTotals:
        """Return what is found on the samples start..stop-1; ``start`` is a multiple of the batch size."""
        found = self.empty()
        axes = {point.name: point.channel_axis for point in self.normalized.points}
        for first, last in self._steps(start, stop):
            batch = self.source.read(first, last)
            inputs = [batch.inputs[i] for i in self._order]
            with refusals_explained(first, last, self.graph):
                if first == 0:
                    check_model(self.graph, inputs)
                numbers, handed, outputs, new_outputs = self._compare_batch(inputs)
            for totals, (*of_one, n_values) in zip(found.values, numbers, strict=True):
                totals.add(of_one, n_values=int(n_values), start=first)
            for (name, sketch), tensor in zip(found.sketches.items(), handed, strict=True):
                sketch.update(np.asarray(tensor), channel_axis=axes[name], point=name)
            found.decisions.add(outputs, new_outputs, batch.labels)
            found.n_samples += len(batch)
            if progress is not None:
                progress(found.n_samples)
        return found

    def rounding(self, doubts: Mapping[int, Doubt]) -> dict[int, Measured]:
        """Measure the rounding error of the original itself; see :func:`~.rounding.measure_doubts`."""
        if not doubts:
            return {}

        def read(start: int) -> list[NDArray[Any]]:
            _, stop = next(self._steps(start, self.n_samples))
            batch = self.source.read(start, stop)
            return [batch.inputs[i] for i in self._order]

        return measure_doubts(self.normalized, self.compared, doubts, read)

    def _steps(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the samples that go through the networks together: batches, or equal parts of large ones."""
        batch_size = self.settings.batch_size
        most = max(1, COMPARED_NBYTES // (2 * 4 * self._compare_batch.sample_values))
        size = -(-batch_size // -(-batch_size // most))
        while start < stop:
            batch_ends = start - start % batch_size + batch_size
            last = min(start + size, batch_ends, stop)
            yield start, last
            start = last

    @cached_property
    def _compare_batch(self) -> BatchComparison:
        """Both networks in one function, traced when the first batch comes."""
        with refusals_explained(graph=self.graph):
            return BatchComparison(
                self.graph,
                self.normalized,
                self.compared,
                shapes=[self.source.inputs[i].shape for i in self._order],
                margin=self.settings.tolerance,
                hand_out=self.settings.sketch_spec is not None,
                n_points=len(self.normalized.points),
            )


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
