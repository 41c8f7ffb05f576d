"""Certify: stream samples through both networks once and say how far they are apart.

Memory holds one batch and totals, whatever the number of samples.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError, MismatchError
from ..graph import Graph, read_graph
from ..sketch import PointSketch, SketchSpec
from ..sources import Source
from .certificate import Certificate, OutputCertificate, PointCertificate
from .comparing import Compared, Comparison, Tally
from .decisions import Decisions
from .normalizing import NormalizedModel
from .rounding import rounding_errors

__all__ = ["DEFAULT_TOLERANCE", "certify"]

logger = logging.getLogger(__name__)

DEFAULT_TOLERANCE = 1e-5
ROUNDING_MARGIN = 8.0
"""Two float32 networks each err by about the measured rounding error; the larger of many samples of it by a few."""


def certify(
    original: Any,
    normalized: NormalizedModel,
    source: Source,
    *,
    batch_size: int,
    n_samples: int | None = None,
    sketch_spec: SketchSpec | None = None,
    progress: Callable[[int], None] | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
) -> Certificate:
    """Compare a normalised network with its original on real samples.

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
        Sketch the normalised activations as they pass by, for plots.
    progress : callable, optional
        Called with the number of samples done after each batch.
    tolerance : float, default=1e-5
        Largest residual in proportion to max(1, peak), dimensionless.

    Returns
    -------
    Certificate
        ``passed`` tells the verdict; nothing is raised for a failure.

    Raises
    ------
    InputError
        If the samples do not fit the network, or there are none.
    MismatchError
        If ``original`` is not the network that was normalised.

    Notes
    -----
    The residual at a point is |n s - o| / f: n the normalised activation, s its scale, o the original
    activation, f the largest scale of the point. It must not exceed tolerance * max(1, max|o| / f): activations above
    their factor (a low percentile) are rounded in proportion to themselves. Where it does, the
    rounding error r of the original itself is measured against a float64 twin of it on the batch with the largest
    residual; up to 8 r is then allowed, and both numbers stand in the certificate. That happens
    where large numbers cancel, and in half precision; a wrong weight is orders of magnitude above.
    """
    graph = _checked_graph(original, normalized)
    total = _checked_count(source, n_samples)
    compared = _compared(graph, normalized)
    n_points = len(normalized.points)
    comparison = Comparison(
        graph, normalized, compared, margin=tolerance, hand_out=sketch_spec is not None, n_points=n_points
    )
    tallies = [Tally() for _ in compared]
    sketches = _empty_sketches(normalized, sketch_spec)
    decisions = Decisions(graph)
    order = input_order(graph, source)
    for start in range(0, total, batch_size):
        batch = source.read(start, min(start + batch_size, total))
        numbers, handed, outputs, new_outputs = comparison([batch.inputs[i] for i in order])
        for tally, found, each in zip(tallies, numbers, compared, strict=True):
            tally.add(found, n_values=len(batch) * _n_values(graph, each), start=start)
        for (name, axis, sketch), tensor in zip(sketches, handed, strict=bool(sketches)):
            sketch.update(np.asarray(tensor), channel_axis=axis, point=name)
        decisions.add(outputs, new_outputs, batch.labels)
        if progress is not None:
            progress(start + len(batch))
    rounding = _measured_rounding(graph, compared, tallies, source, order, batch_size, total, tolerance)
    certificate = Certificate(
        model_name=str(original.name),
        mode=normalized.mode,
        n_samples=total,
        tolerance=tolerance,
        points=_points(normalized, compared, tallies, rounding, tolerance),
        outputs=_outputs(
            graph, compared[n_points:], tallies[n_points:], rounding[n_points:], decisions, tolerance
        ),
        accuracy_before=decisions.accuracy_before,
        accuracy_after=decisions.accuracy_after,
        pinned=tuple((each.name, each.type, each.reason) for each in normalized.pinned),
        groups=normalized.groups,
        notes=normalized.notes,
        sketches={name: sketch for name, _, sketch in sketches},
    )
    logger.info("certificate of %s: %s", certificate.model_name, certificate.summary())
    return certificate


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
    names = [spec.name for spec in given]
    by_name = len(given) > 1 and set(names) == {name for name, _, _ in wanted}
    order = [names.index(name) if by_name else i for i, (name, _, _) in enumerate(wanted)]
    for (name, shape, _), index in zip(wanted, order, strict=True):
        have = given[index].shape
        if len(have) != len(shape) or any(n not in (None, m) for n, m in zip(shape, have, strict=True)):
            raise InputError(
                f"input {name!r} takes samples of shape {shape}, the data has {have}", input=name
            )
    return order


def _compared(graph: Graph, normalized: NormalizedModel) -> list[Compared]:
    """Return the points, and behind them the outputs of the network."""
    outputs = [(graph.producer(value).name, value) for value in graph.outputs]
    pairs = [(point.name, point.value) for point in normalized.points] + outputs
    return [
        Compared(
            name=name,
            value=value,
            place=normalized.places[value],
            scales=normalized.value_scales[value],
            channel_axis=graph.values[value].channel_axis,
        )
        for name, value in pairs
    ]


def _n_values(graph: Graph, each: Compared) -> int:
    sizes = graph.values[each.value].shape
    return math.prod(size for size in sizes if size is not None)


def _empty_sketches(
    normalized: NormalizedModel, spec: SketchSpec | None
) -> list[tuple[str, int, PointSketch]]:
    if spec is None:
        return []
    return [(p.name, p.channel_axis, PointSketch.empty(spec, p.n_channels)) for p in normalized.points]


def _scale_of(tally: Tally, each: Compared) -> float:
    """Return max(1, peak) of a compared value, dimensionless."""
    return max(1.0, float(tally.channel_peaks.max()) / each.factor)


def _measured_rounding(
    graph: Graph,
    compared: Sequence[Compared],
    tallies: Sequence[Tally],
    source: Source,
    order: Sequence[int],
    batch_size: int,
    total: int,
    tolerance: float,
) -> list[float | None]:
    """Return, for what is over the tolerance, the rounding error of the original in units of the factor."""
    over = {
        index: tally.worst_start
        for index, (tally, each) in enumerate(zip(tallies, compared, strict=True))
        if not tally.max_error <= tolerance * _scale_of(tally, each)
    }
    found: list[float | None] = [None] * len(compared)
    if not over or any(math.isnan(tally.max_error) for tally in tallies):
        return found

    def read(start: int) -> list[NDArray[Any]]:
        batch = source.read(start, min(start + batch_size, total))
        return [batch.inputs[i] for i in order]

    errors = rounding_errors(
        graph, {index: (compared[index].value, start) for index, start in over.items()}, read
    )
    for index, error in errors.items():
        found[index] = error / compared[index].factor
    return found


def _allowed(tally: Tally, each: Compared, rounding: float | None, tolerance: float) -> float:
    return max(tolerance * _scale_of(tally, each), ROUNDING_MARGIN * (rounding or 0.0))


def _points(
    normalized: NormalizedModel,
    compared: Sequence[Compared],
    tallies: Sequence[Tally],
    rounding: Sequence[float | None],
    tolerance: float,
) -> tuple[PointCertificate, ...]:
    found = []
    for point, each, tally, noise in zip(normalized.points, compared, tallies, rounding, strict=False):
        found.append(
            PointCertificate(
                name=point.name,
                layer_type=point.layer_type,
                factor=each.factor,
                max_residual=tally.max_error,
                rms_residual=math.sqrt(tally.square_sum / max(1, tally.n_values)),
                peak=float(tally.channel_peaks.max()) / each.factor,
                allowed=_allowed(tally, each, noise, tolerance),
                rounding=noise,
                saturation=tally.n_saturated / max(1, tally.n_values),
                n_values=tally.n_values,
                n_channels=tally.channel_peaks.size,
                n_dead_channels=int(np.count_nonzero(tally.channel_peaks == 0.0)),
                pinned=point.name in normalized.pinned_points,
            )
        )
    return tuple(found)


def _outputs(
    graph: Graph,
    compared: Sequence[Compared],
    tallies: Sequence[Tally],
    rounding: Sequence[float | None],
    decisions: Decisions,
    tolerance: float,
) -> tuple[OutputCertificate, ...]:
    agreement: Mapping[int, tuple[float, int]] = decisions.agreement
    found = []
    for index, (each, tally, noise) in enumerate(zip(compared, tallies, rounding, strict=True)):
        share, n_decisions = agreement.get(index, (None, 0))
        found.append(
            OutputCertificate(
                name=each.name,
                factor=each.factor,
                max_difference=tally.max_error * each.factor,
                peak=float(tally.channel_peaks.max()),
                allowed=_allowed(tally, each, noise, tolerance) * each.factor,
                rounding=None if noise is None else noise * each.factor,
                class_agreement=share,
                n_decisions=n_decisions,
            )
        )
    return tuple(found)
