"""The start of the page: a summary, whether the certificate passed, and the key figures.

Nothing is called good that was not checked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..events import counted
from ..settings.percents import percent_text
from .contents import ReportData
from .numbers import number_text, plain

__all__ = ["Verdict", "certificate_notes", "key_figures", "percentile_name", "summary", "verdict"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The banner of the page."""

    kind: str
    """``"passed"``, ``"failed"`` or ``"unchecked"``."""
    headline: str
    sentence: str


def percentile_name(report: ReportData) -> str:
    """Return ``"99.9th percentile of the non-zero activations"``, or a range if it differs between points."""
    which = "non-zero activations" if report.nonzero else "activations"
    qs = sorted({point.q for point in report.points if point.q is not None})
    methods = {point.method for point in report.points if point.method}
    if len(methods) == 1 and not qs:
        return f"clip by the method {methods.pop()!r} of the {which}"
    if not qs:
        return f"chosen percentile of the {which}"
    if len(qs) == 1:
        return (
            f"maximum of the {which}"
            if qs[0] == 100
            else f"{percent_text(qs[0])}th percentile of the {which}"
        )
    return (
        f"{percent_text(qs[0])}th to {percent_text(qs[-1])}th percentile (it differs by layer) of the {which}"
    )


def summary(report: ReportData) -> str:
    """Return a paragraph that says what was done."""
    n_values = sum(point.n_values for point in report.points)
    text = (
        f"The activations of {counted(len(report.points), 'layer')} of {plain(report.model_name)} "
        f"were recorded over {counted(report.n_samples, 'sample')} ({n_values:,} values) and "
        "counted as they streamed by. "
    )
    if report.certificate is None:
        return text + (
            f"From the counts came, for each layer, the {percentile_name(report)} with an interval that is "
            "guaranteed to contain the exact value, and the factor that the layer would be divided by."
        )
    if _is_unchanged(report.certificate):
        return text + (
            "No layer of the network was divided by its factor: its points are pinned, or lie inside of layers that "
            "stay as they are. Weights and biases are those of the original. The network was then run on samples and "
            f"compared with the original{_originals_activations(report.certificate)}."
        )
    return text + (
        f"The weights and biases were rescaled so that each layer's activations are divided by a factor, the "
        f"{percentile_name(report)} unless the graph ties it to another layer or pins it to one. "
        f"The normalised network was then run on samples again and compared with the original, layer by layer"
        f"{_originals_activations(report.certificate)}."
    )


def _originals_activations(certificate: Mapping[str, Any]) -> str:
    """Return where the original's activations came from; nothing for a certificate of an earlier version."""
    n_samples, n_recorded = certificate.get("n_samples"), certificate.get("n_recorded")
    if n_recorded is None:
        return ""
    if n_recorded == 0:
        return ": both networks ran"
    some = "" if n_recorded == n_samples else f" for {counted(n_recorded, 'sample')}; it ran for the others"
    return f", whose activations were read from the cache{some}"


def verdict(report: ReportData) -> Verdict:
    """Return in words whether the certificate passed."""
    certificate = report.certificate
    if certificate is None:
        return Verdict(
            kind="unchecked",
            headline="No certificate",
            sentence="This report shows statistics and factors only: no normalised network was compared with "
            "the original.",
        )
    deviation = _deviation(report) + _outputs(certificate)
    if report.passed:
        return Verdict(
            kind="passed",
            headline="Nothing was normalised" if _is_unchanged(certificate) else "Certificate passed",
            sentence=f"{deviation}The normalised network computes what the original does.",
        )
    return Verdict(
        kind="failed",
        headline="Certificate FAILED",
        sentence=f"{_failures(certificate)}{deviation}"
        "Do not use the normalised network before this is understood.",
    )


def _is_unchanged(certificate: Mapping[str, Any]) -> bool:
    """Whether every layer kept scale one, so that there was nothing to prove."""
    points = certificate.get("points", ())
    return bool(points) and all(item.get("pinned") for item in points)


def key_figures(report: ReportData) -> list[tuple[str, str]]:
    """Return names and values of the figures beside the verdict."""
    figures = [
        ("accuracy before", _accuracy(report.accuracy_before)),
        ("accuracy after", _accuracy(report.accuracy_after)),
    ]
    agreement = _agreement(report.certificate or {})
    if agreement is not None:
        figures.append(("same class predicted", _accuracy(agreement)))
    figures.append(("samples", f"{report.n_samples:,}"))
    figures.append(("layers", f"{len(report.points):,}"))
    return figures + [(plain(name), plain(value)) for name, value in report.facts.items()]


def _accuracy(share: float | None) -> str:
    if share is None:
        return "not measured"
    text = f"{share * 100:.2f} %"
    return f"below {text}" if text.startswith("100.00") and share < 1 else text


def _deviation(report: ReportData) -> str:
    checked = [point for point in report.points if point.residual is not None]
    if not checked or report.certificate is None:
        return ""
    worst = max(
        checked, key=lambda point: math.inf if math.isnan(point.residual or 0.0) else point.residual or 0.0
    )
    n_samples = report.certificate.get("n_samples")
    lead = "The" if n_samples is None else f"Compared on {counted(int(n_samples), 'sample')}, the"
    limit = worst.allowed if worst.allowed is not None else report.certificate.get("tolerance")
    bound = "" if limit is None else f", where {number_text(float(limit), digits=2)} is allowed"
    text = (
        number_text(worst.residual or 0.0, digits=2)
        if math.isfinite(worst.residual or 0.0)
        else "not a number"
    )
    return (
        f"{lead} largest deviation of an activation from the original, relative to its layer's "
        f"factor, is {text} at {plain(worst.name)}{bound}. "
    )


def _outputs(certificate: Mapping[str, Any]) -> str:
    agreement = _agreement(certificate)
    if agreement is None:
        return ""
    return (
        "Every predicted class is the same. "
        if agreement == 1
        else f"{_accuracy(agreement)} of the predicted classes are the same. "
    )


def _agreement(certificate: Mapping[str, Any]) -> float | None:
    """Return the smallest share of equal class decisions of any output."""
    shares = [item.get("class_agreement") for item in certificate.get("outputs", ())]
    return min((float(share) for share in shares if share is not None), default=None)


def _failures(certificate: Mapping[str, Any]) -> str:
    """Return a sentence that names up to five layers and outputs that deviate too much."""
    names = [
        f"{noun} {plain(str(item['name']))}"
        for noun, items in (
            ("layer", certificate.get("points", ())),
            ("output", certificate.get("outputs", ())),
        )
        for item in items
        if not item.get("passed", True)
    ]
    if not names:
        return ""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"Over what is allowed: {', '.join(names[:5])}{more}. "


def certificate_notes(report: ReportData) -> list[str]:
    """Return the normaliser's notes: its remarks, groups of layers with one factor, pinned layers."""
    certificate = report.certificate or {}
    notes = [str(note) for note in certificate.get("notes", ())]
    notes += [
        f"One factor is shared by {', '.join(map(str, group))}." for group in certificate.get("groups", ())
    ]
    notes += [
        f"The input of {item['name']} ({item['type']}) keeps scale one: {item['reason']}."
        for item in certificate.get("pinned", ())
    ]
    return [plain(note, limit=1000) for note in notes]
