"""Names that SNN toolbox 0.6.0 gives to the layers of a network, before and after its parser.

Follows the parser's rules: what is skipped, replaced or inserted counts up the index that begins each name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from .graph import Graph
from .nodes import Node, Point

__all__ = ["toolbox_names"]

WEIGHTED = frozenset({"Dense", "Conv1D", "Conv2D", "DepthwiseConv2D", "Conv2DTranspose"})
# What its `snn_layers` hold beside: they get a name and an index, but no weights.
PASSING = frozenset(
    {"UpSampling2D", "MaxPooling2D", "AveragePooling2D", "Reshape", "Flatten", "Concatenate", "ZeroPadding2D"}
)
# Skipped or absorbed without harm: at inference they change nothing, or the layer before has taken them in.
ABSORBED = frozenset(
    {"InputLayer", "Activation", "Dropout", "ReLU", "ActivityRegularization", "GaussianNoise", "Softmax"}
)


def toolbox_names(graph: Graph, points: Iterable[Point]) -> dict[str, Any]:
    """Return what an export for SNN toolbox needs to know about a network, as JSON values.

    Returns
    -------
    dict
        ``input``: the toolbox's name of the input. ``parsed``: name of each layer with weights of the parsed
        network -> point that holds its activations, None where none was recorded. ``unparsed``: the layers,
        by name, that its parser leaves out although they matter.
    """
    if graph.is_opaque:
        return {"input": graph.input_specs[0][0], "parsed": {}, "unparsed": [graph.model.name]}
    layers = list(graph.model.layers)
    first = layers[0]
    by_value = {point.value: point.name for point in points}
    reader = _Parser(graph, n_digits=len(str(len(layers))))
    parsed = {
        name: by_value.get(graph.every_point[node.name].value)
        for layer in layers
        for name, node in reader.names_of(layer)
    }
    is_input = type(first).__name__ == "InputLayer"
    further_inputs = [name for name, _, _ in graph.input_specs[1:]]
    return {
        "input": first.name if is_input else "input",
        "parsed": parsed,
        "unparsed": [*further_inputs, *reader.unparsed],
    }


class _Parser:
    """Counts as the toolbox's parser does, layer by layer."""

    def __init__(self, graph: Graph, *, n_digits: int) -> None:
        self.unparsed: list[str] = []
        self._graph, self._n_digits = graph, n_digits
        self._by_layer = {id(node.operation): node for node in graph.first_calls}
        self._index = 0
        self._is_flat = False
        """Whether a Flatten was inserted for the layer that comes next."""

    def names_of(self, layer: Any) -> Iterator[tuple[str, Node]]:
        """Yield the name of what has weights in place of ``layer``, and its node."""
        node = self._by_layer.get(id(layer))
        if node is None:
            if hasattr(layer, "layers"):
                self.unparsed.append(layer.name)
            return
        if node.type == "GlobalAveragePooling2D":
            self._index += 2  # AveragePooling2D and Flatten
            self._is_flat = True
        elif node.type == "Add":
            self._index += 1  # Concatenate, and a convolution that adds
            yield self._name("Conv2D", node), node
        elif node.type in WEIGHTED | PASSING:
            self._index += not self._is_flat and self._needs_flatten(node)
            self._is_flat = False
            if node.type in WEIGHTED:
                yield self._name(node.type, node), node
            else:
                self._index += 1
        elif node.type not in ABSORBED and node.index not in self._graph.folded:
            self.unparsed.append(node.name)

    def _name(self, kind: str, node: Node) -> str:
        name = f"{self._index:0{self._n_digits}}{kind}_{'x'.join(map(str, self._shape(node)))}"
        self._index += 1
        return name

    def _shape(self, node: Node) -> tuple[int | None, ...]:
        return self._graph.values[node.outputs[0]].shape

    def _needs_flatten(self, node: Node) -> bool:
        before = self._graph.producer(node.inputs[0])
        is_fewer = len(self._shape(node)) < len(self._shape(before))
        return is_fewer and node.type not in {"Flatten", "Reshape"} and before.type != "InputLayer"
