"""Build a new network of plain Keras layers from a graph and its scales.

The original's layers are cloned from their settings, never called: nothing of the original changes, not even
its list of nodes. Memory: the new weights, plus one layer's while it is built.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from ..graph import Graph, Node, Slot
from ..graph.kinds import is_activation
from .solving import Solution
from .updating import LayerUpdate, layer_update, new_bound, relu_config

__all__ = ["Rebuilt", "rebuild"]


class Rebuilt:
    """The new network while it is built, and where the values of the original are in it."""

    def __init__(self, solution: Solution) -> None:
        self.solution = solution
        self.graph: Graph = solution.walk.graph
        self.tensors: dict[int, Any] = {}
        """Value of the original graph -> symbolic tensor of the new network."""
        self._layers: dict[int, Any] = {}
        self._names = _short_names(self.graph)
        self._producer_norm = {producer: norm for norm, producer in self.graph.folded.items()}

    def run(self) -> None:
        """Build every layer in topological order."""
        for node in self.graph.nodes:
            if node.type == "InputLayer":
                self.tensors[node.outputs[0]] = _new_input(self.graph, node)
            elif node.index in self.graph.folded:
                self.tensors[node.outputs[0]] = self.tensors[node.inputs[0]]
            else:
                self._build(node)

    def _build(self, node: Node) -> None:
        args, kwargs = self._arguments(node)
        if node.operation is None:
            import keras

            outputs = [keras.ops.cast(*args)]
        elif is_activation(node.operation):
            outputs = [self._activation(node)(*args, **kwargs)]
        elif ".ops." in type(node.operation).__module__:
            outputs = _flat(_copied_operation(node.operation)(*args, **kwargs))
        else:
            outputs = _flat(self._layer(node, args, kwargs))
        self.tensors.update(zip(node.outputs, outputs, strict=True))

    def _arguments(self, node: Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        import keras

        args, kwargs = keras.tree.map_structure(
            lambda each: self.tensors[each.value] if isinstance(each, Slot) else each,
            (node.args, dict(node.kwargs)),
        )
        return args, kwargs

    def _activation(self, node: Node) -> Any:
        """Return a layer for an activation function that stands alone."""
        import keras

        known = self._layers.get(id(node.operation))
        scaled = self.solution.of_value(node.outputs[0]).flat[0] != 1.0
        bound = new_bound(self.solution, node)
        if node.type == "ReLU" and scaled:
            config = {**node.operation.get_config(), **relu_config(self.solution, node)}
            made = known or self._remember(node, keras.layers.ReLU.from_config(self._named(node, config)))
        elif bound is not None and scaled:
            name = self._names[id(node.operation)]
            made = known or self._remember(node, keras.layers.ReLU(max_value=bound, name=name))
        elif node.type.startswith("ops."):
            made = _copied_operation(node.operation)
        else:
            made = known or self._remember(node, self._clone(node, LayerUpdate({})))
            if node.n_params and known is None:
                return _Building(made, _originals(node.operation))
        return made

    def _layer(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        key = id(node.operation)
        bound = new_bound(self.solution, node)
        split = bound is not None and self.solution.of_value(node.outputs[0]).flat[0] != 1.0
        if key not in self._layers:
            norm = self._producer_norm.get(node.index)
            update = layer_update(self.solution, node, norm=None if norm is None else self.graph.nodes[norm])
            if split:
                update.config["activation"] = "linear"
            clone = self._remember(node, self._clone(node, update))
            outputs = _Building(clone, _originals(node.operation), update.arrays)(*args, **kwargs)
        else:
            outputs = self._layers[key](*args, **kwargs)
        return self._bounded(node, bound)(outputs) if split else outputs

    def _bounded(self, node: Node, bound: float | None) -> Any:
        """Return the ReLU with its own bound that replaces the activation function of a layer."""
        import keras

        name = f"{self._names[id(node.operation)]}_bounded" + (f"_{node.call}" if node.call else "")
        return keras.layers.ReLU(max_value=bound, name=name)

    def _clone(self, node: Node, update: LayerUpdate) -> Any:
        layer = node.operation
        try:
            config = self._named(node, {**layer.get_config(), **update.config})
            return type(layer).from_config(config)
        except (NotImplementedError, TypeError, ValueError) as error:
            raise InputError(
                f"the layer {node.name!r} ({node.type}) cannot be rebuilt from its settings ({error}): give its class a "
                "get_config() that returns the arguments of its constructor",
                layer=node.name,
            ) from error

    def _named(self, node: Node, config: dict[str, Any]) -> dict[str, Any]:
        return {**config, "name": self._names[id(node.operation)]}

    def _remember(self, node: Node, layer: Any) -> Any:
        self._layers[id(node.operation)] = layer
        return layer


def rebuild(solution: Solution, *, like: Any) -> tuple[Any, dict[int, Any]]:
    """Return the normalised network and, for each value of the graph, its tensor in there.

    Parameters
    ----------
    solution : Solution
    like : keras.Model
        The original: its name and the structure of its inputs and outputs are kept.
    """
    import keras

    building = Rebuilt(solution)
    building.run()
    graph, tensors = building.graph, building.tensors
    inputs = keras.tree.pack_sequence_as(like.input, [tensors[value] for value in graph.inputs])
    outputs = keras.tree.pack_sequence_as(like.output, [tensors[value] for value in graph.outputs])
    return keras.Model(inputs, outputs, name=like.name), tensors


class _Given:
    """An initializer that hands over finished weights, so that they exist once."""

    def __init__(self, array: NDArray[np.generic]) -> None:
        self._array: NDArray[np.generic] | None = array

    def __call__(self, shape: Any, dtype: Any = None, **_: Any) -> Any:
        import keras

        array, self._array = self._array, None
        assert array is not None  # a variable is made once
        return keras.ops.convert_to_tensor(array, dtype=dtype)


class _Building:
    """Calls a fresh clone for the first time and sees to it that it gets its weights."""

    def __init__(
        self, layer: Any, originals: list[Any], arrays: dict[str, NDArray[np.generic]] | None = None
    ) -> None:
        self._layer, self._originals, self._arrays = layer, originals, arrays or {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        kept = {}
        for attribute, array in self._arrays.items():
            name = _initializer_name(self._layer, attribute)
            kept[name] = getattr(self._layer, name)
            setattr(self._layer, name, _Given(array))
        try:
            outputs = self._layer(*args, **kwargs)
        finally:
            for name, initializer in kept.items():
                setattr(self._layer, name, initializer)
        if not self._arrays:
            for variable, original in zip(self._layer.weights, self._originals, strict=True):
                variable.assign(original)
        return outputs


def _initializer_name(layer: Any, attribute: str) -> str:
    name = f"{attribute}_initializer"
    if hasattr(layer, name):
        return name
    # Depthwise layers call it after the convolution, not after the weight.
    return (
        f"{attribute.removesuffix('_kernel')}_initializer"
        if attribute != "kernel"
        else "depthwise_initializer"
    )


def _originals(layer: Any) -> list[Any]:
    return list(layer.weights)


def _flat(outputs: Any) -> list[Any]:
    import keras

    found: list[Any] = keras.tree.flatten(outputs)
    return found


def _copied_operation(operation: Any) -> Any:
    """Return the same bare operation without its place in the original's graph."""
    twin = copy.copy(operation)
    twin._inbound_nodes, twin._outbound_nodes = [], []
    return twin


def _new_input(graph: Graph, node: Node) -> Any:
    import keras

    value = graph.values[node.outputs[0]]
    if node.operation is None:
        return keras.Input(shape=value.shape, dtype=value.dtype, name=node.layer_name)
    return keras.layers.InputLayer.from_config(node.operation.get_config()).output


def _short_names(graph: Graph) -> dict[int, str]:
    """Return a name for every layer of the flat network: its own where that is unique, else its path."""
    first = {}
    for node in graph.nodes:
        if node.operation is not None:
            first.setdefault(id(node.operation), node)
    own = Counter(node.layer_name for node in first.values())
    names, taken = {}, set[str]()
    for key, node in first.items():
        name = node.layer_name if own[node.layer_name] == 1 else node.name.replace("/", "_").replace("#", "_")
        unique, count = name, 1
        while unique in taken:
            unique, count = f"{name}_{count}", count + 1
        taken.add(unique)
        names[key] = unique
    return names
