"""Give every layer and operation of a flat network a name of its own.

Keras refuses a network in which two operations have the same name. A flat network puts together what nested models
kept apart, and needs a layer more than once where its places need different settings.
"""

from __future__ import annotations

from collections import Counter

from ..graph import Graph, Node

__all__ = ["Names"]


class Names:
    """Gives out names, none of them twice.

    A layer keeps its own name where that is unique in the graph, and has its path in the nested models as name
    (``encoder_conv1``) where it is not.
    """

    def __init__(self, graph: Graph) -> None:
        self._own: dict[int, str] = {}
        self._handed_out: set[int] = set()
        first = {id(node.operation): node for node in graph.first_calls if node.type != "InputLayer"}
        inputs = [node.layer_name for node in graph.nodes if node.type == "InputLayer"]
        counts = Counter([*inputs, *(node.layer_name for node in first.values())])
        self._taken = set(inputs)
        # The unique ones come first: no path may take the name of a layer.
        for key, node in first.items():
            if counts[node.layer_name] == 1:
                self._own[key] = self.unused(node.layer_name)
        for key, node in first.items():
            if key not in self._own:
                self._own[key] = self.unused(node.name)

    def next_of(self, node: Node) -> str:
        """Return the name of the layer of ``node``, or a name made from it when that is taken."""
        key = id(node.operation)
        if key not in self._handed_out:
            self._handed_out.add(key)
            return self._own[key]
        return self.unused(f"{self._own[key]}_{node.call}")

    def beside(self, node: Node, tail: str) -> str:
        """Return a name for something that follows the layer of ``node``."""
        return self.unused(f"{self._own[id(node.operation)]}_{tail}" + (f"_{node.call}" if node.call else ""))

    def unused(self, wish: str) -> str:
        """Return ``wish``, with a number behind it if it is taken; from then on it is taken."""
        wish = wish.translate(str.maketrans("/#:", "___"))
        name, count = wish, 1
        while name in self._taken:
            name, count = f"{wish}_{count}", count + 1
        self._taken.add(name)
        return name
