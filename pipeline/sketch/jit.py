"""How loops are compiled by Numba: once, without a lock, and with NumPy's rules for division by zero."""

from __future__ import annotations

from typing import Any

import numba

__all__ = ["jit"]


def jit(function: Any) -> Any:
    """Return a function that compiles itself when it is first called, and is read from a cache by later processes."""
    try:
        return numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # no folder to cache in: neither beside the function's file nor the user's
        return numba.njit(nogil=True, error_model="numpy")(function)
