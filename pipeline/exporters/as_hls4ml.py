"""``fixed<W,I>`` for the result of each layer, as the configuration of hls4ml takes it.

W is given. I is the least number of bits before the point with which the range of the layer is held, its certified
upper end included.
"""

from __future__ import annotations

import json
import math
from typing import Any

from ...storage.errors import InputError
from ..factors.ranges import ChosenRange
from ..graph import Graph
from ..graph.kinds import RECURRENT_LAYERS, is_activation
from .exporter import Exported, Exporter, ExportRequest, RangeRow
from .recorded_ranges import recorded_ranges
from .reopening import opened_graph

__all__ = ["EXPORTER", "integer_bits"]

WIDTH = 16
WIDEST = 64


def integer_bits(lo: float, hi: float, *, width: int) -> int:
    """Return the least I, sign included, with which ``fixed<width, I>`` holds lo to hi; below 1 for small ranges.

    ``fixed<W,I>`` holds ``-2**(I-1)`` to ``2**(I-1) - 2**(I-W)``.
    """
    largest = max(-lo, hi)
    if largest <= 0:
        return 1
    bits = math.frexp(largest)[1] - 1  # one less than holds the largest size
    while lo < -math.ldexp(1.0, bits - 1) or hi > math.ldexp(1.0, bits - 1) - math.ldexp(1.0, bits - width):
        bits += 1
    return bits


def _certified(found: ChosenRange) -> tuple[float, float]:
    """Return the range with the upper end of its interval."""
    if found.hi > 0:
        return found.lo, max(found.hi, found.size.hi)
    return min(found.lo, -found.size.hi) if found.lo < 0 else 0.0, 0.0


def _layer_name(graph: Graph, point: str) -> str | None:
    """Return the name that hls4ml gives to the layer whose result is recorded at a point; None if it has none.

    It splits an activation function off from its layer, but for recurrent ones, and knows neither nested networks nor
    a layer's second call, nor layers in the place of an activation function.
    """
    if point not in graph.every_point:
        return None
    node = graph.producer(graph.every_point[point].value)
    if node.operation is None or node.name != node.layer_name:
        return None
    function = getattr(node.operation, "activation", None)
    if function is None or is_activation(node.operation) or node.type in RECURRENT_LAYERS:
        return node.layer_name
    name: str | None = getattr(function, "__name__", None)
    return node.layer_name if name == "linear" else None if name is None else f"{node.layer_name}_{name}"


def _make(request: ExportRequest) -> Exported:
    run, width = request.run, request.options.get("width", WIDTH)
    if type(width) is not int or not 2 <= width <= WIDEST:
        raise InputError(f"--width {width!r} is refused: a whole number of bits from 2 to {WIDEST}")
    graph = opened_graph(run, request.options)
    layers: dict[str, Any] = {}
    rows, unknown = [], []
    for name, recorded in recorded_ranges(run, request.settings, clips_bounded=True).items():
        layer = _layer_name(graph, name)
        if layer is None:
            unknown.append(name)
            continue
        lo, hi = _certified(recorded.found)
        kind = f"fixed<{width},{integer_bits(lo, hi, width=width)}>"
        layers[layer] = {"Precision": {"result": kind}}
        source = f"{kind}: {recorded.source}, upper end of its interval"
        rows.append(RangeRow(tensor=layer, point=name, lo=lo, hi=hi, source=source))
    if not layers:
        raise InputError(
            "no point of this run is the result of a layer that hls4ml knows: it reads networks that are not nested"
        )
    left_out = f"hls4ml has no name for {', '.join(map(repr, unknown))}: left out" if unknown else ""
    return Exported(
        content=json.dumps({"LayerName": layers}, indent=1) + "\n",
        rows=tuple(rows),
        warnings=(left_out,) if left_out else (),
        file_name="hls4ml.json",
    )


EXPORTER = Exporter(
    about="fixed<W,I> for the result of each layer, to merge into the configuration of hls4ml",
    make=_make,
    options=("width", "model", "custom_objects", "unsafe_model"),
    takes_channels=False,
    opens_network=True,
    note=(
        "Values beyond fixed<W,I> wrap around in hls4ml: --percentile 100 leaves none of this run beyond, and "
        "fixed<W,I,RND,SAT> cuts them off."
    ),
)
