"""Unknown scales, and which of them must be equal.

A union-find over integers. Knows nothing of layers: rules make variables, tie them and fix them;
numbers come from claims at the end. The scales of a value are an integer array that broadcasts to the
value's shape, so that flattening, joining or transposing scales is done by numpy itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError

__all__ = ["ONE", "Ids", "ScaleVariables", "tied_scales"]

Ids = NDArray[np.int64]
ONE = 0
"""The variable whose scale is 1: what is tied to it is pinned."""


class ScaleVariables:
    """Variables 0, 1, 2...; `ONE` exists from the start."""

    def __init__(self) -> None:
        self._parent: list[int] = [ONE]
        self._fixed: dict[int, float] = {ONE: 1.0}
        self._names: dict[int, str] = {ONE: "a layer whose scale is pinned to 1"}

    def __len__(self) -> int:
        return len(self._parent)

    def new(self, n: int) -> Ids:
        """Return ``n`` new variables, all free."""
        start = len(self._parent)
        self._parent.extend(range(start, start + n))
        return np.arange(start, start + n, dtype=np.int64)

    def fixed(self, scales: NDArray[np.float64], *, name: str) -> Ids:
        """Return variables with given scales; ``name`` says whose they are in error messages."""
        ids = self.new(scales.size)
        for variable, scale in zip(ids.tolist(), scales.reshape(-1).tolist(), strict=True):
            self._fixed[variable] = scale
            self._names[variable] = name
        return ids.reshape(scales.shape)

    def root(self, variable: int) -> int:
        """Return the variable that stands for all that are tied to this one."""
        parent = self._parent
        while parent[variable] != variable:
            parent[variable] = parent[parent[variable]]
            variable = parent[variable]
        return variable

    def roots(self, ids: Ids) -> Ids:
        """Return `root` of every element."""
        unique, inverse = np.unique(ids, return_inverse=True)
        found = np.array([self.root(variable) for variable in unique.tolist()], dtype=np.int64)
        return found[inverse].reshape(ids.shape)

    def tie(self, left: Ids, right: Ids, *, where: str) -> None:
        """Make the scales of ``left`` and ``right`` equal, element by element after broadcasting.

        Raises
        ------
        InputError
            If two scales that are fixed to different numbers would have to be equal.
        """
        pairs = np.stack(np.broadcast_arrays(left, right)).reshape(2, -1)
        for one, other in np.unique(pairs, axis=1).T.tolist():
            self._join(one, other, where)

    def tie_all(self, ids: Ids, *, where: str) -> None:
        """Make all scales of ``ids`` equal."""
        self.tie(ids, ids.reshape(-1)[:1].reshape((1,) * ids.ndim), where=where)

    def pin(self, ids: Ids, *, where: str) -> None:
        """Make all scales of ``ids`` 1."""
        self.tie(ids, np.full((1,) * ids.ndim, ONE, dtype=np.int64), where=where)

    def is_pinned(self, ids: Ids) -> bool:
        """Return whether every scale of ``ids`` is known to be 1."""
        return bool(np.all(self.roots(ids) == self.root(ONE)))

    def fixed_scale(self, root: int) -> float | None:
        """Return the scale that was given for this root, None if there is none."""
        return self._fixed.get(root)

    def _join(self, one: int, other: int, where: str) -> None:
        one, other = self.root(one), self.root(other)
        if one == other:
            return
        if one in self._fixed and other in self._fixed:
            if self._fixed[one] != self._fixed[other]:
                raise InputError(
                    f"at {where!r} two scales must be equal that are fixed to different numbers: "
                    f"{self._fixed[one]:g} ({self._names[one]}) and {self._fixed[other]:g} "
                    f"({self._names[other]}); leave the input factors at 1 or give both the same",
                    layer=where,
                )
        elif other in self._fixed:
            one, other = other, one
        self._parent[other] = one

    def solve(self, claims: Sequence[tuple[Ids, NDArray[np.float64]]]) -> NDArray[np.float64]:
        """Return the scale of every variable.

        Parameters
        ----------
        claims : sequence of (ids, factors)
            Two arrays that broadcast together; a factor that is NaN claims nothing.

        Returns
        -------
        ndarray of shape (n_variables,), float64
            Fixed scales as given; else the largest claim of all variables that are tied; else 1.
        """
        roots = self.roots(np.arange(len(self), dtype=np.int64))
        fixed = {int(roots[variable]): scale for variable, scale in self._fixed.items()}
        found = tied_scales([(roots[ids], factors) for ids, factors in claims], fixed=fixed)
        scales = np.ones(len(self))
        scales[list(found)] = list(found.values())
        return scales[roots]


def tied_scales(
    claims: Iterable[tuple[Ids, NDArray[np.float64]]], *, fixed: Mapping[int, float] | None = None
) -> dict[int, float]:
    """Return the scale of each number that is claimed or fixed: the one rule for what shares a scale.

    Parameters
    ----------
    claims : iterable of (numbers, factors)
        Two arrays that broadcast together: who shares a scale has one number. A factor that is NaN claims nothing.
    fixed : mapping of int to float, optional
        Scales that hold whatever is claimed.

    Returns
    -------
    dict of int to float
        As fixed, else the largest claim: then no activation exceeds what its own factor would have allowed.
    """
    largest: dict[int, float] = {}
    for numbers, factors in claims:
        where, what = np.broadcast_arrays(numbers, factors)
        is_claim = ~np.isnan(what)
        for number, factor in zip(where[is_claim].tolist(), what[is_claim].tolist(), strict=True):
            largest[number] = max(factor, largest.get(number, factor))
    return largest | dict(fixed or {})
