"""Hand arrays to TensorFlow: in memory that its kernels can work on, and in a dtype that can hold them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ...storage.errors import InputError

__all__ = ["aligned", "aligned_empty", "input_tensor"]

# TensorFlow takes an array's memory as it is and its oneDNN kernels check it later: a batch that begins in the middle
# of a data set (row 16 of 24-byte rows) aborted the whole process with "Check failed: IsAligned()".
ALIGNMENT_NBYTES = 64


def aligned(array: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """Return the array in ``dtype``, in C order, at an address that is a multiple of 64; copied if it is not."""
    wanted = np.dtype(dtype)
    if array.dtype == wanted and array.flags.c_contiguous and array.ctypes.data % ALIGNMENT_NBYTES == 0:
        return array
    _check_range(array, wanted)
    out = aligned_empty(array.shape, wanted)
    out[...] = array
    return out


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an uninitialised array at such an address, which TensorFlow can take over without a copy."""
    nbytes = math.prod(shape) * dtype.itemsize
    memory = np.empty(nbytes + ALIGNMENT_NBYTES, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT_NBYTES
    return memory[start : start + nbytes].view(dtype).reshape(shape)


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
