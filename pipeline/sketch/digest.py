"""The t-digest of a sketch: centroids with certified intervals, a small summary to send elsewhere.

A deterministic compression of sorted buckets by a scale function of Dunning and Ertl. Knows
centroids. Does not know how values were counted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import FormatError, InputError
from .ladder import parse_percent

MIN_COMPRESSION, MAX_COMPRESSION = 10.0, 100_000.0
FORMAT_VERSION = 1
Scale = Literal["k1", "k2"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Digest:
    """A t-digest: centroids in ascending order, each with the interval of the values in it.

    Arrays have the shape (n_centroids,), in the units of the values.
    """

    means: NDArray[np.float64]
    weights: NDArray[np.float64]
    """Values in the centroid: whole numbers, except in digests that other programs made."""
    lo: NDArray[np.float64]
    """No value of the centroid is smaller; intervals of neighbours share at most an end."""
    hi: NDArray[np.float64]
    compression: float
    """Size of the scale function. There are about half as many centroids, never more than three times as many."""
    scale: Scale
    certified: bool = True
    """False if it was read from a digest without intervals: ``lo`` and ``hi`` are then guesses."""

    @property
    def n(self) -> float:
        """Number of values."""
        return math.fsum(self.weights)

    def __len__(self) -> int:
        return int(self.means.size)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Digest) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # arrays inside

    def quantile(self, q: float) -> float:
        """Return the value below which the share ``q`` of the values lies, ``q`` from 0 to 1; NaN if empty.

        Monotone in ``q``, and between the ends of the centroids that hold the ranks around ``q * (n - 1)``.
        """
        if not 0.0 <= q <= 1.0:
            raise InputError(
                f"a quantile is a number from 0 to 1, got {q!r}; percentile() takes 0 to 100", q=q
            )
        if not len(self):
            return math.nan
        rank = q * (self.n - 1)
        previous, following = math.floor(rank), math.ceil(rank)
        # As np.percentile interpolates: between the two values around the rank. Atoms are known exactly.
        lower, upper = self._values_at(np.array([previous, following], np.float64)).tolist()
        return float(lower + (upper - lower) * (rank - previous))

    def _values_at(self, ranks: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return estimates of the values of whole ranks: within the ends of the centroid that holds the rank."""
        ends = np.cumsum(self.weights)
        holders = np.minimum(np.searchsorted(ends, ranks, side="right"), len(self) - 1)
        middles = ends - self.weights / 2 - 0.5
        knots = np.concatenate(([0.0], middles, [self.n - 1.0]))
        values = np.concatenate((self.lo[:1], self.means, self.hi[-1:]))
        return np.clip(np.interp(ranks, knots, values), self.lo[holders], self.hi[holders])

    def percentile(self, q: float) -> float:
        """Return `quantile` of ``q / 100``."""
        return self.quantile(parse_percent(q) / 100.0)

    def cdf(self, x: float) -> float:
        """Return the share of values that are at most ``x``, 0 to 1, monotone in ``x``; NaN if empty or ``x`` is NaN.

        Exact where ``x`` lies in no centroid's interval or at its upper end.
        """
        if not len(self) or math.isnan(x):
            return math.nan
        below = int(np.searchsorted(self.hi, x, side="right"))
        count = float(self.weights[:below].sum())
        if below < len(self) and x > self.lo[below]:
            lo, mean, hi = float(self.lo[below]), float(self.means[below]), float(self.hi[below])
            share = np.interp(x, [lo, mean, hi], [0.0, 0.5, 1.0]) if lo < mean < hi else 0.5
            count += float(self.weights[below]) * float(share)
        return count / self.n

    def trimmed_mean(self, lower: float, upper: float) -> float:
        """Return the mean of the values between two percentiles (0 to 100); NaN if there are none.

        As `tdigest.TDigest.trimmed_mean`: a centroid across a border counts by its share inside.
        """
        return trimmed_mean(self.means, self.weights, lower, upper)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able dict that `from_dict` reads."""
        return {
            "format": "actisketch-digest",
            "version": FORMAT_VERSION,
            "compression": self.compression,
            "scale": self.scale,
            "certified": self.certified,
            "means": self.means.tolist(),
            "weights": self.weights.tolist(),
            "lo": self.lo.tolist(),
            "hi": self.hi.tolist(),
        }

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Digest:
        """Return the digest that `to_dict` gave; FormatError if something is missing or newer."""
        if facts.get("format") != "actisketch-digest":
            raise FormatError(f"not a digest of actisketch: its format is {facts.get('format')!r}")
        version = facts.get("version")
        if type(version) is not int or version < 1:
            raise FormatError(f"a digest of version {version!r}: the file is damaged")
        if version > FORMAT_VERSION:
            raise FormatError(
                f"a digest of version {version} is newer than this program, which reads up to "
                f"{FORMAT_VERSION}: install a newer actisketch"
            )
        try:
            digest = cls(
                means=np.array(facts["means"], np.float64),
                weights=np.array(facts["weights"], np.float64),
                lo=np.array(facts["lo"], np.float64),
                hi=np.array(facts["hi"], np.float64),
                compression=float(facts["compression"]),
                scale=_parse_scale(facts["scale"]),
                certified=bool(facts["certified"]),
            )
        except KeyError as missing:
            raise FormatError(f"a digest without {missing}: the file is damaged") from None
        except (TypeError, ValueError, OverflowError) as problem:
            raise FormatError(f"a digest that is damaged: {problem}") from None
        digest._refuse_damage()
        return digest

    def _refuse_damage(self) -> None:
        arrays = (self.means, self.weights, self.lo, self.hi)
        if {array.shape for array in arrays} != {(self.means.size,)}:
            raise FormatError("a digest whose arrays are not lists of the same length: the file is damaged")
        if not all(np.isfinite(array).all() for array in (*arrays, self.compression)):
            raise FormatError("a digest with a number that is not finite: the file is damaged")
        if (self.weights <= 0).any() or self.compression <= 0:
            raise FormatError(
                "a digest with a weight or a compression that is not positive: the file is damaged"
            )

    def to_json(self) -> str:
        """Return `to_dict` as JSON text; every float survives exactly."""
        return json.dumps(self.to_dict(), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Digest:
        """Return the digest that `to_json` gave."""
        try:
            facts = json.loads(text)
        except json.JSONDecodeError as problem:
            raise FormatError(f"not JSON: {problem}") from None
        if not isinstance(facts, dict):
            raise FormatError(f"a digest is a JSON object, got {type(facts).__name__}")
        return cls.from_dict(facts)


def digest_of_buckets(
    means: NDArray[np.float64],
    counts: NDArray[np.int64],
    lo: NDArray[np.float64],
    hi: NDArray[np.float64],
    *,
    compression: float,
    scale: str,
) -> Digest:
    """Return the digest of buckets in ascending order.

    Notes
    -----
    Buckets join a centroid from left to right as long as the scale function grows by at most 1 over it; a bucket
    that is wider than that is a centroid of its own. No centroid spans a gap in the values of more than
    1 / compression of their range: quantiles beside the gap would be interpolated across it.

    References
    ----------
    .. [1] Dunning and Ertl, "Computing Extremely Accurate Quantiles Using t-Digests", arXiv:1902.04023,
       sections 2.2 and 3.
    """
    if not (_is_number(compression) and MIN_COMPRESSION <= compression <= MAX_COMPRESSION):
        raise InputError(
            f"compression must be from {MIN_COMPRESSION:g} to {MAX_COMPRESSION:g}, got {compression!r}",
            compression=compression,
        )
    kind = _parse_scale(scale)
    breaks = _wide_gaps(lo, hi, compression)
    begins = _centroid_begins(np.cumsum(counts), breaks, compression=compression, kind=kind)
    ends = np.append(begins[1:], counts.size) if begins.size else begins
    weights = np.add.reduceat(counts, begins) if begins.size else np.empty(0, np.int64)
    products = counts * means
    sums = [math.fsum(products[a:b]) for a, b in zip(begins, ends, strict=True)]
    centroid_lo, centroid_hi = lo[begins], hi[ends - 1]
    return Digest(
        means=np.clip(np.array(sums, np.float64) / weights, centroid_lo, centroid_hi),
        weights=weights.astype(np.float64),
        lo=centroid_lo,
        hi=centroid_hi,
        compression=float(compression),
        scale=kind,
    )


def trimmed_mean(means: NDArray[np.float64], weights: NDArray[Any], lower: float, upper: float) -> float:
    """Return the mean of weighted values between two percentiles; a weight across a border counts by its share."""
    low, high = parse_percent(lower), parse_percent(upper)
    if low >= high:
        raise InputError(f"a trimmed mean needs lower < upper, got {lower!r} and {upper!r}", q=(lower, upper))
    ends = np.cumsum(weights).astype(np.float64)
    if not ends.size:
        return math.nan
    inside = np.minimum(ends, high / 100 * ends[-1]) - np.maximum(ends - weights, low / 100 * ends[-1])
    inside = np.maximum(inside, 0.0)
    total = math.fsum(inside)
    return math.fsum(inside * means) / total if total > 0 else math.nan


def _wide_gaps(lo: NDArray[np.float64], hi: NDArray[np.float64], compression: float) -> NDArray[np.intp]:
    """Return the buckets before which there is a gap that no centroid may span."""
    if not lo.size:
        return np.empty(0, np.intp)
    return np.flatnonzero(lo[1:] - hi[:-1] > (hi[-1] - lo[0]) / compression) + 1


def _centroid_begins(
    cumulative: NDArray[np.int64], breaks: NDArray[np.intp], *, compression: float, kind: Scale
) -> NDArray[np.intp]:
    """Return the first bucket of each centroid."""
    begins: list[int] = []
    n = int(cumulative[-1]) if cumulative.size else 0
    ends = np.append(breaks, cumulative.size)
    at, done = 0, 0
    while at < cumulative.size:
        begins.append(at)
        limit = _next_limit(done / n, compression, kind, n) * n
        after = int(np.searchsorted(cumulative, limit, side="right"))
        at = min(max(after, at + 1), int(ends[np.searchsorted(ends, at, side="right")]))
        done = int(cumulative[at - 1])
    return np.array(begins, np.intp)


def _next_limit(q: float, compression: float, kind: Scale, n: int) -> float:
    """Return the quantile at which the scale function is 1 more than at ``q``."""
    if kind == "k1":
        # k1(q) = compression / (2 pi) * asin(2 q - 1)
        angle = math.asin(2.0 * q - 1.0) + 2.0 * math.pi / compression
        return 1.0 if angle >= math.pi / 2 else (math.sin(angle) + 1.0) / 2.0
    # k2(q) = compression / Z(n) * log(q / (1 - q)), Z(n) = 4 log(n / compression) + 24; it starts at the
    # quantile of half a value, where it is finite.
    normaliser = compression / (4.0 * math.log(max(n / compression, 1.0)) + 24.0)
    q = max(q, 0.5 / n)
    if q >= 1.0 - 0.5 / n:
        return 1.0
    odds = q / (1.0 - q) * math.exp(1.0 / normaliser)
    return odds / (1.0 + odds)


def _parse_scale(scale: Any) -> Scale:
    if scale not in ("k1", "k2"):
        raise InputError(f"scale must be 'k1' or 'k2', got {scale!r}", scale=scale)
    return scale  # type: ignore[no-any-return]  # narrowed by the test above


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number)
