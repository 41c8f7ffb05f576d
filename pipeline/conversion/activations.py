"""Compute activations as SNN toolbox does: `get_activations_layer`, `get_activations_batch`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from ..graph import input_tensor, read_graph
from ..sources import as_source

__all__ = ["get_activations_batch", "get_activations_layer", "whole_batches"]

DEFAULT_BATCH_SIZE = 10
# Layers that the toolbox leaves out: they only move values.
MOVING_LAYERS = frozenset({"Input", "InputLayer", "Flatten", "Concatenate", "ZeroPadding2D", "Reshape"})


def whole_batches(n_samples: int, batch_size: Any) -> int:
    """Return how many samples the toolbox uses: the tail that does not fill a batch is dropped.

    Raises
    ------
    InputError
        If not one batch is filled, or ``batch_size`` is no whole number above 0.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise InputError(
            f"batch_size={batch_size!r} is refused: a whole number above 0", batch_size=batch_size
        )
    n_used = n_samples - n_samples % batch_size
    if not n_used:
        raise InputError(
            f"{n_samples} samples do not fill one batch of {batch_size}: give more samples or lower the batch size",
            n_samples=n_samples,
            batch_size=batch_size,
        )
    return n_used


def get_activations_layer(
    layer_in: Any, layer_out: Any, x: Any, batch_size: int | None = None
) -> NDArray[Any]:
    """Return the activations of one layer for all samples.

    Parameters
    ----------
    layer_in, layer_out : symbolic tensors
        ``model.input`` and ``layer.output``.
    x : array_like of shape (n_samples, ...)
        A memory map, a zarr or a dask array is read batch by batch.
    batch_size : int, default=10
        The tail of the samples that does not fill a batch is dropped.

    Returns
    -------
    ndarray of shape (n_samples in whole batches, *layer shape)

    Raises
    ------
    InputError
        If the samples do not fill one batch.
    """
    import keras
    import tensorflow as tf

    size = DEFAULT_BATCH_SIZE if batch_size is None else batch_size
    graph = read_graph(keras.Model(layer_in, layer_out))
    source = as_source(x)
    n_used = whole_batches(source.n_samples, size)
    forward = tf.function(graph.forward([]), autograph=False)
    found: NDArray[Any] | None = None
    for start in range(0, n_used, size):
        inputs = [input_tensor(array, array.dtype) for array in source.read(start, start + size).inputs]
        activations = np.asarray(forward(inputs)[1][0])
        if found is None:
            found = np.empty((n_used, *activations.shape[1:]), activations.dtype)
        found[start : start + size] = activations
    assert found is not None  # there is at least one batch
    return found


def get_activations_batch(ann: Any, x_batch: Any) -> list[tuple[NDArray[Any], str]]:
    """Return the activations of all layers for one batch, in one pass.

    Parameters
    ----------
    ann : keras.Model
        Functional or built Sequential.
    x_batch : array_like of shape (n_samples, ...)
        A list of arrays for several inputs. Any number of samples.

    Returns
    -------
    list of (ndarray, str)
        Activations and the name of the layer, in the order of the network; layers that only
        move values (input, flatten, concatenate, padding, reshape) are left out.
    """
    graph = read_graph(ann)
    nodes = [node for node in graph.nodes if node.type not in MOVING_LAYERS and node.type != "Cast"]
    arrays = [np.asarray(each) for each in (x_batch if isinstance(x_batch, (list, tuple)) else [x_batch])]
    inputs = [input_tensor(array, array.dtype) for array in arrays]
    tensors, _ = graph.forward([node.outputs[0] for node in nodes])(inputs)
    return [(np.asarray(tensor), node.name) for tensor, node in zip(tensors, nodes, strict=True)]
