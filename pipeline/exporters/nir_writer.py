"""A Keras network as a graph of NIR: convolutions, affine maps, sums over pools, integrate-and-fire neurons.

A ReLU becomes neurons with the threshold 1. Does not know runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from ..graph import Graph, Node, read_graph
from ..graph.kinds import activation_of, is_activation, is_batch_norm, is_identity, relu_layer
from .extra import import_extra
from .nir_parts import (
    NirPart,
    NirValue,
    as_vector,
    explicit_padding,
    map_kernel,
    maximum_maps,
    place_kernel,
    same_padding,
    ungrouped,
    vector_kernel,
)
from .nir_points import layers_before

__all__ = ["EXTRA", "POOLING", "NirWriter"]

EXTRA = "nir"
POOLING = ("sum", "avg")
MONOTONE = frozenset({"softmax", "sigmoid", "log_softmax", "tanh", "hard_sigmoid"})
"""At the end of a network they change no decision: the exported one ends before them."""
_FIRST_AXIS: Final = 0
"""NIR's shapes have no axis of samples."""


class NirWriter:
    """Translates a Keras network, node by node.

    Parameters
    ----------
    model : keras.Model
        With a graph; normalised, unless the neurons shall saturate elsewhere.
    pooling : {"sum", "avg"}
        ``SumPool2d``, which most readers know, with the division in the next kernel; or ``AvgPool2d``, for snnTorch.

    Raises
    ------
    InputError
        For what NIR cannot say, with the name of the layer.
    """

    def __init__(self, model: Any, *, pooling: str = "sum") -> None:
        self._nir = import_extra("nir", extra=EXTRA)
        self._pooling = pooling
        self._graph: Graph = read_graph(model)
        self._values: dict[int, NirValue] = {}
        self._padded: dict[int, tuple[tuple[int, int], ...]] = {}
        """Values behind a ZeroPadding2D, whose zeros the next convolution or max pooling takes over."""
        self._nodes: dict[str, Any] = {}
        self._edges: list[tuple[str, str]] = []
        self.left_out: list[str] = []
        """Layers at the end that are left out."""
        self.neurons: dict[str, tuple[str, ...]] = {}
        """Node of neurons -> layers that it may stand for, the nearest first."""
        self._layer_of: dict[str, str] = {}

    def graph(self) -> Any:
        """Return the ``nir.NIRGraph``."""
        for node in self._graph.nodes:
            self._values[node.outputs[0]] = self._translated(node)
        for place, value in enumerate(self._graph.outputs):
            part, *others = self._parts(value, "the output")
            if others or part.gain != 1.0 or part.flattened:
                end = f"ends with {'a Concatenate' if others else 'pooling'}"
                raise InputError(f"the network {end}: NIR needs a Dense layer or a convolution after it")
            name = self._add(f"output_{place}" if place else "output", self._nir.Output(np.array(part.shape)))
            self._connect(part, name)
        return self._nir.NIRGraph(nodes=self._nodes, edges=self._edges)

    def _translated(self, node: Node) -> NirValue:
        if node.type == "InputLayer":
            return self._input(node)
        translate = _RULES.get(node.type)
        if is_identity(node.operation):
            return self._passed(node)
        if is_batch_norm(node.operation):
            return self._norm(node)
        if is_activation(node.operation):
            return self._activated(self._passed(node), node)  # zeros stay zeros in a ReLU
        if translate is None:
            raise InputError(
                f"NIR cannot say what {node.name!r} ({node.type}) does: it has convolutions, Dense layers, "
                "pooling, Flatten, Add, Concatenate and ReLU",
                layer=node.name,
            )
        if getattr(node.operation, "data_format", None) == "channels_first":
            raise InputError(f"{node.name!r} has its channels first: put them last", layer=node.name)
        return translate(self, node)

    def _passed(self, node: Node) -> NirValue:
        """Return the value that a node leaves as it is, with the zeros around it."""
        value = node.inputs[0]
        if value in self._padded:
            self._padded[node.outputs[0]] = self._padded[value]
        return self._values[value]

    def _parts(self, value: int, name: str) -> NirValue:
        if value in self._padded:
            raise InputError(
                f"{name!r} follows a ZeroPadding2D: only a convolution or max pooling that is not padded itself "
                "takes its zeros over"
            )
        return self._values[value]

    def _add(self, wanted: str, node: Any) -> str:
        """Add a node under a name that HDF5 takes as one."""
        name = wanted.replace("/", ".").replace(":", "-")
        while name in self._nodes:
            name += "_"
        self._nodes[name] = node
        return name

    def _connect(self, part: NirPart, name: str) -> None:
        self._edges.extend((source, name) for source in part.sources)

    def _input(self, node: Node) -> NirValue:
        shape = self._graph.values[node.outputs[0]].shape
        if None in shape or len(shape) not in (1, 3):
            raise InputError(
                f"the input {node.name!r} has the shape {shape}: NIR takes maps or vectors of a known size"
            )
        known = tuple(int(n) for n in shape if n is not None)
        ours = (known[-1], *known[:-1])
        return (NirPart(sources=(self._add(node.name, self._nir.Input(np.array(ours))),), shape=ours),)

    def _activated(self, parts: NirValue, node: Node) -> NirValue:
        """Return what the activation function of a node leaves: neurons for a ReLU."""
        name = activation_of(node.operation)
        relu = relu_layer(node.operation)
        if name == "linear":
            return parts
        is_end = all(consumer == -1 for consumer in self._graph.consumers[node.outputs[0]])
        if name in MONOTONE and is_end:
            self.left_out.append(f"{name} of {node.name!r}")
            return parts
        bound = getattr(relu, "max_value", None) if relu is not None else 6.0 if name == "relu6" else None
        is_plain = relu is None or not (relu.threshold or relu.negative_slope)
        if name not in ("relu", "relu6") or not is_plain or (bound is not None and bound < 1.0):
            raise InputError(
                f"the activation function of {node.name!r} ({name}) is no ReLU that reaches 1: integrate-and-fire "
                "neurons cannot say it",
                layer=node.name,
            )
        return tuple(self._neurons(part, node) for part in parts)

    def _neurons(self, part: NirPart, node: Node) -> NirPart:
        threshold = np.full(part.shape, part.gain, dtype=np.float32)
        made = self._nir.IF(
            r=np.ones_like(threshold), v_threshold=threshold, v_reset=np.zeros_like(threshold)
        )
        neurons = self._add(f"{node.name}_if", made)
        fed_by = [self._layer_of.get(source, source) for source in part.sources]
        self.neurons[neurons] = (*layers_before(self._graph, node), *fed_by)
        self._layer_of[neurons] = fed_by[0]
        self._connect(part, neurons)
        return NirPart(sources=(neurons,), shape=part.shape, flattened=part.flattened, is_rate=True)

    def _norm(self, node: Node) -> NirValue:
        """Return a BatchNormalization that stands alone, as a map of each channel."""
        layer, parts = node.operation, self._parts(node.inputs[0], node.name)
        inverse = 1.0 / np.sqrt(np.asarray(layer.moving_variance, np.float64) + layer.epsilon)
        scale = inverse * (np.asarray(layer.gamma, np.float64) if layer.scale else 1.0)
        shift = (np.asarray(layer.beta, np.float64) if layer.center else 0.0) - scale * np.asarray(
            layer.moving_mean, np.float64
        )
        if parts[0].flattened or layer.axis not in (-1, len(parts[0].shape)):
            raise InputError(f"{node.name!r} normalises a flattened map, or other axes than channels")
        found, first = [], 0
        for part in parts:
            here = slice(first, first + part.n_channels)
            first += part.n_channels
            weight = (scale[here] / part.gain).astype(np.float32)
            bias = np.broadcast_to(shift, scale.shape)[here].astype(np.float32)
            if len(part.shape) == 1:
                made = self._nir.Affine(weight=np.diag(weight), bias=bias)
                found.append(self._linear(node, part, made, part.shape))
            else:
                found.append(self._conv(node, part, np.diag(weight)[:, :, None, None], bias))
        return tuple(found)

    def _conv(
        self,
        node: Node,
        part: NirPart,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32] | None = None,
        *,
        padding: Any = ((0, 0), (0, 0)),
        strides: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        size: Sequence[int] = (),
    ) -> NirPart:
        """Return what a convolution makes of a part; ``size`` is its height and width, by default those of the part."""
        said = explicit_padding(weight, padding, dilation, strides=strides, sizes=part.shape[1:])
        if said is None:
            raise InputError(
                f"the kernel of {node.name!r} and its padding make no square, which NIR's shapes need: use a "
                "kernel that is longer by one on one axis",
                layer=node.name,
            )
        weight, even, gaps = said
        made = self._nir.Conv2d(
            input_shape=part.shape[1:],
            weight=weight,
            stride=strides,
            padding=even,
            dilation=gaps,
            groups=1,
            bias=np.zeros(len(weight), dtype=np.float32) if bias is None else bias,
        )
        return self._linear(node, part, made, (len(weight), *(size or part.shape[1:])))

    def _linear(self, node: Node, part: NirPart, made: Any, shape: tuple[int, ...]) -> NirPart:
        name = self._add(node.name, made)
        self._layer_of[name] = node.name
        self._connect(part, name)
        return NirPart(sources=(name,), shape=shape)

    def _convolution(self, node: Node) -> NirValue:
        layer, value = node.operation, node.inputs[0]
        depthwise = node.type == "DepthwiseConv2D"
        parts, groups = self._values[value], getattr(layer, "groups", 1)
        if groups > 1 and not depthwise and len(parts) > 1:
            raise InputError(f"{node.name!r} has groups behind a Concatenate: NIR cannot say it")
        kernel = np.asarray(layer.kernel)
        out = [int(n) for n in self._graph.values[node.outputs[0]].shape if n is not None]
        bias = np.asarray(layer.bias, np.float32) if layer.use_bias else np.zeros(out[-1], np.float32)
        strides, dilation = tuple(layer.strides), tuple(layer.dilation_rate)
        padding = self._padding(node, parts[0].shape[1:], kernel.shape[:2], strides, dilation)
        found: list[NirPart] = []
        first, done = 0, 0
        for part in parts:
            n_in = part.n_channels // (1 if depthwise else groups)
            here = kernel[:, :, first : first + n_in]
            first += n_in
            weight = map_kernel(here, depthwise=depthwise) / np.float32(part.gain)
            weight = ungrouped(weight, part.n_channels if depthwise else groups)
            n_out = len(weight)
            mine = bias[done : done + n_out] if depthwise else bias if not found else None
            done += n_out if depthwise else 0
            made = self._conv(
                node, part, weight, mine, padding=padding, strides=strides, dilation=dilation, size=out[:2]
            )
            found.append(made)
        return self._activated(tuple(found) if depthwise else _summed(found), node)

    def _padding(self, node: Node, sizes: Any, kernel: Any, strides: Any, dilation: Any) -> Any:
        before = self._padded.get(node.inputs[0])
        if node.operation.padding == "valid":
            return before or ((0, 0), (0, 0))
        if before is not None:
            raise InputError(f"{node.name!r} pads what a ZeroPadding2D padded: NIR pads once")
        return tuple(same_padding(*each) for each in zip(sizes, kernel, strides, dilation, strict=True))

    def _dense(self, node: Node) -> NirValue:
        layer, parts = node.operation, self._parts(node.inputs[0], node.name)
        if len(parts[0].shape) != 1:
            raise InputError(f"{node.name!r} is a Dense layer on maps: flatten or pool them first")
        bias = np.asarray(layer.bias if layer.use_bias else np.zeros(layer.units), dtype=np.float32)
        found: list[NirPart] = []
        for part, weight in zip(parts, vector_kernel(np.asarray(layer.kernel), parts), strict=True):
            mine = bias if not found else np.zeros_like(bias)
            made = self._nir.Affine(weight=weight / np.float32(part.gain), bias=mine)
            found.append(self._linear(node, part, made, (layer.units,)))
        return self._activated(_summed(found), node)

    def _pool(self, node: Node) -> NirValue:
        layer, parts = node.operation, self._parts(node.inputs[0], node.name)
        is_global = node.type == "GlobalAveragePooling2D"
        sizes = parts[0].shape[1:]
        window = sizes if is_global else tuple(layer.pool_size)
        strides = sizes if is_global else tuple(layer.strides)
        is_padded = not is_global and layer.padding == "same"
        if is_padded and any(sum(same_padding(*e, 1)) for e in zip(sizes, window, strides, strict=True)):
            raise InputError(f"{node.name!r} averages over fewer values at the border: NIR cannot say that")
        kind = self._nir.SumPool2d if self._pooling == "sum" else self._nir.AvgPool2d
        gain = float(np.prod(window)) if self._pooling == "sum" else 1.0
        pooled = tuple((n - k) // s + 1 for n, k, s in zip(sizes, window, strides, strict=True))
        found = []
        for part in parts:
            made = kind(np.array(window), np.array(strides), np.array([0, 0]))
            name = self._add(node.name, made)
            self._layer_of[name] = self._layer_of.get(part.sources[0], node.name)
            self._connect(part, name)
            shape = (part.n_channels, *pooled)
            found.append(replace(part, sources=(name,), shape=shape, gain=part.gain * gain))
        return self._flat(node, tuple(found)) if is_global and not layer.keepdims else tuple(found)

    def _max_pool(self, node: Node) -> NirValue:
        layer, parts = node.operation, self._values[node.inputs[0]]
        window, strides = tuple(layer.pool_size), tuple(layer.strides)
        if not all(part.is_rate for part in parts):
            raise InputError(
                f"{node.name!r} takes the maximum of what is no rate of neurons: put it behind a ReLU",
                layer=node.name,
            )
        # Zeros at the border are no larger than any rate.
        padding = self._padding(node, parts[0].shape[1:], window, strides, (1, 1))
        size = [int(n) for n in self._graph.values[node.outputs[0]].shape[:2] if n is not None]
        first, *others = maximum_maps(math.prod(window))
        found = []
        for part in parts:
            weight = place_kernel(first, part.n_channels, window) / np.float32(part.gain)
            here = self._conv(node, part, weight, padding=padding, strides=strides, size=size)
            for each in others:
                self._layer_of[here.sources[0]] = self._layer_of.get(part.sources[0], node.name)
                here = self._neurons(here, node)
                here = self._conv(node, here, place_kernel(each, part.n_channels, (1, 1)))
            found.append(replace(here, is_rate=True))
        return tuple(found)

    def _flatten(self, node: Node) -> NirValue:
        return self._flat(node, self._parts(node.inputs[0], node.name))

    def _flat(self, node: Node, parts: NirValue) -> NirValue:
        found = []
        for part in parts:
            if len(part.shape) == 1:
                found.append(part)
                continue
            made = self._nir.Flatten(np.array(part.shape), start_dim=_FIRST_AXIS, end_dim=-1)
            name = self._add(f"{node.name}_flat" if node.type.startswith("Global") else node.name, made)
            self._connect(part, name)
            found.append(replace(as_vector(part), sources=(name,)))
        return tuple(found)

    def _pad(self, node: Node) -> NirValue:
        there = self._padded.get(node.inputs[0], ((0, 0), (0, 0)))
        pairs = zip(there, node.operation.padding, strict=True)
        self._padded[node.outputs[0]] = tuple((a + c, b + d) for (a, b), (c, d) in pairs)
        return self._values[node.inputs[0]]

    def _sum(self, node: Node) -> NirValue:
        terms = [self._parts(value, node.name) for value in node.inputs]
        alike = {tuple((p.shape, p.gain, p.flattened) for p in parts) for parts in terms}
        if len(alike) != 1:
            raise InputError(
                f"{node.name!r} adds what is pooled or joined in other ways: NIR cannot say it with --pooling "
                f"{self._pooling}",
                layer=node.name,
            )
        joined = tuple(
            NirPart(
                sources=tuple(source for part in same for source in part.sources),
                shape=same[0].shape,
                gain=same[0].gain,
                flattened=same[0].flattened,
            )
            for same in zip(*terms, strict=True)
        )
        for part in joined:
            if len(set(part.sources)) < len(part.sources):
                raise InputError(f"{node.name!r} adds a value to itself: an edge of NIR counts once")
        return joined

    def _joined(self, node: Node) -> NirValue:
        parts = tuple(part for value in node.inputs for part in self._parts(value, node.name))
        axis, n_axes = node.operation.axis, len(self._graph.values[node.outputs[0]].shape) + 1
        if axis % n_axes != n_axes - 1 or any(bool(p.flattened) for p in parts):
            raise InputError(
                f"{node.name!r} joins other axes than channels, or flattened maps: NIR cannot say it"
            )
        return parts


def _summed(found: list[NirPart]) -> NirValue:
    return (NirPart(sources=tuple(s for part in found for s in part.sources), shape=found[0].shape),)


_RULES: Final[dict[str, Callable[[NirWriter, Node], NirValue]]] = {
    "Conv2D": NirWriter._convolution,
    "DepthwiseConv2D": NirWriter._convolution,
    "Dense": NirWriter._dense,
    "AveragePooling2D": NirWriter._pool,
    "GlobalAveragePooling2D": NirWriter._pool,
    "MaxPooling2D": NirWriter._max_pool,
    "Flatten": NirWriter._flatten,
    "ZeroPadding2D": NirWriter._pad,
    "Add": NirWriter._sum,
    "Concatenate": NirWriter._joined,
}
