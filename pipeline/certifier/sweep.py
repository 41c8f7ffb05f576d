"""The loop over two arrays that are compared, compiled by Numba: one sweep over memory for all that is found.

It holds no lock (nogil) and is compiled once, as those of `sketch`. TensorFlow's own reductions took 10 times
as long: each of them sweeps over memory again, and the difference is written to memory first.
"""

from __future__ import annotations

import numpy as np

from ..sketch.jit import jit

__all__ = ["compare_lanes"]


@jit
def compare_lanes(old, new, inverses, limit, errors, peaks, squares):
    """Compare arrays of shape (samples, rows, lanes); return how many values of ``new`` exceed ``limit``.

    ``errors`` and ``peaks`` of each lane are raised to the largest |new - old * inverse| and |old|; NaN raises nothing.
    ``squares`` of each sample becomes the sum of the squared differences, whatever samples are given with it.
    """
    n_samples, n_rows, n_lanes = old.shape
    sums = np.zeros(n_lanes)
    n_saturated = 0
    for s in range(n_samples):
        sums[:] = 0.0
        for r in range(n_rows):
            for c in range(n_lanes):
                value = old[s, r, c]
                error = new[s, r, c] - value * inverses[c]
                size = abs(error)
                errors[c] = size if size > errors[c] else errors[c]
                peak = abs(value)
                peaks[c] = peak if peak > peaks[c] else peaks[c]
                sums[c] += np.float64(error) * np.float64(error)
                n_saturated += new[s, r, c] > limit
        squares[s] = sums.sum()
    return n_saturated
