"""What was found when a normalised network was compared with its original: plain frozen values, and JSON.

Measures nothing itself (`certifying` does).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ...storage.errors import FormatError
from ..sketch import PointSketch

__all__ = ["QUANTISED", "Certificate", "OutputCertificate", "PointCertificate", "nothing_normalised"]

FORMAT_VERSION = 1
QUANTISED = "the quantised layers"
"""How the note begins that belongs into the summary of a failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointCertificate:
    """One point: how far the normalised activations times their factor are from the original's."""

    name: str
    layer_type: str
    factor: float
    """The scale in use; the largest one in channel mode. Units of the activation."""
    max_residual: float
    """Largest |normalised - original / scale|; where channels have scales of their own, that of the channel which is
    furthest over what it may be, or nearest to it."""
    rms_residual: float
    """Root of the mean square of the same."""
    peak: float
    """Largest |original / scale|, of the same channel."""
    allowed: float
    """What ``max_residual`` may be: tolerance * max(1, peak), or more where ``rounding`` says so."""
    rounding: float | None = None
    """Largest rounding error of the original network itself at this point, divided by the scale: measured in float64
    on few batches, first on that with the largest residual, only where the residual is over the tolerance."""
    float64_residual: float | None = None
    """The residual between both networks computed in float64, on the same batches: only for a network in half
    precision, whose own residual would hide a wrong weight."""
    float64_allowed: float | None = None
    """What ``float64_residual`` may be."""
    saturation: float
    """Share of normalised activations above 1 (by more than the tolerance), 0 to 1."""
    n_values: int
    n_channels: int
    n_dead_channels: int
    """Channels whose activations are zero for every sample."""
    pinned: bool
    """Factor 1, whatever was asked for."""

    @property
    def passed(self) -> bool:
        """Whether the residuals are within what is allowed; never for what is not finite."""
        return _is_within(self.max_residual, self.allowed) and _is_within(
            self.float64_residual, self.float64_allowed
        )

    @property
    def is_dead(self) -> bool:
        """Whether no activation was ever different from zero."""
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
    """What ``max_difference`` may be."""
    rounding: float | None = None
    """Largest rounding error of the original, in the units of the output; see `PointCertificate`."""
    float64_difference: float | None = None
    """As ``float64_residual`` of a point, in the units of the output."""
    float64_allowed: float | None = None
    """What ``float64_difference`` may be."""
    class_agreement: float | None = None
    """Share of equal class decisions, 0 to 1; None where the output decides nothing."""
    n_decisions: int = 0

    @property
    def passed(self) -> bool:
        """Whether the differences are within what is allowed."""
        return _is_within(self.max_difference, self.allowed) and _is_within(
            self.float64_difference, self.float64_allowed
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The comparison of a normalised network with its original on real samples."""

    model_name: str
    mode: str
    n_samples: int
    tolerance: float
    points: tuple[PointCertificate, ...]
    outputs: tuple[OutputCertificate, ...]
    accuracy_before: float | None = None
    """Share of samples whose label the original network finds; None without labels."""
    accuracy_after: float | None = None
    pinned: tuple[tuple[str, str, str], ...] = ()
    """Layers whose inputs keep scale 1: name, type, reason."""
    groups: tuple[tuple[str, ...], ...] = ()
    """Points that share one scale."""
    notes: tuple[str, ...] = ()
    sketches: Mapping[str, PointSketch] = field(default_factory=dict, compare=False, repr=False)
    """Of the normalised activations, by point; not part of the JSON form."""

    @property
    def passed(self) -> bool:
        """Whether every point and every output is within what is allowed."""
        return all(point.passed for point in self.points) and all(out.passed for out in self.outputs)

    @property
    def worst(self) -> PointCertificate | None:
        """The point with the largest residual in proportion to what is allowed."""
        return max(self.points, key=_excess, default=None)

    def summary(self) -> str:
        """Return one sentence for a log or a terminal."""
        failed = [point for point in self.points if not point.passed]
        largest = max(self.points, key=lambda point: point.max_residual, default=None)
        residual = "no points" if largest is None else f"{largest.max_residual:.2g} at {largest.name!r}"
        decided = [out.class_agreement for out in self.outputs if out.class_agreement is not None]
        agreement = f", class decisions equal for {min(decided):.4%} of them" if decided else ""
        if self.passed and (unchanged := nothing_normalised(self.points)):
            return f"passed, but {unchanged}; compared on {self.n_samples} samples{agreement}"
        if self.passed:
            return f"passed: largest residual {residual} on {self.n_samples} samples{agreement}"
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

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able values; what is not a number (NaN, infinite) becomes None."""
        tree: dict[str, Any] = {"actisketch_certificate": FORMAT_VERSION, "passed": self.passed}
        for each in fields(self):
            if each.name == "sketches":
                continue
            value = getattr(self, each.name)
            if each.name in {"points", "outputs"}:
                value = [{**_finite(_written(item)), "passed": item.passed} for item in value]
            tree[each.name] = value
        tree["pinned"] = [dict(zip(("name", "type", "reason"), item, strict=True)) for item in self.pinned]
        tree["groups"] = [list(group) for group in self.groups]
        tree["notes"] = list(self.notes)
        return tree

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Certificate:
        """Return what `to_dict` was made from, without sketches.

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
_OF_HALF_PRECISION = frozenset({"float64_residual", "float64_difference", "float64_allowed"})
_OPTIONAL = frozenset({"rounding", "class_agreement"}) | _OF_HALF_PRECISION


def nothing_normalised(points: Sequence[PointCertificate]) -> str | None:
    """Return the words for a network in which no activation is divided by anything; None for any other."""
    if not points or not all(point.pinned for point in points):
        return None
    n = len(points)
    return (
        f"nothing was normalised: {'the only point' if n == 1 else f'all {n} points'} kept factor 1 (pinned)"
    )


def _is_within(residual: float | None, allowed: float | None) -> bool:
    return residual is None or allowed is None or (math.isfinite(residual) and residual <= allowed)


def _written(item: PointCertificate | OutputCertificate) -> dict[str, Any]:
    """Return the fields that stand in the JSON form: without those of half precision where nothing was measured."""
    return {k: v for k, v in asdict(item).items() if v is not None or k not in _OF_HALF_PRECISION}


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
