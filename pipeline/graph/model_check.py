"""Check that a graph computes what its model computes, the same each time, and each sample for itself.

A network that was read wrongly would be recorded wrongly, and no later stage would notice. Two runs of a random network
differ.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from .calling import model_arguments
from .code import brings_code
from .forward import forward_function
from .graph import Graph
from .mixing import Mixing
from .nodes import Node
from .steps import call_node, fed_values, steps_to

__all__ = ["check_model", "check_nbytes", "coarsest_dtype", "is_the_same"]

logger = logging.getLogger(__name__)

N_SAMPLES: Final = 4
"""Enough that samples of zeros alone are unlikely; the check costs two calls of the network with so many."""
FEWEST: Final = 2
VALUES_NBYTES: Final = 128 * 2**20
"""Of a large network fewer samples are taken, since Keras keeps all values of a call until it ends."""
TOLERANCES: Final = {"float16": 0.05, "bfloat16": 0.1}
TOLERANCE: Final = 1e-3
"""Of the largest output. Both run the same kernels on the same numbers: on a CPU they give the same bits."""
N_NAMED: Final = 5
REPEATS: Final = {"float16": 0.01, "bfloat16": 0.05}
REPEAT: Final = 1e-5
"""As `TOLERANCE`, of one layer that gets the same input twice: how threads split a sum moves its last bits."""


def check_model(graph: Graph, inputs: Sequence[Any], *, allow_random: bool = False) -> tuple[str, ...]:
    """Compare the outputs of ``graph`` with its model's, with themselves, and by sample, on the first of a batch.

    Parameters
    ----------
    graph : Graph
        Made by `read_graph`.
    inputs : sequence of array or tensor
        One batch, in the order of ``graph.inputs``.
    allow_random : bool
        Take a network of which two passes differ.

    Returns
    -------
    tuple of str
        The names of its random layers; empty unless ``allow_random``.

    Raises
    ------
    InputError
        If the outputs differ by more than rounding: the name of the first that does. If layers give other values the
        second time: their names. If the samples of a batch influence each other: the layer where.

    Notes
    -----
    Not compared: outputs that are no floats, and a random or subclassed network with its model. Nor one that fails
    only where it is not compiled, such as convolutions with ``channels_first`` on a CPU. If it fails compiled too, that
    is raised.
    """
    first = [tensor[: _n_samples(graph)] for tensor in inputs]
    try:
        random, found, mixing = _looked_through(graph, first)
        differing = (
            None if random or graph.is_opaque else _first_difference(_outputs_of_model(graph, first), found)
        )
    except Exception as error:  # whatever the network's own code raises
        logger.info("the network was not compared with its graph: %s", error)
        import tensorflow as tf

        tf.function(forward_function(graph, []), autograph=False)(
            first
        )  # raises now, before a cache is created
        return ()
    if random and not allow_random:
        raise _random(random)
    if differing is None:
        if not random:
            _refuse_mixing(mixing)
        return tuple(node.name for node in random)
    name = graph.producer(graph.outputs[differing]).name
    raise InputError(
        f"the network {graph.model.name!r} computes something else at its output {name!r} than its layers do one by "
        "one: rebuild it without nested models, keras.Model(inputs, outputs), with the same layers",
        layer=name,
    )


def check_nbytes(graph: Graph) -> int:
    """Return the bytes that the values of the check take, where their shapes are known beforehand."""
    return _n_samples(graph) * _sample_nbytes(graph)


def _n_samples(graph: Graph) -> int:
    return min(N_SAMPLES, max(FEWEST, VALUES_NBYTES // max(1, _sample_nbytes(graph))))


def _sample_nbytes(graph: Graph) -> int:
    return sum(4 * math.prod(n or 1 for n in value.shape) for value in graph.values)


def _random(nodes: Sequence[Node]) -> InputError:
    names = [f"{node.name!r} ({node.type})" for node in nodes]
    more = f" and {len(names) - N_NAMED} more" if len(names) > N_NAMED else ""
    which = "the layer" if len(names) == 1 else "the layers"
    return InputError(
        f"two passes over the same samples differ: {which} {', '.join(names[:N_NAMED])}{more} "
        f"{'is' if len(names) == 1 else 'are'} random at inference, or "
        f"{'remembers' if len(names) == 1 else 'remember'} earlier samples, so that no run could be repeated; "
        "leave that out at inference (dropout without training=True), or record one draw with "
        "model.allow_random = true",
        layer=nodes[0].name,
    )


def _refuse_mixing(mixing: Mixing) -> None:
    try:
        node = mixing.node()
    except Exception as error:  # as in `_looked_through`
        logger.info("whether samples influence each other could not be tested: %s", error)
        return
    if node is not None:
        raise InputError(
            f"the samples of a batch influence each other in the layer {node.name!r} ({node.type}): its values depend "
            "on the batch that a sample is in, not on the data alone; leave that layer out, or compute each sample "
            "alone with record.batch_size = 1 (--batch-size 1)",
            layer=node.name,
        )


def _looked_through(graph: Graph, inputs: Sequence[Any]) -> tuple[list[Node], list[Any], Mixing]:
    """Return the nodes that give other outputs when called again, the outputs of the graph, and signs of mixing.

    Only layers that bring code of their own are called again: at inference Keras' do the same each time. A value is let
    go after the last node that takes it: all of a large network together are a gigabyte.
    """
    values, steps = fed_values(graph, inputs), steps_to(graph, graph.outputs)
    n_takers = Counter(index for node, _ in steps for index in set(node.inputs))
    n_takers.update(graph.outputs)
    random: list[Node] = []
    mixing, looks = Mixing(graph, inputs, is_the_same), True
    for node, extra in steps:
        outputs, is_random = _called(node, values, extra)
        values.update(zip(node.outputs, outputs, strict=True))
        random += [node] if is_random else []
        try:
            if looks and not random:
                mixing.look(node, extra, values)
        except (
            Exception
        ) as error:  # whatever the network's own code raises, as one that takes batches of one size
            logger.info("whether samples influence each other could not be tested: %s", error)
            looks = False
        del outputs
        for index in set(node.inputs):
            n_takers[index] -= 1
        for index in [i for i in (*node.inputs, *node.outputs) if not n_takers[i]]:
            values.pop(index, None)
    return random, [values[index] for index in graph.outputs], mixing


def _called(node: Node, values: dict[int, Any], extra: dict[str, Any]) -> tuple[list[Any], bool]:
    """Return the outputs of a node, and whether it gives others the second time; its seeds stay what they were."""
    import keras

    if not brings_code(node.operation):
        return call_node(node, values, extra), False
    weights = {id(weight) for weight in getattr(node.operation, "weights", ())}
    seeds = [each for each in getattr(node.operation, "variables", ()) if id(each) not in weights]
    before = [keras.ops.convert_to_numpy(seed).copy() for seed in seeds]
    outputs, again = (call_node(node, values, extra) for _ in range(2))
    drawn = [(s, b) for s, b in zip(seeds, before, strict=True) if not np.array_equal(s.numpy(), b)]
    for seed, value in drawn:
        seed.assign(value)
    # What draws seldom, as a dropout of little or whole paths, may leave a few samples as they are, twice.
    is_random = bool(drawn) or not all(map(_is_repeated, outputs, again))
    return outputs, is_random or _draws(node, values, extra)


def _draws(node: Node, values: dict[int, Any], extra: dict[str, Any]) -> bool:
    """Return whether a layer draws random numbers from TensorFlow; its branches are not looked into."""
    import tensorflow as tf

    graph = tf.function(lambda: call_node(node, values, extra), autograph=False).get_concrete_function().graph
    return any(
        op.type.startswith("Rng") or any(attribute.name == "seed2" for attribute in op.op_def.attr)
        for op in graph.get_operations()
        if op.op_def is not None
    )


def _outputs_of_model(graph: Graph, inputs: Sequence[Any]) -> list[Any]:
    import keras

    tensors = [
        keras.ops.convert_to_tensor(each, dtype=graph.values[value].dtype)
        for each, value in zip(inputs, graph.inputs, strict=True)
    ]
    args, kwargs = model_arguments(graph, tensors)
    outputs: list[Any] = keras.tree.flatten(graph.model(*args, training=False, **kwargs))
    return outputs


def _first_difference(expected: Sequence[Any], found: Sequence[Any]) -> int | None:
    """Return the place of the first output that differs."""
    for index, (one, other) in enumerate(zip(expected, found, strict=True)):
        dtype = str(one.dtype.name)
        if "float" in dtype and not _is_close(_plain(one), _plain(other), TOLERANCES.get(dtype, TOLERANCE)):
            return index
    return None


def _is_repeated(one: Any, other: Any) -> bool:
    """Return whether a layer gave the same twice."""
    return _is_equal(one, other, REPEATS, REPEAT)


def is_the_same(one: Any, other: Any, *, dtype: str | None = None) -> bool:
    """Return whether a layer gave the same for a part of a batch; ``dtype`` tells what it was rounded to before."""
    return _is_equal(one, other, TOLERANCES, TOLERANCE, dtype)


def coarsest_dtype(graph: Graph) -> str:
    """Return what a network rounds its values to at most: float32, or half precision if a layer computes in it."""
    layers = graph.model._flatten_layers()
    found = {str(getattr(layer, "compute_dtype", None)) for layer in layers}
    return next((dtype for dtype in ("bfloat16", "float16") if dtype in found), "float32")


def _is_equal(
    one: Any, other: Any, tolerances: Mapping[str, float], usual: float, rounded_to: str | None = None
) -> bool:
    """Compare two tensors; of ragged and sparse ones that is not asked."""
    import tensorflow as tf

    if not isinstance(one, tf.Tensor):
        return True
    dtype = str(one.dtype.name)
    if "float" in dtype:
        return _is_close(_plain(one), _plain(other), tolerances.get(rounded_to or dtype, usual))
    return np.array_equal(one.numpy(), other.numpy())


def _plain(tensor: Any) -> NDArray[np.float64]:
    import keras

    return np.asarray(keras.ops.convert_to_numpy(tensor), dtype=np.float64)


def _is_close(one: NDArray[np.float64], other: NDArray[np.float64], tolerance: float) -> bool:
    if one.shape != other.shape:
        return False
    largest = float(np.max(np.abs(one), initial=0.0, where=np.isfinite(one)))
    return bool(np.allclose(one, other, rtol=0.0, atol=tolerance * largest, equal_nan=True))
