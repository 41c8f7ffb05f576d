"""Draw the toolbox's three plots for each layer from sketches, under the toolbox's file names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..graph import Node, Point
from ..normalizer import NormalizedModel
from ..normalizer.updating import as_array
from ..report import PointReport, weight_sketch
from ..report.point_figures import point_figures
from ..report.rendered import render_png, rendering
from ..sketch import Percentile, PointSketch, SketchSpec

__all__ = ["draw_plots"]

FILE_NAMES = {
    "activations": "Activation_distribution",
    "weights": "Weight_distribution",
    "maxima": "maximum_activity_distribution",
}


def draw_plots(
    normalized: NormalizedModel,
    *,
    folder: Path,
    before: Mapping[str, PointSketch],
    after: Mapping[str, PointSketch],
    factors: Mapping[str, float],
    simple_labels: bool,
) -> list[Path]:
    """Write the plots of every layer with parameters; the plots of activations if they were recorded.

    Parameters
    ----------
    before, after : mapping of point name to PointSketch
        Activations of the original and of the normalised network.
    factors : mapping of point name to float
        The measured factors.
    simple_labels : bool
        Whether files are named ``{index}{class}_...`` (``[output] use_simple_labels``), not ``{layer}_...``.
    """
    written = []
    with rendering():
        for point in normalized.points:
            if not point.n_params:
                continue
            label = f"{point.node}{point.layer_type}" if simple_labels else point.name.replace("/", "_")
            report = _point_report(normalized, point, before, after, factors)
            for figure in point_figures(report, nonzero=True):
                if figure.kind in FILE_NAMES and (figure.kind == "weights" or point.name in before):
                    path = folder / f"{label}_{FILE_NAMES[figure.kind]}.png"
                    path.write_bytes(render_png(figure.picture))
                    written.append(path)
    return written


def _point_report(
    normalized: NormalizedModel,
    point: Point,
    before: Mapping[str, PointSketch],
    after: Mapping[str, PointSketch],
    factors: Mapping[str, float],
) -> PointReport:
    factor = float(factors.get(point.name, 1.0))
    return PointReport(
        name=point.name,
        layer_type=point.layer_type,
        activation=point.activation,
        shape=tuple(size or 0 for size in point.shape),
        before=before.get(point.name, PointSketch.empty(SketchSpec())),
        after=after.get(point.name),
        percentile=Percentile(factor, factor, factor),
        factor=normalized.scales[point.name],  # type: ignore[arg-type]  # layer-wise: one number
        weights_before=weight_sketch(_arrays(normalized.graph.nodes[point.node])),
        weights_after=weight_sketch(_arrays(normalized.node_of(point))),
    )


def _arrays(node: Node) -> Iterator[NDArray[Any]]:
    """Yield the kernels, which have more than one axis."""
    for variable in node.operation.weights:
        if len(variable.shape) > 1:
            yield as_array(variable)
