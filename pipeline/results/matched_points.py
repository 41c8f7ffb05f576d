"""Which points of two runs belong together: by their names, and where those differ by their places.

Knows the descriptions of points. Does not know what was recorded.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from ...storage import PointSpec
from ...storage.errors import InputError
from ..factors.merge import unknown_point

__all__ = ["Matched", "Matching", "match_points", "meant_points"]

_COUNTER = re.compile(r"_\d+\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """A point of the first run and the one of the second that it is compared with."""

    first: str
    second: str
    by: Literal["name", "place"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """The points of two runs."""

    pairs: tuple[Matched, ...]
    """In the order of the first run."""
    only_in_first: tuple[str, ...]
    only_in_second: tuple[str, ...]


def match_points(first: Sequence[PointSpec], second: Sequence[PointSpec]) -> Matching:
    """Return which points belong together.

    Points with the same name do. Of the others, those between the same two pairs do if there are equally many and their
    types are the same in order, as of two networks of one architecture whose layers were named by Keras. If all points
    of both runs have the same types and shapes in order, and names that both have stand at another place only where the
    two that stand there differ by their counters, points are matched by place alone: Keras, which counts ``dense``,
    ``dense_1`` ... through a whole process, gives a name to another layer then. Each point is in one pair at most.
    """
    names, others = [point.name for point in first], [point.name for point in second]
    is_one_architecture = [*map(_kind, first)] == [*map(_kind, second)]
    if is_one_architecture and sorted(names) != sorted(others) and _only_counters_differ(names, others):
        pairs = [
            Matched(first=a, second=b, by="name" if a == b else "place")
            for a, b in zip(names, others, strict=True)
        ]
        return Matching(pairs=tuple(pairs), only_in_first=(), only_in_second=())
    pairs = [Matched(first=name, second=name, by="name") for name in names if name in set(others)]
    pairs += _between(first, second, pairs)
    pairs.sort(key=lambda pair: names.index(pair.first))
    of_first, of_second = {pair.first for pair in pairs}, {pair.second for pair in pairs}
    return Matching(
        pairs=tuple(pairs),
        only_in_first=tuple(name for name in names if name not in of_first),
        only_in_second=tuple(name for name in others if name not in of_second),
    )


def _type(point: PointSpec) -> object:
    return point.meta.get("layer_type")


def _kind(point: PointSpec) -> tuple[object, ...]:
    return (_type(point), point.shape)


def _only_counters_differ(names: Sequence[str], others: Sequence[str]) -> bool:
    """Return whether no name that both have is, at the same place, another one than Keras counts on to."""
    shared = {*names} & {*others}
    return all(
        _COUNTER.sub("", a) == _COUNTER.sub("", b)
        for a, b in zip(names, others, strict=True)
        if a in shared or b in shared
    )


def _between(
    first: Sequence[PointSpec], second: Sequence[PointSpec], pairs: Sequence[Matched]
) -> Iterator[Matched]:
    """Yield the points without a namesake that stand at the same place between two pairs, which follow in both runs."""
    of_second = {pair.second for pair in pairs}
    place_in_second = {point.name: i for i, point in enumerate(second)}
    place_in_first = {point.name: i for i, point in enumerate(first)}
    anchors = [(place_in_first[pair.first], place_in_second[pair.second]) for pair in pairs]
    for (a, b), (next_a, next_b) in pairwise([(-1, -1), *anchors, (len(first), len(second))]):
        ours, theirs = first[a + 1 : next_a], second[b + 1 : next_b]
        # Where the pairs are in another order, others stand between these two, or nothing does.
        is_gap = of_second.isdisjoint(point.name for point in theirs)
        if is_gap and [*map(_type, ours)] == [*map(_type, theirs)]:
            for x, y in zip(ours, theirs, strict=True):
                yield Matched(first=x.name, second=y.name, by="place")


def meant_points(patterns: str | Iterable[str], names: Sequence[str]) -> list[str]:
    """Return the names that names or patterns (``"conv*"``) mean, in their order; each pattern adds what is new.

    Raises
    ------
    InputError
        For a pattern that means none, with near names, and for what is no text.
    """
    chosen: list[str] = []
    several = [patterns] if isinstance(patterns, str) or not isinstance(patterns, Iterable) else patterns
    for pattern in several:
        if not isinstance(pattern, str):
            raise InputError(f"points = {patterns!r} is refused: give a name, a pattern, or a list of them")
        found = [pattern] if pattern in names else fnmatch.filter(names, pattern)
        if not found:
            raise InputError(unknown_point(pattern, names), point=pattern)
        chosen += [name for name in found if name not in chosen]
    return chosen
