"""The graph of a subclassed model: the inputs of the data, and one node that calls the whole model.

A subclassed model tells nobody which layers it calls; its code does. So the node is opaque: points are inside it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...storage.errors import InputError
from ..sources import InputSpec
from .graph import Graph
from .inner_points import N_TRACED
from .keras_errors import layer_refusals, refusals_explained
from .kinds import type_of
from .nodes import Node, Slot, Value
from .points import every_point
from .reading import is_subclassed, n_params, read_graph
from .state import check_stateless, layers_within
from .steps import inference_arguments

__all__ = ["built_inputs", "graph_for", "opaque_graph", "opaque_node"]


def graph_for(model: Any, inputs: Sequence[InputSpec]) -> Graph:
    """Return the graph of a model: its own, or that of `opaque_graph` for data with these inputs."""
    return opaque_graph(model, inputs) if is_subclassed(model) else read_graph(model)


def built_inputs(model: Any) -> list[tuple[str, tuple[int | None, ...]]]:
    """Return name and shape, without samples, of each input that a subclassed model was built with, if it knows."""
    built = _built_with(model)
    named = built if isinstance(built, dict) else {"": built} if isinstance(built, tuple) else {}
    return [(name, tuple(shape[1:])) for name, shape in named.items() if isinstance(shape, list | tuple)]


def opaque_graph(model: Any, inputs: Sequence[InputSpec]) -> Graph:
    """Return the graph of a subclassed model: for each array of the data an input, and one node.

    Parameters
    ----------
    model : keras.Model
        Subclassed, and built: it has been called, or was loaded with its weights.
    inputs : sequence of InputSpec
        Of the data. Several arrays are given as the model was built with them, as a dict or a list; a model whose
        ``call`` has several arguments gets them by name.

    Raises
    ------
    InputError
        If the model was never built; if the names of the data are not those of its inputs; if it cannot be called.
    """
    if not model.built:
        raise _unbuilt(model)
    names = [spec.name or f"input_{index}" for index, spec in enumerate(inputs)]
    values = [
        Value(index=i, shape=tuple(each.shape), dtype=_dtype(each.dtype), node=i, channel_axis=-1)
        for i, each in enumerate(inputs)
    ]
    nodes = [_input(index, name) for index, name in enumerate(_unique(names))]
    args, kwargs = _arguments(model, [spec.name for spec in inputs])
    node = opaque_node(model, index=len(nodes), args=args, kwargs=kwargs)
    shapes = _output_shapes(node, values)
    check_stateless([node])
    first = len(values)
    values += [
        Value(index=first + i, shape=shape, dtype=dtype, node=node.index, channel_axis=-1)
        for i, (shape, dtype) in enumerate(shapes)
    ]
    outputs = tuple(range(first, len(values)))
    graph = Graph(
        nodes=(*nodes, replace(node, inputs=tuple(range(first)), outputs=outputs)),
        values=tuple(values),
        inputs=tuple(range(first)),
        outputs=outputs,
        model=model,
        is_opaque=True,
    )
    return replace(graph, every_point={point.name: point for point in every_point(graph)})


def opaque_node(
    model: Any, *, index: int = 0, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
) -> Node:
    """Return a node that calls a whole model; its name is that of the class: Keras may number models' own names."""
    return Node(
        index=index,
        name=type(model).__name__,
        layer_name=model.name,
        type=type_of(model),
        operation=model,
        inputs=(),
        outputs=(),
        args=args,
        kwargs=kwargs or {},
        n_params=n_params(model),
    )


def _input(index: int, name: str) -> Node:
    return Node(
        index=index,
        name=name,
        layer_name=name,
        type="InputLayer",
        operation=None,
        inputs=(),
        outputs=(index,),
        kwargs={},
    )


