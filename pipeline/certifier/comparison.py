"""Examine a normalised network: stream samples through it and its original, in any number of parts.

Memory holds one batch, or part of a large one, and totals. What comes out are findings, no verdict; a part may be
examined in another process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError, MismatchError
from ..graph import Graph, read_graph, refusals_explained
from ..normalizer.normalizing import NormalizedModel
from ..sketch import PointSketch, SketchSpec
from ..sources import Source
from .batch_comparison import Compared, Comparison
from .decisions import Decisions
from .doubts import Doubt, Measured
from .rounding import measure_doubts
from .totals import Findings, Tally

__all__ = ["Examination", "examination_nbytes"]

COMPARED_NBYTES = 256 * 2**20
"""Activations of both networks that are compared at a time: a batch that has more goes through them in parts.

No setting, because a network may round otherwise in a batch of another size: same samples, same certificate.
"""


def examination_nbytes(
    *,
    weight_nbytes: Sequence[int],
    sample_nbytes: int,
    largest_tensor_nbytes: int,
    batch_size: int,
    is_half: bool = False,
) -> int:
    """Return the memory, in bytes, that normalising and certifying a network takes beside the network itself.

    Parameters
    ----------
    weight_nbytes : sequence of int
        Of each array of weights, in float32.
    sample_nbytes, largest_tensor_nbytes : int
        Bytes of one sample at all points together, and in the network's largest tensor, in float32.
    batch_size : int
    is_half : bool
        Whether the network computes in half precision: then weights and activations are there in both precisions, and
        the normalised network is computed in float64 too.
    """
    most = max(1, COMPARED_NBYTES // (2 * sample_nbytes))
    n_together = -(-batch_size // -(-batch_size // most))
    # Beside its points each network holds input, output and workspace of the layer at work.
    comparing = n_together * 2 * (sample_nbytes + 3 * largest_tensor_nbytes) * (3 if is_half else 2) // 2
    # The same without points, in float32 once and in float64 once or twice; their difference, also cast and scaled;
    # and the weights of the layer at work in float64.
    n_twins = 2 if is_half else 1
    n_tensors = 3 * (1 + 2 * n_twins) + 2 * (1 + n_twins)
    measuring = n_together * n_tensors * largest_tensor_nbytes + 2 * n_twins * max(weight_nbytes, default=0)
    return sum(weight_nbytes) * (2 if is_half else 1) + max(comparing, measuring)


class Examination:
    """Two networks and samples, checked against each other.

    Parameters
    ----------
    original : keras.Model
        The network that was normalised.
    normalized : NormalizedModel
    source : Source
        Samples, with labels if it has any.
    batch_size : int
        Samples that go through both networks together: memory grows with it.
    n_samples : int, optional
        How many, from the first; all by default.
    sketch_spec : SketchSpec, optional
        Sketch the normalised activations as they pass by.
    margin : float
        An activation above 1 + margin is saturated.

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
        *,
        batch_size: int,
        n_samples: int | None,
        sketch_spec: SketchSpec | None,
        margin: float,
    ) -> None:
        self.graph = _checked_graph(original, normalized)
        self.n_samples = _checked_count(source, n_samples)
        self.batch_size = batch_size
        self.normalized = normalized
        self.compared = _compared(self.graph, normalized)
        """The points, and behind them the outputs of the network."""
        self.sketch_spec, self.margin = sketch_spec, margin
        self._source = source
        self._order = input_order(self.graph, source)

    def empty(self) -> Findings:
        """Return the findings of no samples."""
        spec, points = self.sketch_spec, self.normalized.points
        sketches = {} if spec is None else {p.name: PointSketch.empty(spec, p.n_channels) for p in points}
        return Findings(
            tallies=tuple(Tally() for _ in self.compared), decisions=Decisions(self.graph), sketches=sketches
        )

    def examine(self, start: int, stop: int, *, progress: Callable[[int], None] | None = None) -> Findings:
        """Return what is found on the samples start..stop-1; ``start`` is a multiple of the batch size."""
        found = self.empty()
        axes = {point.name: point.channel_axis for point in self.normalized.points}
        for first, last in self._steps(start, stop):
            batch = self._source.read(first, last)
            inputs = [batch.inputs[i] for i in self._order]
            with refusals_explained(first, last, self.graph):
                if first == 0:
                    self.graph.check(inputs)
                numbers, handed, outputs, new_outputs = self._comparison(inputs)
            for tally, (*of_one, n_values) in zip(found.tallies, numbers, strict=True):
                tally.add(of_one, n_values=int(n_values), start=first)
            for (name, sketch), tensor in zip(found.sketches.items(), handed, strict=True):
                sketch.update(np.asarray(tensor), channel_axis=axes[name], point=name)
            found.decisions.add(outputs, new_outputs, batch.labels)
            found.n_samples += len(batch)
            if progress is not None:
                progress(found.n_samples)
        return found

    def rounding(self, doubts: Mapping[int, Doubt]) -> dict[int, Measured]:
        """Measure the rounding error of the original itself against float64.

        Parameters
        ----------
        doubts : mapping
            Index of a compared value -> where its residual is over the tolerance.

        Returns
        -------
        dict
            Index -> what was measured, in units of the factors; without those that cannot be measured.
        """
        if not doubts:
            return {}

        def read(start: int) -> list[NDArray[Any]]:
            _, stop = next(self._steps(start, self.n_samples))
            batch = self._source.read(start, stop)
            return [batch.inputs[i] for i in self._order]

        return measure_doubts(self.normalized, self.compared, doubts, read)

    def _steps(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the samples that go through the networks together: batches, or equal parts of large ones."""
        most = max(1, COMPARED_NBYTES // (2 * 4 * self._comparison.sample_values))
        size = -(-self.batch_size // -(-self.batch_size // most))
        while start < stop:
            batch_ends = start - start % self.batch_size + self.batch_size
            last = min(start + size, batch_ends, stop)
            yield start, last
            start = last

    @cached_property
    def _comparison(self) -> Comparison:
        """Both networks in one function, traced when the first batch comes."""
        with refusals_explained(graph=self.graph):
            return Comparison(
                self.graph,
                self.normalized,
                self.compared,
                shapes=[self._source.inputs[i].shape for i in self._order],
                margin=self.margin,
                hand_out=self.sketch_spec is not None,
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


def input_order(graph: Graph, source: Source) -> list[int]:
    """Return for each input of the network the array of the source that feeds it: by name, else by order.

    Raises
    ------
    InputError
        If their number or a shape differs.
    """
    wanted, given = graph.input_specs, source.inputs
    if len(wanted) != len(given):
        raise InputError(
            f"the network has {len(wanted)} inputs, the data has {len(given)}: give one array for each"
        )
    order = graph.input_order([spec.name for spec in given])
    for (name, shape, _), index in zip(wanted, order, strict=True):
        have = given[index].shape
        if len(have) != len(shape) or any(n not in (None, m) for n, m in zip(shape, have, strict=True)):
            raise InputError(
                f"input {name!r} takes samples of shape {shape}, the data has {have}", input=name
            )
    return order


def _compared(graph: Graph, normalized: NormalizedModel) -> list[Compared]:
    """Return the points, and behind them the outputs of the network."""
    named = [(point.name, point.value, normalized.nodes.get(point.node)) for point in normalized.points]
    named += [(graph.producer(value).name, value, None) for value in graph.outputs]
    return [
        Compared(
            name=name,
            value=value,
            place=normalized.places[value],
            scales=normalized.value_scales[value],
            channel_axis=graph.values[value].channel_axis,
            node=node,
        )
        for name, value, node in named
    ]
