"""How the model of a graph is called as a whole: the structure of its arguments.

Knows structures. Calls nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .graph import Graph
from .nodes import Slot

__all__ = ["model_arguments"]


def model_arguments(graph: Graph, inputs: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments, positional and by name, with which ``graph.model`` takes its inputs.

    Parameters
    ----------
    graph : Graph
    inputs : sequence
        Anything that stands for an input, in the order of ``graph.inputs``: a tensor, a specification.

    Returns
    -------
    tuple of (tuple, dict)
        The inputs as the model was built with them: alone, as a list, as a dict, or as several arguments. Those of
        inference (``training``) are not among them.
    """
    import keras

    if graph.is_opaque:
        node = graph.nodes[-1]
        given = dict(zip(graph.inputs, inputs, strict=True))
        args, kwargs = keras.tree.map_structure(
            lambda each: given[each.value] if isinstance(each, Slot) else each,
            (node.args, dict(node.kwargs)),
        )
        return args, kwargs
    model = graph.model
    # A Sequential model that was never called, as one from a file, has no `input`.
    like = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return (keras.tree.pack_sequence_as(like, list(inputs)),), {}
