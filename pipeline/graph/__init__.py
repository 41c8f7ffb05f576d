"""The graph of a Keras network: nodes, values, points, and running it once for all points."""

from .calling import model_arguments
from .choosing import choose_points, graph_points, inner_points, places_of, points_at
from .code import file_code_hash
from .feeding import aligned, input_tensor
from .fingerprint import model_fingerprint
from .forward import forward_function, traced_forward
from .graph import Graph
from .inner_check import check_rows
from .inner_layers import leaves_of_own_layers, named_inside
from .inner_taps import tapped_calls
from .inputs import input_order, match_inputs, shape_words
from .keras_errors import layer_refusals, reason_of, refusals_explained
from .model_check import check_model, check_nbytes
from .nodes import AnyPoint, InnerPoint, Node, Point, Slot, Value
from .opaque import built_inputs, graph_for, opaque_graph
from .points import select_points, used_outputs
from .reading import is_subclassed, read_graph, why_opaque
from .stepping import values_in_turn
from .toolbox_names import toolbox_names

__all__ = [
    "AnyPoint",
    "Graph",
    "InnerPoint",
    "Node",
    "Point",
    "Slot",
    "Value",
    "aligned",
    "built_inputs",
    "check_model",
    "check_nbytes",
    "check_rows",
    "choose_points",
    "file_code_hash",
    "forward_function",
    "graph_for",
    "graph_points",
    "inner_points",
    "input_order",
    "input_tensor",
    "is_subclassed",
    "layer_refusals",
    "leaves_of_own_layers",
    "match_inputs",
    "model_arguments",
    "model_fingerprint",
    "named_inside",
    "opaque_graph",
    "places_of",
    "points_at",
    "read_graph",
    "reason_of",
    "refusals_explained",
    "select_points",
    "shape_words",
    "tapped_calls",
    "toolbox_names",
    "traced_forward",
    "used_outputs",
    "values_in_turn",
    "why_opaque",
]
