"""The points of a job: what its settings choose, and whether that can be recorded, and normalised if it is to be."""

from __future__ import annotations

import logging
import shlex
from dataclasses import replace

from ...storage import CacheSpec
from ...storage.errors import InputError, MismatchError
from ..events import counted
from ..factors.compute import asked_of_points
from ..factors.reading_ties import job_walk
from ..graph import (
    AnyPoint,
    Graph,
    InnerPoint,
    Point,
    choose_points,
    graph_points,
    inner_points,
    leaves_of_own_layers,
    select_points,
    shape_words,
    used_outputs,
)
from ..normalizer import without_factor
from ..settings.job_settings import JobSettings
from ..sources import Source

__all__ = ["check_recorded", "chosen_points"]

logger = logging.getLogger(__name__)


def chosen_points(
    graph: Graph, settings: JobSettings, source: Source, held: CacheSpec | None
) -> tuple[AnyPoint, ...]:
    """Return the points to record.

    Parameters
    ----------
    graph : Graph
    settings : JobSettings
    source : Source
        The shapes of some points follow from those of the samples.
    held : CacheSpec, optional
        Of an existing cache.

    Raises
    ------
    InputError
        If there are none, or some cannot be recorded.
    MismatchError
        If an earlier program chose others for the cache.
    """
    points = _named_as_recorded(choose_points(graph, settings.record.points, source.inputs), held)
    _check_points(graph, points, settings, held)
    return points


def _named_as_recorded(points: tuple[AnyPoint, ...], held: CacheSpec | None) -> tuple[AnyPoint, ...]:
    """Return points inside layers by the names that a cache has for them: Keras may have numbered layers anew."""
    recorded = {point.meta.get("place"): point.name for point in (held.points if held is not None else ())}
    return tuple(
        replace(point, name=recorded.get(point.place, point.name)) if isinstance(point, InnerPoint) else point
        for point in points
    )


def _check_points(
    graph: Graph, points: tuple[AnyPoint, ...], settings: JobSettings, held: CacheSpec | None
) -> None:
    """Refuse points that no job can have, or not this one; warn of those that will not be normalised."""
    of_graph, inside = graph_points(points), inner_points(points)
    _check_numbers(graph, of_graph, normalizes=settings.normalize.enabled)
    if held is not None and settings.record.points == "neurons" and not graph.is_opaque:
        _check_merges_recorded(held, graph, of_graph)
    if held is not None:
        _check_outputs_recorded(held, graph, of_graph)
    _tell_of_outputs(graph, of_graph)
    asked_of_points([point.name for point in points], settings.factors)
    if inside and settings.normalize.enabled:
        logger.warning(
            "normalisation leaves %s inside other layers as they are, with statistics and factors only: %s",
            counted(len(inside), "recorded layer"),
            ", ".join(repr(point.name) for point in inside[:5]) + (" ..." if len(inside) > 5 else ""),
        )
    if (
        not (inside or graph.is_opaque)
        and not settings.normalize.enabled
        and settings.record.points in ("neurons", "parameters")
    ):
        _tell_of_leaves(graph)


def _tell_of_outputs(graph: Graph, points: tuple[Point, ...]) -> None:
    """Warn of layers of which several outputs are used, since one is recorded."""
    for point in points:
        node = graph.nodes[point.node]
        used = used_outputs(graph, node)
        if len(used) > 1:
            logger.warning(
                "%r (%s) gives %d tensors, of which %d are used: output %d (counted from 0 in the order of "
                "keras.tree.flatten), of shape %s, is recorded, and the others are not",
                point.name,
                point.layer_type,
                len(node.outputs),
                len(used),
                used[0],
                shape_words(graph.values[node.outputs[used[0]]].shape),
            )


def _tell_of_leaves(graph: Graph) -> None:
    """Warn that user-defined layers hold layers with weights, which the default points leave out."""
    held = leaves_of_own_layers(graph)
    if held:
        logger.warning(
            "%s inside layers of your own (first %r) and not recorded: record.points = 'leaves' (--points leaves) does",
            counted(len(held), "layer") + (" with weights is" if len(held) == 1 else " with weights are"),
            held[0],
        )


def _check_merges_recorded(existing: CacheSpec, graph: Graph, points: tuple[Point, ...]) -> None:
    """Refuse a cache of an earlier program, which recorded no merges by default, and say how to go on with it."""
    recorded = {point.name for point in existing.points}
    missing = [point.name for point in points if point.name not in recorded]
    if missing and recorded == {point.name for point in select_points(graph, "parameters")}:
        raise MismatchError(
            f"the cache was recorded without {', '.join(map(repr, missing[:5]))}{' ...' if len(missing) > 5 else ''}: "
            "merges that are followed by neurons or a quantiser are recorded now (record.points = 'neurons', the "
            "default). To go on with this cache, set record.points = 'parameters' (--points parameters); to measure "
            "the merges too, choose another output folder",
            points=tuple(missing),
        )


def _check_outputs_recorded(existing: CacheSpec, graph: Graph, points: tuple[Point, ...]) -> None:
    """Refuse a cache of an earlier program, which recorded the first output of a layer where only others are used."""
    recorded = {point.name: point.meta.get("output", 0) for point in existing.points}
    for point in points:
        output = used_outputs(graph, graph.nodes[point.node])[0]
        if recorded.get(point.name, output) != output:
            raise MismatchError(
                f"the cache holds output {recorded[point.name]} of {point.name!r} ({point.layer_type}), which the "
                f"network does not use, and not output {output}: choose another output folder",
                points=(point.name,),
            )


def _check_numbers(graph: Graph, points: tuple[Point, ...], *, normalizes: bool) -> None:
    """Refuse points that give text, and such outputs if they would be certified."""
    for point in points:
        if _gives_texts(graph, point.value):
            raise InputError(
                f"the point {point.name!r} ({point.layer_type}) gives text, not activations: leave it out "
                "with record.points",
                point=point.name,
            )
    for value in graph.outputs if normalizes else ():
        name = graph.producer(value).name
        if _gives_texts(graph, value):
            raise InputError(
                f"the output {name!r} gives text, which cannot be compared after normalisation: end the network "
                "before it, keras.Model(inputs, outputs), or stop at the factors with normalize.enabled = false "
                "(--no-normalize)",
                layer=name,
            )


def _gives_texts(graph: Graph, value: int) -> bool:
    node = graph.producer(value)
    # For Keras, an inverted lookup gives numbers.
    is_inverted = node.type == "StringLookup" and bool(getattr(node.operation, "invert", False))
    return is_inverted or graph.values[value].dtype == "string"


def check_recorded(graph: Graph, points: tuple[AnyPoint, ...], settings: JobSettings) -> None:
    """Refuse, before hours of recording, to leave out points that the normaliser needs."""
    of_graph = graph_points(points)
    recorded = {point.value for point in of_graph}
    if all(point.value in recorded for point in select_points(graph, "parameters")):
        return
    # What is pinned, by its kind or by the user, has the scale 1 without a factor.
    walk = job_walk(graph, settings.normalize, "channel" if settings.factors.per_channel else "layer")
    left_out = without_factor(walk, of_graph)
    if left_out:
        given = settings.record.points
        chosen = [*([given] if isinstance(given, str) else given), "parameters"]
        raise InputError(
            f"record.points leaves out {', '.join(map(repr, left_out[:5]))}{' ...' if len(left_out) > 5 else ''}, "
            f"whose factors the normaliser needs: record them too, record.points = {chosen} (--points "
            f"{shlex.quote(','.join(chosen))}), or stop at the factors with normalize.enabled = false (--no-normalize)",
            points=tuple(left_out),
        )
