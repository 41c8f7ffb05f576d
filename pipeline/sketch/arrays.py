"""Which arrays can be sketched, and how they are cut into float32 slabs of bounded size.

Knows dtypes and layouts. Does not know sketches.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError

SLAB_VALUES = 1 << 22
"""Where a copy is needed, this many values are copied at once: 16 MiB as float32."""


def parse_array(array: Any, *, point: str | None = None, block: int | None = None) -> NDArray[Any]:
    """Return ``array`` as an ndarray that can be sketched.

    Raises
    ------
    InputError
        If its type is not float32, float16 or bfloat16, or it is a masked array: masked values would be counted.
    """
    if isinstance(array, np.ma.MaskedArray):
        raise InputError(
            f"{place(point, block)}sketches cannot leave out masked values, got a masked array of shape {array.shape}: "
            "pass array.compressed() to leave the masked values out, or array.filled(value) to count them as a value",
            point=point,
            block=block,
        )
    parsed: NDArray[Any] = np.asarray(array)
    dtype = parsed.dtype
    if dtype.type in (np.float32, np.float16) or dtype.name == "bfloat16":
        return parsed
    advice = {"c": "sketch its real part or its modulus", "f": "convert with .astype(numpy.float32)"}
    raise InputError(
        f"{place(point, block)}sketches take float32, float16 or bfloat16, got {dtype}: "
        + advice.get(dtype.kind, "convert with .astype(numpy.float32) if these are activations"),
        point=point,
        block=block,
        dtype=str(dtype),
    )


def place(point: str | None, block: int | None) -> str:
    """Return the start of an error message that says where: ``"point 'conv1', block 3: "``."""
    parts = [f"point {point!r}"] * (point is not None) + [f"block {block}"] * (block is not None)
    return ", ".join(parts) + ": " if parts else ""


def layer_slabs(array: NDArray[Any]) -> Iterator[NDArray[np.float32]]:
    """Yield all values of ``array`` as flat contiguous float32, in any order, without a large copy."""
    flat = _flat_view(array)
    if flat is not None:
        if flat.dtype == np.float32 and flat.dtype.isnative:
            yield flat
            return
        for start in range(0, flat.size, SLAB_VALUES):
            yield flat[start : start + SLAB_VALUES].astype(np.float32)
        return
    for slab in _sample_slabs(array):
        yield np.ascontiguousarray(slab, dtype=np.float32).reshape(-1)


def sample_slabs(array: NDArray[Any]) -> Iterator[NDArray[np.float32]]:
    """Yield whole samples in order, as flat contiguous float32, without a large copy."""
    if array.dtype == np.float32 and array.dtype.isnative and array.flags.c_contiguous:
        yield array.reshape(-1)
        return
    for slab in _sample_slabs(array):
        yield np.ascontiguousarray(slab, dtype=np.float32).reshape(-1)


def channel_slabs(array: NDArray[Any], channel_axis: int) -> Iterator[NDArray[np.float32]]:
    """Yield ``array`` as contiguous float32 of shape (outer, n_channels, inner), in slabs along axis 0."""
    axis = channel_axis % array.ndim
    shape = (-1, array.shape[axis], int(np.prod(array.shape[axis + 1 :])))
    if array.dtype == np.float32 and array.dtype.isnative and array.flags.c_contiguous:
        yield _grouped(array, axis, shape)
        return
    if axis == 0:
        yield np.ascontiguousarray(array, dtype=np.float32).reshape(1, array.shape[0], -1)
        return
    for slab in _sample_slabs(array):
        yield _grouped(np.ascontiguousarray(slab, dtype=np.float32), axis, shape)


def _grouped(array: NDArray[np.float32], axis: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    outer = int(np.prod(array.shape[:axis]))
    return array.reshape(outer, *shape[1:])


def _flat_view(array: NDArray[Any]) -> NDArray[Any] | None:
    """Return a flat view where memory is gapless in some order of the axes, else None."""
    if array.flags.c_contiguous:
        return array.reshape(-1)
    order = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    turned = array.transpose(order)
    return turned.reshape(-1) if turned.flags.c_contiguous else None


def _sample_slabs(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    per_sample = max(1, array.size // max(1, array.shape[0]))
    step = max(1, SLAB_VALUES // per_sample)
    for start in range(0, array.shape[0], step):
        yield array[start : start + step]


def count_nonfinite(array: NDArray[Any]) -> tuple[int, int]:
    """Return how many NaN there are, and how many infinities."""
    n_nan = n_inf = 0
    for slab in layer_slabs(array):
        n_nan += int(np.isnan(slab).sum())
        n_inf += int(np.isinf(slab).sum())
    return n_nan, n_inf


def first_nonfinite(array: NDArray[Any]) -> tuple[tuple[int, ...], float] | None:
    """Return the index of the first NaN or infinity in C order, and the value; None if all are finite."""
    for start in range(array.shape[0] if array.ndim else 1):
        part = np.asarray(array[start] if array.ndim else array, dtype=np.float32)
        bad = ~np.isfinite(part)
        if bad.any():
            inner = np.unravel_index(int(np.argmax(bad)), part.shape) if part.ndim else ()
            lead = (start,) if array.ndim else ()
            return (*lead, *(int(i) for i in inner)), float(part[inner])
    return None
