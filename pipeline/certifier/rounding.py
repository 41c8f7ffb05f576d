"""How large the rounding error of the original network itself is, measured against float64.

Only for residuals over the tolerance, and on few samples. In a network coarser than float32 (half precision, or
TensorFloat-32) nearly every residual is over it, and where rounding grows through many layers much is excused: there
both networks are compared in float64 as well.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from ..graph import Graph, Node, refusals_explained, values_in_turn
from ..graph.kinds import is_batch_norm, is_linear
from ..graph.steps import steps_to
from ..normalizer.normalizing import NormalizedModel
from ..normalizer.updating import largest_gain, output_norms
from .doubts import Doubt, Measured, next_start
from .growth import grown
from .value_comparison import ComparedValue

__all__ = ["measure_doubts"]

logger = logging.getLogger(__name__)

EPSILONS: Final = {"float64": 2.0**-52, "float16": 2.0**-10, "bfloat16": 2.0**-7}
EPSILON: Final = 2.0**-23
"""The epsilon of float32, and of everything that is not a float."""
TF32_EPSILON: Final = 2.0**-10
MOST_EPSILONS: Final = 128.0
"""Largest error that is accepted as rounding, in epsilons of the largest number on the way: sums of n numbers that
cancel are off by about sqrt(n). What a layer makes of the errors of its inputs comes on top."""
MOST_BATCHES: Final = 8
"""Rounding errors of one network are alike: what this many batches do not excuse, no other batch will."""


def measure_doubts(
    normalized: NormalizedModel,
    compared: Sequence[ComparedValue],
    doubts: Mapping[int, Doubt],
    read: Callable[[int], list[NDArray[Any]]],
) -> dict[int, Measured]:
    """Return the largest difference between values of the original and the same values in float64.

    Parameters
    ----------
    normalized : NormalizedModel
        Its ``graph`` is that of the original.
    compared : sequence of ComparedValue
    doubts : mapping of index in ``compared`` to Doubt
    read : callable
        ``read(start)`` returns the inputs of the network for the batch that begins with the sample ``start``.

    Returns
    -------
    dict of index to Measured
        A rounding error is at most 128 epsilons of the largest number on the way to the value, and what the layer can
        make of the measured errors of its inputs. Empty if the network cannot run in float64.

    Notes
    -----
    The batch on which most doubtful values have their largest residual is measured first, for all of them; others
    follow, 8 at most, while a residual is not excused. The network computes in float64 with its own layers and
    weights: no layer is rebuilt, so every layer can be measured.

    Where more was measured than 128 epsilons, and less would not do, it may have grown from layer to layer: then the
    errors of all layers on the way are measured, and both networks are compared in float64.
    """
    found = _on_batches(normalized, compared, doubts, read, grows=False)
    left = {
        index: doubts[index]
        for index, one in found.items()
        if one.is_cut and np.any(np.asarray(one.rounding) < doubts[index].needed)
    }
    if left and _fineness(normalized.graph) is None:
        found |= _on_batches(normalized, compared, left, read, grows=True)
    return found


def _on_batches(
    normalized: NormalizedModel,
    compared: Sequence[ComparedValue],
    doubts: Mapping[int, Doubt],
    read: Callable[[int], list[NDArray[Any]]],
    *,
    grows: bool,
) -> dict[int, Measured]:
    chosen = {index: compared[index] for index in doubts}
    found: dict[int, Measured] = {}
    done: frozenset[int] = frozenset()
    while len(done) < MOST_BATCHES and (start := next_start(doubts, found, done)) is not None:
        try:
            with refusals_explained(graph=normalized.graph):
                batch = _measured(normalized, chosen, read(start), grows=grows)
        except InputError as error:
            # TensorFlow has no float64 kernel here, or the user's own code works in float32 only.
            logger.warning("the rounding error of the network cannot be measured: %s", error)
            return {}
        found = {index: found[index].joined(one) if index in found else one for index, one in batch.items()}
        done |= {start}
    logger.info(
        "measured the rounding error of the original at %d points on %d batches", len(found), len(done)
    )
    return found


def _measured(
    normalized: NormalizedModel,
    chosen: Mapping[int, ComparedValue],
    inputs: Sequence[NDArray[Any]],
    *,
    grows: bool,
) -> dict[int, Measured]:
    """Measure one batch: both networks compute layer by layer, side by side, and drop activations on the way."""
    graph = normalized.graph
    by_value: dict[int, list[int]] = {}
    for index, each in chosen.items():
        by_value.setdefault(each.value, []).append(index)
    way = _way(graph, list(by_value))
    own = values_in_turn(graph, inputs, way)
    fineness = _fineness(graph)
    rewritten = None if fineness is None and not grows else _Rewritten(normalized, chosen, inputs)
    peaks: dict[int, float] = {}
    found: dict[int, float] = {}
    errors: dict[int, NDArray[np.float64]] = {}
    residuals: dict[int, tuple[float, ...]] = {}
    for value, exact in values_in_turn(graph, inputs, way if grows else list(by_value), dtype="float64"):
        for place, tensor in own:
            if "float" in graph.values[place].dtype:
                peaks[place] = float(_largest(tensor))
            if place == value:
                break
        if grows and value in peaks:
            found[value] = float(_largest(_difference(tensor, exact)))
        for index in by_value.get(value, ()):
            each = chosen[index]
            errors[index] = _apart(tensor, exact, each)
            if rewritten is not None:
                scaled = rewritten.at(each.place) * each.scales[np.newaxis]
                residuals[index] = tuple(_apart(scaled, exact, each) / each.factors)
    limits = _believable_errors(graph, peaks, found)
    least = _least_errors(graph, peaks)
    return {
        index: Measured(
            _of_channels(
                np.minimum(error, limits[chosen[index].value]) / chosen[index].factors,
                chosen[index],
                normalized,
            ),
            residuals.get(index),
            fineness or 1.0,
            is_cut=bool(np.any(error > limits[chosen[index].value])),
            least=_least_of_channels(least[chosen[index].value], chosen[index], normalized),
        )
        for index, error in errors.items()
    }


def _way(graph: Graph, wanted: Sequence[int]) -> list[int]:
    """Return the floats that some values are computed from, and these values, in order."""
    made = {value for node, _ in steps_to(graph, wanted) for value in node.outputs} | set(graph.inputs)
    return sorted({value for value in made if "float" in graph.values[value].dtype} | set(wanted))


def _of_channels(
    errors: NDArray[np.float64], each: ComparedValue, normalized: NormalizedModel
) -> tuple[float, ...]:
    """Return the rounding errors of channels; in proportion to its weights, each gets that of the worst channel.

    A channel that is nearly always zero has too few rounding errors to show how large they can get.
    """
    norms = _norms(each, normalized)
    if norms is not None:
        shares = errors[norms > 0] / norms[norms > 0]
        errors = np.maximum(errors, norms * shares.max(initial=0.0))
    return tuple(errors.tolist())


def _least_of_channels(least: float, each: ComparedValue, normalized: NormalizedModel) -> tuple[float, ...]:
    """Return what `_least_errors` gives for channels, in units of the scales and in proportion to the weights."""
    factors, norms = each.factors, _norms(each, normalized)
    if norms is None or not norms.any():
        return tuple((least / factors).tolist())
    # These are the weights of the normalised network, which are divided by the scales.
    return tuple((least * norms / np.max(norms * factors)).tolist())


def _norms(each: ComparedValue, normalized: NormalizedModel) -> NDArray[np.float64] | None:
    """Return the size of the weights that make each channel; None if there are none, or the channels have one scale."""
    if each.node is None or each.factors.size == 1:
        return None
    norms = output_norms(normalized.normalized_graph.nodes[each.node])
    return norms if norms is not None and norms.shape == each.factors.shape else None


class _Rewritten:
    """The values of the normalised network in float64, taken in about the order of the original."""

    def __init__(
        self, normalized: NormalizedModel, chosen: Mapping[int, ComparedValue], inputs: Sequence[NDArray[Any]]
    ) -> None:
        self._uses = Counter(each.place for each in chosen.values())
        exact = [np.asarray(x, np.float64) if x.dtype.kind == "f" else x for x in inputs]
        scaled = normalized.scaled_inputs(exact)
        self._values: Iterator[tuple[int, Any]] = values_in_turn(
            normalized.normalized_graph, scaled, list(self._uses), dtype="float64"
        )
        self._waiting: dict[int, Any] = {}

    def at(self, place: int) -> Any:
        """Return the value at ``place``, and drop it after its last use."""
        while place not in self._waiting:
            found, tensor = next(self._values)
            self._waiting[found] = tensor
        self._uses[place] -= 1
        return self._waiting[place] if self._uses[place] else self._waiting.pop(place)


def _largest(tensor: Any, axes: Sequence[int] | None = None) -> Any:
    import tensorflow as tf

    # This needs no array of magnitudes.
    return tf.maximum(tf.reduce_max(tensor, axis=axes), -tf.reduce_min(tensor, axis=axes))


def _apart(one: Any, other: Any, each: ComparedValue) -> NDArray[np.float64]:
    """Return the largest difference of each channel, or of all channels if they have one scale."""
    found: NDArray[np.float64] = np.asarray(
        _largest(_difference(one, other), None if each.is_one_scale else each.other_axes)
    )
    return found.reshape(-1)


def _difference(one: Any, other: Any) -> Any:
    import tensorflow as tf

    return tf.cast(one, tf.float64) - tf.cast(other, tf.float64)


def _believable_errors(
    graph: Graph, peaks: Mapping[int, float], found: Mapping[int, float]
) -> dict[int, float]:
    """Return for every value the largest error that can be rounding, in its units.

    Parameters
    ----------
    graph : Graph
    peaks : mapping of value to float
        Largest magnitude of each value in a batch.
    found : mapping of value to float
        Largest measured error of each value; empty if no error is taken to have grown.

    Notes
    -----
    128 times the epsilon of the coarsest dtype on the way, times the largest number on the way: an activation, or an
    activation times the largest weight it is multiplied with, because what cancels inside a layer is not seen outside.

    The layer also has the errors of its inputs, as far as these are believable, and enlarges them: rounding grows from
    layer to layer, 50 times from one end of ResNet50 to the other. As the errors of the inputs are measured, a bound
    for one layer is enough, and bounds of successive layers do not multiply.
    """
    largest: dict[int, float] = {}
    epsilons: dict[int, float] = {}
    limits: dict[int, float] = {}
    for node in graph.nodes:
        gain = largest_gain(node) if is_linear(node.operation) or is_batch_norm(node.operation) else 1.0
        inside = [max(largest[value], peaks.get(value, 0.0) * gain) for value in node.inputs]
        # What is not finite is no error that grew: it excuses nothing further on.
        errors = [min(found.get(value, 0.0), limits[value]) for value in node.inputs]
        growth = grown(node, errors, peaks) if all(map(math.isfinite, errors)) else 0.0
        for value in node.outputs:
            largest[value] = max([peaks.get(value, 0.0), *inside])
            coarse = [_epsilon(node, graph.values[value].dtype), *(epsilons[v] for v in node.inputs)]
            epsilons[value] = max(coarse)
            limits[value] = MOST_EPSILONS * epsilons[value] * largest[value] + growth
    return limits


def _least_errors(graph: Graph, peaks: Mapping[int, float]) -> dict[int, float]:
    """Return for every value an error that rounding may well have, in its units, whatever was measured.

    A measured error may be small by luck: that of a single number, or of values that a ReLU made zero. Half an epsilon
    of what is summed is no luck; an error of the inputs is multiplied by one weight at least.
    """
    least: dict[int, float] = {}
    for node in graph.nodes:
        is_weighted = is_linear(node.operation) or is_batch_norm(node.operation)
        before = [least.get(value, 0.0) for value in node.inputs]
        summed = grown(node, [peaks.get(value, 0.0) for value in node.inputs], peaks)
        carried = largest_gain(node) * max(before) if is_weighted else grown(node, before, peaks)
        for value in node.outputs:
            half = _epsilon(node, graph.values[value].dtype) / 2
            least[value] = max(half * peaks.get(value, 0.0), half * summed, carried)
    return least


def _fineness(graph: Graph) -> float | None:
    """Return `Measured.fineness` of a network that is coarser than float32, None for any other."""
    computed = max(
        _epsilon(node, graph.values[value].dtype) for node in graph.nodes for value in node.outputs
    )
    if computed <= EPSILON:
        return None
    kept = {str(weight.dtype) for node in graph.nodes for weight in getattr(node.operation, "weights", ())}
    return max((EPSILONS.get(dtype, EPSILON) for dtype in kept), default=EPSILON) / computed


def _epsilon(node: Node, dtype: str) -> float:
    computed = [dtype, str(getattr(node.operation, "compute_dtype", dtype))]
    found = max(EPSILONS.get(each, EPSILON) for each in computed)
    return max(found, TF32_EPSILON) if found == EPSILON and _has_tf32() else found


def _has_tf32() -> bool:
    """Tell whether float32 is multiplied in TensorFloat-32, with 10 bits, as on newer GPUs."""
    import tensorflow as tf

    return bool(
        tf.config.experimental.tensor_float_32_execution_enabled() and tf.config.list_physical_devices("GPU")
    )
