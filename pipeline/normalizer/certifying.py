"""Certify: have samples streamed through both networks once, and judge how far they are apart."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ..sketch import SketchSpec
from ..sources import Source
from .certificate import Certificate, OutputCertificate, PointCertificate
from .comparing import Compared
from .examination import Examination
from .findings import Findings, Tally
from .normalizing import NormalizedModel

__all__ = ["DEFAULT_TOLERANCE", "Examiner", "certify"]

logger = logging.getLogger(__name__)

DEFAULT_TOLERANCE = 1e-5
ROUNDING_MARGIN = 8.0
"""Two float32 networks each err by about the measured rounding error; the larger of many samples of it by a few."""


class Examiner(Protocol):
    """Where the samples go through the networks: here, or on the workers of a cluster."""

    def __call__(
        self,
        examination: Examination,
        *,
        doubtful: Callable[[Findings], Mapping[int, int]],
        progress: Callable[[int], None],
    ) -> tuple[Findings, Mapping[int, float]]:
        """Return what is found on all samples, and `Examination.rounding` of what is ``doubtful`` then.

        ``progress`` is told how many samples are done.
        """
        ...


def _examine_here(
    examination: Examination,
    *,
    doubtful: Callable[[Findings], Mapping[int, int]],
    progress: Callable[[int], None],
) -> tuple[Findings, Mapping[int, float]]:
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
        Samples that go through both networks together: memory grows with it.
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
    The residual at a point is |n s - o| / f: n the normalised activation, s its scale, o the original
    activation, f the largest scale of the point. It must not exceed tolerance * max(1, max|o| / f): activations above
    their factor (a low percentile) are rounded in proportion to themselves. Where it does, the
    rounding error r of the original itself is measured against a float64 twin of it on the batch with the largest
    residual; up to 8 r is then allowed, and both numbers stand in the certificate. That happens
    where large numbers cancel, and in half precision; a wrong weight is orders of magnitude above.
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
    found, rounding = (examiner or _examine_here)(
        examination,
        doubtful=lambda found: _starts_over(compared, found.tallies, tolerance),
        progress=progress or (lambda n_done: None),
    )
    judged = [
        (each, tally, rounding.get(index))
        for index, (each, tally) in enumerate(zip(compared, found.tallies, strict=True))
    ]
    n_points = len(normalized.points)
    certificate = Certificate(
        model_name=str(original.name),
        mode=normalized.mode,
        n_samples=found.n_samples,
        tolerance=tolerance,
        points=_points(normalized, judged[:n_points], tolerance),
        outputs=_outputs(found, judged[n_points:], tolerance),
        accuracy_before=found.decisions.accuracy_before,
        accuracy_after=found.decisions.accuracy_after,
        pinned=tuple((each.name, each.type, each.reason) for each in normalized.pinned),
        groups=normalized.groups,
        notes=(*normalized.notes, *found.decisions.notes),
        sketches=found.sketches,
    )
    logger.info("certificate of %s: %s", certificate.model_name, certificate.summary())
    return certificate


_Judged = tuple[Compared, Tally, float | None]
"""A compared value, what was found, and its measured rounding error in units of the factor."""


def _scale_of(tally: Tally, each: Compared) -> float:
    """Return max(1, peak) of a compared value, dimensionless."""
    return max(1.0, float(tally.channel_peaks.max()) / each.factor)


def _starts_over(compared: Sequence[Compared], tallies: Sequence[Tally], tolerance: float) -> dict[int, int]:
    """Return, for what is over the tolerance, where its largest residual is; nothing where NaN has decided."""
    if any(math.isnan(tally.max_error) for tally in tallies):
        return {}
    return {
        index: tally.worst_start
        for index, (tally, each) in enumerate(zip(tallies, compared, strict=True))
        if not tally.max_error <= tolerance * _scale_of(tally, each)
    }


def _allowed(tally: Tally, each: Compared, rounding: float | None, tolerance: float) -> float:
    return max(tolerance * _scale_of(tally, each), ROUNDING_MARGIN * (rounding or 0.0))


def _points(
    normalized: NormalizedModel, judged: Sequence[_Judged], tolerance: float
) -> tuple[PointCertificate, ...]:
    found = []
    for point, (each, tally, noise) in zip(normalized.points, judged, strict=True):
        found.append(
            PointCertificate(
                name=point.name,
                layer_type=point.layer_type,
                factor=each.factor,
                max_residual=tally.max_error,
                rms_residual=tally.rms_error,
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
    findings: Findings, judged: Sequence[_Judged], tolerance: float
) -> tuple[OutputCertificate, ...]:
    found = []
    for index, (each, tally, noise) in enumerate(judged):
        share, n_decisions = findings.decisions.agreement.get(index, (None, 0))
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
