"""The stage that rewrites the network of a run and certifies it, in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ...storage.errors import CertificateError, MismatchError
from ...storage.partial import discard
from ..certifier import Certificate, Comparison, ComparisonSettings, judge
from ..events import OnEvent, SamplesDone, StageDone, StageStarted, ignore_event
from ..factors.factors import Factors, PointFactor, Rule
from ..factors.ties import input_scales
from ..folder.folder import RunFolder, write_json
from ..folder.json_file import read_document
from ..graph import Graph, Point
from ..normalizer import Exceptions, NormalizedModel, Rewriting, Solution, propagate, solve
from ..record.model import save_network
from ..record.point_sketch import sketch_spec
from ..settings.job import JobSettings
from ..sources import Source, labels_hash
from .after_sketches import AfterSketches, sketch_weights
from .engine import Engine, LocalEngine
from .keys import normalize_key
from .versions import check_made_with, noted_versions

__all__ = ["check_factors", "normalize_network", "rewriting_of", "used_factors"]


def check_factors(factors: Factors, fingerprint: Mapping[str, Any], settings: JobSettings) -> None:
    """Refuse factors of another network, or made for another input factor.

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
            f"the factors are for the input factor {factors.input_factor!r}, the run has normalize.input_factor = "
            f"{settings.normalize.input_factor!r}: make them with `actisketch factors` from this run, or run the job "
            "with their input factor",
            factors=factors.input_factor,
            run=settings.normalize.input_factor,
        )


def used_factors(factors: Factors, graph: Graph, settings: JobSettings) -> Factors:
    """Return factors as the normalised network has them: tied where layers meet, 1 where the scale must be.

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
    solution = solve(walk, factors.by_point())
    return replace(
        factors, points=tuple(_as_used(p, graph.every_point[p.name], solution) for p in factors.points)
    )


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


def rewriting_of(factors: Factors, settings: JobSettings) -> Rewriting:
    """Return how the network of a run is rewritten with these factors."""
    return Rewriting(
        factors=factors.by_point(),
        input_factor=input_scales(factors.input_factor),
        mode="channel" if factors.per_channel else "layer",
        pin=tuple(settings.normalize.pin),
        treat_as_identity=tuple(settings.normalize.treat_as_identity),
    )


def normalize_network(
    folder: RunFolder,
    factors: Factors,
    settings: JobSettings,
    *,
    model: Any,
    fingerprint: Mapping[str, Any],
    source: Source,
    recorded: str,
    remember: bool = True,
    engine: Engine | None = None,
    on_event: OnEvent = ignore_event,
) -> Certificate:
    """Write ``normalized.keras`` and ``certificate.json``; reload them where nothing changed.

    The samples go through the networks on the cluster of ``engine``, if there is one. ``recorded`` names what was
    recorded from them (its ``merged_key``).

    Raises
    ------
    MismatchError
        If the factors are of another network, or for another input factor, or the run was made with other versions.
    CertificateError
        If the rewritten network does not compute what the original does: the certificate is written
        then, the network is not.
    """
    check_factors(factors, fingerprint, settings)
    labels = labels_hash(source)
    key = normalize_key(recorded, factors, settings, labels=labels)
    results = (folder.sketches_path, folder.network_path, folder.certificate_path)
    if remember:
        if folder.is_made_from("normalize", key, *results):
            on_event(StageDone(stage="normalize", message="reloaded the normalised network", reloaded=True))
            return Certificate.from_dict(read_document(folder.certificate_path))
        check_made_with(folder, accept=settings.record.accept_versions)
        # Before the certificate, so that one of other labels is known for one if this is interrupted.
        folder.update_manifest({"labels": labels, **noted_versions(folder)})
    normalized, certificate = _rewrite_and_certify(
        factors,
        settings,
        model=model,
        fingerprint=fingerprint,
        source=source,
        engine=engine or LocalEngine(),
        on_event=on_event,
    )
    if remember:
        folder.forget("normalize")
    _write(folder, normalized, certificate)
    if remember:
        # A certificate that failed is a result as well, if not all that is wanted.
        folder.mark_made("normalize", key, *(path for path in results if path.exists()))
    if not certificate.passed:
        raise CertificateError(
            f"the normalised network does not compute what the original does: {certificate.summary()}; it was not "
            f"written, see {folder.certificate_path}",
            path=str(folder.certificate_path),
        )
    on_event(StageDone(stage="certify", message=certificate.summary()))
    return certificate


def _rewrite_and_certify(
    factors: Factors,
    settings: JobSettings,
    *,
    model: Any,
    fingerprint: Mapping[str, Any],
    source: Source,
    engine: Engine,
    on_event: OnEvent,
) -> tuple[NormalizedModel, Certificate]:
    chosen = settings.normalize
    n_samples = min(chosen.samples or source.n_samples, source.n_samples)
    on_event(StageStarted(stage="normalize"))
    rewriting = rewriting_of(factors, settings)
    normalized = rewriting.rewrite(model)
    on_event(StageStarted(stage="certify", n_total=n_samples, unit="samples"))
    how = ComparisonSettings(
        batch_size=settings.record.batch_size,
        n_samples=n_samples,
        sketch_spec=sketch_spec(settings),
        tolerance=chosen.tolerance,
    )
    comparison = Comparison(model, normalized, source, how)
    with engine.comparing(comparison, rewriting, fingerprint=fingerprint) as comparer:
        certificate = judge(
            comparison, comparer, progress=lambda n_done: on_event(SamplesDone(n_done=n_done))
        )
    return normalized, certificate


def _write(folder: RunFolder, normalized: NormalizedModel, certificate: Certificate) -> None:
    """Replace the results: the certificate goes first and comes last, so that none lies beside another network."""
    discard(folder.certificate_path)
    if certificate.passed:
        weights_before, weights_after = sketch_weights(normalized)
        AfterSketches(
            activations=certificate.sketches, weights_before=weights_before, weights_after=weights_after
        ).save(folder.sketches_path)
        save_network(normalized.model, folder.network_path)
    else:
        discard(folder.sketches_path)
        discard(folder.network_path)
    write_json(folder.certificate_path, certificate.to_dict())
