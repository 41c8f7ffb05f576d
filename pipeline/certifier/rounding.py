"""How large the rounding error of the original network itself is, measured against float64.

Asked only where a residual is over the tolerance, and on few samples. Of a network that is itself coarser than float32
nearly every residual is: there both networks are compared in float64 as well.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from ..graph import Graph, Node, refusals_explained, values_in_turn
from ..graph.kinds import is_batch_norm, is_linear
from ..normalizer.normalizing import NormalizedModel
from ..normalizer.updating import largest_gain, output_norms
from .batch_comparison import ComparedValue
from .doubts import Doubt, Measured, next_start

__all__ = ["measure_doubts"]

logger = logging.getLogger(__name__)

EPSILONS: Final = {"float64": 2.0**-52, "float16": 2.0**-10, "bfloat16": 2.0**-7}
EPSILON: Final = 2.0**-23
"""Of float32, and of what computes in no float."""
TF32_EPSILON: Final = 2.0**-10
MOST_EPSILONS: Final = 128.0
"""Largest error, in epsilons of the largest number on the way, that is believed to be rounding: sums of n numbers that
cancel err by about sqrt(n), layers behind each other add up."""
MOST_BATCHES: Final = 8
"""Rounding errors of one network are alike: what this many batches do not excuse, no other one will."""


def measure_doubts(
    normalized: NormalizedModel,
    compared: Sequence[ComparedValue],
    doubts: Mapping[int, Doubt],
    read: Callable[[int], list[NDArray[Any]]],
) -> dict[int, Measured]:
    """Return the largest difference between values of the original and of the same network in float64.

    Parameters
    ----------
    normalized : NormalizedModel
        Its ``graph`` is the original.
    compared : sequence of ComparedValue
    doubts : mapping of index in ``compared`` to Doubt
    read : callable
        From the first sample of a batch to the inputs of the network.

    Returns
    -------
    dict of index to Measured
        A rounding error is at most 128 epsilons of the largest number on the way to the value. Nothing where the
        network cannot run in float64.

    Notes
    -----
    The batch on which most doubtful values have their largest residual is measured first, and serves all; others
    follow, at most 8, while a residual is not excused. The network computes in float64 with its own layers and
    weights: nothing is built anew, so that a layer which cannot be built anew has no excuse.
    """
    chosen = {index: compared[index] for index in doubts}
    found: dict[int, Measured] = {}
    done: frozenset[int] = frozenset()
    while len(done) < MOST_BATCHES and (start := next_start(doubts, found, done)) is not None:
        try:
            with refusals_explained(graph=normalized.graph):
                batch = _measured(normalized, chosen, read(start))
        except InputError as error:
            # No kernel for float64 here, or code of the user's own that knows float32 only.
            logger.warning("the rounding error of the network cannot be measured: %s", error)
            return {}
        found = {index: found[index].joined(one) if index in found else one for index, one in batch.items()}
        done |= {start}
    logger.info(
        "measured the rounding error of the original at %d points on %d batches", len(found), len(done)
    )
    return found


def _measured(
    normalized: NormalizedModel, chosen: Mapping[int, ComparedValue], inputs: Sequence[NDArray[Any]]
) -> dict[int, Measured]:
    """Measure one batch: the networks go through their layers side by side, and activations are let go on the way."""
    graph = normalized.graph
    by_value: dict[int, list[int]] = {}
    for index, each in chosen.items():
        by_value.setdefault(each.value, []).append(index)
    numeric = [value.index for value in graph.values if "float" in value.dtype]
    own = values_in_turn(graph, inputs, sorted({*numeric, *by_value}))
    fineness = _fineness(graph)
    rewritten = None if fineness is None else _Rewritten(normalized, chosen, inputs)
    peaks: dict[int, float] = {}
    errors: dict[int, NDArray[np.float64]] = {}
    residuals: dict[int, tuple[float, ...]] = {}
    for value, exact in values_in_turn(graph, inputs, list(by_value), dtype="float64"):
        for place, tensor in own:
            if place in numeric:
                peaks[place] = float(_largest(tensor))
            if place == value:
                break
        for index in by_value[value]:
            errors[index] = _apart(tensor, exact, chosen[index])
            if rewritten is not None:
                each = chosen[index]
                scaled = rewritten.at(each.place) * each.scales[np.newaxis]
                residuals[index] = tuple(_apart(scaled, exact, each) / each.factors)
    limits = _believable_errors(graph, peaks)
    return {
        index: Measured(
            _of_channels(
                np.minimum(error, limits[chosen[index].value]) / chosen[index].factors,
                chosen[index],
                normalized,
            ),
            residuals.get(index),
            fineness or 1.0,
        )
        for index, error in errors.items()
    }


def _of_channels(
    errors: NDArray[np.float64], each: ComparedValue, normalized: NormalizedModel
) -> tuple[float, ...]:
    """Return the rounding errors of channels: as large as in any other channel, in proportion to their weights.

    A channel that is nearly always zero has too few rounding errors of its own to show how large they get.
    """
    norms = None
    if errors.size > 1 and each.node is not None:
        norms = output_norms(normalized.normalized_graph.nodes[each.node])
    if norms is not None and norms.shape == errors.shape:
        shares = errors[norms > 0] / norms[norms > 0]
        errors = np.maximum(errors, norms * shares.max(initial=0.0))
    return tuple(errors.tolist())


class _Rewritten:
    """The normalised network in float64, asked for its values in about the order of the original."""

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
        """Return the value at ``place``, which is let go when it is wanted no more."""
        while place not in self._waiting:
            found, tensor = next(self._values)
            self._waiting[found] = tensor
        self._uses[place] -= 1
        return self._waiting[place] if self._uses[place] else self._waiting.pop(place)


def _largest(tensor: Any, axes: Sequence[int] | None = None) -> Any:
    import tensorflow as tf

    # Without an array of magnitudes beside the value.
    return tf.maximum(tf.reduce_max(tensor, axis=axes), -tf.reduce_min(tensor, axis=axes))


def _apart(one: Any, other: Any, each: ComparedValue) -> NDArray[np.float64]:
    """Return the largest difference of each channel, or of all of them where they have one scale."""
    import tensorflow as tf

    difference = tf.cast(one, tf.float64) - tf.cast(other, tf.float64)
    found: NDArray[np.float64] = np.asarray(
        _largest(difference, None if each.is_one_scale else each.other_axes)
    )
    return found.reshape(-1)


def _believable_errors(graph: Graph, peaks: Mapping[int, float]) -> dict[int, float]:
    """Return for every value the largest error that can be called rounding, in its units.

    Parameters
    ----------
    graph : Graph
    peaks : mapping of value to float
        Largest magnitude of each value on a batch.

    Notes
    -----
    128 epsilons, of the coarsest dtype on the way, of the largest number on the way: an activation, or an
    activation times the largest weight that meets it, because what cancels inside a layer never
    shows outside.
    """
    largest: dict[int, float] = {}
    epsilons: dict[int, float] = {}
    for node in graph.nodes:
        gain = largest_gain(node) if is_linear(node.operation) or is_batch_norm(node.operation) else 1.0
        inside = [max(largest[value], peaks.get(value, 0.0) * gain) for value in node.inputs]
        for value in node.outputs:
            largest[value] = max([peaks.get(value, 0.0), *inside])
            coarse = [_epsilon(node, graph.values[value].dtype), *(epsilons[v] for v in node.inputs)]
            epsilons[value] = max(coarse)
    return {value: MOST_EPSILONS * epsilons[value] * largest[value] for value in largest}


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
    """Tell whether float32 is multiplied with the 10 bits of TensorFloat-32, as on newer GPUs."""
    import tensorflow as tf

    return bool(
        tf.config.experimental.tensor_float_32_execution_enabled() and tf.config.list_physical_devices("GPU")
    )
