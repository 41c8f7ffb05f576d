"""Choose points: those of the graph by its names, those inside its nodes by the names of layers.

A word or a pattern that means points of the graph means these alone, as it always did: where nothing inside is asked
for, nothing is traced.
"""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from ...storage.errors import InputError
from ..sources import InputSpec
from .graph import Graph
from .inner_calls import InnerCall
from .inner_layers import InnerLayer, inner_layers, is_function, is_leaf
from .inner_points import InnerCalls, traced_calls
from .inputs import match_inputs
from .kinds import type_of
from .nodes import AnyPoint, InnerPoint, Point
from .points import WORDS, layer_names, matching, named, unmatched

__all__ = ["choose_points", "graph_points", "inner_points", "places_of", "points_at"]

logger = logging.getLogger(__name__)

N_NAMED = 5
OF_LAYERS = ("neurons", "parameters")
"""Words that mean the layers with weights: in a network without a graph, its leaves."""


def choose_points(
    graph: Graph, which: str | Iterable[str], inputs: tuple[InputSpec, ...]
) -> tuple[AnyPoint, ...]:
    """Return the points to record, in topological order; those inside a node before the node's own.

    Parameters
    ----------
    graph : Graph
    which : str or iterable of str
        What `select_points` takes, and: ``"leaves"``, every layer with weights of its own and none inside it with
        weights, wherever it is; patterns of paths of layers (``"encoder/block_*/mha/query"``), which are looked for
        inside nodes if no point of the graph matches. In a network without a graph, ``"neurons"`` and
        ``"parameters"`` mean its leaves, and ``"all"`` every call that can be recorded.
    inputs : tuple of InputSpec
        Of the data. The shapes inside a node follow from it.

    Raises
    ------
    InputError
        For a pattern that matches nothing; for a layer that is named and cannot be recorded, with the reason.

    Notes
    -----
    Of leaves that cannot be recorded, as in a loop, the layer around is recorded instead. Of layers that match a
    pattern with ``*`` the others are recorded. Both are logged, and so are layers that are never called.
    """
    choice = _Choice(graph, inputs)
    for pattern in [which] if isinstance(which, str) else which:
        choice.add(pattern)
    return choice.points()


def graph_points(points: Iterable[AnyPoint]) -> tuple[Point, ...]:
    """Return the points of the graph among ``points``."""
    return tuple(point for point in points if isinstance(point, Point))


def inner_points(points: Iterable[AnyPoint]) -> tuple[InnerPoint, ...]:
    """Return the points inside nodes among ``points``."""
    return tuple(point for point in points if isinstance(point, InnerPoint))


def places_of(points: Iterable[AnyPoint]) -> dict[str, int | None]:
    """Return by which names and places `points_at` finds points again: None for those of the graph."""
    return {point.name: point.place if isinstance(point, InnerPoint) else None for point in points}


def points_at(
    graph: Graph, places: Mapping[str, int | None], inputs: tuple[InputSpec, ...]
) -> tuple[AnyPoint, ...]:
    """Return the points at ``places``, in their order: those of the same network in another process.

    By place, because Keras numbers layers that were given no name anew in each process.

    Raises
    ------
    InputError
        If this network has no such point.
    """
    choice = _Choice(graph, inputs)
    found: list[AnyPoint | None] = [
        graph.every_point.get(name) if place is None else choice.at(name, place)
        for name, place in places.items()
    ]
    points = tuple(point for point in found if point is not None)
    if len(points) != len(places):
        missing = [name for name, point in zip(places, found, strict=True) if point is None]
        raise InputError(f"this network has no point {missing[0]!r}: is it another one?", point=missing[0])
    return points


