"""What a reader has to know first: one paragraph, whether the certificate passed, the figures that matter.

Plain sentences made of the report's numbers. Nothing is called good that was not checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .contents import PointReport, ReportData
from .numbers import count_text, number_text, plain

__all__ = ["Verdict", "key_figures", "percentile_name", "summary", "verdict"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The banner of the page."""

    kind: str
    """``"passed"``, ``"failed"`` or ``"unchecked"``."""
    headline: str
    sentence: str


def percentile_name(report: ReportData) -> str:
    """Return ``"99.9th percentile of the non-zero activations"``, or the range when it differs by point."""
    which = "non-zero activations" if report.nonzero else "activations"
    qs = sorted({point.q for point in report.points if point.q is not None})
    if not qs:
        return f"chosen percentile of the {which}"
    if len(qs) == 1:
        return f"maximum of the {which}" if qs[0] == 100 else f"{qs[0]:g}th percentile of the {which}"
    return f"{qs[0]:g}th to {qs[-1]:g}th percentile (it differs by layer) of the {which}"


def summary(report: ReportData) -> str:
    """Return the paragraph that says what was done."""
    n_values = sum(point.n_values for point in report.points)
    text = (
        f"The activations of {_number_of(len(report.points), 'layer')} of {plain(report.model_name)} "
        f"were recorded over {_number_of(report.n_samples, 'sample')} ({count_text(n_values)} values) and "
        "counted as they streamed by. "
    )
    if report.certificate is None:
        return text + (
            f"From the counts came, for each layer, the {percentile_name(report)} with an interval that is "
            "certain to contain the exact one, and the factor that the layer would be divided by."
        )
    return text + (
        f"The weights and biases were rescaled so that each layer's activations are divided by a factor, the "
        f"{percentile_name(report)} unless the graph ties it to another layer or pins it to one. "
        "The normalised network was then run on samples again and compared with the original, layer by layer."
    )


def verdict(report: ReportData) -> Verdict:
    """Return whether the certificate passed, in words."""
    certificate = report.certificate
    if certificate is None:
        return Verdict(
            kind="unchecked",
            headline="No certificate",
            sentence="This report shows statistics and factors only: no normalised network was compared with "
            "the original.",
        )
    worst = _worst(report)
    tolerance = certificate.get("tolerance")
    bound = "" if tolerance is None else f" (tolerance {number_text(float(tolerance))})"
    deviation = (
        ""
        if worst is None
        else (
            f"The largest deviation of any activation, relative to its layer's factor, was "
            f"{number_text(worst.residual or 0.0, digits=2)} at {plain(worst.name)}{bound}. "
        )
    )
    if report.passed:
        return Verdict(
            kind="passed",
            headline="Certificate passed",
            sentence=f"{deviation}The normalised network computes what the original does.",
        )
    return Verdict(
        kind="failed",
        headline="Certificate FAILED",
        sentence=f"{deviation}{_reasons(certificate)}"
        "Do not use the normalised network before this is understood.",
    )


def key_figures(report: ReportData) -> list[tuple[str, str]]:
    """Return name and value of the figures that stand beside the verdict."""
    figures = [
        ("accuracy before", _accuracy(report.accuracy_before)),
        ("accuracy after", _accuracy(report.accuracy_after)),
    ]
    agreement = (report.certificate or {}).get("class_agreement")
    if agreement is not None:
        figures.append(("same class predicted", _accuracy(float(agreement))))
    figures.append(("samples", f"{report.n_samples:,}"))
    figures.append(("layers", f"{len(report.points):,}"))
    return figures + [(plain(name), plain(value)) for name, value in report.facts.items()]


def _accuracy(share: float | None) -> str:
    if share is None:
        return "not measured"
    text = f"{share * 100:.2f} %"
    return f"below {text}" if text.startswith("100.00") and share < 1 else text


def _worst(report: ReportData) -> PointReport | None:
    checked = [point for point in report.points if point.residual is not None]
    return max(checked, key=lambda point: point.residual or 0.0, default=None)


def _reasons(certificate: Mapping[str, Any]) -> str:
    reasons = certificate.get("problems") or certificate.get("reasons") or certificate.get("failures") or ()
    return "".join(f"{plain(str(reason)).rstrip('.')}. " for reason in list(reasons)[:5])


def _number_of(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
