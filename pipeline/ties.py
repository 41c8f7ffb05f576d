"""Which points share a scale: what the graph says, in a form that outlives the model.

Branches that meet in an Add must be divided by the same number. The graph knows; a finished run keeps it, so that
factors for another percentile come out right without the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .graph import Graph, Point
from .normalizer import Exceptions, Mode, propagate
from .settings import NormalizeSettings

__all__ = ["Ties", "read_ties"]


@dataclass(frozen=True, slots=True)
class Ties:
    """The number of the scale of each point, or of each of its channels: equal numbers, one scale."""

    layer: Mapping[str, int] = field(default_factory=dict)
    channel: Mapping[str, Sequence[int]] = field(default_factory=dict)
    fixed: Mapping[int, float] = field(default_factory=dict)
    """Scales that do not depend on activations: 1 at softmax and the like, the input's factor at the input."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "fixed": [[number, scale] for number, scale in self.fixed.items()]}

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Ties:
        """Return what :meth:`to_dict` wrote."""
        fixed = {int(number): float(scale) for number, scale in tree.get("fixed", [])}
        return cls(dict(tree.get("layer", {})), dict(tree.get("channel", {})), fixed)


def read_ties(
    graph: Graph, points: Sequence[Point], settings: NormalizeSettings, *, per_channel: bool
) -> Ties:
    """Return which points of a network share a scale.

    Parameters
    ----------
    graph : Graph
        The network.
    points : sequence of Point
        Those that are recorded.
    settings : NormalizeSettings
        Input factor, pinned layers and layers that scales may pass.
    per_channel : bool
        Number the scales of channels too.

    Raises
    ------
    InputError
        For a layer without a rule: the normaliser could not do its work.
    """
    layer, fixed = _numbers(graph, points, settings, "layer")
    channel: dict[str, list[int]] = {}
    if per_channel:
        channel, fixed_channels = _numbers(graph, points, settings, "channel")
        # The two walks number apart: those of channels become negative.
        channel = {name: [-1 - n for n in numbers] for name, numbers in channel.items()}
        fixed |= {-1 - n: scale for n, scale in fixed_channels.items()}
    return Ties({name: numbers[0] for name, numbers in layer.items()}, channel, fixed)


def _numbers(
    graph: Graph, points: Sequence[Point], settings: NormalizeSettings, mode: Mode
) -> tuple[dict[str, list[int]], dict[int, float]]:
    walk = propagate(
        graph,
        mode=mode,
        input_factors=settings.input_factor,
        exceptions=Exceptions(tuple(settings.pin), tuple(settings.treat_as_identity)),
    )
    found: dict[str, list[int]] = {}
    fixed: dict[int, float] = {}
    for point in points:
        ids = walk.variables.roots(np.asarray(walk.ids[point.value]))
        if mode == "channel" and ids.ndim:
            # The scale of a channel is the same wherever in the image it is.
            ids = np.moveaxis(ids, point.channel_axis, -1).reshape(-1, ids.shape[point.channel_axis])[0]
        found[point.name] = [int(number) for number in ids.reshape(-1)]
        for number in set(found[point.name]):
            scale = walk.variables.fixed_scale(number)
            if scale is not None:
                fixed[number] = scale
    return found, fixed