class _Choice:
    """Collects what words and patterns mean."""

    def __init__(self, graph: Graph, inputs: tuple[InputSpec, ...]) -> None:
        self._graph, self._inputs = graph, inputs
        self._names: set[str] = set()
        self._inner: dict[str, InnerPoint] = {}

    @cached_property
    def _layers(self) -> tuple[InnerLayer, ...]:
        return inner_layers(self._graph)

    @cached_property
    def _calls(self) -> InnerCalls:
        taken = match_inputs(self._graph, self._inputs)
        return traced_calls(self._graph, [(self._inputs[i].shape, dtype) for i, dtype in taken])

    def points(self) -> tuple[AnyPoint, ...]:
        """Return what was added."""
        inner = sorted(self._inner.values(), key=lambda point: point.place)
        return tuple(sorted([*inner, *named(self._graph, self._names)], key=lambda point: point.node))

    def add(self, pattern: str) -> None:
        graph = self._graph
        if pattern == "leaves" or (graph.is_opaque and pattern in OF_LAYERS):
            self._add_leaves()
        elif graph.is_opaque and pattern == "all":
            self._inner.update(
                (point.name, point) for point in self._calls.points if not self._is_step(point)
            )
            self._names.update(matching(graph, pattern) if len(graph.outputs) == 1 else ())
        elif graph.is_opaque and pattern not in WORDS and self._add_matching(pattern):
            pass
        elif found := matching(graph, pattern):
            self._names.update(found)
        elif pattern in WORDS or graph.is_opaque or not self._add_matching(pattern):
            inside = [each.path for each in self._layers]
            raise unmatched(pattern, [*layer_names(graph), *inside])

    def at(self, name: str, place: int) -> InnerPoint | None:
        """Return the point at a place of a trace, with a name."""
        found = {point.place: point for point in self._calls.points}.get(place)
        return None if found is None else replace(found, name=name)

    def _add_leaves(self) -> None:
        graph = self._graph
        known = set(matching(graph, "parameters"))
        leaves = [node.name for node in graph.nodes if node.name in known and is_leaf(node.operation)]
        inner = [each for each in self._layers if is_leaf(each.layer) and not each.is_step]
        if not leaves and not inner:
            raise InputError("the model has no layer with weights: there is nothing to record")
        self._names.update(leaves)
        held = [
            *((node.name, node.operation) for node in graph.first_calls),
            *((i.path, i.layer) for i in self._layers),
        ]
        remarks = [f"what {name!r} calls in its tf.function" for name, layer in held if is_function(layer)]
        for each in inner:
            calls = self._calls.of(each.path)
            remarks += [remark for call in calls if (remark := self._add_recordable(call))]
            if not calls and not each.n_graph_calls:
                remarks.append(f"{each.path!r} is never called")
        _tell(remarks)

    def _add_recordable(self, call: InnerCall) -> str:
        """Add the point of a call, or of the next call around it that can be recorded; return what is to be told."""
        found, around = self._calls.found(call), call.around
        while isinstance(found, str) and around is not None:
            found, around = self._calls.found(around), around.around
        if isinstance(found, str):
            name = call.node.name
            self._names.add(name)
        else:
            name = found.name
            self._inner[name] = found
        return "" if name == call.name else f"{call.name!r} {self._calls.found(call)} ({name!r} is recorded)"

    def _add_matching(self, pattern: str) -> bool:
        """Add the points of the layers inside nodes that a pattern matches; return whether it matches any layer.

        Raises
        ------
        InputError
            If a layer is named that cannot be recorded, or none that matches can.
        """
        points, refused = [], list[tuple[InnerLayer, str]]()
        n_matching = 0
        for each in self._layers:
            is_layer = _matches(pattern, each.path, each.layer.name, each.layer.path)
            calls = [call for call in self._calls.of(each.path) if is_layer or _matches(pattern, call.name)]
            found = [self._calls.found(call) for call in calls]
            points += [point for point in found if isinstance(point, InnerPoint)]
            refused += [(each, reason) for reason in found if isinstance(reason, str)]
            if is_layer and not calls and not each.n_graph_calls:
                refused.append((each, _why_no_calls(each)))
            n_matching += is_layer or bool(calls)
        if refused and (not points or not any(sign in pattern for sign in "*?[")):
            raise self._refused(*refused[0])
        self._inner.update((point.name, point) for point in points)
        reasons: dict[str, dict[str, None]] = {}
        for each, reason in refused:
            reasons.setdefault(each.path, {})[reason] = None
        _tell([f"{path!r} {' and '.join(found)}" for path, found in reasons.items()])
        return n_matching > 0

    def _is_step(self, point: InnerPoint) -> bool:
        return any(each.is_step for each in self._layers if each.layer is point.layer)

    def _refused(self, inner: InnerLayer, reason: str) -> InputError:
        around = next((call.around for call in self._calls.of(inner.path)), None)
        while around is not None and isinstance(self._calls.found(around), str):
            around = around.around
        name = self._graph.nodes[inner.node].name if around is None else around.name
        return InputError(
            f"the layer {inner.path!r} ({type_of(inner.layer)}) {reason}, so it cannot be recorded: record what is "
            f"around it, {name!r}, or leave it out with record.points (--points)",
            point=inner.path,
            around=name,
        )


def _why_no_calls(inner: InnerLayer) -> str:
    if inner.is_step:
        return "is called for each step, or in a tf.function"
    return "is never called" if inner.layer.built else "was never built or called"


def _matches(pattern: str, *names: str | None) -> bool:
    return any(name is not None and fnmatch.fnmatchcase(name, pattern) for name in names)


def _tell(remarks: Sequence[str]) -> None:
    if remarks:
        more = f" and {len(remarks) - N_NAMED} more" if len(remarks) > N_NAMED else ""
        logger.warning(
            "not recorded by %s: %s%s",
            "itself" if len(remarks) == 1 else "themselves",
            "; ".join(remarks[:N_NAMED]),
            more,
        )
