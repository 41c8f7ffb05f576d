"""Check on a few samples that what is recorded inside nodes belongs to the sample that it is kept for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...storage.errors import InputError
from .forward import traced_forward
from .graph import Graph
from .model_check import is_the_same
from .nodes import InnerPoint

__all__ = ["check_rows"]

N_SAMPLES = 3


def check_rows(graph: Graph, points: Sequence[InnerPoint], inputs: Sequence[Any]) -> None:
    """Refuse points whose rows are not those of one sample after the other.

    A layer may work on rows that are no samples, such as the windows of images. How many there are for a sample is
    known from a trace; here it is seen whether they are the same where the samples before are missing.

    Parameters
    ----------
    graph : Graph
        Not random.
    points : sequence of InnerPoint
    inputs : sequence of array or tensor
        One batch, in the order of ``graph.inputs``.

    Raises
    ------
    InputError
        For the first such point.
    """
    doubtful = [point for point in points if point.n_rows != 1]
    if not doubtful or len(inputs[0]) < 2:
        return
    samples = [(tuple(tensor.shape[1:]), tensor.dtype) for tensor in inputs]
    forward, first = traced_forward(graph, doubtful, samples), [tensor[:N_SAMPLES] for tensor in inputs]
    (both, _), (later, _) = forward(first), forward([tensor[1:] for tensor in first])
    for point, whole, part in zip(doubtful, both, later, strict=True):
        if not is_the_same(whole[1:], part):
            raise InputError(
                f"the layer {point.name!r} ({point.layer_type}) works on rows of which each belongs to several "
                "samples, or that are not in the order of the samples: leave it out with record.points",
                point=point.name,
            )
