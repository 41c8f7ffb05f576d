"""Certify: have samples streamed through both networks once, and judge how far they are apart."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..normalizer.normalizing import NormalizedModel
from ..sketch import SketchSpec
from ..sources import Source
from .batch_comparison import Compared
from .certificate import QUANTISED, Certificate, OutputCertificate, PointCertificate, nothing_normalised
from .comparison import Examination
from .doubts import Doubt, Measured
from .totals import Findings, Tally

__all__ = ["DEFAULT_TOLERANCE", "Examiner", "certify", "examine_here"]

logger = logging.getLogger(__name__)

DEFAULT_TOLERANCE = 1e-5
ROUNDING_MARGIN = 8.0
"""Two float32 networks each err by about the measured rounding error; the larger of many samples of it by a few."""
WEIGHTS_MARGIN = 2.0
"""In float64 two networks differ by the rounding of the new weights, less than by that of weights and activations."""


class Examiner(Protocol):
    """Where the samples go through the networks: here, or on the workers of a cluster."""

    def __call__(
        self,
        examination: Examination,
        *,
        doubtful: Callable[[Findings], Mapping[int, Doubt]],
        progress: Callable[[int], None],
    ) -> tuple[Findings, Mapping[int, Measured]]:
        """Return what is found on all samples, and `Examination.rounding` of what is ``doubtful`` then.

        ``progress`` is told how many samples are done.
        """
        ...


def examine_here(
    examination: Examination,
    *,
    doubtful: Callable[[Findings], Mapping[int, Doubt]],
    progress: Callable[[int], None],
) -> tuple[Findings, Mapping[int, Measured]]:
    """Examine in this process; an :class:`Examiner`."""
    found = examination.examine(0, examination.n_samples, progress=progress)
    return found, examination.rounding(doubtful(found))


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
    examiner: Examiner | None = None,
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
        Samples that go through both networks together, unless they have more than 256 MiB of activations.
    n_samples : int, optional
        How many, from the first; all by default.
    sketch_spec : SketchSpec, optional
        Sketch the normalised activations as they pass by, for plots.
    progress : callable, optional
        Called with the number of samples done, each time some are.
    tolerance : float, default=1e-5
        Largest residual in proportion to max(1, peak), dimensionless.
    examiner : Examiner, optional
        Where the samples go through the networks; in this process by default. Findings add up to the same bits in any
        number of parts.

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
    In proportion to max(1, max|o / s|) it must not exceed the tolerance: activations above their factor (a low
    percentile) are rounded in proportion to themselves. Channels with scales of their own are judged apart. Where a
    residual does exceed it, the rounding error r of the original itself is measured against the same network in
    float64, first on the batch on which most such residuals are largest; up to 8 r is then allowed, and both numbers
    stand in the certificate. That happens where large numbers cancel, and in half precision; a wrong weight of a
    float32 network is orders of magnitude above. In half precision (and with TensorFloat-32) it is not: there both
    networks are compared in float64 on those batches as well, and may differ by the tolerance, or as much as the
    rounding of their weights explains.
    """
    examination = Examination(
        original,
        normalized,
        source,
        batch_size=batch_size,
        n_samples=n_samples,
        sketch_spec=sketch_spec,
        margin=tolerance,
    )
    compared = examination.compared
    found, rounding = (examiner or examine_here)(
        examination,
        doubtful=lambda found: _doubts(compared, found.tallies, tolerance),
        progress=progress or (lambda n_done: None),
    )
    judged = [
        _judged(each, tally, rounding.get(index), tolerance)
        for index, (each, tally) in enumerate(zip(compared, found.tallies, strict=True))
    ]
    n_points = len(normalized.points)
    points = _points(normalized, judged[:n_points])
    unchanged = nothing_normalised(points)
    certificate = Certificate(
        model_name=str(original.name),
        mode=normalized.mode,
        n_samples=found.n_samples,
        tolerance=tolerance,
        points=points,
        outputs=_outputs(found, judged[n_points:]),
        accuracy_before=found.decisions.accuracy_before,
        accuracy_after=found.decisions.accuracy_after,
        pinned=tuple((each.name, each.type, each.reason) for each in normalized.pinned),
        groups=normalized.groups,
        notes=(*normalized.notes, *found.decisions.notes, *([unchanged] if unchanged else [])),
        sketches=found.sketches,
    )
    if not certificate.passed and (why := _quantised(examination)):
        certificate = replace(certificate, notes=(*certificate.notes, why))
    logger.info("certificate of %s: %s", certificate.model_name, certificate.summary())
    return certificate


