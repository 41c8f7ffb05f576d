"""Hand arrays to TensorFlow: in memory that its kernels can work on, and in a dtype that can hold them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ...storage.errors import InputError

__all__ = ["aligned", "input_tensor"]

# TensorFlow takes an array's memory as it is and its oneDNN kernels check it later: a batch that begins in the middle
# of a data set (row 16 of 24-byte rows) aborted the whole process with "Check failed: IsAligned()".
ALIGNMENT_NBYTES = 64


def aligned(array: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """Return the array in ``dtype``, in C order, at an address that is a multiple of 64; copied if it is not."""
    wanted = np.dtype(dtype)
    if array.dtype == wanted and array.flags.c_contiguous and array.ctypes.data % ALIGNMENT_NBYTES == 0:
        return array
    _check_range(array, wanted)
    nbytes = array.size * wanted.itemsize
    memory = np.empty(nbytes + ALIGNMENT_NBYTES, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT_NBYTES
    out = memory[start : start + nbytes].view(wanted).reshape(array.shape)
    out[...] = array
    return out


def input_tensor(array: NDArray[Any], dtype: DTypeLike) -> Any:
    """Return one batch of an input, of shape (n, ...), as a tensor of ``dtype`` (a NumPy name; ``object``: texts)."""
    import tensorflow as tf

    if array.dtype.kind == "O":
        return tf.convert_to_tensor(array, tf.string)
    return tf.convert_to_tensor(aligned(array, dtype))


def _check_range(array: NDArray[Any], wanted: np.dtype[Any]) -> None:
    """Refuse numbers that whole numbers of ``wanted`` cannot hold: NumPy and TensorFlow would wrap them."""
    if wanted.kind not in "iu" or array.size == 0 or np.can_cast(array.dtype, wanted):
        return
    limits = np.iinfo(wanted)
    # As Python's numbers, which compare without rounding.
    ends = array.min().item(), array.max().item()
    if not limits.min <= ends[0] <= ends[1] <= limits.max:
        found = ends[0] if not limits.min <= ends[0] else ends[1]
        raise InputError(
            f"the samples hold {found!r}, and the network takes {wanted.name}, which ends at {limits.min:,} and "
            f"{limits.max:,}: correct the data, or rebuild the network with a larger dtype",
            value=found,
        )
