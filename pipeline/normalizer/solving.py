"""From factors of points to a scale for every value of the graph.

Checks the factors, runs the rules over the graph, lets the points claim their variables.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...storage.errors import InputError, MismatchError
from ..graph import Graph, Point, select_points
from .propagation import Exceptions, Mode, Propagation
from .refusing import all_refused
from .rules import outputs_of
from .variables import Ids

__all__ = ["Factor", "Solution", "held_scales", "propagate", "solve", "without_factor"]

Factor = float | NDArray[np.float64]
N_NAMES = 6


@dataclass(frozen=True, eq=False)
class Solution:
    """A scale for every value of a graph."""

    walk: Propagation
    numbers: NDArray[np.float64]
    """Scale of each variable."""

    def of_value(self, value: int) -> NDArray[np.float64]:
        """Return the scales of a value, an array that broadcasts to its shape."""
        return self.numbers[self.walk.ids[value]]

    def of_parameters(self, operation: object) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the scales of the input and of the output channels of a layer with weights."""
        inputs, outputs = self.walk.parameters[id(operation)]
        return self.numbers[inputs], self.numbers[outputs]

    def of_point(self, point: Point) -> Factor:
        """Return one number, or a vector over channels where they differ (else the whole array)."""
        scales = self.of_value(point.value)
        if np.all(scales == scales.flat[0]):
            return float(scales.flat[0])
        others = [n for axis, n in enumerate(scales.shape) if axis != point.channel_axis % scales.ndim]
        return scales.reshape(-1) if all(n == 1 for n in others) else scales

    def groups(self, points: Sequence[Point]) -> tuple[tuple[str, ...], ...]:
        """Return the names of points that share a scale, groups of two and more, in topological order.

        In channel mode: that of the first channel.
        """
        variables, members = self.walk.variables, dict[int, list[str]]()
        for point in points:
            ids = self.walk.ids[point.value]
            if not variables.is_pinned(ids):
                members.setdefault(variables.root(int(ids.flat[0])), []).append(point.name)
        return tuple(tuple(names) for names in members.values() if len(names) > 1)


def propagate(
    graph: Graph,
    *,
    mode: Mode = "layer",
    input_factor: Factor | Mapping[str, Factor] = 1.0,
    exceptions: Exceptions | None = None,
    keep_structure: bool = False,
) -> Propagation:
    """Give every value of ``graph`` its scale variables: which scales are equal, which are pinned.

    Raises
    ------
    InputError
        For layers without a rule, all of them; an unusable input factor, an exception that matches no layer.
    """
    if mode not in ("layer", "channel"):
        raise InputError(f"mode={mode!r} is not known: 'layer' or 'channel'", mode=mode)
    walk = Propagation(graph, mode, exceptions or Exceptions(), keep_structure)
    walk.exceptions.check(graph)
    walk.start(_input_factors(graph, input_factor))
    refusals = []
    for node in graph.nodes:
        if node.type == "InputLayer":
            continue
        try:
            outputs = outputs_of(walk, node)
        except InputError as error:
            if "refusal" not in error.facts:
                raise
            refusals.append(error)
            # Go on with any scale, so that all refusals are reported at once.
            outputs = [walk.free(value) for value in node.outputs]
        walk.ids.update(zip(node.outputs, outputs, strict=True))
    if refusals:
        raise all_refused(graph, refusals)
    if keep_structure:
        walk.pin_shared_weights()
    for value in graph.outputs:
        # One factor for an output, so that the largest stays the largest: class decisions are kept.
        walk.variables.tie_all(walk.ids[value], where="the output of the network")
    return walk


