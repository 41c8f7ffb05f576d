"""Which points of a network share a scale, from its graph."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from ...storage.errors import InputError
from ..graph import AnyPoint, Graph, Point, graph_points
from ..normalizer import Exceptions, Factor, Mode, Propagation, held_scales, propagate
from ..settings.job_settings import InputFactor, JobSettings, NormalizeSettings
from .ties import Joined, Ties

__all__ = ["input_scales", "job_ties", "job_walk", "read_ties"]

logger = logging.getLogger(__name__)

STAND_IN = 2.0
"""Input factor of a job that is planned before its samples are measured."""


def input_scales(given: InputFactor) -> float | dict[str, Factor]:
    """Return an input factor as the normaliser takes it: a list of channels becomes an array."""
    if not isinstance(given, dict):
        return given
    return {name: np.asarray(each) if isinstance(each, list) else each for name, each in given.items()}


def job_ties(graph: Graph, points: Sequence[AnyPoint], settings: JobSettings) -> Ties:
    """Return which points of a job's network share a scale, whether it is to be normalised now, later or never.

    So a run has the same factors before its network is normalised and after. A network that cannot be normalised as
    the settings stand has no ties, and no rule reaches points inside nodes.

    Raises
    ------
    InputError
        As :func:`read_ties`, if it is to be normalised.
    """
    try:
        return read_ties(
            graph, graph_points(points), settings.normalize, per_channel=settings.sketch.per_channel
        )
    except InputError as error:
        if settings.normalize.enabled:
            raise _with_way_out(error) from None
        logger.info(
            "every point has a factor of its own, because the network cannot be normalised: %s", error
        )
        return Ties()


def _with_way_out(error: InputError) -> InputError:
    """Return the error with what records a network whose layers have no rule; others as they are."""
    if not error.facts.keys() & {"refusal", "layers"}:
        return error
    between = "\n  " if "\n" in str(error) else "; "
    way_out = "normalize=False (--no-normalize, normalize.enabled = false) records without normalising"
    return InputError(f"{error}{between}{way_out}", **error.facts)


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
    joined = {name: held for name, held in layer.items() if len({n for each in held for n in each}) > 1}
    channel: dict[str, Joined] = {}
    if per_channel:
        channel, fixed_channels = _numbers(graph, points, settings, "channel")
        # The two walks number apart: those of channels become negative.
        channel = {name: [[-1 - n for n in each] for each in held] for name, held in channel.items()}
        fixed |= {-1 - n: scale for n, scale in fixed_channels.items()}
    joined_channel = {
        name: held for name, held in channel.items() if name in joined or any(len(each) > 1 for each in held)
    }
    return Ties(
        layer={name: held[0][0] for name, held in layer.items() if name not in joined},
        channel={
            name: [each[0] for each in held] for name, held in channel.items() if name not in joined_channel
        },
        fixed=fixed,
        joined=joined,
        joined_channel=joined_channel,
    )


def job_walk(graph: Graph, settings: NormalizeSettings, mode: Mode) -> Propagation:
    """Return which scales of a job's network are equal or pinned; errors as :func:`~..normalizer.propagate`."""
    return propagate(
        graph,
        mode=mode,
        # The number is not measured yet. Any but 1 will do to refuse now what cannot be scaled.
        input_factor=STAND_IN if settings.input_factor == "measured" else input_scales(settings.input_factor),
        exceptions=Exceptions(tuple(settings.pin), tuple(settings.treat_as_identity)),
    )


def _numbers(
    graph: Graph, points: Sequence[Point], settings: NormalizeSettings, mode: Mode
) -> tuple[dict[str, Joined], dict[int, float]]:
    """Return the numbers that each channel of each point holds, and which of them are fixed."""
    walk = job_walk(graph, settings, mode)
    found: dict[str, Joined] = {}
    fixed: dict[int, float] = {}
    for point in points:
        held = np.unique(held_scales(walk, point), axis=0)
        found[point.name] = [sorted(set(column)) for column in held.T.tolist()]
        for number in np.unique(held).tolist():
            scale = walk.variables.fixed_scale(number)
            if scale is not None:
                fixed[number] = scale
    return found, fixed
