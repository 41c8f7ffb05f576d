"""The certificate: what was found when a normalised network was compared with its original. Frozen values, and JSON.

Measures nothing itself (`judgement` does).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from ...storage.errors import FormatError
from ..events import counted
from ..sketch import PointSketch

if TYPE_CHECKING:
    from ..display.shown_table import ShownTable

__all__ = [
    "QUANTISED",
    "Certificate",
    "CertificateValues",
    "OutputCertificate",
    "PointCertificate",
    "nothing_normalised",
]

FORMAT_VERSION = 1
QUANTISED = "the quantised layers"
"""The beginning of the note that is part of the summary of a failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointCertificate:
    """One point: how far the normalised activations times their factor are from the original's."""

    name: str
    layer_type: str
    factor: float
    """The scale in use; the largest one in channel mode. Units of the activation."""
    max_residual: float
    """Largest |normalised - original / scale|. If channels have scales of their own, it is that of the channel with the
    largest residual in proportion to its limit."""
    rms_residual: float
    """Root of the mean square of the same difference."""
    peak: float
    """Largest |original / scale| of the same channel."""
    allowed: float
    """Limit of ``max_residual``: tolerance * peak, or more because of rounding; the tolerance where the peak is 0."""
    rounding: float | None = None
    """Largest rounding error of the original network itself at this point, divided by the scale. Measured against
    float64, on few batches, and only if the residual exceeds the tolerance."""
    float64_residual: float | None = None
    """The residual if both networks are computed in float64, on the same batches. Only where rounding would
    hide a wrong weight: in half precision, and where it grew through many layers."""
    float64_allowed: float | None = None
    """Limit of ``float64_residual``."""
    saturation: float
    """Share of normalised activations above 1 + tolerance, 0 to 1."""
    n_values: int
    n_channels: int
    n_dead_channels: int
    """Channels whose activations are zero for every sample."""
    pinned: bool
    """Whether the factor is 1 whatever was asked for."""

    @property
    def passed(self) -> bool:
        """Whether the residuals are finite and within their limits."""
        return _is_within(self.max_residual, self.allowed) and _is_within(
            self.float64_residual, self.float64_allowed
        )

    @property
    def is_dead(self) -> bool:
        """Whether every activation is zero."""
        return self.n_dead_channels == self.n_channels


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputCertificate:
    """One output of the network."""

    name: str
    factor: float
    max_difference: float
    """Largest |normalised * factor - original|, in the units of the output."""
    peak: float
    """Largest |original|."""
    allowed: float
    """Limit of ``max_difference``."""
    rounding: float | None = None
    """Largest rounding error of the original, in the units of the output; see `PointCertificate`."""
    float64_difference: float | None = None
    """Like ``float64_residual`` of a point, in the units of the output."""
    float64_allowed: float | None = None
    """Limit of ``float64_difference``."""
    class_agreement: float | None = None
    """Share of equal class decisions, 0 to 1; None if the output decides no class."""
    n_decisions: int = 0

    @property
    def passed(self) -> bool:
        """Whether the differences are finite and within their limits."""
        return _is_within(self.max_difference, self.allowed) and _is_within(
            self.float64_difference, self.float64_allowed
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The comparison of a normalised network with its original on real samples."""

    model_name: str
    mode: str
    n_samples: int
    n_recorded: int = 0
    """Samples for which the original's activations were read from the cache; for the others the original ran."""
    why_both_ran: str = ""
    """Why the cache of a run was not read; empty if it was, or there was none."""
    tolerance: float
    points: tuple[PointCertificate, ...]
    outputs: tuple[OutputCertificate, ...]
    accuracy_before: float | None = None
    """Share of labels that the original network finds; None without labels."""
    accuracy_after: float | None = None
    pinned: tuple[tuple[str, str, str], ...] = ()
    """Layers whose inputs keep scale 1: name, type, reason."""
    groups: tuple[tuple[str, ...], ...] = ()
    """Points that share one scale."""
    notes: tuple[str, ...] = ()
    sketches: Mapping[str, PointSketch] = field(default_factory=dict, compare=False, repr=False)
    """Sketches of the normalised activations, by point; not part of the JSON form."""

    @property
    def passed(self) -> bool:
        """Whether every point and every output is within its limits."""
        return all(point.passed for point in self.points) and all(out.passed for out in self.outputs)

    @property
    def worst(self) -> PointCertificate | None:
        """The point with the largest residual in proportion to its limit."""
        return max(self.points, key=_excess, default=None)

    def summary(self) -> str:
        """Return one sentence for a log or a terminal."""
        failed = [point for point in self.points if not point.passed]
        largest = max(self.points, key=lambda point: point.max_residual, default=None)
        residual = "no points" if largest is None else f"{largest.max_residual:.2g} at {largest.name!r}"
        decided = [out.class_agreement for out in self.outputs if out.class_agreement is not None]
        agreement = f", class decisions equal for {min(decided):.4%} of them" if decided else ""
        on = counted(self.n_samples, "sample")
        if self.passed and (unchanged := nothing_normalised(self.points)):
            return f"passed, but {unchanged}; compared on {on}{agreement}; {self._way()}"
        if self.passed:
            return f"passed: largest residual {residual} on {on}{agreement}; {self._way()}"
        agreement += "".join(f"; {note}" for note in self.notes if note.startswith(QUANTISED))
        if not failed:
            outputs = ", ".join(repr(out.name) for out in self.outputs if not out.passed)
            return f"FAILED: the output {outputs} differs by more than rounding{agreement}"
        first = failed[0]
        found, allowed, how = first.max_residual, first.allowed, ""
        if found <= allowed and first.float64_residual is not None:
            found, allowed, how = first.float64_residual, first.float64_allowed or 0.0, " in float64"
        return (
            f"FAILED at {len(failed)} of {len(self.points)} points, first {first.name!r}: residual "
            f"{found:.2g}{how}, allowed {allowed:.2g}{agreement}"
        )

    def __repr__(self) -> str:
        return _shown(self.to_dict(), self.summary(), self.sketches).text()

    def _repr_html_(self) -> str:
        return _shown(self.to_dict(), self.summary(), self.sketches).html()

    def _way(self) -> str:
        """Return where the original's activations are from."""
        if not self.n_recorded:
            return "both networks ran" + (f", because {self.why_both_ran}" if self.why_both_ran else "")
        some = f" for {self.n_recorded} of them" if self.n_recorded < self.n_samples else ""
        return f"recorded activations were read{some}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; NaN and infinity become None."""
        tree: dict[str, Any] = {"actisketch_certificate": FORMAT_VERSION, "passed": self.passed}
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "sketches" or (each.name == "why_both_ran" and not value):
                continue
            if each.name in {"points", "outputs"}:
                value = [{**_finite(_written(item)), "passed": item.passed} for item in value]
            tree[each.name] = value
        tree["pinned"] = [dict(zip(("name", "type", "reason"), item, strict=True)) for item in self.pinned]
        tree["groups"] = [list(group) for group in self.groups]
        tree["notes"] = list(self.notes)
        return tree

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Certificate:
        """Return the certificate that `to_dict` was made from, without sketches.

        Raises
        ------
        FormatError
            If it is not a certificate, or of a newer format.
        """
        version = tree.get("actisketch_certificate")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise FormatError(
                f"not a certificate of format {FORMAT_VERSION} or older (found {version!r}): normalise again, or "
                "update actisketch"
            )
        try:
            return cls(
                points=tuple(_part(PointCertificate, item) for item in tree["points"]),
                outputs=tuple(_part(OutputCertificate, item) for item in tree["outputs"]),
                pinned=tuple((item["name"], item["type"], item["reason"]) for item in tree["pinned"]),
                groups=tuple(tuple(group) for group in tree["groups"]),
                notes=tuple(tree["notes"]),
                n_recorded=_plain(tree.get("n_recorded", 0), "n_recorded", int),
                why_both_ran=_plain(tree.get("why_both_ran", ""), "why_both_ran", str),
                **{name: _plain(tree[name], name, kind) for name, kind in _PLAIN_FIELDS.items()},
            )
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            raise FormatError(
                f"the certificate is damaged ({first['loc']!r:.60}: {first['msg']}): normalise again"
            ) from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(f"the certificate is damaged ({error}): normalise again") from error


_PLAIN_FIELDS = {
    "model_name": str,
    "mode": str,
    "n_samples": int,
    "tolerance": int | float,
    "accuracy_before": int | float | None,
    "accuracy_after": int | float | None,
}
_IN_FLOAT64 = frozenset({"float64_residual", "float64_difference", "float64_allowed"})
_OPTIONAL = frozenset({"rounding", "class_agreement"}) | _IN_FLOAT64


class CertificateValues(dict[str, Any]):
    """The plain values of a certificate, a dict as any other, which a notebook shows as a table."""

    def _repr_html_(self) -> str:
        return _shown(self, Certificate.from_dict(self).summary(), {}).html()


def _shown(values: Mapping[str, Any], summary: str, sketches: Mapping[str, PointSketch]) -> ShownTable:
    from .certificate_table import certificate_table  # only here: most certificates are not looked at

    return certificate_table(values, summary, sketches)


def nothing_normalised(points: Sequence[PointCertificate]) -> str | None:
    """Return a sentence if no activation of the network is divided by anything, else None."""
    if not points or not all(point.pinned for point in points):
        return None
    n = len(points)
    return (
        f"nothing was normalised: {'the only point' if n == 1 else f'all {n} points'} kept factor 1 (pinned)"
    )


def _is_within(residual: float | None, allowed: float | None) -> bool:
    return residual is None or allowed is None or (math.isfinite(residual) and residual <= allowed)


def _written(item: PointCertificate | OutputCertificate) -> dict[str, Any]:
    """Return the fields of the JSON form; those in float64 only if they were measured."""
    return {k: v for k, v in asdict(item).items() if v is not None or k not in _IN_FLOAT64}


def _excess(point: PointCertificate) -> float:
    ratio = point.max_residual / point.allowed if point.allowed else math.inf
    return math.inf if math.isnan(ratio) else ratio


def _finite(facts: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in facts.items()}


def _plain(value: Any, name: str, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {value!r:.60}")
    return value


@cache
def _validator(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _part(kind: type, item: Mapping[str, Any]) -> Any:
    part = _validator(kind).validate_python(_numbers(kind, item))
    if not part.factor > 0:
        raise ValueError(f"a factor is {part.factor}")
    return part


def _numbers(kind: type, item: Mapping[str, Any]) -> dict[str, Any]:
    names = {each.name for each in fields(kind)}
    kept = {name: value for name, value in item.items() if name in names}
    return {k: math.nan if v is None and k not in _OPTIONAL else v for k, v in kept.items()}
