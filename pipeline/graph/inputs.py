"""Whether data fits the inputs of a network: the one rule for all who feed it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...storage.errors import InputError
from ..events import counted
from ..sources import InputSpec
from .graph import Graph

__all__ = ["input_order", "match_inputs", "shape_words"]


def match_inputs(graph: Graph, given: tuple[InputSpec, ...]) -> list[tuple[int, np.dtype[Any]]]:
    """Return, for each input of the network, which array of the data it takes and in which dtype.

    Arrays go to inputs by name where all names agree, else in order.

    Raises
    ------
    InputError
        If the number of inputs or a shape differs from what the network takes.
    """
    wanted = graph.input_specs
    if len(wanted) != len(given):
        raise InputError(
            f"the network has {counted(len(wanted), 'input')} "
            f"({', '.join(repr(name) for name, _, _ in wanted)}), the data has {len(given)}: name the arrays with "
            "data.inputs"
        )
    order = input_order(graph, [have.name for have in given])
    for (name, shape, dtype), have in zip(wanted, (given[i] for i in order), strict=True):
        fits = len(shape) == len(have.shape) and all(
            w in (None, h) for w, h in zip(shape, have.shape, strict=True)
        )
        if not fits:
            raise InputError(
                f"input {name!r} takes samples of shape {shape_words(shape)}, the data has {shape_words(have.shape)}: "
                "reshape the data, or choose another array with data.inputs"
            )
        if (dtype == "string") != (have.dtype == "object"):
            takes, holds = ("texts", "numbers") if dtype == "string" else (f"numbers ({dtype})", "texts")
            raise InputError(
                f"input {name!r} takes {takes}, the data holds {holds}: choose another array with data.inputs, or put "
                "TextVectorization or StringLookup in front of the network where texts are to be numbers"
            )
    return [(i, np.dtype(_numpy_name(dtype))) for i, (_, _, dtype) in zip(order, wanted, strict=True)]


def input_order(graph: Graph, names: Sequence[str | None]) -> list[int]:
    """Return for each input which of the arrays with these names feeds it: by name where all agree, else in order.

    As Keras does it: InputError where names and order contradict each other, or a model built with a dict has no order
    of its own.
    """
    wanted = list(graph.input_keys)
    if len(names) > 1 and set(names) == set(wanted):
        return [list(names).index(name) for name in wanted]
    struct = getattr(graph.model, "_inputs_struct", None)
    has_no_order = isinstance(struct, dict) and list(struct) != sorted(struct)
    if len(names) > 1 and (
        has_no_order or any(n in wanted and n != w for n, w in zip(names, wanted, strict=True))
    ):
        raise InputError(
            f"the network takes the inputs {', '.join(map(repr, wanted))}, the data has "
            f"{', '.join(map(repr, names)) if any(names) else 'arrays without names'}: give a dict with the "
            "names of the network, or name the arrays so in the file"
        )
    return list(range(len(wanted)))


def shape_words(shape: tuple[int | None, ...]) -> str:
    """Return the shape of a sample for a message; an axis of any length is ``any``."""
    return "(" + ", ".join("any" if n is None else str(n) for n in shape) + (",)" if len(shape) == 1 else ")")


def _numpy_name(dtype: str) -> str:
    # A bfloat16 or float16 network takes float32 samples and casts them itself.
    return {"bfloat16": "float32", "float16": "float32", "string": "object"}.get(dtype, dtype)
