"""Compute activations as SNN toolbox does: `get_activations_layer`, `get_activations_batch`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from ..graph import Graph, input_tensor, match_inputs, read_graph, refusals_explained, traced_forward
from ..sources import InputSpec, Source, as_source

__all__ = ["get_activations_batch", "get_activations_layer", "whole_batches"]

DEFAULT_BATCH_SIZE = 10
# The toolbox leaves these layers out, because they only move values.
MOVING_LAYERS = frozenset({"Input", "InputLayer", "Flatten", "Concatenate", "ZeroPadding2D", "Reshape"})


def whole_batches(n_samples: int, batch_size: Any) -> int:
    """Return the number of samples in whole batches: like the toolbox, it drops the rest.

    Raises
    ------
    InputError
        If the samples do not fill one batch, or ``batch_size`` is not a whole number above 0.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise InputError(
            f"batch_size={batch_size!r} is refused: give a whole number above 0", batch_size=batch_size
        )
    n_used = n_samples - n_samples % batch_size
    if not n_used:
        raise InputError(
            f"{n_samples} samples do not fill one batch of {batch_size}: give more samples or lower the batch size",
            n_samples=n_samples,
            batch_size=batch_size,
        )
    return n_used


def get_activations_layer(layer_in: Any, layer_out: Any, x: Any, batch_size: int | None = None) -> Any:
    """Return the outputs of one layer for all samples.

    Parameters
    ----------
    layer_in, layer_out : symbolic tensors or Keras layers
        ``model.input`` and ``layer.output``, or the layers themselves; a layer stands for its own output, even if an
        activation layer follows. Lists or other nests are fine for several.
    x : array_like of shape (n_samples, ...)
        Memory maps, zarr and dask arrays are read batch by batch.
    batch_size : int, default=10
        Samples at the end that do not fill a batch are dropped.

    Returns
    -------
    ndarray of shape (n_samples in whole batches, *layer shape)
        Nested as ``layer_out`` is.

    Raises
    ------
    InputError
        If the samples do not fill one batch, or their shape is not the one that the network takes.
    """
    import keras

    network = keras.Model(_tensors(layer_in, "input"), _tensors(layer_out, "output"))
    found = _computed(read_graph(network), as_source(x), batch_size)
    return keras.tree.pack_sequence_as(layer_out, found) if keras.tree.is_nested(layer_out) else found[0]


def _tensors(ends: Any, side: str) -> Any:
    """Return the given tensors, and the input or output of each given layer.

    Raises
    ------
    InputError
        If something is neither tensor nor layer, or a layer is called more than once.
    """
    import keras

    def tensor_of(end: Any) -> Any:
        if isinstance(end, keras.KerasTensor):
            return end
        try:
            return end.output if isinstance(end, keras.layers.InputLayer) else getattr(end, side)
        except AttributeError:
            raise InputError(
                f"{getattr(end, 'name', end)!r} has not exactly one {side}: give a symbolic tensor, such as "
                "model.input and layer.output, or a layer that is called once"
            ) from None

    return keras.tree.map_structure(tensor_of, ends)


def _computed(graph: Graph, source: Source, batch_size: int | None) -> list[NDArray[Any]]:
    """Return the outputs of a network for all samples in whole batches."""
    size = DEFAULT_BATCH_SIZE if batch_size is None else batch_size
    n_used = whole_batches(source.n_samples, size)
    wanted = match_inputs(graph, source.inputs)
    forward = traced_forward(graph, [], [(source.inputs[i].shape, dtype) for i, dtype in wanted])
    found: list[NDArray[Any]] = []
    for start in range(0, n_used, size):
        batch = source.read(start, start + size)
        with refusals_explained(start, start + size):
            _, outputs = forward([input_tensor(batch.inputs[i], dtype) for i, dtype in wanted])
        activations = [np.asarray(output) for output in outputs]
        if not found:
            found = [np.empty((n_used, *each.shape[1:]), each.dtype) for each in activations]
        for whole, part in zip(found, activations, strict=True):
            whole[start : start + size] = part
    return found


def get_activations_batch(ann: Any, x_batch: Any) -> list[tuple[NDArray[Any], str]]:
    """Return the outputs of all layers for one batch, in one pass.

    Parameters
    ----------
    ann : keras.Model
        Functional or built Sequential.
    x_batch : array_like of shape (n_samples, ...)
        A list or a dict of arrays for several inputs; any number of samples.

    Returns
    -------
    list of (ndarray, str)
        Outputs and names of the layers, in the order of the network; layers that only
        move values (input, flatten, concatenate, padding, reshape) are left out.

    Raises
    ------
    InputError
        If the shape of the samples is not the one that the network takes.
    """
    graph = read_graph(ann)
    nodes = [node for node in graph.nodes if node.type not in MOVING_LAYERS and node.type != "Cast"]
    is_list = isinstance(x_batch, (list, tuple)) and (len(graph.inputs) > 1 or _is_one_array(x_batch))
    named = x_batch if isinstance(x_batch, Mapping) else {}
    arrays = [_array(each) for each in (named.values() if named else x_batch if is_list else [x_batch])]
    names: list[str | None] = list(named) if named else [None] * len(arrays)
    given = tuple(
        InputSpec(n, array.shape[1:], array.dtype.name) for n, array in zip(names, arrays, strict=True)
    )
    wanted = match_inputs(graph, given)
    forward = traced_forward(
        graph, [n.outputs[0] for n in nodes], [(given[i].shape, dtype) for i, dtype in wanted]
    )
    with refusals_explained(0, len(arrays[0])):
        tensors, _ = forward([input_tensor(arrays[i], dtype) for i, dtype in wanted])
    return [(np.asarray(tensor), node.name) for tensor, node in zip(tensors, nodes, strict=True)]


def _is_one_array(x_batch: Sequence[Any]) -> bool:
    return len(x_batch) == 1 and hasattr(x_batch[0], "dtype") and np.ndim(x_batch[0]) > 0


def _array(samples: Any) -> NDArray[Any]:
    try:
        array = np.asarray(samples)
    except ValueError as error:
        raise InputError(f"the samples are not an array: {error}") from None
    if array.dtype.kind not in "biufSU" or not array.ndim:
        raise InputError(
            f"the samples have type {array.dtype} and shape {array.shape}: give an array of numbers of shape "
            "(n_samples, ...)"
        )
    return array
