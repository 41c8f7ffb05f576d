"""From a run to its report: gather the results, and draw them if something has changed."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ...storage import PointSpec
from ..events import OnEvent, SamplesDone, StageDone, StageStarted, ignore_event
from ..factors.factors_file import PointFactor
from ..factors.quantisation_noise import LayerNoise
from ..folder.folder import refuse_link
from ..report import PointReport, ReportData, write_report
from ..sketch import Percentile, PointSketch
from ..stages.after_sketches import AfterSketches
from ..stages.stage import FileStage
from ..stages.stage_keys import report_key
from .report_origin import asked_settings, with_origin

if TYPE_CHECKING:
    from .run import Run

__all__ = ["draw_report", "report_data"]


def report_data(run: Run, *, with_noise: bool = False) -> ReportData:
    """Return what the page and the table of the terminal say of a run; only the page has noise of low precision."""
    factors = run.written_factors()
    certificate = run.certificate()
    # Sketches of another network than the certified one would be drawn beside factors that do not belong to them.
    has_network = certificate is not None and bool(certificate["passed"])
    after = AfterSketches.load(run.folder.sketches_path) if has_network else AfterSketches()
    specs = {spec.name: spec for spec in run.cache.spec.points}
    bits, symmetric = run.settings.factors.bits, run.settings.factors.symmetric
    noise = {row.point: row for row in run.sensitivity(bits=bits, symmetric=symmetric)} if with_noise else {}
    points = tuple(
        _point_report(run, factor, specs[factor.name], after, noise.get(factor.name))
        for factor in factors.points
    )
    return ReportData(
        title="Activation statistics and normalisation",
        model_name=str(run.folder.manifest().get("model", {}).get("name", "network")),
        points=points,
        n_samples=run.cache.spec.n_samples,
        nonzero=factors.nonzero,
        noise_bits=bits if noise else None,
        settings=asked_settings(run).model_dump(mode="json", exclude_none=True, exclude={"output"}),
        certificate=certificate,
        accuracy_before=certificate.get("accuracy_before") if certificate else None,
        accuracy_after=certificate.get("accuracy_after") if certificate else None,
        facts={"random layers, one draw": ", ".join(run.random_layers)} if run.random_layers else {},
        program=f"actisketch {importlib.metadata.version('actisketch')}",
        groups=run.ties.groups(per_channel=factors.per_channel),
    )


def _point_report(
    run: Run, factor: PointFactor, spec: PointSpec, after: AfterSketches, noise: LayerNoise | None
) -> PointReport:
    """Return what is known of a point without the certificate: `ReportData` adds what that says of it."""
    name = factor.name
    sketch = run.sketches[name]
    if factor.value is not None and factor.lo is not None and factor.hi is not None:
        percentile = Percentile(factor.value, factor.lo, factor.hi)
    else:
        percentile = _shown_percentile(run, sketch, factor)
    return PointReport(
        name=name,
        layer_type=str(spec.meta.get("layer_type", "")),
        activation=str(spec.meta.get("activation", "")),
        shape=spec.shape,
        before=sketch,
        after=after.activations.get(name),
        percentile=percentile,
        q=factor.percentile,
        method=run.settings.factors.method if factor.percentile is None and factor.rule != "override" else "",
        noise={} if noise is None else {name: each.sqnr for name, each in noise.methods.items()},
        is_exact=factor.exact,
        factor=factor.factor,
        is_pinned=factor.rule == "pinned",
        is_tied=factor.rule == "tied",
        weights_before=after.weights_before.get(name),
        weights_after=after.weights_after.get(name),
        biases_before=after.biases_before.get(name),
        biases_after=after.biases_after.get(name),
        n_dead=factor.n_dead_channels or int(factor.rule == "dead"),
    )


def _shown_percentile(run: Run, sketch: PointSketch, factor: PointFactor) -> Percentile:
    """Return the percentile of a point whose factor is not a percentile: it is overridden, or all values are zero."""
    layer, settings = sketch.layer, run.settings.factors
    nonzero = settings.nonzero and layer.n > layer.n_zeros
    if layer.n == 0:
        return Percentile(0.0, 0.0, 0.0)
    return layer.percentile(factor.percentile or settings.percentile, nonzero=nonzero)


def draw_report(run: Run, folder: Path, *, on_event: OnEvent = ignore_event) -> Path:
    """Draw the report of a run; return its page. In the run's own folder, only if something has changed."""
    data = report_data(run)
    is_own = folder.absolute() == run.folder.report_path.absolute()
    if is_own:
        refuse_link(folder)
    return _ReportStage(
        folder=run.folder, is_own=is_own, run=run, place=folder, data=data, on_event=on_event
    ).reload_or_compute()


@dataclass(frozen=True, kw_only=True)
class _ReportStage(FileStage[Path]):
    name: ClassVar[str] = "report"
    run: Run
    place: Path
    data: ReportData
    on_event: OnEvent

    @cached_property
    def key(self) -> str:
        return report_key(self.run.folder, self.run.normalized_key())

    @property
    def files(self) -> Sequence[Path]:
        return (self.place / "index.html",)

    def reload(self) -> Path:
        self.on_event(StageDone(stage="report", message="reloaded", reloaded=True))
        return self.files[0]

    def compute(self) -> Path:
        self.on_event(StageStarted(stage="report", n_total=len(self.data.points), unit="layers"))
        return self.files[0]

    def write(self, result: Path) -> Sequence[Path]:
        # Only here: a report that is reloaded shall not compute the noise.
        data = with_origin(report_data(self.run, with_noise=True), self.run, self.place)
        return write_report(
            self.place, data, progress=lambda done, _: self.on_event(SamplesDone(n_done=done))
        )

    def announce(self, result: Path, written: Sequence[Path]) -> None:
        self.on_event(StageDone(stage="report", message=f"{len(written)} files"))
