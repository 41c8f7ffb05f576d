"""The graph of a Keras network: nodes, values, points, and running it once for all points."""

from .code import file_code_hash
from .feeding import aligned, input_tensor
from .fingerprint import model_fingerprint
from .graph import Graph
from .inputs import match_inputs, shape_text
from .nodes import Node, Slot, Value
from .points import Point
from .reading import read_graph, why_opaque
from .refusals import layer_refusals, reason_of, refusals_explained
from .toolbox_names import toolbox_names

__all__ = [
    "Graph",
    "Node",
    "Point",
    "Slot",
    "Value",
    "aligned",
    "file_code_hash",
    "input_tensor",
    "layer_refusals",
    "match_inputs",
    "model_fingerprint",
    "read_graph",
    "reason_of",
    "refusals_explained",
    "shape_text",
    "toolbox_names",
    "why_opaque",
]
