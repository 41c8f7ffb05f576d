"""What a value of a Keras network is in a NIR graph, and kernels in the layout that NIR has.

Keras keeps channels last, NIR first. A sum is several edges into one node, a concatenation several nodes behind one
another: a value here has parts, which lie side by side in its channels, and each part is the sum of its sources.
Knows arrays. Does not know Keras or NIR.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "NirPart",
    "NirValue",
    "as_vector",
    "explicit_padding",
    "map_kernel",
    "maximum_maps",
    "place_kernel",
    "same_padding",
    "ungrouped",
    "vector_kernel",
    "widened",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class NirPart:
    """Some channels of a value."""

    sources: tuple[str, ...]
    """Nodes whose sum it is."""
    shape: tuple[int, ...]
    """(channels, height, width) or (features,), as NIR has it."""
    gain: float = 1.0
    """The node has so many times the value: sums stand for averages."""
    flattened: tuple[int, ...] = ()
    """(channels, height, width) before a Flatten; empty if it is no flattened map."""
    is_rate: bool = False
    """Whether it is the rate of neurons, or pooled from rates: nowhere below zero, and at most ``gain``."""

    @property
    def n_channels(self) -> int:
        """Number of channels, or of features."""
        return self.shape[0]


NirValue = tuple[NirPart, ...]


def map_kernel(kernel: NDArray[Any], *, depthwise: bool) -> NDArray[np.float32]:
    """Return a kernel of Keras (height, width, in, out) as (out, in, height, width).

    That of a depthwise convolution, (height, width, in, multiplier), as (in * multiplier, 1, height, width).
    """
    if depthwise:
        height, width, n_in, multiplier = kernel.shape
        kernel = kernel.reshape(height, width, 1, n_in * multiplier)
    return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1), dtype=np.float32)


def vector_kernel(kernel: NDArray[Any], parts: NirValue) -> list[NDArray[np.float32]]:
    """Return the weights of a Dense layer, (features, units), as (units, features) for each part of its input.

    The rows of flattened maps go from the order (height, width, channels) of all parts to (channels, height, width) of
    each.
    """
    if not parts[0].flattened:
        ends = np.cumsum([part.n_channels for part in parts])[:-1]
        return [np.ascontiguousarray(rows.T, dtype=np.float32) for rows in np.split(kernel, ends)]
    _, height, width = parts[0].flattened
    maps = kernel.reshape(height, width, -1, kernel.shape[1])
    ends = np.cumsum([part.flattened[0] for part in parts])[:-1]
    return [
        np.ascontiguousarray(each.transpose(3, 2, 0, 1).reshape(kernel.shape[1], -1), dtype=np.float32)
        for each in np.split(maps, ends, axis=2)
    ]


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return the zeros that "same" puts before and after an axis, as TensorFlow does: the larger half after."""
    reach = (kernel - 1) * dilation + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def maximum_maps(n_values: int) -> list[NDArray[np.float32]]:
    """Return the linear maps, between them layers of neurons with the rate of a ReLU, that give a maximum.

    Of shapes (n_neurons, n_values), (n_neurons, n_neurons before), ..., (1, n_neurons). For values that are not
    negative: ``max(a, b) = relu(a) + relu(b - a)``, pair by pair.
    """
    maps, values = [], np.eye(n_values, dtype=np.float32)
    while len(values) > 1:
        n_odd = len(values) // 2
        pairs = np.zeros(((len(values) + 1) // 2, len(values)), dtype=np.float32)
        rows = values.copy()
        rows[1::2] -= values[: 2 * n_odd : 2]
        pairs[np.arange(len(values)) // 2, np.arange(len(values))] = 1.0
        maps.append(rows)
        values = pairs
    return [*maps, values]


def place_kernel(
    combined: NDArray[np.float32], n_channels: int, window: tuple[int, int]
) -> NDArray[np.float32]:
    """Return the kernel that combines the places of a window, each channel apart.

    Parameters
    ----------
    combined : ndarray of shape (n_combinations, n_places)
        Weights of the places, which are counted row by row; with the window (1, 1), each place is another group of
        ``n_channels`` channels.
    """
    whole = np.kron(combined, np.eye(n_channels, dtype=np.float32))
    if window == (1, 1):
        return whole[:, :, None, None]
    by_place = whole.reshape(len(whole), combined.shape[1], n_channels)
    return np.ascontiguousarray(by_place.transpose(0, 2, 1).reshape(len(whole), n_channels, *window))


def ungrouped(weight: NDArray[np.float32], groups: int) -> NDArray[np.float32]:
    """Return the weight of a convolution in groups as that of one over all channels.

    nir 1.0.8 takes the second axis of a weight for all of the input's channels, and refuses to read anything else.
    """
    if groups == 1:
        return weight
    n_out, n_in = len(weight) // groups, weight.shape[1]
    whole = np.zeros((len(weight), n_in * groups, *weight.shape[2:]), dtype=np.float32)
    for group in range(groups):
        rows = slice(group * n_out, (group + 1) * n_out)
        whole[rows, group * n_in : (group + 1) * n_in] = weight[rows]
    return whole


def explicit_padding(
    weight: NDArray[np.float32],
    padding: tuple[tuple[int, int], tuple[int, int]],
    dilation: tuple[int, int],
    *,
    strides: tuple[int, int] = (1, 1),
    sizes: Sequence[int] = (0, 0),
) -> tuple[NDArray[np.float32], tuple[int, int], tuple[int, int]] | None:
    """Return weight, padding and dilation that NIR can say: as many zeros before as after an axis, a square kernel.

    With P zeros on both sides instead of b before and a after, the kernel gets P - b zeros in front and P - a at its
    end: each result sees the same values, and there are as many. nir 1.0.8 takes the height of a kernel for its width
    too, so the shorter axis gets more of them. Where that would take half a zero, an axis with a stride over 1 gets one
    more at the end of its kernel or of the map (of ``sizes``): the stride passes over what is left there. None if no
    axis has such a stride.
    """
    is_even = all(before == after for before, after in padding)
    if is_even and weight.shape[2] == weight.shape[3] and dilation[0] == dilation[1]:
        return weight, (padding[0][0], padding[1][0]), dilation
    weight = widened(weight, dilation)
    even = [max(pair) for pair in padding]
    sides = [weight.shape[2 + i] + 2 * even[i] - sum(padding[i]) for i in range(2)]
    side = max(sides)
    if (side - min(sides)) % 2 and strides[int(np.argmin(sides))] == 1:
        side += 1
    around = []
    for i in range(2):
        half, odd = divmod(side - sides[i], 2)
        if odd and strides[i] == 1:
            return None
        left = (sizes[i] + sum(padding[i]) - weight.shape[2 + i]) % strides[i]
        even[i] += half + (1 if odd and not left else 0)
        before = even[i] - padding[i][0]
        around.append((before, side - weight.shape[2 + i] - before))
    return np.pad(weight, ((0, 0), (0, 0), *around)), (even[0], even[1]), (1, 1)


def widened(weight: NDArray[np.float32], dilation: tuple[int, int]) -> NDArray[np.float32]:
    """Return a dilated kernel with the zeros between its numbers."""
    if dilation == (1, 1):
        return weight
    n_out, n_in, height, width = weight.shape
    tall = (height - 1) * dilation[0] + 1, (width - 1) * dilation[1] + 1
    wide = np.zeros((n_out, n_in, *tall), dtype=np.float32)
    wide[:, :, :: dilation[0], :: dilation[1]] = weight
    return wide


def as_vector(part: NirPart) -> NirPart:
    """Return the part with its shape flattened; the sources stay. Maps of one pixel are vectors in either order."""
    if len(part.shape) == 1:
        return part
    before = part.shape if part.shape[1:] != (1, 1) else ()
    return replace(part, shape=(int(np.prod(part.shape)),), flattened=before)
