"""Sketch the weights of a layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from ..sketch import Sketch

__all__ = ["weight_sketch"]

# A copy in float32 of this many values at a time: 4 MiB.
VALUES_AT_A_TIME = 1 << 20


def weight_sketch(arrays: Iterable[NDArray[Any]]) -> Sketch:
    """Return the sketch of all values of `arrays`, taken one array after the other.

    Parameters
    ----------
    arrays : iterable of ndarray
        Kernels and biases of any shape and any real dtype (float64 and integers are
        rounded to float32), or an iterator of them; no array is kept.

    Returns
    -------
    Sketch
        The sketch of all values; empty if there are none.

    Raises
    ------
    InputError
        If an array is not of real numbers, or has values that are not finite.

    Examples
    --------
    >>> sketch = weight_sketch([np.array([0.5, -0.25], np.float32)])
    >>> sketch.n, sketch.minimum, sketch.maximum
    (2, -0.25, 0.5)
    """
    sketch = Sketch()
    for array in arrays:
        # NumPy gives bfloat16 the kind "V", so ask whether an array can be cast.
        if array.dtype.kind in "cOSUMm" or not np.can_cast(array.dtype, np.float64, casting="unsafe"):
            raise InputError(
                f"weights must be real numbers, got an array of {array.dtype}", dtype=str(array.dtype)
            )
        flat = array.reshape(-1)
        for start in range(0, flat.size, VALUES_AT_A_TIME):
            # What float32 cannot hold becomes infinite, and the sketch refuses that.
            with np.errstate(over="ignore"):
                values = flat[start : start + VALUES_AT_A_TIME].astype(np.float32, copy=False)
            sketch.update(values)
    return sketch
