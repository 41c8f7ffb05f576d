"""Certify: compare both networks on all samples once, and judge how far they are apart."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage import Cache
from ..graph import Graph
from ..normalizer.normalizing import NormalizedModel
from ..sketch import SketchSpec
from ..sources import Source
from .certificate import QUANTISED, Certificate, OutputCertificate, PointCertificate, nothing_normalised
from .comparison import DEFAULT_TOLERANCE, Comparer, Comparison, ComparisonSettings
from .doubts import Doubt, Measured
from .totals import ComparisonTotals, ValueTotals
from .value_comparison import ComparedValue

__all__ = ["certify", "judge"]

logger = logging.getLogger(__name__)

ROUNDING_MARGIN = 8.0
"""Both networks are off by about the measured rounding error; the worst of many samples by a few times as much."""
UNSEEN_SHARE = 0.25
"""At most this share of a peak below 1 is taken for rounding that was not measured: a sign or a factor of 2 is more."""
WEIGHTS_MARGIN = 2.0
"""In float64 the networks differ by the rounding of the new weights: less than that of weights and activations."""


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
    cache: Cache | None = None,
) -> Certificate:
    """Compare a normalised network with its original on real samples, in this process.

    Parameters
    ----------
    original, normalized, source, cache
        As :class:`Comparison`.
    batch_size, n_samples, sketch_spec, tolerance
        As :class:`ComparisonSettings`.
    progress : callable, optional
        Called with the number of samples done, each time some are.

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
    The residual at a point is |n - o / s|: n the normalised activation, s its scale, o the original activation.
    It must not exceed the tolerance times max|o / s|, because activations are rounded in proportion to themselves,
    and a layer may keep factor 1 however small its activations are. Where o is zero for all samples, it must not exceed
    the tolerance. Channels with scales of their own are judged separately.

    If a residual exceeds that, the rounding error r of the original itself is measured against the same network in
    float64, first on the batch on which most such residuals are largest. Then up to 8 r is allowed, and the certificate
    holds both numbers. That happens where large numbers cancel, and in half precision. A few small numbers may measure
    too little by luck: half an epsilon of what a layer sums also counts as r, up to a quarter of the peak and to the
    tolerance. So much is allowed, too, where the original cannot be measured. A wrong weight of a float32 network gives
    residuals that are orders of magnitude larger. In half precision, and with TensorFloat-32, it does not: there both
    networks are compared in float64 on those batches too, and may differ by the tolerance, or by what the rounding of
    their weights explains. The same is asked where rounding grows from layer to layer, beyond 128 epsilons of the
    largest number on the way.

    With a cache, the normalised network is compared with the recorded activations of the original. Those of another
    machine may be rounded otherwise: if that fails, the original runs too, and the verdict is that of both networks.
    """
    settings = ComparisonSettings(
        batch_size=batch_size, n_samples=n_samples, sketch_spec=sketch_spec, tolerance=tolerance
    )
    comparison = Comparison(original, normalized, source, settings, cache=cache)
    return judge(comparison, comparison, progress=progress or (lambda n_done: None))


def judge(comparison: Comparison, comparer: Comparer, *, progress: Callable[[int], None]) -> Certificate:
    """Have ``comparer`` compare the networks on all samples, and return the verdict; see :func:`certify`.

    Totals are the same, to the last bit, for any comparer.
    """
    certificate = _judgement(comparison, comparer, comparer.totals(progress, from_cache=True))
    if not certificate.passed and certificate.n_recorded:
        # Activations of another machine are rounded otherwise: a network is failed only by those of this one.
        logger.info("recorded activations fail it (%s): the original runs too", certificate.summary())
        n_failed = sum(not point.passed for point in certificate.points)
        certificate = _judgement(comparison, comparer, comparer.totals(progress, from_cache=False))
        if certificate.passed:
            note = (
                f"the activations in the cache differ at {n_failed} of {len(certificate.points)} points from what the "
                "original computes on this machine, which the normalised network was compared with instead"
            )
            certificate = replace(certificate, notes=(*certificate.notes, note))
    logger.info("certificate of %s: %s", certificate.model_name, certificate.summary())
    return certificate


def _judgement(comparison: Comparison, comparer: Comparer, found: ComparisonTotals) -> Certificate:
    compared, tolerance = comparison.compared, comparison.settings.tolerance
    rounding = comparer.rounding(_doubts(compared, found.values, tolerance))
    judged = [
        _judged(each, totals, rounding.get(index), tolerance)
        for index, (each, totals) in enumerate(zip(compared, found.values, strict=True))
    ]
    normalized = comparison.normalized
    n_points = len(normalized.points)
    points = _points(normalized, judged[:n_points])
    unchanged = nothing_normalised(points)
    certificate = Certificate(
        model_name=str(comparison.graph.model.name),
        mode=normalized.mode,
        n_samples=found.n_samples,
        n_recorded=found.n_recorded,
        why_both_ran=comparison.why_both_run,
        tolerance=tolerance,
        points=points,
        outputs=_outputs(found, judged[n_points:]),
        accuracy_before=found.decisions.accuracy_before,
        accuracy_after=found.decisions.accuracy_after,
        pinned=tuple((each.name, each.type, each.reason) for each in normalized.pinned),
        groups=normalized.groups,
        notes=(*found.decisions.notes, *([unchanged] if unchanged else []), *_unread(found)),
        sketches=found.sketches,
    )
    if not certificate.passed and (why := _quantised(comparison.graph)):
        certificate = replace(certificate, notes=(*certificate.notes, why))
    return certificate


def _unread(found: ComparisonTotals) -> list[str]:
    """Return a note on what could not be read from the cache."""
    if not found.problems:
        return []
    first, n_others = min(found.problems), len(found.problems) - 1
    more = f" (and {n_others} more)" if n_others else ""
    n_computed = found.n_samples - found.n_recorded
    what = f"recorded activations cannot be read, so the original ran for {n_computed} of {found.n_samples} samples"
    return [f"{what}: {first}{more}"]


@dataclass(frozen=True, slots=True)
class _Judged:
    """A compared value, its totals, and its channel with the largest error in proportion to the limit."""

    each: ComparedValue
    totals: ValueTotals
    error: float
    peak: float
    allowed: float
    rounding: float | None
    float64_error: float | None = None
    float64_allowed: float | None = None


def _quantised(graph: Graph) -> str | None:
    """Return why a network with quantised layers may fail although nothing is wrong."""
    nodes = [n for n in graph.nodes if getattr(n.operation, "quantization_mode", None)]
    if not nodes:
        return None
    names = ", ".join(repr(node.name) for node in nodes[:5]) + (" ..." if len(nodes) > 5 else "")
    return (
        f"{QUANTISED} {names} round to few steps, where a difference in the last bit shows as a whole step: that "
        "cannot be told from a fault, so normalise the network before it is quantised"
    )


def _peaks(totals: ValueTotals, each: ComparedValue) -> NDArray[np.float64]:
    """Return the peak of each channel, or of all channels if they have one scale, in units of the scales."""
    peaks: NDArray[np.float64] = totals.channel_peaks
    return peaks.max(keepdims=True) / each.factors if each.is_one_scale else peaks / each.factors


def _tolerated(totals: ValueTotals, each: ComparedValue, tolerance: float) -> NDArray[np.float64]:
    """Return the largest residual of each channel that nothing has to excuse; zeros have no size of their own."""
    peaks = _peaks(totals, each)
    return tolerance * np.where(peaks > 0.0, peaks, 1.0)


def _doubts(
    compared: Sequence[ComparedValue], found: Sequence[ValueTotals], tolerance: float
) -> dict[int, Doubt]:
    """Return what exceeds the tolerance; nothing if there is a NaN, because the verdict is clear then."""
    if any(math.isnan(each.max_error) for each in found):
        return {}
    doubts = {}
    for index, (totals, each) in enumerate(zip(found, compared, strict=True)):
        is_over = ~(totals.errors <= _tolerated(totals, each, tolerance))
        if is_over.any():
            needed = np.where(is_over, totals.errors / ROUNDING_MARGIN, 0.0)
            starts = np.broadcast_to(totals.starts, needed.shape)
            doubts[index] = Doubt(tuple(starts.tolist()), tuple(needed.tolist()))
    return doubts


def _judged(each: ComparedValue, totals: ValueTotals, measured: Measured | None, tolerance: float) -> _Judged:
    tolerated = _tolerated(totals, each, tolerance)
    rounding = np.zeros(1) if measured is None else np.asarray(measured.rounding)
    errors, rounding, peaks = np.broadcast_arrays(totals.errors, rounding, _peaks(totals, each))
    tolerated = np.maximum(tolerated, _unseen(measured, errors, tolerated, peaks, tolerance))
    allowed = np.maximum(tolerated, ROUNDING_MARGIN * rounding)
    at = _worst(errors, allowed)
    judged = _Judged(
        each,
        totals,
        error=float(errors[at]),
        peak=float(peaks[at]),
        allowed=float(allowed[at]),
        rounding=None if measured is None else float(rounding[at]),
    )
    if measured is None or measured.residual is None:
        return judged
    residuals = np.asarray(measured.residual)
    limits = np.maximum(tolerated, WEIGHTS_MARGIN * measured.fineness * rounding)
    at = _worst(residuals, limits)
    return replace(judged, float64_error=float(residuals[at]), float64_allowed=float(limits[at]))


def _unseen(
    measured: Measured | None,
    errors: NDArray[np.float64],
    tolerated: NDArray[np.float64],
    peaks: NDArray[np.float64],
    tolerance: float,
) -> NDArray[np.float64]:
    """Return what small values are allowed for rounding that a measurement missed by luck, or that none was made of."""
    if measured is None:
        unseen = np.where(errors <= tolerated, 0.0, tolerance)
    else:
        unseen = ROUNDING_MARGIN * np.asarray(measured.least)
    # Where an activation on the way is infinite, the first may be NaN.
    return np.fmin(unseen, np.minimum(tolerance, UNSEEN_SHARE * peaks))


def _worst(errors: NDArray[np.float64], allowed: NDArray[np.float64]) -> int:
    """Return the channel with the largest error in proportion to what is allowed; NaN counts as the largest."""
    with np.errstate(invalid="ignore"):
        ratios = errors / allowed
    return int(np.argmax(np.where(np.isnan(ratios), np.inf, ratios)))


def _points(normalized: NormalizedModel, judged: Sequence[_Judged]) -> tuple[PointCertificate, ...]:
    return tuple(
        PointCertificate(
            name=point.name,
            layer_type=point.layer_type,
            factor=found.each.factor,
            max_residual=found.error,
            rms_residual=found.totals.rms_error,
            peak=found.peak,
            allowed=found.allowed,
            rounding=found.rounding,
            float64_residual=found.float64_error,
            float64_allowed=found.float64_allowed,
            saturation=found.totals.n_saturated / max(1, found.totals.n_values),
            n_values=found.totals.n_values,
            n_channels=found.totals.channel_peaks.size,
            n_dead_channels=int(np.count_nonzero(found.totals.channel_peaks == 0.0)),
            pinned=point.name in normalized.pinned_points,
        )
        for point, found in zip(normalized.points, judged, strict=True)
    )


def _outputs(totals: ComparisonTotals, judged: Sequence[_Judged]) -> tuple[OutputCertificate, ...]:
    outputs = []
    for index, found in enumerate(judged):
        share, n_decisions = totals.decisions.agreement.get(index, (None, 0))
        factor = found.each.factor  # all channels of an output have one scale
        optional = (found.rounding, found.float64_error, found.float64_allowed)
        rounding, float64_error, float64_allowed = (None if x is None else x * factor for x in optional)
        outputs.append(
            OutputCertificate(
                name=found.each.name,
                factor=factor,
                max_difference=found.error * factor,
                peak=float(found.totals.channel_peaks.max()),
                allowed=found.allowed * factor,
                rounding=rounding,
                float64_difference=float64_error,
                float64_allowed=float64_allowed,
                class_agreement=share,
                n_decisions=n_decisions,
            )
        )
    return tuple(outputs)
