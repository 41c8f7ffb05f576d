"""Read a Keras model into a flat graph of nodes and values.

The only file that knows how Keras keeps its graphs (``_nodes_by_depth``, ``_inbound_nodes``).
Nested models are dissolved, shared layers get one node for each call, branches that reach no
output are left out. The model is only looked at: nothing of it changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ...storage.errors import InputError
from .folding import folded_norms
from .graph import Graph
from .kinds import type_of
from .nodes import Node, Slot, Value
from .points import every_point
from .state import check_stateless

__all__ = ["channel_axis", "is_subclassed", "n_params", "read_graph", "why_opaque"]


def read_graph(model: Any) -> Graph:
    """Return the graph of a functional or a built Sequential model.

    Parameters
    ----------
    model : keras.Model
        Functional or Sequential, nested to any depth. It is not changed.

    Returns
    -------
    Graph
        Nodes in topological order, the order of ``model.layers`` where branches leave a choice.

    Raises
    ------
    InputError
        For a model without a graph: subclassed, or a Sequential that does not know its input shape. For one that
        carries a state from batch to batch.
    """
    function = _function_of(model)
    if function is None:
        raise InputError(_no_graph(model), model=getattr(model, "name", type(model).__name__))
    reader = _Reader()
    inputs = [reader.add_input(tensor) for tensor in function.inputs]
    outputs = reader.walk(function, inputs, prefix="")
    graph = _pruned(reader, inputs, outputs)
    check_stateless(graph.nodes)
    graph = replace(graph, model=model, folded=folded_norms(graph))
    return replace(graph, every_point={point.name: point for point in every_point(graph)})


def _function_of(model: Any) -> Any:
    """Return what holds the nodes of ``model``, or None when it has no graph that can be trusted."""
    owner = _owner_of_call(model)
    if owner == "keras:Sequential.call":
        return model._functional
    return model if owner in ("keras:Functional.call", "keras:Function.call") else None


def _owner_of_call(model: Any) -> str:
    """Return the package whose code computes a model, and the name of that code."""
    call = getattr(type(model), "call", None)
    return f"{getattr(call, '__module__', '').split('.')[0]}:{getattr(call, '__qualname__', '')}"


def is_subclassed(model: Any) -> bool:
    """Return whether it is a Keras model of which only its own code knows what it calls."""
    import keras

    return isinstance(model, keras.Model) and not _owner_of_call(model).startswith("keras:")


def _no_graph(model: Any) -> str:
    kind = type(model).__name__
    if any(base.__module__.split(".")[0] == "tf_keras" for base in type(model).__mro__):
        return (
            f"the model {model.name!r} ({kind}) is of tf_keras (Keras 2): save it with `model.save('name.h5')` "
            "and give the path of that file"
        )
    if not hasattr(model, "layers"):
        return f"a Keras model was asked for, got {kind}: pass a keras.Model or the path of a .keras file"
    if kind == "Sequential" and _unconnected(model):
        return (
            f"the Sequential model {model.name!r} does not know the output shape of its layer {_unconnected(model)!r}: "
            "give that layer an output_shape (a Lambda) or a compute_output_shape()"
        )
    if kind == "Sequential":
        return (
            f"the Sequential model {model.name!r} does not know its input shape: give it a "
            "keras.Input first, or call model.build((None, ...))"
        )
    return (
        f"the model {model.name!r} ({kind}) has no graph to read, because it is subclassed: rebuild it as a "
        "functional model, keras.Model(inputs, outputs), with the same layers and weights"
    )


def _unconnected(model: Any) -> str | None:
    """Return the layer at which Keras stopped to connect the layers of a Sequential model that has an input."""
    layers = model._layers
    if not layers or type(layers[0]).__name__ != "InputLayer":
        return None
    return next((layer.name for layer in layers[1:] if not layer._inbound_nodes), None)


def why_opaque(operation: Any, kwargs: Mapping[str, Any]) -> str | None:
    """Return why the layers of a nested model are not looked into; None for what is no model."""
    if not hasattr(operation, "layers"):
        return None
    if _function_of(operation) is None:
        return "a nested model that is subclassed"
    if kwargs.get("mask") is not None:
        return "a nested model that receives a mask"
    return "a nested model that is called with other tensors than its inputs"


class _Reader:
    """Collects values and nodes while it walks through nested functions."""

    def __init__(self) -> None:
        self.values: list[Value] = []
        self.nodes: list[Node] = []
        self.tensors: dict[int, int] = {}
        """id of a KerasTensor of the outermost function -> value."""
        self._bases: dict[int, str] = {}
        self._calls: dict[int, int] = {}
        self._names: set[str] = set()
        self._depth = 0

    def add_input(self, tensor: Any) -> int:
        layer = tensor._keras_history.operation
        name = layer.name if layer is not None else tensor.name
        (value,) = self._add(
            operation=layer,
            name=self._unique(name),
            layer_name=name,
            kind="InputLayer",
            inputs=(),
            outputs=[tensor],
        )
        self.tensors[id(tensor)] = value
        return value

    def walk(self, function: Any, inputs: list[int], *, prefix: str) -> list[int]:
        """Add the nodes of ``function`` applied to the values ``inputs``; return its output values."""
        known = {}
        for tensor, value in zip(function.inputs, inputs, strict=True):
            known[id(tensor)] = self._cast(value, tensor, prefix)
        for node in _nodes_in_order(function):
            if node.is_input or any(id(t) not in known for t in node.input_tensors):
                continue
            inner = _function_of(node.operation)
            ordered = None if inner is None else _inputs_in_order(inner, node)
            given = [known[id(tensor)] for tensor in ordered or node.input_tensors]
            if ordered is None:
                found = self._call(node, given, known, prefix)
            else:
                found = self.walk(inner, given, prefix=f"{prefix}{node.operation.name}/")
            known.update(zip(map(id, node.outputs), found, strict=True))
        if not prefix:
            self.tensors.update(known)
        return [known[id(tensor)] for tensor in function.outputs]

    def _call(self, node: Any, given: list[int], known: dict[int, int], prefix: str) -> list[int]:
        slots = {key: Slot(value) for key, value in known.items()}
        args, kwargs = node.arguments.fill_in(slots)
        operation = node.operation
        base = self._bases.setdefault(id(operation), self._unique(f"{prefix}{operation.name}"))
        call = self._calls.get(id(operation), -1) + 1
        self._calls[id(operation)] = call
        return self._add(
            operation=operation,
            name=base if call == 0 else self._unique(f"{base}:{call}"),
            layer_name=operation.name,
            kind=type_of(operation),
            inputs=tuple(given),
            outputs=node.outputs,
            args=args,
            kwargs=kwargs,
            call=call,
        )

    def _cast(self, value: int, tensor: Any, prefix: str) -> int:
        """Convert an input of a nested model to the dtype that it was built with, as Keras does."""
        if self.values[value].dtype == tensor.dtype:
            return value
        (cast,) = self._add(
            operation=None,
            name=self._unique(f"{prefix}cast"),
            layer_name="cast",
            kind="Cast",
            inputs=(value,),
            outputs=[tensor],
            args=(Slot(value), tensor.dtype),
        )
        return cast

    def _add(
        self,
        *,
        operation: Any,
        name: str,
        layer_name: str,
        kind: str,
        inputs: tuple[int, ...],
        outputs: list[Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        call: int = 0,
    ) -> list[int]:
        start = len(self.values)
        given = self.values[inputs[0]] if inputs else None
        for tensor in outputs:
            self.values.append(
                Value(
                    index=len(self.values),
                    shape=tuple(tensor.shape[1:]),
                    dtype=str(tensor.dtype),
                    node=len(self.nodes),
                    channel_axis=channel_axis(operation, given, rank=len(tensor.shape) - 1),
                )
            )
        numbers = tuple(range(start, len(self.values)))
        self.nodes.append(
            Node(
                index=len(self.nodes),
                name=name,
                layer_name=layer_name,
                type=kind,
                operation=operation,
                inputs=inputs,
                outputs=numbers,
                args=args,
                kwargs=kwargs or {},
                call=call,
                n_params=n_params(operation),
            )
        )
        return list(numbers)

    def _unique(self, name: str) -> str:
        found, count = name, 1
        while found in self._names:
            found, count = f"{name}#{count}", count + 1
        self._names.add(found)
        return found


def channel_axis(operation: Any, given: Value | None, *, rank: int) -> int:
    """Return the axis of the channels in what an operation gives, as a negative number; ``given`` is its input."""
    data_format = getattr(operation, "data_format", None)
    axis = getattr(operation, "axis", None)
    if data_format is not None:
        return -rank if data_format == "channels_first" and rank > 1 else -1
    if isinstance(axis, int) and type(operation).__name__ in {"BatchNormalization", "Concatenate"}:
        at = axis if axis < 0 else axis - rank - 1
        return at if at >= -max(rank, 1) else -1  # along the samples there are no channels
    if type_of(operation) == "Dense" or given is None:
        return -1
    return given.channel_axis if len(given.shape) == rank else -1


def _inputs_in_order(inner: Any, node: Any) -> list[Any] | None:
    """Return the tensors that ``node`` gives to a nested model, in the order of ``inner.inputs``.

    As Keras does it: a dict is taken by the names of the inputs where the model was not built with a dict itself, and
    flattened (by sorted key) where it was. None for a call that must stay one opaque node: other tensors than the
    inputs, such as a mask, fewer or more of them, or a rank that Keras would adapt.
    """
    import keras

    arguments, struct = node.arguments, inner._inputs_struct
    given = arguments.args[0] if arguments.args else arguments.kwargs.get("inputs")
    if isinstance(given, dict) and not isinstance(struct, dict):
        names = [tensor.name for tensor in inner.inputs]
        is_flat = isinstance(struct, keras.KerasTensor) or all(
            isinstance(each, keras.KerasTensor) for each in struct
        )
        if not is_flat or not set(names) <= set(given):
            return None
        n_others = len(node.input_tensors) - len(given)
        given = [given[name] for name in names]
    else:
        n_others = len(node.input_tensors) - len(keras.tree.flatten(given))
    ordered = keras.tree.flatten(given)
    fits = len(ordered) == len(inner.inputs) and all(
        isinstance(each, keras.KerasTensor) and len(each.shape) == len(wanted.shape)
        for each, wanted in zip(ordered, inner.inputs, strict=True)
    )
    return ordered if fits and n_others == 0 else None


def n_params(operation: Any) -> int:
    """Return how many parameters a layer has; 0 for a bare operation."""
    count = getattr(operation, "count_params", None)
    return int(count()) if callable(count) and getattr(operation, "built", True) else 0


def _nodes_in_order(function: Any) -> Iterator[Any]:
    """Yield the nodes by falling depth and, within one depth, in the order of ``model.layers``."""
    place = {id(operation): index for index, operation in enumerate(function.operations)}
    for depth in sorted(function._nodes_by_depth, reverse=True):
        nodes = [node for node in function._nodes_by_depth[depth] if node.operation is not None]
        yield from sorted(
            nodes,
            key=lambda node: (place[id(node.operation)], node.operation._inbound_nodes.index(node)),
        )


def _pruned(reader: _Reader, inputs: list[int], outputs: list[int]) -> Graph:
    """Leave out nodes that reach no output, and number what remains anew."""
    needed = set(outputs) | set(inputs)
    for node in reversed(reader.nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
    kept = [node for node in reader.nodes if needed.intersection(node.outputs)]
    number = {value: index for index, value in enumerate(v for node in kept for v in node.outputs)}
    position = {node.index: index for index, node in enumerate(kept)}

    def renumber(argument: Any) -> Any:
        return Slot(number[argument.value]) if isinstance(argument, Slot) else argument

    from keras import tree

    nodes = []
    for node in kept:
        args, kwargs = tree.map_structure(renumber, (node.args, dict(node.kwargs)))
        nodes.append(
            replace(
                node,
                index=position[node.index],
                inputs=tuple(number[value] for value in node.inputs),
                outputs=tuple(number[value] for value in node.outputs),
                args=args,
                kwargs=kwargs,
            )
        )
    values = [
        replace(reader.values[old], index=new, node=position[reader.values[old].node])
        for old, new in sorted(number.items(), key=lambda pair: pair[1])
    ]
    return Graph(
        nodes=tuple(nodes),
        values=tuple(values),
        inputs=tuple(number[value] for value in inputs),
        outputs=tuple(number[value] for value in outputs),
        tensors={key: number[value] for key, value in reader.tensors.items() if value in number},
    )
