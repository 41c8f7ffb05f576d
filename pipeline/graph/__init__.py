"""The graph of a Keras network: nodes, values, points, and running it once for all points."""

from .feeding import aligned, input_tensor, refusals_explained
from .fingerprint import model_fingerprint
from .graph import Graph
from .nodes import Node, Slot, Value
from .points import Point
from .reading import read_graph
from .toolbox_names import toolbox_names

__all__ = [
    "Graph",
    "Node",
    "Point",
    "Slot",
    "Value",
    "aligned",
    "input_tensor",
    "model_fingerprint",
    "read_graph",
    "refusals_explained",
    "toolbox_names",
]
