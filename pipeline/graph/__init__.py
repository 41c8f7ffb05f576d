"""The graph of a Keras network: nodes, values, points, and running it once for all points."""

from .code import file_code_hash
from .feeding import aligned, input_tensor
from .fingerprint import model_fingerprint
from .forward import forward_function, traced_forward
from .graph import Graph
from .inputs import input_order, match_inputs, shape_words
from .keras_errors import layer_refusals, reason_of, refusals_explained
from .model_check import check_model
from .nodes import Node, Point, Slot, Value
from .points import select_points
from .reading import read_graph, why_opaque
from .stepping import values_in_turn
from .toolbox_names import toolbox_names

__all__ = [
    "Graph",
    "Node",
    "Point",
    "Slot",
    "Value",
    "aligned",
    "check_model",
    "file_code_hash",
    "forward_function",
    "input_order",
    "input_tensor",
    "layer_refusals",
    "match_inputs",
    "model_fingerprint",
    "read_graph",
    "reason_of",
    "refusals_explained",
    "select_points",
    "shape_words",
    "toolbox_names",
    "traced_forward",
    "values_in_turn",
    "why_opaque",
]
