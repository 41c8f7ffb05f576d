"""Normalise a network: the two calls, one that makes a new network and one that changes weights in place."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...storage.errors import InputError
from ..graph import Graph, Node, Point, read_graph, select_points
from ..graph.kinds import held_layer
from .propagation import Exceptions, Mode, Pinned
from .rebuilding import RebuiltNetwork, rebuild, taken_over
from .solving import Factor, Solution, propagate, solve
from .updating import layer_update

__all__ = ["NormalizedModel", "Rewriting", "normalize_in_place", "normalize_model"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Rewriting:
    """How a network is to be rewritten: the arguments of `normalize_model`, in a form that can be sent to workers."""

    factors: Mapping[str, ArrayLike]
    input_factor: Factor | Mapping[str, Factor] = 1.0
    mode: Mode = "layer"
    pin: tuple[str, ...] = ()
    treat_as_identity: tuple[str, ...] = ()

    def rewrite(self, model: Any) -> NormalizedModel:
        """Return what `normalize_model` does, with its errors."""
        return normalize_model(
            model,
            self.factors,
            input_factor=self.input_factor,
            mode=self.mode,
            pin=self.pin,
            treat_as_identity=self.treat_as_identity,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class NormalizedModel:
    """A normalised network and what is needed to compare it with the original."""

    model: Any
    """The normalised keras.Model: plain layers, saves and loads without this package."""
    graph: Graph
    """Of the original network: points and values refer to it."""
    normalized_graph: Graph
    places: Mapping[int, int]
    """Value of ``graph`` -> value of ``normalized_graph``."""
    value_scales: Mapping[int, NDArray[np.float64]]
    """Value of ``graph`` -> its scales, an array that broadcasts to the value."""
    nodes: Mapping[int, int]
    """Node of ``graph`` -> the node of ``normalized_graph`` that has its weights."""
    points: tuple[Point, ...]
    """The points whose factors were given, in topological order."""
    scales: Mapping[str, Factor]
    """Scale in use for each point: a number, or one for each channel."""
    input_scales: Mapping[str, Factor]
    """What the inputs must be divided by before they are fed to ``model``."""
    pinned: tuple[Pinned, ...]
    """Layers whose inputs keep scale 1, and why."""
    pinned_points: frozenset[str]
    """Points whose scale is 1 whatever factor was given."""
    groups: tuple[tuple[str, ...], ...]
    """Points that share a scale."""
    mode: Mode

    def node_of(self, point: Point) -> Node:
        """Return the node of the normalised network that has the weights of ``point``."""
        return self.normalized_graph.nodes[self.nodes[point.node]]

    def scaled_inputs(self, inputs: Sequence[Any]) -> list[Any]:
        """Return one batch, tensors in the order of ``graph.inputs``, as ``model`` takes it."""
        scales = [self.value_scales[value] for value in self.graph.inputs]
        return [_divided(x, each) for x, each in zip(inputs, scales, strict=True)]


def normalize_model(
    model: Any,
    factors: Mapping[str, ArrayLike],
    *,
    input_factor: Factor | Mapping[str, Factor] = 1.0,
    mode: Mode = "layer",
    pin: Iterable[str] = (),
    treat_as_identity: Iterable[str] = (),
    dead: Mapping[str, ArrayLike] | None = None,
    keep_structure: bool = False,
) -> NormalizedModel:
    """Return a network of the same function in which every point is divided by its factor.

    Parameters
    ----------
    model : keras.Model
        Functional or built Sequential; it is not changed.
    factors : mapping of point name to number, or array of shape (n_channels,)
        In the units of the activation. One for each of ``select_points(read_graph(model))`` that is not pinned.
    input_factor : number, array of shape (n_channels,) or mapping of input name to one, default=1
        What the inputs will be divided by when they are fed to the normalised network.
    mode : {"layer", "channel"}, default="layer"
        One scale for each layer, or one for each channel where the graph allows it.
    pin : iterable of str
        Patterns of layers (names or classes) at which all scales are 1.
    treat_as_identity : iterable of str
        Patterns of layers without a rule for which f(a x) = a f(x) holds for every a > 0.
    dead : mapping of point name to bool or to array of shape (n_channels,), optional
        Channels that never activate: they claim no scale.
    keep_structure : bool, default=False
        Change nothing but weights, as `normalize_in_place` does: nothing is folded, and bounded activations are
        pinned. For a certificate of what that call will do.

    Raises
    ------
    InputError
        For unusable factors, or a layer without a rule (its name, its place and what can be done).
    MismatchError
        For factors of another network.

    Notes
    -----
    Points whose tensors are added, subtracted, averaged or compared share the largest factor of
    their group. The output of the network has one scale for all its channels, so the largest
    stays the largest.

    References
    ----------
    .. [1] Diehl et al., "Fast-Classifying, High-Accuracy Spiking Deep Networks Through Weight and
       Threshold Balancing", IJCNN 2015.
    .. [2] Rueckauer et al., Front. Neurosci. 11:682 (2017).
    .. [3] Kim et al., "Spiking-YOLO", AAAI 2020 (one factor for each channel).
    """
    graph = read_graph(model)
    exceptions = Exceptions(tuple(pin), tuple(treat_as_identity))
    walk = propagate(
        graph, mode=mode, input_factor=input_factor, exceptions=exceptions, keep_structure=keep_structure
    )
    solution = solve(walk, factors, dead=dead)
    return _described(solution, factors, rebuild(solution, like=model))


def normalize_in_place(
    model: Any,
    factors: Mapping[str, ArrayLike],
    *,
    input_factor: Factor | Mapping[str, Factor] = 1.0,
    mode: Mode = "layer",
    pin: Iterable[str] = (),
    treat_as_identity: Iterable[str] = (),
    dead: Mapping[str, ArrayLike] | None = None,
) -> Mapping[str, Factor]:
    """Change the weights of ``model`` so that every point is divided by its factor: all of them or none.

    Nothing but weights changes, so nothing is folded: a BatchNormalization keeps its place with a new
    mean and shift, and a bounded activation (ReLU6) is pinned to scale 1. Arguments and errors as in
    `normalize_model`.

    Returns
    -------
    mapping of point name to number or array
        The scales in use.

    Notes
    -----
    All new weights are computed before the first is written; if writing one fails, those already
    written are put back. Certify `normalize_model` with ``keep_structure`` first: afterwards there is no
    original left to compare with.
    """
    graph = read_graph(model)
    exceptions = Exceptions(tuple(pin), tuple(treat_as_identity))
    walk = propagate(graph, mode=mode, input_factor=input_factor, exceptions=exceptions, keep_structure=True)
    solution = solve(walk, factors, dead=dead)
    changes: list[tuple[Any, NDArray[np.generic]]] = []
    for node in graph.first_calls:
        layer, update = held_layer(node.operation), layer_update(solution, node)
        changes.extend((getattr(layer, name), array) for name, array in update.arrays.items())
    broken = [variable.path for variable, array in changes if not np.all(np.isfinite(array))]
    if broken:
        raise InputError(
            f"the new weights of {broken[0]!r} are not finite: a factor is too small or too large "
            "for its weights; nothing was changed",
            variable=broken[0],
        )
    _assign_all(changes)
    logger.info("changed %d arrays of weights of %s in place", len(changes), model.name)
    return {point.name: solution.of_point(point) for point in _given_points(solution, factors)}


def _assign_all(changes: list[tuple[Any, NDArray[np.generic]]]) -> None:
    """Write all arrays into their variables, or put back what was there."""
    import tensorflow as tf

    written: list[tuple[Any, Any]] = []
    try:
        for variable, array in changes:
            # A tensor, unlike the variable, is immutable: this holds the old weights without a copy.
            written.append((variable, tf.convert_to_tensor(variable.value)))
            variable.assign(taken_over(array, variable.dtype))
    except BaseException:
        for variable, old in written:
            variable.assign(old)
        raise


def _given_points(solution: Solution, factors: Mapping[str, ArrayLike]) -> list[Point]:
    graph = solution.walk.graph
    given = [graph.every_point[name] for name in factors]
    known = {point.value for point in given}
    points = [*given, *(point for point in select_points(graph, "parameters") if point.value not in known)]
    return sorted(points, key=lambda point: point.node)


def _described(
    solution: Solution, factors: Mapping[str, ArrayLike], network: RebuiltNetwork
) -> NormalizedModel:
    walk, graph, model = solution.walk, solution.walk.graph, network.model
    normalized_graph = read_graph(model)

    def found(tensors: Mapping[int, Any]) -> dict[int, int]:
        there = normalized_graph.tensors
        return {key: there[id(tensor)] for key, tensor in tensors.items() if id(tensor) in there}

    places = found(network.tensors)
    points = tuple(_given_points(solution, factors))
    inputs = zip(graph.input_specs, graph.inputs, strict=True)
    described = NormalizedModel(
        model=model,
        graph=graph,
        normalized_graph=normalized_graph,
        places=places,
        nodes={node: normalized_graph.values[v].node for node, v in found(network.first_tensors).items()},
        value_scales={value: solution.of_value(value) for value in places},
        points=points,
        scales={point.name: solution.of_point(point) for point in points},
        input_scales={spec[0]: _compact(solution.of_value(value)) for spec, value in inputs},
        pinned=tuple(walk.pinned),
        pinned_points=frozenset(p.name for p in points if walk.variables.is_pinned(walk.ids[p.value])),
        groups=solution.groups(points),
        mode=walk.mode,
    )
    logger.info(
        "normalised %s: %d points, %d pinned layers, %d groups of tied points",
        model.name,
        len(points),
        len(described.pinned),
        len(described.groups),
    )
    return described


def _divided(tensor: Any, scales: NDArray[np.float64]) -> Any:
    import tensorflow as tf

    if np.all(scales == 1.0):
        return tensor
    return tensor / tf.constant(scales[np.newaxis], tensor.dtype)


def _compact(scales: NDArray[np.float64]) -> Factor:
    return float(scales.flat[0]) if np.all(scales == scales.flat[0]) else scales.reshape(-1)
