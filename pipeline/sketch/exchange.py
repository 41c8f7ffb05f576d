"""Digests to and from the ``tdigest`` package.

The package is imported only to build its objects; its dict form does not need it. Knows digests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ...storage.errors import FormatError, InputError
from .digest import Digest

if TYPE_CHECKING:
    from tdigest import TDigest

TDIGEST_K = 25
"""Its default: it compresses itself once it has more than ``K / delta`` centroids."""


def to_tdigest_dict(digest: Digest) -> dict[str, Any]:
    """Return a digest in the form of `tdigest.TDigest.to_dict`, for its `update_from_dict`.

    `update_from_dict` adds centroids in ascending order without merging them: the last one may only take up
    ``2 * delta`` of its own weight, which is less than that weight.
    """
    return {
        "n": digest.n,
        "delta": 1.0 / digest.compression,
        "K": TDIGEST_K,
        "centroids": [
            {"m": mean, "c": weight}
            for mean, weight in zip(digest.means.tolist(), digest.weights.tolist(), strict=True)
        ],
    }


def to_tdigest(digest: Digest) -> TDigest:
    """Return a digest as an object of the ``tdigest`` package.

    Raises
    ------
    InputError
        If the digest is empty: without values the package raises instead of answering NaN.
    """
    if not len(digest):
        raise InputError("the digest is empty, and tdigest has no percentiles of no values: skip this point")
    from tdigest import TDigest  # only here: a sketch needs none of it

    return TDigest().update_from_dict(to_tdigest_dict(digest))


def from_tdigest(source: TDigest | Mapping[str, Any]) -> Digest:
    """Return the digest of a `tdigest.TDigest` or of its dict form.

    It is not certified: the package keeps no intervals, so they are taken to end in the middle between two means.

    Raises
    ------
    FormatError
        If the dict lacks something, or a centroid is not a finite mean with a positive count.
    """
    facts = source if isinstance(source, Mapping) else source.to_dict()
    try:
        pairs = sorted((float(one["m"]), float(one["c"])) for one in facts["centroids"])
        delta = float(facts.get("delta", 0.01))
    except (KeyError, TypeError, ValueError) as problem:
        raise FormatError(
            f"not the dict form of tdigest ({type(problem).__name__}: {problem}): "
            "it has 'centroids', each with a mean 'm' and a count 'c'"
        ) from None
    means, weights = np.array(pairs, np.float64).reshape(-1, 2).T
    if not (np.isfinite(means).all() and np.isfinite(weights).all() and (weights > 0).all() and delta > 0):
        raise FormatError("a tdigest with a mean, count or delta that is not finite or not positive")
    middles = (means[1:] + means[:-1]) / 2
    return Digest(
        means=means,
        weights=weights,
        lo=np.concatenate((means[:1], middles)),
        hi=np.concatenate((middles, means[-1:])),
        compression=1.0 / delta,
        scale="k2",
        certified=False,
    )
