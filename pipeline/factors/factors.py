"""From statistics to scale factors: pure numbers, no model, no files but the JSON of the factors.

The factor of a point is what its activations are divided by. It is a percentile of the recorded
activations [1]_, over those that are not zero by default, as SNN toolbox takes it.

References
----------
.. [1] Rueckauer et al., "Conversion of Continuous-Valued Deep Networks to Efficient Event-Driven
   Networks for Image Classification", Front. Neurosci. 11:682 (2017).
"""

from __future__ import annotations

import fnmatch
import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ...storage import PointSpec
from ...storage.errors import FormatError, InputError
from ..folder.json_file import CONTENT_HASH, read_document
from ..settings.job import FactorSettings, InputFactor, OverrideSettings
from ..sketch import PointSketch, Sketch
from .ties import Ties

__all__ = ["Factors", "PointFactor", "asked_of_points", "compute_factors", "scheduled_percentile"]

FORMAT_VERSION = 1

Rule = Literal["percentile", "magnitude", "pinned", "dead", "override", "tied", "joined"]

ExactPercentile = Callable[[str, float, bool], float]
"""(point, percentile, nonzero) -> the exact percentile, from the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointFactor:
    """The factor of one point and where it comes from."""

    name: str
    factor: float | tuple[float, ...]
    """One number, or one for each channel; positive and finite, in units of the activation."""
    rule: Rule
    """``percentile``; ``magnitude`` (the percentile was not positive: the larger of both tails in size);
    ``pinned`` (softmax and the like: 1); ``dead`` (nothing to scale: 1); ``override`` (fixed by the user);
    ``tied`` (meets others in an Add or the like: the largest factor of them all); ``joined`` (a Concatenate or the
    like of different scales: claims nothing, and each channel has that of the part it comes from)."""
    percentile: float | None = None
    """The percentile that was taken, in percent, after schedule and overrides."""
    value: float | None = None
    """That percentile of the point (all channels together)."""
    lo: float | None = None
    hi: float | None = None
    """The certified interval: the exact order statistics lie within [lo, hi]."""
    exact: bool = False
    """True when the value was refined to the exact percentile."""
    sketch: str | None = None
    """Identity (BLAKE2b) of the sketch that was asked."""
    n_dead_channels: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """The factors of a network, in model order, with the settings that made them."""

    points: tuple[PointFactor, ...]
    nonzero: bool
    input_factor: InputFactor = 1.0
    """What the inputs are divided by; by name of an input where it is a table."""
    per_channel: bool = False
    """Whether each channel has a scale of its own; the normaliser works in the same way."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """Fingerprint of the network that was recorded; the normaliser refuses another one."""

    def by_point(self) -> dict[str, float | NDArray[np.float64]]:
        """Return ``{point: factor}``; a factor for each channel is an array of shape (n_channels,)."""
        return {
            p.name: np.asarray(p.factor) if isinstance(p.factor, tuple) else p.factor for p in self.points
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"actisketch_factors": FORMAT_VERSION, **asdict(self), "model": dict(self.model)}

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Factors:
        """Return the factors that :meth:`to_dict` wrote.

        Raises
        ------
        FormatError
            If it is something else, or of a newer format.
        InputError
            If a factor is not a positive finite number.
        """
        version = tree.get("actisketch_factors")
        if not isinstance(version, int):
            raise FormatError(
                "this is not a factors file of actisketch: the key 'actisketch_factors' is missing"
            )
        if version > FORMAT_VERSION:
            raise FormatError(
                f"factors of format {version}, this program reads up to {FORMAT_VERSION}: update actisketch"
            )
        try:
            points = tuple(_point_from_dict(point) for point in tree["points"])
            _check_once([point.name for point in points])
            # Older files do not say it; a list for a Concatenate tells nothing.
            in_lists = any(isinstance(p.factor, tuple) and p.rule != "joined" for p in points)
            return cls(
                points=points,
                nonzero=bool(tree["nonzero"]),
                input_factor=_input_factor(tree["input_factor"]),
                per_channel=bool(tree.get("per_channel", in_lists)),
                model=dict(tree["model"]),
            )
        except InputError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"a damaged factors file: {error}") from None

    @classmethod
    def load(cls, path: str | Path) -> Factors:
        """Read a factors file.

        Raises
        ------
        InputError
            If there is no such file, or a factor in it is not a positive finite number.
        FormatError
            If it is not JSON, not a factors file, or of a newer format.
        """
        try:
            tree = read_document(Path(path))
        except OSError as error:
            raise InputError(f"the factors {str(path)!r} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise FormatError(
                f"{str(path)!r} is not a factors file as actisketch writes it: {error}; write it again with "
                f"`actisketch factors`, or, if you changed it yourself, delete its line {CONTENT_HASH!r}"
            ) from None
        return cls.from_dict(tree)


def _point_from_dict(tree: Mapping[str, Any]) -> PointFactor:
    name, raw = tree["name"], tree["factor"]
    if not isinstance(name, str):
        raise TypeError(f"{name!r:.60} is not the name of a point")
    what = f"the factor of {name!r:.200}"
    _check_types(tree, name)
    if isinstance(raw, list):
        if not raw:
            raise InputError(
                f"{what} is an empty list: a number is needed, or one for each channel", point=name
            )
        return PointFactor(**{**tree, "factor": tuple(_positive(x, what, point=name) for x in raw)})
    return PointFactor(**{**tree, "factor": _positive(raw, what, point=name)})


_NUMBERS = ("percentile", "value", "lo", "hi", "n_dead_channels")


def _check_types(tree: Mapping[str, Any], name: str) -> None:
    for key in _NUMBERS:
        value = tree.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise TypeError(f"{key} of {name!r} is {value!r:.60}, not a number")
    if not isinstance(tree.get("sketch"), str | None) or tree["rule"] not in get_args(Rule):
        raise TypeError(f"the entry of {name!r} is not as this program writes it")


def _positive(raw: object, what: str, **facts: str) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not 0 < raw < float("inf"):
        raise InputError(f"{what} is {raw!r:.200}: factors are positive finite numbers", **facts)
    return float(raw)


def _input_factor(raw: object) -> InputFactor:
    what = "the factor of the input"
    if not isinstance(raw, Mapping):
        return _positive(raw, what)
    return {
        str(name): [_positive(x, f"{what} {name!r}") for x in each]
        if isinstance(each, list)
        else _positive(each, f"{what} {name!r}")
        for name, each in raw.items()
    }


def _check_once(names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(
            f"the factors file has {', '.join(map(repr, twice))} more than once: leave one factor for each point",
            points=tuple(twice),
        )


def scheduled_percentile(percentile: float, index: int, *, schedule: float) -> float:
    """Return the percentile of the point at ``index``: ``percentile - index * schedule``.

    Parameters
    ----------
    percentile : float
        In percent, of the first point.
    index : int
        Place of the point in model order, from 0.
    schedule : float
        Percent points per point.

    Raises
    ------
    InputError
        If nothing is left of the percentile.

    Notes
    -----
    SNN toolbox truncates the result to a whole number, which makes 99.9 to 99 at the first layer already;
    this does not. The function to the letter is ``conversion.apply_normalization_schedule``.
    """
    # Rounded so that 99.9 - 3 * 0.02 is 99.84 and not 99.83999999999999 in files and messages.
    scheduled = round(percentile - index * schedule, 9)
    if scheduled <= 0:
        raise InputError(
            f"schedule {schedule} takes percentile {percentile} to {scheduled} at point {index}: "
            "choose a smaller schedule"
        )
    return scheduled


def compute_factors(
    points: Sequence[PointSpec],
    sketches: Mapping[str, PointSketch],
    settings: FactorSettings,
    *,
    input_factor: InputFactor = 1.0,
    model: Mapping[str, Any] | None = None,
    exact: ExactPercentile | None = None,
    ties: Ties | None = None,
) -> Factors:
    """Return the factor of every point: what the normalised network is really divided by.

    Parameters
    ----------
    points : sequence of PointSpec
        In model order. ``meta["pinned"]`` marks points whose scale must stay 1 (softmax and the like).
    sketches : mapping of str to PointSketch
        The merged sketch of each point.
    settings : FactorSettings
        Percentile, non-zero or all values, schedule, overrides, floor.
    input_factor : float or mapping of str to float or list of float
        Scale of the network's input, or of each of its inputs.
    model : mapping, optional
        Fingerprint of the recorded network, kept with the factors.
    exact : callable, optional
        Where exact percentiles come from when ``settings.exact`` is set.
    ties : Ties, optional
        Points that share a scale get the largest factor of their group; by default none do.

    Raises
    ------
    InputError
        If an override names no point, or the schedule leaves nothing of the percentile.
    """
    asked = asked_of_points([point.name for point in points], settings)
    chosen: list[PointFactor] = []
    dead: dict[str, NDArray[np.bool_]] = {}
    for point, given in zip(points, asked, strict=True):
        if given.factor is not None:
            chosen.append(PointFactor(name=point.name, factor=given.factor, rule="override"))
        else:
            q = given.percentile or settings.percentile
            found, dead[point.name] = _point_factor(point, sketches[point.name], q, settings, exact)
            chosen.append(found)
    return Factors(
        points=tuple(_tied(chosen, ties or Ties(), dead, settings, sketches=sketches)),
        nonzero=settings.nonzero,
        input_factor=input_factor,
        per_channel=settings.per_channel,
        model=dict(model or {}),
    )


def _tied(
    points: Sequence[PointFactor],
    ties: Ties,
    dead: Mapping[str, NDArray[np.bool_]],
    settings: FactorSettings,
    *,
    sketches: Mapping[str, PointSketch],
) -> Iterator[PointFactor]:
    """Yield the points with the scales that the graph leaves them; ``dead`` are channels that claim nothing."""
    numbers = (
        ties.channel if settings.per_channel else {name: [number] for name, number in ties.layer.items()}
    )
    largest: dict[int, float] = {}
    spare: dict[int, float] = {}  # what channels get that are dead in the whole group
    for p in points:
        if p.rule in ("dead", "pinned") or p.name not in numbers:
            continue  # claims nothing
        for number, factor, is_dead in _by_channel(p, numbers[p.name], dead.get(p.name, False)):
            claims = spare if is_dead else largest
            claims[number] = max(factor, claims.get(number, 0.0))
    if settings.groups == "merged":
        largest |= _merged(points, ties, sketches, settings)
    scales = spare | largest | dict(ties.fixed)
    joined = ties.joined_channel if settings.per_channel else ties.joined
    for p in points:
        if p.name in joined:
            held = [max(scales.get(number, 1.0) for number in channel) for channel in joined[p.name]]
            yield replace(p, factor=tuple(held) if len(held) > 1 else held[0], rule="joined")
            continue
        if p.name not in numbers:
            yield p
            continue
        channels = list(_by_channel(p, numbers[p.name], dead=False))
        own = [factor for _, factor, _ in channels]
        used = [scales.get(number, factor) for number, factor, _ in channels]
        if used == own:
            yield p
        else:
            rule: Rule = "pinned" if all(number in ties.fixed for number in numbers[p.name]) else "tied"
            yield replace(
                p, factor=tuple(used) if isinstance(p.factor, tuple) or len(used) > 1 else used[0], rule=rule
            )


def _by_channel(
    p: PointFactor, numbers: Sequence[int], dead: NDArray[np.bool_] | bool
) -> Iterator[tuple[int, float, bool]]:
    """Yield number, factor and whether it is dead, for each channel of a point."""
    # One number stands for all channels where they share a scale, one factor where they have the same.
    columns = np.broadcast_arrays(np.asarray(numbers), np.asarray(p.factor, dtype=np.float64), dead)
    yield from zip(*(np.atleast_1d(column).tolist() for column in columns), strict=True)


def _merged(
    points: Sequence[PointFactor], ties: Ties, sketches: Mapping[str, PointSketch], settings: FactorSettings
) -> dict[int, float]:
    """Return the percentile of all values of each group of points, where no factor in it was fixed by the user."""
    groups: dict[int, list[PointFactor]] = {}
    for p in points:
        if p.name in ties.layer:
            groups.setdefault(ties.layer[p.name], []).append(p)
    found = {}
    for number, members in groups.items():
        if len(members) < 2 or number in ties.fixed or any(p.rule == "override" for p in members):
            continue
        # Of the layers alone: points that share a scale may have other numbers of channels.
        layer = functools.reduce(Sketch.merge, [sketches[p.name].layer for p in members])
        q = max(p.percentile or settings.percentile for p in members)
        if layer.n == (layer.n_zeros if settings.nonzero else 0):
            continue
        value = layer.percentile(q, nonzero=settings.nonzero).value
        if value >= settings.floor:
            found[number] = value
    return found


def asked_of_points(names: Sequence[str], settings: FactorSettings) -> list[OverrideSettings]:
    """Return the percentile or the fixed factor of each point; the first override that matches wins.

    Raises
    ------
    InputError
        If an override matches no point, or the schedule leaves nothing of a percentile.
    """
    chosen = _overrides_by_point(names, settings.overrides)
    return [
        chosen[name]
        if name in chosen
        else OverrideSettings(
            percentile=scheduled_percentile(settings.percentile, index, schedule=settings.schedule)
        )
        for index, name in enumerate(names)
    ]


def _overrides_by_point(
    names: Sequence[str], overrides: Mapping[str, OverrideSettings]
) -> dict[str, OverrideSettings]:
    chosen: dict[str, OverrideSettings] = {}
    for pattern, override in overrides.items():
        matches = [name for name in names if name == pattern or fnmatch.fnmatchcase(name, pattern)]
        if not matches:
            raise InputError(
                f"factors.overrides names {pattern!r}, which is not a recorded point: {_listed(names)}",
                point=pattern,
            )
        for name in matches:
            chosen.setdefault(name, override)
    return chosen


def _listed(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return "there are " + ", ".join(repr(name) for name in names[:most]) + more


def _point_factor(
    point: PointSpec, sketch: PointSketch, q: float, settings: FactorSettings, exact: ExactPercentile | None
) -> tuple[PointFactor, NDArray[np.bool_]]:
    """Return the factor of a point, and which of its channels are dead (one element: all of them or none)."""
    none = np.zeros(1, dtype=bool)
    layer, nonzero = sketch.layer, settings.nonzero
    answer: dict[str, Any] = {"name": point.name, "percentile": q, "sketch": _identity(sketch)}
    if layer.n - (layer.n_zeros if nonzero else 0) == 0:
        rule: Rule = "pinned" if point.meta.get("pinned") else "dead"
        return PointFactor(**answer, factor=1.0, rule=rule), none
    certified = layer.percentile(q, nonzero=nonzero)
    value, lo, hi = certified.value, certified.lo, certified.hi
    if settings.exact and exact is not None:
        value = lo = hi = exact(point.name, q, nonzero)
        answer["exact"] = True
    answer |= {"value": value, "lo": lo, "hi": hi}
    if point.meta.get("pinned"):
        return PointFactor(**answer, factor=1.0, rule="pinned"), none
    rule = "percentile"
    if value <= 0:
        # A linear layer may be negative there; a negative factor would flip signs, so its size counts.
        value, rule = max(-value, -layer.percentile(100 - q, nonzero=nonzero).value), "magnitude"
    if value < settings.floor:
        return PointFactor(**answer, factor=1.0, rule="dead"), none
    if settings.per_channel and sketch.channels is not None:
        factors, dead = _channel_factors(sketch, q, settings, fallback=value)
        return PointFactor(**answer, factor=factors, rule=rule, n_dead_channels=int(dead.sum())), dead
    return PointFactor(**answer, factor=value, rule=rule), none


def _identity(sketch: PointSketch) -> str:
    return hashlib.blake2b(sketch.to_bytes(), digest_size=16).hexdigest()


def _channel_factors(
    sketch: PointSketch, q: float, settings: FactorSettings, *, fallback: float
) -> tuple[tuple[float, ...], NDArray[np.bool_]]:
    """Return a factor for each channel, and which are dead; these get the layer's, so that none blows up weights."""
    assert sketch.channels is not None  # the caller looked
    values = np.asarray(sketch.channels.percentile(q, nonzero=settings.nonzero)[0], dtype=np.float64)
    low = np.asarray(sketch.channels.percentile(100 - q, nonzero=settings.nonzero)[0], dtype=np.float64)
    values = np.where(values > 0, values, np.maximum(-values, -low))
    dead = ~(values >= settings.floor)  # NaN, the answer of a channel without values, counts as dead
    return tuple(np.where(dead, fallback, values).tolist()), dead
