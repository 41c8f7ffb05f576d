"""The resolution of sketches, and what happens to NaN and infinities.

Knows its own limits. Does not know arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from ...storage.errors import InputError

MIN_BITS, MAX_BITS = 12, 22
"""With fewer bits, exact refinement takes 8 MiB and more for a bucket; with more, each thread has more than 40 MiB
of counters."""

OnNonFinite = Literal["error", "exclude"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SketchSpec:
    """The resolution of the sketches of a point, and what happens to NaN and infinities.

    Raises
    ------
    InputError
        If a field is outside its range.
    """

    bits: int = 20
    """Bits of the float pattern that choose a bucket, 12 to 22. A bucket of a normal float has the relative
    width ``2**(9 - bits)``: 2^-11 at 20."""
    per_channel: bool = False
    """Whether each channel has a sketch too, beside the one of the point."""
    channel_bits: int = 16
    """As ``bits``, for the channels: 2^-7 at 16."""
    on_nonfinite: OnNonFinite = "error"
    """``"error"``: NaN or an infinity is an InputError that names it. ``"exclude"``: they are counted, and left out."""

    def __post_init__(self) -> None:
        for name in ("bits", "channel_bits"):
            parse_bits(getattr(self, name), name=name)
        if not isinstance(self.per_channel, bool):
            raise InputError(
                f"per_channel must be true or false, got {self.per_channel!r}", setting="per_channel"
            )
        if self.on_nonfinite not in ("error", "exclude"):
            raise InputError(
                f"on_nonfinite must be 'error' or 'exclude', got {self.on_nonfinite!r}",
                setting="on_nonfinite",
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-able dict."""
        return asdict(self)

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> SketchSpec:
        """Return the spec that `to_dict` gave; unknown names are an InputError."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(facts) - known)
        if unknown:
            raise InputError(
                f"unknown sketch settings {unknown}: choose from {sorted(known)}", setting=unknown[0]
            )
        return cls(**facts)


def merged_policy(one: OnNonFinite, other: OnNonFinite) -> OnNonFinite:
    """Return what the merger of two sketches does with NaN and infinities, the same in either order.

    Where some may have been left out, refusing later ones would promise nothing.
    """
    return "exclude" if "exclude" in (one, other) else "error"


def parse_bits(bits: int, *, name: str = "bits") -> int:
    """Return ``bits`` if it is a resolution that sketches have, or raise InputError."""
    if type(bits) is not int or not MIN_BITS <= bits <= MAX_BITS:
        raise InputError(
            f"{name} must be a whole number from {MIN_BITS} to {MAX_BITS}, got {bits!r}", setting=name
        )
    return bits
