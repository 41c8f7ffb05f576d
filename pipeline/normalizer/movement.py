"""Follow the scales of a value through operations that move elements: flatten, reshape, join.

Arrays of scales broadcast to the value's shape. Where a size is open (None) the scales must not vary
along it; the functions then answer None and the caller makes the scales equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from .variables import Ids

__all__ = ["concatenated", "flattened", "reshaped", "spread"]

Shape = tuple[int | None, ...]


def spread(vector: Ids, *, rank: int, axis: int) -> Ids:
    """Return a vector over channels as an array of ``rank`` axes with the channels at ``axis``."""
    shape = [1] * rank
    if rank:
        shape[axis] = vector.size
    return vector.reshape(shape)


def full(ids: Ids, shape: Shape) -> Ids | None:
    """Return ``ids`` broadcast to ``shape``; None when they vary and a size is open."""
    if any(size is None for size in shape):
        return None
    return np.broadcast_to(ids, [size for size in shape if size is not None])


def is_one(ids: Ids) -> bool:
    """Return whether one variable stands for the whole value."""
    return ids.size == 1


def reshaped(ids: Ids, shape: Shape, target: Shape) -> Ids | None:
    """Return the scales after a reshape from ``shape`` to ``target``, in C order.

    None as well where the samples do not stay apart: one sample then has another number of elements.
    """
    if is_one(ids):
        return ids.reshape((1,) * len(target))
    whole = full(ids, shape)
    if whole is None or n_elements(target) != whole.size:
        return None
    return whole.reshape([size for size in target if size is not None])


def flattened(ids: Ids, shape: Shape, *, channels_first: bool) -> Ids | None:
    """Return the scales after Keras' Flatten, which puts the channels last before it flattens."""
    if is_one(ids):
        return ids.reshape(1)
    whole = full(ids, shape)
    if whole is None:
        return None
    if channels_first and len(shape) > 1:
        whole = np.moveaxis(whole, 0, -1)
    return whole.reshape(-1)


def concatenated(parts: Sequence[Ids], shapes: Sequence[Shape], *, axis: int) -> Ids | None:
    """Return the scales after joining values along ``axis``, which counts without the samples' axis."""
    first = parts[0]
    if all(is_one(part) for part in parts) and len({int(part.reshape(-1)[0]) for part in parts}) == 1:
        return first
    sizes = [shape[axis] for shape in shapes]
    if any(size is None for size in sizes):
        return None
    common = np.broadcast_shapes(*(_without(part.shape, axis) for part in parts))
    grown = []
    for part, size in zip(parts, sizes, strict=True):
        target = list(common)
        target[axis] = int(size or 0)
        grown.append(np.broadcast_to(part, target))
    return np.concatenate(grown, axis=axis)


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    sizes = list(shape)
    sizes[axis] = 1
    return tuple(sizes)


def n_elements(shape: Shape) -> int | None:
    """Return how many numbers one sample of a value has, None when that is open."""
    return None if any(size is None for size in shape) else prod(size for size in shape if size is not None)
