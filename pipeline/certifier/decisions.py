"""Class decisions of two networks: how often they agree with each other, and with the labels.

Counts batch by batch. Knows shapes of outputs, not scales: an output has one scale, which changes no decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph import Graph
from ..graph.kinds import activation_of

__all__ = ["Decisions"]

# An output of one number decides if it is a probability.
HALF = 0.5
# About the precision of half-precision labels.
_ONE_HOT_TOLERANCE = 1e-2


class Decisions:
    """Running counts for every output that decides between classes, at each of its positions.

    Two or more channels decide by the largest; a single sigmoid decides by 0.5.
    """

    def __init__(self, graph: Graph) -> None:
        self._axes: dict[int, int] = {}
        for index, value in enumerate(graph.outputs):
            recorded = graph.values[value]
            n_channels = recorded.shape[recorded.channel_axis] if recorded.shape else 1
            if (n_channels or 0) > 1 or (recorded.shape and _is_probability(graph, value)):
                self._axes[index] = recorded.channel_axis
        self._names = [graph.producer(graph.outputs[index]).name for index in self._axes]
        self._equal = dict.fromkeys(self._axes, 0)
        self._decided = dict.fromkeys(self._axes, 0)
        self._right = [0, 0]
        self._labelled = 0
        self._unfit: set[str] = set()
        """Why labels are not classes of the first deciding output; a set, since samples come in any order."""

    def add(self, before: Sequence[Any], after: Sequence[Any], labels: NDArray[Any] | None) -> None:
        """Count one batch of outputs, tensors or arrays."""
        for index, axis in self._axes.items():
            old = _decide(np.asarray(before[index]), axis)
            new = _decide(np.asarray(after[index]), axis)
            self._equal[index] += int(np.count_nonzero(old == new))
            self._decided[index] += old.size
            if index == min(self._axes) and labels is not None:
                self._count_right(old, new, np.asarray(labels), shape=np.shape(before[index]), axis=axis)
        if labels is not None and not self._axes:
            self._unfit.add("no output of the network decides between classes")

    def _count_right(
        self,
        old: NDArray[Any],
        new: NDArray[Any],
        labels: NDArray[Any],
        *,
        shape: tuple[int, ...],
        axis: int,
    ) -> None:
        classes = _classes(labels, shape, axis)
        if isinstance(classes, str):
            self._unfit.add(classes)
            return
        self._right[0] += int(np.count_nonzero(old == classes))
        self._right[1] += int(np.count_nonzero(new == classes))
        self._labelled += classes.size

    def merge(self, other: Decisions) -> None:
        """Add the counts of other samples."""
        for index in self._axes:
            self._equal[index] += other._equal[index]
            self._decided[index] += other._decided[index]
        self._right = [mine + theirs for mine, theirs in zip(self._right, other._right, strict=True)]
        self._labelled += other._labelled
        self._unfit |= other._unfit

    @property
    def agreement(self) -> dict[int, tuple[float, int]]:
        """Output -> (share of equal decisions, number of decisions)."""
        return {index: (self._equal[index] / n, n) for index, n in self._decided.items() if n}

    @property
    def accuracy_before(self) -> float | None:
        """Share of labels that the original finds; None unless they are classes of the first deciding output."""
        return self._share(self._right[0])

    @property
    def accuracy_after(self) -> float | None:
        """Share of labels that the normalised network finds."""
        return self._share(self._right[1])

    def _share(self, n_right: int) -> float | None:
        return n_right / self._labelled if self._labelled and not self._unfit else None

    @property
    def notes(self) -> tuple[str, ...]:
        """Why there is no accuracy although there are labels; or, if several outputs decide, which one it is of."""
        if self._unfit:
            return (f"no accuracy: {'; '.join(sorted(self._unfit))}",)
        if self._labelled and len(self._names) > 1:
            n_outputs = len(self._names)
            return (
                f"accuracy is of {self._names[0]!r}, the first of {n_outputs} outputs that decide between classes",
            )
        return ()


def _classes(labels: NDArray[Any], shape: tuple[int, ...], axis: int) -> NDArray[Any] | str:
    """Return labels as class numbers, in the shape of the decisions; or why they are not classes.

    Parameters
    ----------
    labels : ndarray of shape (n, ...)
        Class numbers; or one-hot, along the output's channel axis or the last axis.
    shape : tuple of int
        Shape of the output, with samples.
    axis : int
        Channel axis of the output.
    """
    n_channels, decided = shape[axis], tuple(np.delete(shape, axis).tolist())
    n_classes = max(n_channels, 2)  # one sigmoid decides between two
    if labels.dtype.kind not in "biuf":
        return "the labels are not numbers"
    one_hot_axes = {shape: axis, (*decided, n_channels): -1}
    if labels.shape == (*decided, 1):
        labels = labels[..., 0]
    elif labels.shape != decided and labels.shape in one_hot_axes:
        at = one_hot_axes[labels.shape]
        # Smoothed labels and class probabilities add up to one too; corners of bounding boxes do not.
        sums = labels.sum(axis=at, dtype=np.float64)
        if n_channels > 1 and not (labels.min() >= 0 and np.abs(sums - 1).max() <= _ONE_HOT_TOLERANCE):
            return f"the {n_channels} numbers of a label are not one-hot"
        labels = labels.argmax(axis=at) if n_channels > 1 else labels.take(0, axis=at)
    if labels.shape != decided:
        return (
            f"a label has the shape {labels.shape[1:]}, and the output decides between {n_classes} classes "
            f"{'once' if not decided[1:] else f'at {decided[1:]} positions'}"
        )
    if labels.dtype.kind == "f" and not (np.isfinite(labels) & (labels == np.round(labels))).all():
        return "the labels are not whole numbers"
    if labels.size and not (labels.min() >= 0 and labels.max() < n_classes):
        return f"the labels are not all of the classes 0 to {n_classes - 1} that the output decides between"
    return labels


def _is_probability(graph: Graph, value: int) -> bool:
    operation = graph.producer(value).operation
    return operation is not None and activation_of(operation) == "sigmoid"


def _decide(output: NDArray[Any], axis: int) -> NDArray[Any]:
    if output.shape[axis] == 1:
        decided: NDArray[Any] = output.take(0, axis=axis) > HALF
        return decided
    found: NDArray[Any] = output.argmax(axis=axis)
    return found