def solve(
    walk: Propagation,
    factors: Mapping[str, ArrayLike],
    *,
    dead: Mapping[str, ArrayLike] | None = None,
) -> Solution:
    """Return the scales that follow from the factors of points.

    Parameters
    ----------
    walk : Propagation
        From `propagate`.
    factors : mapping of point name to number or to array of shape (n_channels,)
        Positive and finite. Needed for every point with parameters that is not pinned; others
        (``merges``, ``inputs``) may be given and take part in their group. A point whose value holds several scales
        (a Concatenate) claims nothing: one factor cannot speak for all of them.
    dead : mapping of point name to bool or to array of shape (n_channels,), optional
        What is dead claims nothing; a group of dead points has scale 1.

    Raises
    ------
    InputError
        For a factor that is missing, no number, not positive, not finite, or has the wrong number of channels; for
        ``dead`` that is not true or false, or has the wrong number of channels.
    MismatchError
        For factors, or ``dead``, of points that this network does not have.
    """
    graph, dead = walk.graph, dead or {}
    for what, given in (("factors", factors), ("dead", dead)):
        if not isinstance(given, Mapping):
            raise InputError(
                f"{what} is {type(given).__name__!r}: a mapping of point names, as {{'conv1': ...}}, is needed"
            )
    _check_names(graph, factors)
    _check_names(graph, dead, what="dead points")
    _check_complete(walk, factors)
    gone = {name: _checked_dead(graph.every_point[name], given) for name, given in dead.items()}
    claims = []
    for name, factor in factors.items():
        point = graph.every_point[name]
        numbers = _checked(walk, point, factor)
        claims_nothing = gone.get(name, np.zeros(1, dtype=bool)) | _joins(walk, point)
        numbers = np.where(claims_nothing, np.nan, numbers)
        claims.append((walk.ids[point.value], _laid_out(point, numbers)))
    return Solution(walk, walk.variables.solve(claims))


def held_scales(walk: Propagation, point: Point) -> Ids:
    """Return which scales a point holds, as variables, one for all that are tied: of shape (n_places, n_channels)."""
    ids = walk.variables.roots(np.atleast_1d(walk.ids[point.value]))
    by_channel = np.moveaxis(ids, point.channel_axis, -1)
    return by_channel.reshape(-1, by_channel.shape[-1])


def without_factor(walk: Propagation, given: Iterable[Point]) -> list[str]:
    """Return the names of the points that need a factor, because nothing pins them, and are not among the given."""
    # By tensor: that of a PReLU behind an Add may go by the name of either.
    known = {point.value for point in given}
    return [
        point.name
        for point in select_points(walk.graph, "parameters")
        if point.value not in known and not walk.variables.is_pinned(walk.ids[point.value])
    ]


def _joins(walk: Propagation, point: Point) -> NDArray[np.bool_]:
    """Return whether a point, or each of its channels, holds scales that differ: one factor cannot speak for them."""
    held = held_scales(walk, point)
    if walk.mode == "layer":
        return np.array([np.any(held != held[0, 0])])
    return np.asarray(np.any(held != held[:1], axis=0))


