"""The arithmetic of rescaling: arrays in, arrays out.

A linear layer y = W x + b becomes y / s(y) = (W s(x) / s(y)) (x / s(x)) + b / s(y). Computed in
float64, a slice at a time, and rounded once. Knows where each kind of layer keeps its channels, nothing of Keras.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..graph.feeding import aligned_empty

__all__ = ["Affine", "conv_input_scales", "rescale_kernel", "rescaled_bias"]

Array = NDArray[np.float64]
SLICE_NBYTES = 2 * 2**20
"""Of the float64 slice in which a kernel is rescaled: fits the cache; 16 MiB took 2.4 times as long."""


@dataclass(frozen=True, slots=True)
class Affine:
    """y = gain * x + shift for each channel: what a BatchNormalization is at inference."""

    gain: Array
    shift: Array

    @classmethod
    def of_batch_norm(
        cls, *, gamma: Array | None, beta: Array | None, mean: Array, variance: Array, epsilon: float
    ) -> Affine:
        """Return it from the parameters, arrays of shape (n_channels,)."""
        gain = (1.0 if gamma is None else gamma) / np.sqrt(variance + epsilon)
        return cls(gain=gain, shift=(0.0 if beta is None else beta) - gain * mean)


def rescale_kernel(kernel: NDArray[np.generic], inputs: Array, outputs: Array) -> NDArray[np.generic]:
    """Return ``kernel * inputs * outputs`` in the dtype of ``kernel``.

    Parameters
    ----------
    kernel : ndarray
        Weights in any layout.
    inputs, outputs : ndarray, float64
        Multipliers of the rank of ``kernel`` that broadcast to it: what comes in by a channel is multiplied with its
        scale, what goes out is divided by its scale.

    Notes
    -----
    Extra memory is 2 MiB beyond the result. Each weight is rounded once.
    """
    result = aligned_empty(kernel.shape, kernel.dtype)
    if not kernel.size:
        return result
    if inputs.size == 1 or outputs.size == 1:
        inputs, outputs = inputs * outputs, np.ones((1,) * kernel.ndim)
    axis = int(np.argmax(kernel.shape))
    source, target = np.moveaxis(kernel, axis, 0), np.moveaxis(result, axis, 0)
    inputs, outputs = np.moveaxis(inputs, axis, 0), np.moveaxis(outputs, axis, 0)
    rows = max(1, SLICE_NBYTES // (source[:1].size * 8))
    buffer = np.empty((min(rows, len(source)), *source.shape[1:]))
    for start in range(0, len(source), rows):
        part = slice(start, start + rows)
        piece = buffer[: len(source[part])]
        np.multiply(source[part], inputs[part] if len(inputs) > 1 else inputs, out=piece)
        if outputs.size > 1:
            piece *= outputs[part] if len(outputs) > 1 else outputs
        target[part] = piece
    return result


def rescaled_bias(bias: Array | None, *, outputs: Array, fold: Affine | None, n: int) -> Array | None:
    """Return the bias after folding and rescaling, or None where there is none.

    Parameters
    ----------
    bias : ndarray of shape (n,) or None
    outputs : ndarray of shape (1,) or (n,)
        Scales of the outputs, in the units of the activation.
    fold : Affine or None
        A BatchNormalization that follows and is folded in.
    """
    if fold is not None:
        bias = (np.zeros(n) if bias is None else bias) * fold.gain + fold.shift
    return None if bias is None else bias / outputs


def conv_input_scales(scales: Array, *, n_inputs: int, per_group: int, n_outputs: int) -> Array:
    """Return the input scales of a grouped convolution, laid out as the last two axes of its kernel.

    Parameters
    ----------
    scales : ndarray of shape (1,) or (n_inputs,)
    n_inputs : int
        Channels that come in.
    per_group : int
        Channels that one filter sees: the last axis but one of the kernel.
    n_outputs : int
        Filters.

    Returns
    -------
    ndarray of shape (1, 1), (per_group, 1) or (per_group, n_outputs)
    """
    if scales.size == 1:
        return scales.reshape(1, 1)
    n_groups = n_inputs // per_group
    if n_groups == 1:
        return scales.reshape(per_group, 1)
    by_group = scales.reshape(n_groups, per_group).T
    return np.repeat(by_group, n_outputs // n_groups, axis=1)
