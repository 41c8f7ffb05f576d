"""Build a new network of plain Keras layers from a graph and its scales.

The original's layers are cloned from their settings, never called: nothing of the original changes, not even
its list of nodes. Memory: the new weights, plus one layer's while it is built.
"""

from __future__ import annotations

import copy
import types
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from ..graph import Graph, Node, Slot, aligned, layer_refusals, reason_of
from ..graph.kinds import function_name, held_layer, is_activation
from ..graph.state import hand_over_state
from .naming import Names
from .solving import Solution
from .updating import LayerUpdate, layer_update, relu_config, rescaling_config

__all__ = ["RebuiltNetwork", "rebuild", "taken_over"]


class RebuiltNetwork:
    """A new network, and where the values of the original are in it."""

    def __init__(self, solution: Solution) -> None:
        self.solution = solution
        self.graph = graph = solution.walk.graph
        self._folded = {} if solution.walk.keep_structure else graph.folded
        self.model: Any = None
        self.tensors: dict[int, Any] = {}
        """Value of the original graph -> symbolic tensor of ``model``."""
        self.first_tensors: dict[int, Any] = {}
        """Node of the original graph -> first output of the layer that stands for it."""
        self._layers: dict[tuple[int, str | None], Any] = {}
        self._names = Names(self.graph)
        self._producer_norm = {producer: norm for norm, producer in self._folded.items()}

    def build_layers(self) -> None:
        """Build every layer in topological order."""
        for node in self.graph.nodes:
            if node.type == "InputLayer":
                self.tensors[node.outputs[0]] = _new_input(self.graph, node)
            elif node.index in self._folded:
                self.tensors[node.outputs[0]] = self.tensors[node.inputs[0]]
            else:
                self._build(node)

    def _build(self, node: Node) -> None:
        import keras

        args, kwargs = self._arguments(node)
        if node.operation is None:
            tensor, dtype = args
            outputs = [keras.ops.cast(tensor, dtype)]
            outputs[0]._keras_history.operation.name = self._names.unused(node.name)
        elif is_activation(node.operation):
            outputs = [_called(node, self._activation(node), args, kwargs)]
        elif not isinstance(node.operation, keras.Layer):
            outputs = _flat(_called(node, self._operation(node), args, kwargs))
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

    def _operation(self, node: Node) -> Any:
        """Return the copy of a bare operation that serves all its calls."""
        key = (id(node.operation), None)
        if key not in self._layers:
            self._layers[key] = _copied_operation(node, name=self._names.next_of(node))
        return self._layers[key]

    def _activation(self, node: Node) -> Any:
        """Return a layer for an activation function that stands alone."""
        import keras

        config = relu_config(self.solution, node)
        key = _key(node, config)
        known = self._layers.get(key)
        if known is not None:
            return known
        if config is not None:
            return self._layers.setdefault(key, keras.layers.ReLU(**config, name=self._names.next_of(node)))
        if node.type.startswith("ops."):
            return self._operation(node)
        clone = self._layers.setdefault(key, self._clone(node, LayerUpdate({})))
        return _Building(clone, node.operation) if node.n_params else clone

    def _layer(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        key = _key(node, rescaling_config(self.solution, node))
        bounds = relu_config(self.solution, node)
        if key not in self._layers:
            update = self._update(node)
            if bounds is not None:
                update.config["activation"] = "linear"
            clone = self._layers.setdefault(key, self._clone(node, update))
            outputs = _called(node, _Building(clone, node.operation, update.arrays), args, kwargs)
        else:
            outputs = _called(node, self._layers[key], args, kwargs)
        self.first_tensors[node.index] = _flat(outputs)[0]
        return outputs if bounds is None else self._bounded(node, bounds)(outputs)

    def _update(self, node: Node) -> LayerUpdate:
        norm = self._producer_norm.get(node.index)
        return layer_update(self.solution, node, norm=None if norm is None else self.graph.nodes[norm])

    def _bounded(self, node: Node, bounds: dict[str, Any]) -> Any:
        """Return the ReLU layer, with its own bound, that replaces a layer's activation function."""
        import keras

        return keras.layers.ReLU(**bounds, name=self._names.beside(node, "bounded"))

    def _clone(self, node: Node, update: LayerUpdate) -> Any:
        import keras

        layer, name = node.operation, self._names.next_of(node)
        if type(layer) is keras.layers.Lambda:
            return self._lambda(layer, name)
        try:
            held = held_layer(layer)
            settings = {**_known_activation(held), **update.config}
            config = {**layer.get_config(), "name": name}
            if held is layer:
                config |= settings
            else:
                config |= {"layer": _with_settings(config["layer"], settings)}
            return type(layer).from_config(config)
        except Exception as error:  # whatever the layer's own code raises
            raise InputError(
                f"the layer {node.name!r} ({node.type}) cannot be rebuilt from its settings ({reason_of(error)}): "
                "give its class a get_config() that returns the arguments of its constructor",
                layer=node.name,
            ) from error

    def _lambda(self, layer: Any, name: str) -> Any:
        """Return a Lambda layer with the function itself: Keras refuses to make one from its settings."""
        import keras

        return keras.layers.Lambda(
            layer.function,
            output_shape=layer._output_shape,
            mask=layer.mask,
            arguments=layer.arguments,
            dtype=layer.dtype_policy,
            name=name,
        )


def rebuild(solution: Solution, *, like: Any) -> RebuiltNetwork:
    """Return the normalised network.

    Parameters
    ----------
    solution : Solution
    like : keras.Model
        The original: its name and the structure of its inputs and outputs are kept.
    """
    import keras

    network = RebuiltNetwork(solution)
    network.build_layers()
    graph, tensors = network.graph, network.tensors
    # A Sequential model that was never called, as one from a file, has no `input`; it has one input and one output.
    is_chain = isinstance(like, keras.Sequential)
    like_inputs, like_outputs = (like.inputs[0], like.outputs[0]) if is_chain else (like.input, like.output)
    inputs = keras.tree.pack_sequence_as(like_inputs, [tensors[value] for value in graph.inputs])
    outputs = keras.tree.pack_sequence_as(like_outputs, [tensors[value] for value in graph.outputs])
    network.model = keras.Model(inputs, outputs, name=like.name)
    return network


def _known_activation(layer: Any) -> dict[str, str]:
    """Return the activation function of a layer by Keras' name, where its settings tell that of TensorFlow."""
    function = getattr(layer, "activation", None)
    if not isinstance(function, types.FunctionType):
        return {}
    name = function_name(function)
    return {} if name.startswith("custom:") else {"activation": name}


class _Given:
    """An initializer that returns finished weights, so that they exist once."""

    def __init__(self, array: NDArray[np.generic]) -> None:
        self._array: NDArray[np.generic] | None = array

    @property
    def is_taken(self) -> bool:
        """Whether a variable was made of it."""
        return self._array is None

    def __call__(self, shape: Any, dtype: Any = None, **_: Any) -> Any:
        array, self._array = self._array, None
        assert array is not None  # a variable is made once
        return taken_over(array, dtype)


def taken_over(array: NDArray[Any], dtype: Any) -> Any:
    """Return ``array`` as a tensor that shares its memory; a copy for types that cannot be shared.

    ``tf.convert_to_tensor`` copies twice: VGG16's first dense layer cost 0.8 GB more than it weighs.
    """
    import keras
    import tensorflow as tf

    if array.dtype in (np.float32, np.float64) and array.ndim:
        # Aligned: a oneDNN kernel that meets weights at any other address aborts the process (see `aligned`).
        shared = aligned(array if array.flags.writeable else array.copy(), array.dtype)
        return tf.cast(tf.experimental.dlpack.from_dlpack(shared.__dlpack__()), dtype or array.dtype)
    return keras.ops.convert_to_tensor(array.copy(), dtype=dtype)


def _with_settings(serialized: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Return a layer as Keras writes it, with other settings; a dtype is for layers that tell theirs.

    Not yet built: it is to take over finished weights.
    """
    known = serialized["config"]
    new = {key: value for key, value in settings.items() if key != "dtype" or "dtype" in known}
    rest = {key: value for key, value in serialized.items() if key != "build_config"}
    return {**rest, "config": {**known, **new}}


class _Building:
    """Calls a new clone for the first time and gives it its weights and its state."""

    def __init__(
        self, layer: Any, original: Any, arrays: dict[str, NDArray[np.generic]] | None = None
    ) -> None:
        self._layer, self._original, self._arrays = layer, original, arrays or {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        kept, given, holder = {}, [], held_layer(self._layer)
        for attribute, array in self._arrays.items():
            name = _initializer_name(holder, attribute)
            kept[name] = getattr(holder, name)
            given.append(_Given(array))
            setattr(holder, name, given[-1])
        if not self._original.weights:
            # Before the call: a vocabulary may say how large the output is.
            hand_over_state(self._original, self._layer)
        try:
            outputs = self._layer(*args, **kwargs)
        finally:
            for name, initializer in kept.items():
                setattr(holder, name, initializer)
        # A weight that was not set would keep Keras' initial values.
        assert len(self._arrays) in (0, len(self._layer.weights)), self._layer.name
        assert all(each.is_taken for each in given), self._layer.name
        if not self._arrays:
            self._take_over_weights()
        return outputs

    def _take_over_weights(self) -> None:
        layer, originals = self._layer, list(self._original.weights)
        if len(layer.weights) != len(originals):
            raise InputError(
                f"the layer {layer.name!r} ({type(layer).__name__}) has {len(originals)} weights, and "
                f"{len(layer.weights)} when it is rebuilt from its settings: give its class a get_config() that "
                "returns the arguments of its constructor, and make its weights in build()",
                layer=layer.name,
            )
        for variable, original in zip(layer.weights, originals, strict=True):
            variable.assign(original)
        if originals:
            hand_over_state(self._original, layer)
        for each in layer._flatten_layers():
            # Normalization computes with what it made of its weights when it was built. Discretization has none.
            if each.weights and hasattr(each, "finalize_state"):
                each.finalize_state()


def _called(node: Node, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    with layer_refusals(node, doing="built anew"):
        return layer(*args, **kwargs)


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


def _flat(outputs: Any) -> list[Any]:
    import keras

    found: list[Any] = keras.tree.flatten(outputs)
    return found


def _key(node: Node, config: dict[str, Any] | None) -> tuple[int, str | None]:
    """Return the key of a layer of the new network.

    A layer without weights may serve several places of different scale: its settings then differ by place.
    """
    return id(node.operation), repr(sorted(config.items())) if config else None


def _copied_operation(node: Node, *, name: str) -> Any:
    """Return the same bare operation without its place in the original's graph."""
    try:
        twin = copy.copy(node.operation)  # by its settings, as Keras does it
    except Exception as error:  # whatever the operation's own code raises
        raise InputError(
            f"the operation {node.name!r} ({node.type}) cannot be copied ({reason_of(error)}): register its class "
            "with keras.saving.register_keras_serializable()",
            layer=node.name,
        ) from error
    twin._inbound_nodes, twin._outbound_nodes = [], []
    twin.name = name
    return twin


def _new_input(graph: Graph, node: Node) -> Any:
    import keras

    value = graph.values[node.outputs[0]]
    if node.operation is None:
        return keras.Input(shape=value.shape, dtype=value.dtype, name=node.layer_name)
    return keras.layers.InputLayer.from_config(node.operation.get_config()).output
