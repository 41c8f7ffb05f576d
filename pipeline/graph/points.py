"""Points: the places of a graph where activations are recorded.

Decides which tensor stands for a layer and which layers are meant by a pattern.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Container, Iterable, Sequence

from ...storage.errors import InputError
from .graph import Graph
from .kinds import (
    ATTENTION_LAYERS,
    BOUNDED,
    HOMOGENEOUS,
    RECURRENT_LAYERS,
    TYING_MERGES,
    activation_of,
    is_activation,
    is_identity,
    is_linear,
)
from .nodes import Node, Point

__all__ = [
    "N_NEAR_NAMES",
    "WORDS",
    "every_point",
    "layer_names",
    "matching",
    "named",
    "select_points",
    "unmatched",
    "used_outputs",
]

WORDS = ("neurons", "parameters", "merges", "inputs", "all")

MERGE_TYPES = TYING_MERGES | {"Multiply", "Dot", "Concatenate", "ops.Multiply", "ops.Concatenate"}
# Layers whose output is bounded or curved by a function within, not only by `activation`.
PINNED_TYPES = RECURRENT_LAYERS | ATTENTION_LAYERS
N_NEAR_NAMES = 5


def select_points(graph: Graph, which: str | Iterable[str] = "parameters") -> tuple[Point, ...]:
    """Return the points to record, in topological order.

    Parameters
    ----------
    graph : Graph
    which : str or iterable of str, default="parameters"
        ``"parameters"``: every layer with parameters, except a BatchNormalization that is folded into
        its producer. ``"merges"``: every layer that joins branches (Add, Concatenate...).
        ``"neurons"``: the layers with parameters, and the merges whose values a spiking neuron or a
        quantiser takes: sums and comparisons, and products or joins behind which an activation
        function stands.
        ``"inputs"``: the inputs. ``"all"``: every node except the inputs. Anything else is a
        pattern in the manner of a shell (``"conv*"``, ``"block[12]_*"``), matched against point
        names. Several may be given.

    Raises
    ------
    InputError
        For a pattern that matches nothing, with the nearest names; for a model without parameters.

    Notes
    -----
    The tensor of a point starts as the output of its layer (of several the first that is used) and follows the values
    downstream while exactly one consumer takes them: a BatchNormalization that is folded, dropout and other
    inference-time identities, and then at most one separate activation layer. Points that
    end at the same tensor are one point, named after the first layer.
    """
    chosen: set[str] = set()
    for pattern in [which] if isinstance(which, str) else which:
        found = matching(graph, pattern)
        if not found:
            raise unmatched(pattern, layer_names(graph))
        chosen.update(found)
    return named(graph, chosen)


def matching(graph: Graph, pattern: str) -> list[str]:
    """Return the names of the points that one word or pattern means; see `select_points`."""
    return _found(graph, list(graph.every_point.values()), pattern)


def named(graph: Graph, names: Container[str]) -> tuple[Point, ...]:
    """Return the points with these names, in topological order, one for each tensor."""
    return _without_twins([point for point in graph.every_point.values() if point.name in names])


def used_outputs(graph: Graph, node: Node) -> tuple[int, ...]:
    """Return which outputs of a node are taken by another one, or given by the network; the first is recorded.

    By their places in the flattened output. A node of which none is used is not part of a graph.
    """
    return tuple(place for place, value in enumerate(node.outputs) if graph.consumers[value]) or (0,)


def every_point(graph: Graph) -> list[Point]:
    """Return each node as a point, in topological order."""
    return [_point_of(graph, node) for node in graph.nodes if node.outputs]


def _found(graph: Graph, candidates: list[Point], pattern: str) -> list[str]:
    if pattern == "neurons":
        chosen = [point for point in candidates if _matches(graph, point, "parameters")]
        # A PReLU behind an Add has parameters: the tensor keeps its name.
        known = {point.value for point in chosen}
        merges = [p for p in candidates if p.value not in known and _is_merge_of_neurons(graph, p)]
        return [point.name for point in [*chosen, *merges]] if chosen else []
    return [point.name for point in candidates if _matches(graph, point, pattern)]


def _is_merge_of_neurons(graph: Graph, point: Point) -> bool:
    """Return whether neurons, or a quantiser, take values from a merge that no layer with parameters has.

    A sum is a new number, whatever takes it. A product is not larger than what it gates, and a Concatenate holds the
    numbers of its parts: there it takes an activation function behind them.
    """
    node = graph.nodes[point.node]
    is_number = graph.values[point.value].dtype.startswith(("float", "bfloat"))
    if not (is_number and _matches(graph, point, "merges")):
        return False
    return node.type in TYING_MERGES or point.activation != "linear"


def _matches(graph: Graph, point: Point, pattern: str) -> bool:
    node = graph.nodes[point.node]
    if pattern == "inputs":
        return node.type == "InputLayer"
    if pattern == "all":
        return node.type not in {"InputLayer", "Cast"}
    if pattern == "merges":
        return node.type in MERGE_TYPES and len(node.inputs) > 1
    if pattern == "parameters":
        return node.n_params > 0 and node.index not in graph.folded and not _belongs_upstream(graph, node)
    return fnmatch.fnmatchcase(point.name, pattern) or fnmatch.fnmatchcase(node.layer_name, pattern)


def _belongs_upstream(graph: Graph, node: Node) -> bool:
    """Return whether it is the activation function of a layer before it, as a PReLU with parameters can be."""
    if not is_activation(node.operation):
        return False
    value = node.inputs[0]
    while graph.consumers[value] == (node.index,):
        before = graph.producer(value)
        if before.n_params and not is_activation(before.operation):
            return True
        if not (is_identity(before.operation) or before.index in graph.folded):
            return False
        node, value = before, before.inputs[0]
    return False


def _point_of(graph: Graph, node: Node) -> Point:
    value, last, n_params = _recorded_value(graph, node)
    activation = activation_of(last.operation) if last.operation is not None else "linear"
    free = activation in HOMOGENEOUS | BOUNDED or activation.startswith("custom:")
    recorded = graph.values[value]
    return Point(
        name=node.name,
        layer_name=node.layer_name,
        layer_type=node.type,
        activation=activation,
        value=value,
        node=node.index,
        shape=recorded.shape,
        channel_axis=recorded.channel_axis,
        pinned=not free or node.type in PINNED_TYPES,
        n_params=n_params,
    )


def _recorded_value(graph: Graph, node: Node) -> tuple[int, Node, int]:
    """Follow the output of ``node`` to the tensor that stands for it.

    Returns
    -------
    value : int
    last : Node
        The node whose activation function is the last one before it.
    n_params : int
    """
    best, last, n_params = node.outputs[used_outputs(graph, node)[0]], node, node.n_params
    value = best
    if is_activation(node.operation) or (
        activation_of(node.operation) != "linear" if node.operation is not None else False
    ):
        return best, last, n_params
    while len(graph.consumers[value]) == 1 and graph.consumers[value][0] >= 0:
        following = graph.nodes[graph.consumers[value][0]]
        if following.index in graph.folded and is_linear(node.operation):
            value = best = following.outputs[0]
            n_params += following.n_params
        elif is_activation(following.operation):
            return following.outputs[0], following, n_params + following.n_params
        elif is_identity(following.operation):
            value = following.outputs[0]
        else:
            break
    return best, last, n_params


def _without_twins(points: list[Point]) -> tuple[Point, ...]:
    """Keep one point for each tensor, the first; a folded BatchNormalization is one with its producer."""
    seen: set[int] = set()
    kept = []
    for point in points:
        if point.value not in seen:
            seen.add(point.value)
            kept.append(point)
    return tuple(kept)


def layer_names(graph: Graph) -> list[str]:
    """Return the names that may be offered for points: those of layers, not of inputs."""
    return [point.name for point in graph.every_point.values() if point.layer_type != "InputLayer"]


def unmatched(pattern: str, names: Sequence[str]) -> InputError:
    """Return the error for a word or a pattern that means none of the points with these names."""
    if pattern in {"parameters", "neurons"}:
        return InputError("the model has no layer with parameters: there is nothing to normalise")
    if pattern in WORDS:
        return InputError(
            f"points={pattern!r} matches nothing in this model: it has {list(names[:N_NEAR_NAMES])}"
        )
    near = difflib.get_close_matches(pattern, names, n=N_NEAR_NAMES, cutoff=0.4) or list(names[:N_NEAR_NAMES])
    return InputError(
        f"no layer of the model matches {pattern!r}: near names are {', '.join(near)}; patterns such as "
        "'conv*' and the words neurons, parameters, leaves, merges, inputs, all are allowed",
        pattern=pattern,
        near=near,
    )
