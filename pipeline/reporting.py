"""From a run to its report: gather what was found, and keep the sketches that a later report needs.

Weights and normalised activations are sketched when the network is rewritten, so that ``report`` needs
neither model nor data.
"""

from __future__ import annotations

import base64
import importlib.metadata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ..storage.errors import FormatError
from .documents import read_document
from .events import OnEvent, SamplesDone, StageDone, StageStarted, ignore_event
from .factors import PointFactor
from .folder import refuse_link, write_json
from .graph import Graph, Point
from .report import PointReport, ReportData, weight_sketch, write_report
from .sketch import Percentile, PointSketch, Sketch
from .stages import report_key

if TYPE_CHECKING:
    from .normalizer import NormalizedModel
    from .results import Run

__all__ = ["AfterSketches", "draw_report", "report_data", "sketch_weights"]

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AfterSketches:
    """Sketches of what normalisation changed, by point."""

    activations: Mapping[str, PointSketch] = field(default_factory=dict)
    """Of the normalised network."""
    weights_before: Mapping[str, Sketch] = field(default_factory=dict)
    weights_after: Mapping[str, Sketch] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write them as JSON, whole or not at all."""
        tree = {
            "actisketch_sketches": FORMAT_VERSION,
            "activations": _encoded(self.activations),
            "weights_before": _encoded(self.weights_before),
            "weights_after": _encoded(self.weights_after),
        }
        write_json(path, tree)

    @classmethod
    def load(cls, path: Path) -> AfterSketches:
        """Read them; none when there is no such file.

        Raises
        ------
        FormatError
            If the file is damaged or of a newer format.
        """
        try:
            tree = read_document(path)
            if tree["actisketch_sketches"] > FORMAT_VERSION:
                raise FormatError(f"{str(path)!r} is of a newer format: update actisketch")
            return cls(
                activations={
                    name: PointSketch.from_bytes(raw) for name, raw in _decoded(tree["activations"])
                },
                weights_before={
                    name: Sketch.from_bytes(raw) for name, raw in _decoded(tree["weights_before"])
                },
                weights_after={name: Sketch.from_bytes(raw) for name, raw in _decoded(tree["weights_after"])},
            )
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FormatError(
                f"{str(path)!r} is damaged: {error}; run the job again, or `actisketch normalize`: it is written anew"
            ) from None


def _encoded(sketches: Mapping[str, PointSketch] | Mapping[str, Sketch]) -> dict[str, str]:
    return {name: base64.b64encode(sketch.to_bytes()).decode("ascii") for name, sketch in sketches.items()}


def _decoded(tree: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    for name, text in tree.items():
        yield name, base64.b64decode(text, validate=True)


def sketch_weights(
    normalized: NormalizedModel,
) -> tuple[dict[str, Sketch], dict[str, Sketch]]:
    """Return the sketches of each point's weights before and after normalisation, one array at a time."""
    after = {node.name: node for node in normalized.normalized_graph.nodes}
    before_by_point, after_by_point = {}, {}
    for point in normalized.points:
        if point.n_params == 0:
            continue
        before_by_point[point.name] = weight_sketch(_weights(normalized.graph, point))
        node = after.get(point.name)
        if node is not None and node.operation is not None:
            after_by_point[point.name] = weight_sketch(_arrays(node.operation))
    return before_by_point, after_by_point


def _weights(graph: Graph, point: Point) -> Iterator[NDArray[Any]]:
    yield from _arrays(graph.nodes[point.node].operation)


def _arrays(layer: Any) -> Iterator[NDArray[Any]]:
    import keras

    for variable in layer.trainable_variables or layer.variables:
        yield keras.ops.convert_to_numpy(variable)


def report_data(run: Run) -> ReportData:
    """Return everything that the report and the table say of a run."""
    factors = run.saved_factors()
    certificate = run.certificate()
    # Of another network than the certified one, they would be drawn beside factors that are not theirs.
    has_network = certificate is not None and bool(certificate["passed"])
    after = AfterSketches.load(run.folder.sketches_path) if has_network else AfterSketches()
    manifest = run.folder.manifest()
    certified = {p["name"]: p for p in certificate["points"]} if certificate else {}
    specs = {spec.name: spec for spec in run.cache.spec.points}
    points = tuple(
        _point_report(run, factor, specs[factor.name].meta, after, certified.get(factor.name, {}))
        for factor in factors.points
    )
    return ReportData(
        title="Activation statistics and normalisation",
        model_name=str(manifest.get("model", {}).get("name", "network")),
        points=points,
        n_samples=run.cache.spec.n_samples,
        nonzero=factors.nonzero,
        settings=run.settings.model_dump(mode="json", exclude_none=True),
        certificate=certificate,
        accuracy_before=certificate.get("accuracy_before") if certificate else None,
        accuracy_after=certificate.get("accuracy_after") if certificate else None,
        facts={"random layers, one draw": ", ".join(run.random_layers)} if run.random_layers else {},
        program=f"actisketch {importlib.metadata.version('actisketch')}",
    )


def _point_report(
    run: Run, factor: PointFactor, meta: Mapping[str, Any], after: AfterSketches, certified: Mapping[str, Any]
) -> PointReport:
    name = factor.name
    sketch = run.sketches[name]
    shape = next(spec.shape for spec in run.cache.spec.points if spec.name == name)
    if factor.value is not None and factor.lo is not None and factor.hi is not None:
        percentile = Percentile(factor.value, factor.lo, factor.hi)
    else:
        percentile = _shown_percentile(run, sketch, factor)
    return PointReport(
        name=name,
        layer_type=str(meta.get("layer_type", "")),
        activation=str(meta.get("activation", "")),
        shape=shape,
        before=sketch,
        after=after.activations.get(name),
        percentile=percentile,
        q=factor.percentile,
        is_exact=factor.exact,
        factor=factor.factor,
        is_pinned=factor.rule == "pinned",
        weights_before=after.weights_before.get(name),
        weights_after=after.weights_after.get(name),
        residual=certified.get("max_residual"),
        rms_residual=certified.get("rms_residual"),
        saturation=certified.get("saturation"),
        n_dead=factor.n_dead_channels or int(factor.rule == "dead"),
    )


def _shown_percentile(run: Run, sketch: PointSketch, factor: PointFactor) -> Percentile:
    """Return the percentile of a point whose factor is not one: overridden, or nothing but zeros."""
    layer, settings = sketch.layer, run.settings.factors
    nonzero = settings.nonzero and layer.n > layer.n_zeros
    if layer.n == 0:
        return Percentile(0.0, 0.0, 0.0)
    return layer.percentile(factor.percentile or settings.percentile, nonzero=nonzero)


def draw_report(run: Run, folder: Path, *, on_event: OnEvent = ignore_event) -> Path:
    """Draw the report of a run; return its page. In the run's own folder, nothing is drawn when nothing has changed."""
    data = report_data(run)
    key = report_key(run.folder, run.normalized_key())
    page = folder / "index.html"
    is_own = folder.absolute() == run.folder.report_path.absolute()
    if is_own:
        refuse_link(folder)
    if is_own and run.folder.is_made_from("report", key, page):
        on_event(StageDone(stage="report", message="reloaded", reloaded=True))
        return page
    on_event(StageStarted(stage="report", n_total=len(data.points), unit="layers"))
    if is_own:
        run.folder.forget("report")
    paths = write_report(folder, data, progress=lambda done, _: on_event(SamplesDone(n_done=done)))
    if is_own:
        run.folder.mark_made("report", key, *paths)
    on_event(StageDone(stage="report", message=f"{len(paths)} files"))
    return paths[0]