def _laid_out(point: Point, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    if numbers.size == 1:
        return numbers.reshape((1,) * len(point.shape))
    shape = [1] * len(point.shape)
    shape[point.channel_axis] = numbers.size
    return numbers.reshape(shape)


def _check_names(graph: Graph, factors: Mapping[str, ArrayLike], *, what: str = "factors") -> None:
    known = graph.every_point
    foreign = [name for name in factors if name not in known]
    if foreign:
        near = difflib.get_close_matches(foreign[0], known, n=N_NAMES, cutoff=0.4) or list(known)[:N_NAMES]
        raise MismatchError(
            f"the {what} are of another network: it has no point {', '.join(map(repr, foreign[:N_NAMES]))} "
            f"({len(foreign)} of {len(factors)}); near names are {', '.join(near)}. "
            "Record this network first",
            foreign=foreign,
        )


def _check_complete(walk: Propagation, factors: Mapping[str, ArrayLike]) -> None:
    missing = without_factor(walk, [walk.graph.every_point[name] for name in factors])
    if missing:
        raise InputError(
            f"{len(missing)} of the points with parameters have no factor: "
            f"{', '.join(map(repr, missing[:N_NAMES]))}; record them, or give 1 for what must not be scaled",
            missing=missing,
        )


def _as_numbers(given: ArrayLike, what: str) -> NDArray[np.float64]:
    """Return ``given`` as float64; text, dates and what else is no real number are refused."""
    try:
        array = np.asarray(given)
        numbers = None if array.dtype.kind in "USbcMm" else np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        numbers = None
    if numbers is None:
        raise InputError(f"{what} is {_shown(given)}: a number is needed, or one for each channel")
    return numbers


def _shown(given: object, most: int = 60) -> str:
    text = repr(given)
    return text if len(text) <= most else f"{text[:most]}..."


def _checked(walk: Propagation, point: Point, factor: ArrayLike) -> NDArray[np.float64]:
    numbers = _as_numbers(factor, f"the factor of {point.name!r}")
    if numbers.ndim > 1 or (numbers.ndim == 1 and numbers.size not in {1, point.n_channels}):
        raise InputError(
            f"the factor of {point.name!r} has shape {numbers.shape}: one number, or one for each of its "
            f"{point.n_channels} channels",
            point=point.name,
        )
    if numbers.size > 1 and walk.mode == "layer" and not np.any(_joins(walk, point)):
        raise InputError(
            f"the factor of {point.name!r} has {numbers.size} channels, but mode='layer' takes one number: "
            "set mode='channel'",
            point=point.name,
        )
    bad = numbers[~(np.isfinite(numbers) & (numbers > 0))]
    if bad.size:
        raise InputError(
            f"the factor of {point.name!r} is {bad.flat[0]!r}: factors are positive and finite; "
            "what never activates is named in dead= and keeps 1",
            point=point.name,
        )
    return numbers


def _checked_dead(point: Point, dead: ArrayLike) -> NDArray[np.bool_]:
    given = np.asarray(dead)
    if given.dtype.kind != "b" or given.ndim > 1 or given.size not in {1, point.n_channels}:
        raise InputError(
            f"dead[{point.name!r}] is {_shown(dead)}, of shape {given.shape}: true or false, or one of these for each "
            f"of its {point.n_channels} channels",
            point=point.name,
        )
    return given.reshape(-1)


def _input_factors(graph: Graph, given: Factor | Mapping[str, Factor]) -> dict[int, NDArray[np.float64]]:
    names = {spec[0]: value for spec, value in zip(graph.input_specs, graph.inputs, strict=True)}
    if isinstance(given, Mapping):
        foreign = [name for name in given if name not in names]
        if foreign:
            raise InputError(
                f"normalize.input_factor names {foreign[0]!r}, the inputs are {', '.join(names)}",
                inputs=list(names),
            )
        by_name = {name: given.get(name, 1.0) for name in names}
    else:
        by_name = dict.fromkeys(names, given)
    return {value: _checked_input(graph, name, value, by_name[name]) for name, value in names.items()}


def _checked_input(graph: Graph, name: str, value: int, factor: Factor) -> NDArray[np.float64]:
    numbers = _as_numbers(factor, f"the factor of the input {name!r}").reshape(-1)
    recorded = graph.values[value]
    n_channels = recorded.shape[recorded.channel_axis] if recorded.shape else 1
    if numbers.size not in {1, n_channels} or not np.all(np.isfinite(numbers) & (numbers > 0)):
        raise InputError(
            f"the factor of the input {name!r} is {factor!r}: a positive number, or one for each of its "
            f"{n_channels} channels",
            input=name,
        )
    if np.any(numbers != 1.0) and not recorded.dtype.startswith(("float", "bfloat")):
        raise InputError(
            f"the input {name!r} is {recorded.dtype} and cannot be divided by an input factor: what comes out "
            "are not whole numbers. Give the network a float input, keras.Input(..., dtype='float32'), and cast the "
            "samples; or leave the input factor at 1",
            input=name,
        )
    return numbers
