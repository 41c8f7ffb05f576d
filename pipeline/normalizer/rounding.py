"""How large the rounding error of the original network itself is, measured against a float64 twin.

Slow, and therefore only asked where a residual is over the tolerance.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import ActisketchError
from ..graph import Graph
from .rebuilding import float64_twin

__all__ = ["rounding_errors"]

logger = logging.getLogger(__name__)


def rounding_errors(
    graph: Graph,
    wanted: Mapping[int, tuple[int, int]],
    read: Callable[[int], list[NDArray[Any]]],
) -> dict[int, float]:
    """Return the largest difference between values of a network and of its float64 twin.

    Parameters
    ----------
    graph : Graph
        The network.
    wanted : mapping of key to (value, start)
        The value to measure and the first sample of the batch to measure it on.
    read : callable
        From the first sample of a batch to the inputs of the network.

    Returns
    -------
    dict of key to float
        In the units of the value; a value that the twin does not have is left out.
    """
    try:
        twin, places = float64_twin(graph)
    except (ActisketchError, TypeError, ValueError) as error:
        # A layer of the user's own may know float32 only: then there is nothing to excuse a residual with.
        logger.warning("the rounding error of the network cannot be measured: %s", error)
        return {}
    found: dict[int, float] = {}
    for start in sorted({start for _, start in wanted.values()}):
        keys = [key for key, (value, first) in wanted.items() if first == start and value in places]
        values = [wanted[key][0] for key in keys]
        inputs = read(start)
        single, _ = graph.forward(values)(inputs)
        double, _ = twin.forward([places[value] for value in values], dtype="float64")(inputs)
        for key, low, high in zip(keys, single, double, strict=True):
            found[key] = float(np.max(np.abs(np.asarray(low, dtype=np.float64) - np.asarray(high))))
    logger.info("measured the rounding error of the original at %d points", len(found))
    return found
