"""Class decisions of two networks: do they agree with each other, and with the labels.

Counts over batches; knows shapes of outputs, nothing of scales beyond one for each output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph import Graph

__all__ = ["Decisions"]

# An output of one number decides when it is a probability.
HALF = 0.5


class Decisions:
    """Running counts for every output that decides between classes.

    An output with two or more channels decides by its largest; one with a single sigmoid by 0.5, at every position.
    """

    def __init__(self, graph: Graph) -> None:
        self._axes: dict[int, int] = {}
        for index, value in enumerate(graph.outputs):
            recorded = graph.values[value]
            n_channels = recorded.shape[recorded.channel_axis] if recorded.shape else 1
            if (n_channels or 0) > 1 or (recorded.shape and _is_probability(graph, value)):
                self._axes[index] = recorded.channel_axis
        self._equal = dict.fromkeys(self._axes, 0)
        self._decided = dict.fromkeys(self._axes, 0)
        self._right = [0, 0]
        self._labelled = 0

    def add(self, before: Sequence[Any], after: Sequence[Any], labels: NDArray[Any] | None) -> None:
        """Count one batch of outputs, tensors or arrays."""
        for index, axis in self._axes.items():
            old = _decide(np.asarray(before[index]), axis)
            new = _decide(np.asarray(after[index]), axis)
            self._equal[index] += int(np.count_nonzero(old == new))
            self._decided[index] += old.size
            if index == min(self._axes) and labels is not None:
                self._count_right(old, new, np.asarray(labels))

    def _count_right(self, old: NDArray[Any], new: NDArray[Any], labels: NDArray[Any]) -> None:
        if labels.ndim == old.ndim + 1:
            labels = labels.argmax(axis=-1) if labels.shape[-1] > 1 else labels[..., 0]
        if labels.shape != old.shape:
            return
        self._right[0] += int(np.count_nonzero(old == labels))
        self._right[1] += int(np.count_nonzero(new == labels))
        self._labelled += labels.size

    def merge(self, other: Decisions) -> None:
        """Add the counts of other samples."""
        for index in self._axes:
            self._equal[index] += other._equal[index]
            self._decided[index] += other._decided[index]
        self._right = [mine + theirs for mine, theirs in zip(self._right, other._right, strict=True)]
        self._labelled += other._labelled

    @property
    def agreement(self) -> dict[int, tuple[float, int]]:
        """Output -> (share of equal decisions, how many decisions)."""
        return {index: (self._equal[index] / n, n) for index, n in self._decided.items() if n}

    @property
    def accuracy_before(self) -> float | None:
        """Share of labels that the original finds; None without labels that fit its first deciding output."""
        return self._right[0] / self._labelled if self._labelled else None

    @property
    def accuracy_after(self) -> float | None:
        """Share of labels that the normalised network finds."""
        return self._right[1] / self._labelled if self._labelled else None


def _is_probability(graph: Graph, value: int) -> bool:
    from ..graph.kinds import activation_of

    operation = graph.producer(value).operation
    return operation is not None and activation_of(operation) == "sigmoid"


def _decide(output: NDArray[Any], axis: int) -> NDArray[Any]:
    if output.shape[axis] == 1:
        decided: NDArray[Any] = output.take(0, axis=axis) > HALF
        return decided
    found: NDArray[Any] = output.argmax(axis=axis)
    return found
