"""Foresee what comparing two networks takes in memory, and choose how many samples are compared together.

Arithmetic only.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["compared_together", "comparison_nbytes"]

COMPARED_NBYTES = 256 * 2**20
"""Activations of both networks that are in memory at a time. A batch with more of them passes in parts.

Not a setting, because a network may round differently in a batch of another size: same samples, same certificate.
"""
HELD_TENSORS = 5
"""Of each network: input, output and workspace of the layer at work, and two values that wait for their taps."""


def compared_together(batch_size: int, largest_tensor_nbytes: int) -> int:
    """Return how many samples of a batch go through both networks together: equal parts of it, as large as is allowed.

    Parameters
    ----------
    batch_size : int
    largest_tensor_nbytes : int
        Bytes of one sample in the network's largest tensor, in float32.
    """
    most = max(1, COMPARED_NBYTES // (2 * HELD_TENSORS * max(1, largest_tensor_nbytes)))
    return -(-batch_size // -(-batch_size // most))


def comparison_nbytes(
    *,
    weight_nbytes: Sequence[int],
    largest_tensor_nbytes: int,
    batch_size: int,
    is_half: bool = False,
) -> int:
    """Return the memory in bytes that normalising and certifying a network needs, without the network itself.

    Parameters
    ----------
    weight_nbytes : sequence of int
        Bytes of each array of weights, in float32.
    largest_tensor_nbytes : int
        Bytes of one sample in the network's largest tensor, in float32.
    batch_size : int
    is_half : bool
        Whether the network computes in half precision. Then weights and activations exist in both precisions, and the
        normalised network is computed in float64 too.
    """
    n_together = compared_together(batch_size, largest_tensor_nbytes)
    comparing = n_together * 2 * HELD_TENSORS * largest_tensor_nbytes * (3 if is_half else 2) // 2
    # Layer by layer, once in float32 and once or twice in float64; their difference, also cast and scaled; and the
    # weights of the current layer in float64. In half precision a layer also has its values in half, and the float32
    # in which TensorFlow computes them: 21 tensors of ours were 15 to 20 % too few, measured.
    n_twins = 2 if is_half else 1
    n_tensors = 27 if is_half else 13
    measuring = n_together * n_tensors * largest_tensor_nbytes + 2 * n_twins * max(weight_nbytes, default=0)
    return sum(weight_nbytes) * (2 if is_half else 1) + max(comparing, measuring)