def _unique(names: Sequence[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name}#{index}" for index, name in enumerate(names)]


def _dtype(dtype: str) -> str:
    """Return the dtype in which Keras gives an array to a model: floats as its floats, all others as they are."""
    import keras

    if dtype in ("object", "string"):
        return "string"
    return str(keras.config.floatx()) if np.dtype(dtype).kind == "f" else str(np.dtype(dtype).name)


def _arguments(model: Any, names: Sequence[str | None]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of the call, with a `Slot` for each array of the data."""
    slots = [Slot(index) for index in range(len(names))]
    parameters = inspect.signature(model.call).parameters.values()
    taken = [each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    required = [each.name for each in taken if each.default is each.empty]
    if len(names) > 1 and set(required) <= set(names) <= {each.name for each in taken}:
        return (), dict(zip(map(str, names), slots, strict=True))
    if len(required) > 1:
        raise _other_inputs(model, required, names)
    built = _built_with(model)
    if isinstance(built, dict):
        keys = list(built)
        return (dict(zip(keys, (slots[i] for i in _places(model, names, keys)), strict=True)),), {}
    if built is None and len(names) > 1 and all(names):
        return (dict(zip(map(str, names), slots, strict=True)),), {}
    n_wanted = len(built) if isinstance(built, list) else 1
    if built is not None and len(names) != n_wanted:
        raise _other_inputs(model, [f"number {i + 1}" for i in range(n_wanted)], names)
    return ((slots if isinstance(built, list) or len(names) > 1 else slots[0]),), {}


def _built_with(model: Any) -> Any:
    """Return what the model was called with when it was built: a dict or a list of shapes, else a shape.

    None if it does not know.
    """
    shapes = getattr(model, "_build_shapes_dict", None)
    if not isinstance(shapes, Mapping) or len(shapes) != 1:
        return None
    (shape,) = shapes.values()
    if isinstance(shape, Mapping):
        return dict(shape)
    is_list = isinstance(shape, list | tuple) and any(isinstance(each, list | tuple) for each in shape)
    return list(shape) if is_list else tuple(shape or ())


def _places(model: Any, names: Sequence[str | None], wanted: Sequence[str]) -> list[int]:
    """Return for each input that the model takes by name which of the arrays of the data it is."""
    if len(wanted) == 1 == len(names):
        return [0]
    if set(names) != set(wanted):
        raise _other_inputs(model, wanted, names)
    return [list(names).index(name) for name in wanted]


def _other_inputs(model: Any, wanted: Sequence[str], names: Sequence[str | None]) -> InputError:
    return InputError(
        f"the network {model.name!r} takes the inputs {', '.join(map(repr, wanted))}, the data has "
        f"{', '.join(map(repr, names)) if any(names) else f'{len(names)} arrays without names'}: give a dict with the "
        "names of the network, or name the arrays so in the file (data.inputs)",
        model=model.name,
    )


def _output_shapes(node: Node, inputs: Sequence[Value]) -> list[tuple[tuple[int | None, ...], str]]:
    """Return shape and dtype of each tensor that the model gives, from a trace."""
    try:
        return _traced(node, inputs, N_TRACED)
    except InputError as error:
        if "unbuilt" in error.facts:
            raise
        # It may take batches of some sizes only.
        return _traced(node, inputs, None)


def _traced(
    node: Node, inputs: Sequence[Value], n_samples: int | None
) -> list[tuple[tuple[int | None, ...], str]]:
    import keras
    import tensorflow as tf

    model, found = node.operation, list[tuple[tuple[int | None, ...], str]]()
    layers = layers_within(model)
    n_before = [len(layer.weights) for layer in layers]

    def call(tensors: list[Any]) -> None:
        args, kwargs = keras.tree.map_structure(
            lambda each: tensors[each.value] if isinstance(each, Slot) else each,
            (node.args, dict(node.kwargs)),
        )
        kwargs |= inference_arguments(model)
        with layer_refusals(node, doing="called"):
            for each in keras.tree.flatten(model(*args, **kwargs)):
                if not isinstance(each, tf.Tensor) or each.shape.rank in (None, 0):
                    raise InputError(
                        f"the network {model.name!r} gives {type(each).__name__} {getattr(each, 'shape', '')}, where "
                        "tensors with a row for each sample are taken: change what its call() returns",
                        model=model.name,
                    )
                found.append((tuple(each.shape[1:]), str(each.dtype.name)))

    specs = [tf.TensorSpec((n_samples, *each.shape), each.dtype) for each in inputs]
    with refusals_explained():
        tf.function(call, input_signature=[specs], autograph=False).get_concrete_function()
    new = [layer for layer, n in zip(layers, n_before, strict=True) if len(layer.weights) != n]
    if new:
        raise _unbuilt(model, new[-1].name)
    return found


def _unbuilt(model: Any, layer: str | None = None) -> InputError:
    place = "" if layer is None else f" of its layer {layer!r}"
    return InputError(
        f"the network {model.name!r} ({type(model).__name__}) was never called, so the weights{place} are not "
        "there yet: call it once on a batch, model(x[:1]), or load its weights",
        model=model.name,
        unbuilt=True,
    )
