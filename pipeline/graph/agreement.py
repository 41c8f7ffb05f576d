"""Check that a graph computes what its model computes, on a few samples.

A network that was read wrongly would be recorded wrongly, and everything behind the recording would agree with it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError

if TYPE_CHECKING:
    from .graph import Graph

__all__ = ["check_agreement"]

logger = logging.getLogger(__name__)

N_SAMPLES: Final = 4
"""Enough that samples of zeros alone are unlikely; the check costs two calls of the network with so many."""
TOLERANCES: Final = {"float16": 0.05, "bfloat16": 0.1}
TOLERANCE: Final = 1e-3
"""Of the largest output. Both run the same kernels on the same numbers: on a CPU they give the same bits."""


def check_agreement(graph: Graph, inputs: Sequence[Any]) -> None:
    """Compare the outputs of ``graph`` with those of its model on the first samples of a batch.

    Parameters
    ----------
    graph : Graph
        Made by `read_graph`.
    inputs : sequence of array or tensor
        One batch, in the order of ``graph.inputs``.

    Raises
    ------
    InputError
        If they differ by more than rounding: the name of the first output that does.

    Notes
    -----
    Not compared: outputs that are no floats, and a network that differs from itself, because it is random. Nor one that
    fails here, as convolutions with ``channels_first`` on a CPU, which TensorFlow can run only after they were
    compiled: if it fails in the pass that records as well, that says why.
    """
    first = [tensor[:N_SAMPLES] for tensor in inputs]
    try:
        expected = _outputs_of_model(graph, first)
        _, found = graph.forward([])(first)
        differing = _first_difference(expected, found)
        if differing is None or _first_difference(expected, _outputs_of_model(graph, first)) is not None:
            return
    except Exception as error:  # whatever the network's own code raises
        logger.info("the network was not compared with its graph: %s", error)
        return
    name = graph.producer(graph.outputs[differing]).name
    raise InputError(
        f"the network {graph.model.name!r} computes something else at its output {name!r} than its layers do one by "
        "one: rebuild it without nested models, keras.Model(inputs, outputs), with the same layers",
        layer=name,
    )


def _outputs_of_model(graph: Graph, inputs: Sequence[Any]) -> list[Any]:
    import keras

    model = graph.model
    # A Sequential model that was never called, as one from a file, has no `input`.
    like = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    tensors = [
        keras.ops.convert_to_tensor(each, dtype=graph.values[value].dtype)
        for each, value in zip(inputs, graph.inputs, strict=True)
    ]
    outputs: list[Any] = keras.tree.flatten(model(keras.tree.pack_sequence_as(like, tensors), training=False))
    return outputs


def _first_difference(expected: Sequence[Any], found: Sequence[Any]) -> int | None:
    """Return the place of the first output that differs."""
    for index, (one, other) in enumerate(zip(expected, found, strict=True)):
        dtype = str(one.dtype.name)
        if "float" in dtype and not _is_close(_plain(one), _plain(other), TOLERANCES.get(dtype, TOLERANCE)):
            return index
    return None


def _plain(tensor: Any) -> NDArray[np.float64]:
    import keras

    return np.asarray(keras.ops.convert_to_numpy(tensor), dtype=np.float64)


def _is_close(one: NDArray[np.float64], other: NDArray[np.float64], tolerance: float) -> bool:
    if one.shape != other.shape:
        return False
    largest = float(np.max(np.abs(one), initial=0.0, where=np.isfinite(one)))
    return bool(np.allclose(one, other, rtol=0.0, atol=tolerance * largest, equal_nan=True))