@dataclass(frozen=True, slots=True)
class _Judged:
    """A compared value, what was found, and the channel that is furthest over what is allowed, or nearest to it."""

    each: Compared
    tally: Tally
    error: float
    peak: float
    allowed: float
    rounding: float | None
    float64_error: float | None = None
    float64_allowed: float | None = None


def _quantised(examination: Examination) -> str | None:
    """Return why a network with quantised layers may fail though nothing is wrong."""
    nodes = [n for n in examination.graph.nodes if getattr(n.operation, "quantization_mode", None)]
    if not nodes:
        return None
    names = ", ".join(repr(node.name) for node in nodes[:5]) + (" ..." if len(nodes) > 5 else "")
    return (
        f"{QUANTISED} {names} round to few steps, where a difference in the last bit shows as a whole step: that "
        "cannot be told from a fault, so normalise the network before it is quantised"
    )


def _peaks(tally: Tally, each: Compared) -> NDArray[np.float64]:
    """Return the peak of each channel, or of all of them where they have one scale, in units of the scales."""
    peaks: NDArray[np.float64] = tally.channel_peaks
    return peaks.max(keepdims=True) / each.factors if each.is_one_scale else peaks / each.factors


def _tolerated(tally: Tally, each: Compared, tolerance: float) -> NDArray[np.float64]:
    return tolerance * np.maximum(1.0, _peaks(tally, each))


def _doubts(compared: Sequence[Compared], tallies: Sequence[Tally], tolerance: float) -> dict[int, Doubt]:
    """Return what is over the tolerance; nothing where NaN has decided."""
    if any(math.isnan(tally.max_error) for tally in tallies):
        return {}
    found = {}
    for index, (tally, each) in enumerate(zip(tallies, compared, strict=True)):
        is_over = ~(tally.errors <= _tolerated(tally, each, tolerance))
        if is_over.any():
            needed = np.where(is_over, tally.errors / ROUNDING_MARGIN, 0.0)
            starts = np.broadcast_to(tally.starts, needed.shape)
            found[index] = Doubt(tuple(starts.tolist()), tuple(needed.tolist()))
    return found


def _judged(each: Compared, tally: Tally, measured: Measured | None, tolerance: float) -> _Judged:
    tolerated = _tolerated(tally, each, tolerance)
    rounding = np.zeros(1) if measured is None else np.asarray(measured.rounding)
    errors, rounding, peaks = np.broadcast_arrays(tally.errors, rounding, _peaks(tally, each))
    allowed = np.maximum(tolerated, ROUNDING_MARGIN * rounding)
    at = _worst(errors, allowed)
    judged = _Judged(
        each,
        tally,
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


def _worst(errors: NDArray[np.float64], allowed: NDArray[np.float64]) -> int:
    """Return the channel with the largest error in proportion to what is allowed; NaN before all."""
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
            rms_residual=found.tally.rms_error,
            peak=found.peak,
            allowed=found.allowed,
            rounding=found.rounding,
            float64_residual=found.float64_error,
            float64_allowed=found.float64_allowed,
            saturation=found.tally.n_saturated / max(1, found.tally.n_values),
            n_values=found.tally.n_values,
            n_channels=found.tally.channel_peaks.size,
            n_dead_channels=int(np.count_nonzero(found.tally.channel_peaks == 0.0)),
            pinned=point.name in normalized.pinned_points,
        )
        for point, found in zip(normalized.points, judged, strict=True)
    )


def _outputs(findings: Findings, judged: Sequence[_Judged]) -> tuple[OutputCertificate, ...]:
    outputs = []
    for index, found in enumerate(judged):
        share, n_decisions = findings.decisions.agreement.get(index, (None, 0))
        # All channels of an output have one scale.
        factor = found.each.factor

        def in_its_units(number: float | None, factor: float = factor) -> float | None:
            return None if number is None else number * factor

        outputs.append(
            OutputCertificate(
                name=found.each.name,
                factor=factor,
                max_difference=found.error * factor,
                peak=float(found.tally.channel_peaks.max()),
                allowed=found.allowed * factor,
                rounding=in_its_units(found.rounding),
                float64_difference=in_its_units(found.float64_error),
                float64_allowed=in_its_units(found.float64_allowed),
                class_agreement=share,
                n_decisions=n_decisions,
            )
        )
    return tuple(outputs)
