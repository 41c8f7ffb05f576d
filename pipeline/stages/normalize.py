"""The stage that rewrites the network of a run and certifies it, in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...storage import Cache
from ...storage.errors import CertificateError, InputError, MismatchError
from ...storage.partial import discard
from ..certifier import Certificate, Comparison, ComparisonSettings, judge
from ..events import OnEvent, SamplesDone, StageDone, StageStarted, ignore_event
from ..factors.factors_file import Factors, PointFactor, Rule
from ..factors.reading_ties import input_scales
from ..folder.folder import write_json
from ..folder.json_file import read_document
from ..graph import Graph, Point, named_inside
from ..normalizer import Exceptions, NormalizedModel, Rewriting, Solution, propagate, solve
from ..record.model import save_network
from ..record.point_sketch import sketch_spec
from ..settings.job_settings import JobSettings
from ..sources import labels_hash
from .after_sketches import AfterSketches, sketch_weights
from .engine import Engine, LocalEngine
from .prepare import Prepared
from .stage import FileStage
from .stage_keys import normalize_key
from .versions import check_made_with, noted_versions

__all__ = ["NormalizeStage", "check_factors", "check_network_kept", "rewriting_of", "used_factors"]


def check_factors(factors: Factors, fingerprint: Mapping[str, Any], settings: JobSettings) -> None:
    """Refuse factors that belong to another network, or to another input factor.

    Raises
    ------
    MismatchError
        With what differs.
    """
    if dict(factors.model) != dict(fingerprint):
        differs = sorted(
            k for k in {*factors.model, *fingerprint} if factors.model.get(k) != fingerprint.get(k)
        )
        raise MismatchError(
            f"the factors belong to another network than the model ({', '.join(differs)} differ): "
            "record this model's activations, or give the model that was recorded"
        )
    if factors.input_factor != settings.normalize.input_factor:
        raise MismatchError(
            f"the factors belong to the input factor {factors.input_factor!r}, the run has normalize.input_factor = "
            f"{settings.normalize.input_factor!r}: make them from this run with `actisketch factors`, or run the job "
            "with their input factor",
            factors=factors.input_factor,
            run=settings.normalize.input_factor,
        )


def check_network_kept(model_path: str | None, written: Path) -> None:
    """Refuse to write over the network that is to be normalised.

    Raises
    ------
    InputError
        With its path.
    """
    if model_path is None or not (written.exists() and Path(model_path).exists()):
        return
    if written.samefile(model_path):
        raise InputError(
            f"{str(written)!r} is the network that is to be normalised, and would be replaced: choose another output",
            path=str(written),
        )


def used_factors(factors: Factors, graph: Graph, settings: JobSettings) -> Factors:
    """Return factors as the normalised network uses them: shared where points are tied, 1 where points are pinned.

    Raises
    ------
    InputError, MismatchError
        As `normalizer.solve`.
    """
    chosen = settings.normalize
    walk = propagate(
        graph,
        mode="channel" if factors.per_channel else "layer",
        input_factor=input_scales(factors.input_factor),
        exceptions=Exceptions(tuple(chosen.pin), tuple(chosen.treat_as_identity)),
    )
    solution = solve(walk, _of_graph(factors, graph))
    known = graph.every_point
    points = (_as_used(p, known[p.name], solution) if p.name in known else p for p in factors.points)
    return replace(factors, points=tuple(points))


def _of_graph(factors: Factors, graph: Graph) -> dict[str, Any]:
    """Return the factors by point, without those of layers inside others, which are not rewritten."""
    given = factors.by_point()
    inside = named_inside(graph, given)
    return {name: factor for name, factor in given.items() if name not in inside}


def _as_used(p: PointFactor, point: Point, solution: Solution) -> PointFactor:
    scales, given = solution.of_value(point.value), np.atleast_1d(np.asarray(p.factor))
    if scales.ndim:
        scales = np.moveaxis(scales, point.channel_axis, -1)
        scales = scales.reshape(-1, scales.shape[-1]).max(axis=0)
    used, given = np.broadcast_arrays(np.atleast_1d(scales), given)
    if np.array_equal(used, given):
        return p
    is_pinned = solution.walk.variables.is_pinned(solution.walk.ids[point.value])
    rule: Rule = "pinned" if is_pinned else "joined" if p.rule == "joined" else "tied"
    return replace(p, factor=tuple(used.tolist()) if used.size > 1 else float(used[0]), rule=rule)


def rewriting_of(factors: Factors, graph: Graph, settings: JobSettings) -> Rewriting:
    """Return how the network of a run is rewritten with these factors."""
    return Rewriting(
        factors=_of_graph(factors, graph),
        input_factor=input_scales(factors.input_factor),
        mode="channel" if factors.per_channel else "layer",
        pin=tuple(settings.normalize.pin),
        treat_as_identity=tuple(settings.normalize.treat_as_identity),
    )


@dataclass(frozen=True, kw_only=True)
class NormalizeStage(FileStage[Certificate]):
    """Makes ``normalized.keras``, ``certificate.json`` and the sketches of what normalisation changed."""

    name: ClassVar[str] = "normalize"
    job: Prepared
    factors: Factors
    recorded: str
    """The ``merged_key`` of the cache."""
    cache: Cache | None = None
    """Read in place of running the original, where it holds what is needed."""
    engine: Engine = field(default_factory=LocalEngine)
    on_event: OnEvent = ignore_event

    def reload_or_compute(self) -> Certificate:
        """Return the certificate of the network.

        Raises
        ------
        MismatchError
            If the factors are of another network, or for another input factor, or the run was made with other versions.
        CertificateError
            If the normalised network does not compute what the original does: the certificate is written then, the
            network is not.
        """
        check_factors(self.factors, self.job.fingerprint, self.job.settings)
        certificate = super().reload_or_compute()
        if not certificate.passed:
            raise CertificateError(
                f"the normalised network does not compute what the original does: {certificate.summary()}; it was not "
                f"written, see {self.folder.certificate_path}",
                path=str(self.folder.certificate_path),
            )
        return certificate

    @cached_property
    def key(self) -> str:
        """The key of the network and its certificate."""
        return normalize_key(self.recorded, self.factors, self.job.settings, labels=self._labels)

    @property
    def files(self) -> Sequence[Path]:
        """Sketches, network and certificate. A failed certificate stands alone, so it is never reloaded."""
        return self.folder.sketches_path, self.folder.network_path, self.folder.certificate_path

    def reload(self) -> Certificate:
        """Return the saved certificate."""
        self.on_event(StageDone(stage="normalize", message="reloaded the normalised network", reloaded=True))
        return Certificate.from_dict(read_document(self.folder.certificate_path))

    def compute(self) -> Certificate:
        """Rewrite the network and compare it with the original."""
        job, settings = self.job, self.job.settings
        if self.is_own:
            check_made_with(self.folder, accept=settings.record.accept_versions)
            # First: after an interruption, a certificate for other labels is recognised by this.
            self.folder.update_manifest({"labels": self._labels, **noted_versions(self.folder)})
        n_samples = min(settings.normalize.samples or job.source.n_samples, job.source.n_samples)
        self.on_event(StageStarted(stage="normalize"))
        normalized = self._normalized
        self.on_event(StageStarted(stage="certify", n_total=n_samples, unit="samples"))
        how = ComparisonSettings(
            batch_size=settings.record.batch_size,
            n_samples=n_samples,
            sketch_spec=sketch_spec(settings),
            tolerance=settings.normalize.tolerance,
        )
        comparison = Comparison(job.model, normalized, job.source, how, cache=self.cache)
        with self.engine.compare_networks(
            comparison, self._rewriting, fingerprint=job.fingerprint
        ) as comparer:
            return judge(
                comparison, comparer, progress=lambda n_done: self.on_event(SamplesDone(n_done=n_done))
            )

    def write(self, result: Certificate) -> Sequence[Path]:
        """Delete the old certificate first and write the new one last, so that none lies beside another network."""
        folder = self.folder
        discard(folder.certificate_path)
        if result.passed:
            weights = sketch_weights(self._normalized)
            AfterSketches(activations=result.sketches, **weights).save(folder.sketches_path)
            save_network(self._normalized.model, folder.network_path)
        else:
            discard(folder.sketches_path)
            discard(folder.network_path)
        write_json(folder.certificate_path, result.to_dict())
        return [path for path in self.files if path.exists()]

    def announce(self, result: Certificate, written: Sequence[Path]) -> None:
        """Send events."""
        if result.passed:
            self.on_event(StageDone(stage="certify", message=result.summary()))

    @cached_property
    def _labels(self) -> str | None:
        return labels_hash(self.job.source)

    @cached_property
    def _rewriting(self) -> Rewriting:
        return rewriting_of(self.factors, self.job.graph, self.job.settings)

    @cached_property
    def _normalized(self) -> NormalizedModel:
        return self._rewriting.rewrite(self.job.model)
