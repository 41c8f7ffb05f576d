"""Whether Numba's compiled loops count or numpy does. Both give identical results.

Knows what can be imported and what loading it costs. Does not know sketches.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from functools import cache

logger = logging.getLogger(__name__)

NO_NUMBA = "ACTISKETCH_NO_NUMBA"
"""Environment variable: set to 1, everything is counted by numpy."""
WORTH_LOADING_NUMBERS = 5_000_000
"""Loading Numba and a kernel takes half a second; numpy adds or unpacks this many numbers in that time."""


def is_compiled() -> bool:
    """Return whether Numba counts; if not, numpy does."""
    return os.environ.get(NO_NUMBA, "0") in ("", "0") and _has_numba()


def is_worth_compiled(n_numbers: int, *, least: int) -> bool:
    """Return whether the kernels are faster for this many numbers, the cost of loading them included.

    Parameters
    ----------
    n_numbers : int
        How much there is to do.
    least : int
        Up to this many numbers numpy is faster even once the kernels are loaded.
    """
    if n_numbers <= least or (n_numbers < WORTH_LOADING_NUMBERS and "numba" not in sys.modules):
        return False
    return is_compiled()


@cache
def _has_numba() -> bool:
    try:
        importlib.import_module("numba")
    except ImportError as problem:
        logger.warning("Numba cannot be used (%s): numpy counts, 10 times slower", problem)
        return False
    return True
