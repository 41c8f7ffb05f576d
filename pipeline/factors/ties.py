"""Which points share a scale, in a form that is kept without the model.

Branches that meet in an Add must be divided by the same number. A finished run keeps the ties, so that factors for
another percentile can be computed without the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Joined", "Ties"]

Joined = Sequence[Sequence[int]]
"""For each channel the numbers of the scales that are found in it, at one place or another."""


@dataclass(frozen=True, slots=True)
class Ties:
    """The number of the scale of each point, or of each of its channels: equal numbers, one scale."""

    layer: Mapping[str, int] = field(default_factory=dict)
    channel: Mapping[str, Sequence[int]] = field(default_factory=dict)
    fixed: Mapping[int, float] = field(default_factory=dict)
    """Scales that do not depend on activations: 1 at softmax and the like, the input's factor at the input."""
    joined: Mapping[str, Joined] = field(default_factory=dict)
    """Points of several scales (Concatenate), which are in neither of the above: what each channel holds."""
    joined_channel: Mapping[str, Joined] = field(default_factory=dict)
    """The same where each channel has a scale of its own."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "fixed": [[number, scale] for number, scale in self.fixed.items()]}

    def groups(self, *, per_channel: bool = False) -> tuple[tuple[str, ...], ...]:
        """Return the names of points that share a scale which follows from activations, two at least in a group."""
        found: dict[Any, list[str]] = {}
        for name, number in self.layer.items():
            scales = tuple(self.channel.get(name, (number,))) if per_channel else (number,)
            if not set(scales) <= self.fixed.keys():
                found.setdefault(scales, []).append(name)
        return tuple(tuple(names) for names in found.values() if len(names) > 1)

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Ties:
        """Return what :meth:`to_dict` wrote."""
        fixed = {int(number): float(scale) for number, scale in tree.get("fixed", [])}
        names = ("layer", "channel", "joined", "joined_channel")
        return cls(fixed=fixed, **{name: dict(tree.get(name, {})) for name in names})
