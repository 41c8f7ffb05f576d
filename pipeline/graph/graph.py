"""The graph of a network: what was read, who consumes what, and how to run it.

Holds no rules of normalisation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ...storage.errors import InputError
from .folding import folded_norms
from .forward import forward_function
from .model_check import check_agreement
from .nodes import Node, Value
from .points import Point, every_point, select_points
from .stepping import values_in_turn

__all__ = ["Graph"]


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes and values of a model; made by `read_graph`.

    Parameters
    ----------
    nodes : tuple of Node
        In topological order.
    values : tuple of Value
        ``values[i].index == i``.
    inputs, outputs : tuple of int
        Values, in the order of ``model.inputs`` and ``model.outputs``.
    tensors : mapping
        ``id`` of a symbolic tensor of the outermost model -> value.
    model : keras.Model
        The model that was read.
    """

    nodes: tuple[Node, ...]
    values: tuple[Value, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    tensors: Mapping[int, int] = field(repr=False, default_factory=dict)
    model: Any = field(repr=False, default=None)

    @cached_property
    def consumers(self) -> tuple[tuple[int, ...], ...]:
        """For each value the indices of the nodes that take it, -1 for each time it is an output."""
        found: list[list[int]] = [[] for _ in self.values]
        for node in self.nodes:
            for value in node.inputs:
                found[value].append(node.index)
        for value in self.outputs:
            found[value].append(-1)
        return tuple(tuple(each) for each in found)

    @cached_property
    def folded(self) -> dict[int, int]:
        """Node of a BatchNormalization -> node of the linear layer that it can be folded into."""
        return folded_norms(self)

    @cached_property
    def every_point(self) -> dict[str, Point]:
        """Every node as a point, by name; several may stand for the same tensor."""
        return {point.name: point for point in every_point(self)}

    @property
    def input_specs(self) -> tuple[tuple[str, tuple[int | None, ...], str], ...]:
        """For each input of the model: its name, its shape without samples, its dtype."""
        values = (self.values[value] for value in self.inputs)
        return tuple((self.nodes[value.node].name, value.shape, value.dtype) for value in values)

    @property
    def input_keys(self) -> tuple[str, ...]:
        """For each input of the model the name that data call it by: its key in the dict the model was built with."""
        struct = getattr(self.model, "_inputs_struct", None)
        keys = {id(tensor): key for key, tensor in struct.items()} if isinstance(struct, dict) else {}
        names = (name for name, _, _ in self.input_specs)
        tensors = self.model.inputs
        return tuple(str(keys.get(id(tensor), name)) for tensor, name in zip(tensors, names, strict=True))

    def input_order(self, names: Sequence[str | None]) -> list[int]:
        """Return for each input which of the arrays with these names feeds it: by name where all agree, else in order.

        The one rule for whoever feeds the network, so that what is certified is what was recorded. As Keras does it:
        InputError where names and order contradict each other, or a model built with a dict has no order of its own.
        """
        wanted = list(self.input_keys)
        if len(names) > 1 and set(names) == set(wanted):
            return [list(names).index(name) for name in wanted]
        struct = getattr(self.model, "_inputs_struct", None)
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

    def check(self, inputs: Sequence[Any], *, allow_random: bool = False) -> tuple[str, ...]:
        """Raise InputError if the graph does not compute what its model does, or other values each time.

        On a few samples of a batch. With ``allow_random`` the names of the layers that are random are returned.
        """
        return check_agreement(self, inputs, allow_random=allow_random)

    def producer(self, value: int) -> Node:
        """Return the node that computes ``value``."""
        return self.nodes[self.values[value].node]

    def points(self, which: str | Iterable[str] = "parameters") -> tuple[Point, ...]:
        """Return the points to record, in topological order.

        Parameters
        ----------
        which : str or iterable of str, default="parameters"
            ``"parameters"``: every layer with parameters, except a BatchNormalization that is folded into
            its producer. ``"merges"``: every layer that joins branches (Add, Concatenate...).
            ``"neurons"``: the layers with parameters, and the merges whose values a spiking neuron or a
            quantiser takes: sums and comparisons, and products or joins behind which an activation
            function stands.
            ``"inputs"``: the inputs. ``"all"``: every node except the inputs. Anything else is a
            pattern in the manner of a shell (``"conv*"``, ``"block[12]_*"``), matched against point
            names. Several may be given.

        Raises
        ------
        InputError
            For a pattern that matches nothing, with the nearest names; for a model without parameters.

        Notes
        -----
        The tensor of a point starts as the output of its layer and follows the values downstream while
        exactly one consumer takes them: a BatchNormalization that is folded, dropout and other
        inference-time identities, and then at most one separate activation layer. Points that
        end at the same tensor are one point, named after the first layer.
        """
        return select_points(self, which)

    def forward(
        self, points: Sequence[Point] | Sequence[int], *, dtype: str = "float32"
    ) -> Callable[[Sequence[Any]], tuple[list[Any], list[Any]]]:
        """Return a function from the model's inputs to the tensors of ``points`` and the outputs.

        Parameters
        ----------
        points : sequence of Point or of int
            Points, or indices of values.
        dtype : str, default="float32"
            Of the tensors of the points.

        Returns
        -------
        callable
            ``call(inputs) -> (point_tensors, output_tensors)``; inputs in the order of `input_specs`, points
            as ``dtype`` in the order given, outputs in the dtype of the model. Inference mode, the
            weights are read from the model's variables at each call. Wrap it in ``tf.function``.
        """
        return forward_function(self, [p if isinstance(p, int) else p.value for p in points], dtype=dtype)

    def in_turn(
        self, inputs: Sequence[Any], wanted: Sequence[int], *, dtype: str | None = None
    ) -> Iterator[tuple[int, Any]]:
        """Yield each wanted value of one batch when it is computed; see `values_in_turn`."""
        return values_in_turn(self, inputs, wanted, dtype=dtype)
