"""Hand arrays to TensorFlow: in memory that its kernels can work on; and say in our words what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ...storage.errors import InputError, OverBudgetError

__all__ = ["aligned", "input_tensor", "refusals_explained"]

# TensorFlow takes an array's memory as it is and its oneDNN kernels check it later: a batch that begins in the middle
# of a data set (row 16 of 24-byte rows) aborted the whole process with "Check failed: IsAligned()".
ALIGNMENT_NBYTES = 64


def aligned(array: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """Return the array in ``dtype``, in C order, at an address that is a multiple of 64; copied if it is not."""
    wanted = np.dtype(dtype)
    if array.dtype == wanted and array.flags.c_contiguous and array.ctypes.data % ALIGNMENT_NBYTES == 0:
        return array
    nbytes = array.size * wanted.itemsize
    memory = np.empty(nbytes + ALIGNMENT_NBYTES, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT_NBYTES
    out = memory[start : start + nbytes].view(wanted).reshape(array.shape)
    out[...] = array
    return out


def input_tensor(array: NDArray[Any], dtype: DTypeLike) -> Any:
    """Return one batch of an input, of shape (n, ...), as a tensor of ``dtype`` (a NumPy name)."""
    import tensorflow as tf

    return tf.convert_to_tensor(aligned(array, dtype))


@contextmanager
def refusals_explained(start: int, stop: int) -> Iterator[None]:
    """Turn what TensorFlow raises while the network computes the samples start..stop-1 into errors of ours.

    Raises
    ------
    OverBudgetError
        If it found no memory.
    InputError
        If a layer refuses the values, as an embedding those beyond its table.
    """
    import tensorflow as tf

    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise OverBudgetError(
            f"the network found no memory for the samples {start} to {stop - 1}: {_reason(str(error.message))}; "
            "reduce record.batch_size (--batch-size)",
            start=start,
            stop=stop,
        ) from error
    except tf.errors.OpError as error:
        raise InputError(
            f"the network refuses the samples {start} to {stop - 1}: {_reason(str(error.message))}; correct the "
            "data, or what is done to it before the network",
            start=start,
            stop=stop,
        ) from error


def _reason(message: str) -> str:
    """Return the line of a graph's error that tells what was wrong: it stands before the names of nodes."""
    told = message.split("[[")[0].split("[Op:")[0].strip()
    return told.splitlines()[-1].strip() if told else message.strip()[:200]
