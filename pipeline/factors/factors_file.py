"""The factors of a network as values, and as the JSON file that keeps them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import FormatError, InputError
from ..folder.json_file import CONTENT_HASH, read_document
from ..settings.job_settings import InputFactor

if TYPE_CHECKING:
    from ..display.shown_table import ShownTable

__all__ = ["Factors", "PointFactor", "Rule"]

FORMAT_VERSION = 2

Rule = Literal[
    "percentile", "max", "mse", "entropy", "magnitude", "pinned", "dead", "override", "tied", "joined"
]
_WHY_LOST: dict[Rule, str] = {
    "tied": "it shares its scale with others, and the largest factor of them all is used",
    "joined": "it has the scales of what it joins",
    "pinned": "its scale does not depend on factors",
}
_NEW_IN_2 = {"max", "mse", "entropy"}
"""Programs that read only version 1 do not know these rules; files without them stay as they were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointFactor:
    """The factor of one point and where it comes from."""

    name: str
    factor: float | tuple[float, ...]
    """One number, or one for each channel; positive and finite, in units of the activation."""
    rule: Rule
    """``percentile``, ``max``, ``mse`` or ``entropy`` (the method that chose it); ``magnitude`` (the percentile was not
    positive: the larger of both tails in size); ``pinned`` (softmax and the like: 1); ``dead`` (nothing to scale: 1);
    ``override`` (fixed by the user); ``tied`` (meets others in an Add or the like: the largest factor of them all);
    ``joined`` (a Concatenate or the like of different scales: claims nothing, and each channel has that of the part it
    comes from)."""
    percentile: float | None = None
    """The percentile that was taken, in percent, after schedule and overrides."""
    value: float | None = None
    """What the method finds for the point (all channels together): that percentile, or a clip."""
    lo: float | None = None
    hi: float | None = None
    """The certified interval: the exact order statistics, or the clip that the method finds in the values, lie within
    [lo, hi]."""
    exact: bool = False
    """True when the value was refined to the exact percentile."""
    sketch: str | None = None
    """Content hash (BLAKE2b) of the sketch that was asked."""
    n_dead_channels: int = 0

    @property
    def factors(self) -> tuple[float, ...]:
        """The factors as a tuple of length one, or with one for each channel."""
        return self.factor if isinstance(self.factor, tuple) else (self.factor,)


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

    def lost_overrides(self) -> tuple[str, ...]:
        """Return a sentence for each point that has another factor than the one that the user fixed for it."""
        # No sketch was asked: its factor was fixed.
        lost = [p for p in self.points if p.sketch is None and p.rule in _WHY_LOST]
        return tuple(
            f"the factor that factors.overrides has for {p.name!r} is not used: {_WHY_LOST[p.rule]}"
            for p in lost
        )

    def chosen_by(self) -> dict[str, Any]:
        """Return the settings that most of them were chosen by, as far as they tell: a method, or a percentile."""
        methods = [p.rule for p in self.points if p.rule in ("mse", "entropy")]
        if methods:
            return {"method": methods[0]}
        # A schedule gives each point another one: then that of the first, from which it starts.
        asked = Counter(p.percentile for p in self.points if p.percentile is not None).most_common(1)
        return {"method": "percentile", "percentile": asked[0][0]} if asked else {}

    def __repr__(self) -> str:
        return _shown(self).text()

    def _repr_html_(self) -> str:
        return _shown(self).html()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        is_new = any(p.rule in _NEW_IN_2 for p in self.points)
        return {"actisketch_factors": 2 if is_new else 1, **asdict(self), "model": dict(self.model)}

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


def _shown(factors: Factors) -> ShownTable:
    # Only here: most who read factors do not look at them.
    from ..display.shown_table import ShownTable
    from ..display.small_pictures import factor_svg
    from ..events import counted
    from ..report.numbers import factor_text, interval_text, number_text

    points = factors.points
    every = [factor for p in points for factor in p.factors]
    ends = min(every, default=1.0), max(every, default=1.0)
    which = "non-zero activations" if factors.nonzero else "all activations"
    channels = [f" ({len(p.factors)} channels)" if len(p.factors) > 1 else "" for p in points]
    return ShownTable(
        title=f"factors of {counted(len(points), 'point')}, from the {which}",
        columns={
            "point": [p.name for p in points],
            ">factor": [f"{factor_text(p.factors)}{n}" for p, n in zip(points, channels, strict=True)],
            "rule": [p.rule for p in points],
            ">percentile": ["-" if p.percentile is None else repr(p.percentile) for p in points],
            ">value": ["-" if p.value is None else number_text(p.value, digits=5) for p in points],
            "[lo, hi]": ["-" if p.lo is None or p.hi is None else interval_text(p.lo, p.hi) for p in points],
        },
        pictures=[factor_svg(p.factors, ends) for p in points],
        picture_head="factor, logarithmic",
        more="factors.by_point() has all",
    )


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
