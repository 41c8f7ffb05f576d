"""The stage that rewrites the network of a run and certifies it, in the run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..storage.errors import CertificateError, MismatchError
from .events import OnEvent, SamplesDone, StageDone, StageStarted, ignore_event
from .factors import Factors
from .folder import RunFolder, content_key, write_json
from .model import save_network
from .normalizer import Certificate, Rewriting, certify
from .preparation import sketch_spec
from .reporting import AfterSketches, sketch_weights
from .settings import JobSettings
from .sources import Source
from .ties import input_scales

if TYPE_CHECKING:
    from .cluster.engine import ClusterEngine

__all__ = ["check_factors", "normalize_network"]


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
            f"the factors are of another network than the model ({', '.join(differs)} differ): "
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
    engine: ClusterEngine | None = None,
    on_event: OnEvent = ignore_event,
) -> Certificate:
    """Write ``normalized.keras`` and ``certificate.json``; reload them where nothing changed.

    The samples go through the networks on the cluster of ``engine``, if there is one. ``recorded`` names what was
    recorded from them (:func:`~.merged.merged_key`).

    Raises
    ------
    MismatchError
        If the factors are of another network, or for another input factor.
    CertificateError
        If the rewritten network does not compute what the original does: the certificate is written
        then, the network is not.
    """
    check_factors(factors, fingerprint, settings)
    key = content_key(
        factors.to_dict(),
        settings.normalize.model_dump(),
        source.fingerprint(),
        source.n_samples,
        dict(fingerprint),
        recorded,
    )
    if remember and folder.is_made_from("normalize", key, folder.network_path, folder.certificate_path):
        on_event(StageDone(stage="normalize", message="reloaded the normalised network", reloaded=True))
        return Certificate.from_dict(json.loads(folder.certificate_path.read_text(encoding="utf-8")))
    certificate = _rewrite_and_certify(
        folder,
        factors,
        settings,
        model=model,
        fingerprint=fingerprint,
        source=source,
        engine=engine,
        on_event=on_event,
    )
    if remember:
        folder.mark_made("normalize", key)
    return certificate


def _rewrite_and_certify(
    folder: RunFolder,
    factors: Factors,
    settings: JobSettings,
    *,
    model: Any,
    fingerprint: Mapping[str, Any],
    source: Source,
    engine: ClusterEngine | None,
    on_event: OnEvent,
) -> Certificate:
    chosen = settings.normalize
    n_samples = min(chosen.samples or source.n_samples, source.n_samples)
    on_event(StageStarted(stage="normalize"))
    rewriting = Rewriting(
        factors=factors.by_point(),
        input_factors=input_scales(factors.input_factor),
        mode="channel" if factors.per_channel else "layer",
        pin=tuple(chosen.pin),
        treat_as_identity=tuple(chosen.treat_as_identity),
    )
    normalized = rewriting.rewrite(model)
    examiner = None
    if engine is not None:
        examiner = engine.examiner(rewriting, model=model, fingerprint=fingerprint, source=source)
    on_event(StageStarted(stage="certify", n_total=n_samples, unit="samples"))
    certificate = certify(
        model,
        normalized,
        source,
        batch_size=settings.record.batch_size,
        n_samples=n_samples,
        sketch_spec=sketch_spec(settings),
        tolerance=chosen.tolerance,
        progress=lambda n_done: on_event(SamplesDone(n_done=n_done)),
        examiner=examiner,
    )
    write_json(folder.certificate_path, certificate.to_dict())
    if not certificate.passed:
        folder.network_path.unlink(missing_ok=True)
        raise CertificateError(
            f"the normalised network does not compute what the original does: {certificate.summary()}; it was not "
            f"written, see {folder.certificate_path}",
            path=str(folder.certificate_path),
        )
    weights_before, weights_after = sketch_weights(normalized)
    AfterSketches(
        activations=certificate.sketches, weights_before=weights_before, weights_after=weights_after
    ).save(folder.sketches_path)
    save_network(normalized.model, folder.network_path)
    on_event(StageDone(stage="certify", message=certificate.summary()))
    return certificate
