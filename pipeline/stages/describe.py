"""Describe the data of a job for a person: dtypes, ranges, sizes, classes, and likely mistakes.

Reads the first few samples, and labels where they are stored apart. Opens no file itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph import Graph, input_order
from ..graph.kinds import is_linear
from ..sources import Source
from .prepare import Prepared

__all__ = ["DataDescription", "InputDescription", "describe_data"]

N_SAMPLES = 8
"""Enough to tell bytes from fractions; a stream is started again after them."""
LOOKED_AT_NBYTES = 32 * 2**20
N_LABELS = 100_000
N_CLASSES = 20
"""Among this many samples for each output, every class is expected."""
# Layers before the first one with weights that do not change how large values are.
MOVING = frozenset(
    {"Flatten", "Reshape", "Permute", "RepeatVector", "Cast", "Identity", "Dropout", "Resizing"}
)
MOVING_PREFIXES = (
    "ZeroPadding",
    "Cropping",
    "CenterCrop",
    "Random",
    "UpSampling",
    "MaxPooling",
    "AveragePooling",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputDescription:
    """The samples of one input."""

    name: str | None
    dtype: str
    """Dtype in the data."""
    shape: tuple[int, ...]
    """Shape of one sample."""
    raw_range: tuple[float, float] | None
    """Smallest and largest value of the first samples, as the data holds them; None for text."""
    fed_range: tuple[float, float] | None
    """The same, as the network receives them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDescription:
    """The samples of a job."""

    n_samples: int
    n_looked_at: int
    inputs: tuple[InputDescription, ...]
    labels: str | None
    """Dtype and range of the labels; None if there are none."""
    class_names: tuple[str, ...]
    """Names of the folders of images."""
    image_sizes: tuple[tuple[int, int], ...]
    """Height and width of the smallest and of the largest among a few images, before they are resized."""
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def sentence(self) -> str:
        """Return all but the warnings, for a person."""
        parts = [f"{self.n_samples:,} samples", *map(self._of_input, self.inputs)]
        if self.image_sizes:
            sizes = " to ".join("x".join(map(str, size)) for size in dict.fromkeys(self.image_sizes))
            parts.append(f"images of {sizes} pixels")
        if self.class_names:
            names = ", ".join(map(repr, self.class_names[:4])) + (" ..." if len(self.class_names) > 4 else "")
            parts.append(f"{len(self.class_names)} class folders ({names})")
        elif self.labels is not None:
            parts.append(f"labels {self.labels}")
        else:
            parts.append("no labels")
        return ", ".join(parts)

    def _of_input(self, one: InputDescription) -> str:
        name = "" if one.name is None else f"{one.name!r} "
        text = f"{name}{one.dtype} of {'x'.join(map(str, one.shape)) or '1'}"
        if one.raw_range is None or one.fed_range is None:
            return text
        text += f" from {one.raw_range[0]:g} to {one.raw_range[1]:g}"
        if one.fed_range != one.raw_range:
            text += f", fed as {one.fed_range[0]:g} to {one.fed_range[1]:g}"
        return f"{text} (first {self.n_looked_at})"


def describe_data(job: Prepared) -> DataDescription:
    """Describe the samples of a job, from the first few of them.

    Raises
    ------
    InputError
        If they cannot be read.
    """
    source, graph = job.source, job.graph
    nbytes = sum(math.prod(each.shape) * 4 for each in source.inputs)
    n = int(min(N_SAMPLES, source.n_samples, max(1, LOOKED_AT_NBYTES // max(nbytes, 1))))
    reader = getattr(source, "reader", None)
    fed = source.read(0, n)
    raw = fed if reader is None else reader.rows(0, n)
    specs = source.inputs if reader is None else reader.inputs
    inputs = tuple(
        InputDescription(
            name=spec.name,
            dtype=spec.dtype,
            shape=tuple(spec.shape),
            raw_range=_range(before),
            fed_range=_range(after),
        )
        for spec, before, after in zip(specs, raw.inputs, fed.inputs, strict=True)
    )
    names = tuple(getattr(reader, "class_names", ()))
    labels, is_whole = _labels(source, reader, fed.labels)
    return DataDescription(
        n_samples=source.n_samples,
        n_looked_at=n,
        inputs=inputs,
        labels=None if labels is None else _told(labels, is_whole=is_whole),
        class_names=names,
        image_sizes=_image_sizes(reader, source.n_samples),
        warnings=(
            *getattr(reader, "gaps", tuple)(),
            *_other_names(graph, [spec.name for spec in source.inputs]),
            *_unscaled(graph, source, inputs, fed.inputs),
            *_classes(graph, labels, names, n_labels=source.n_samples if is_whole else 0),
            *job.settings.factors.warnings(),
        ),
    )


def _range(values: NDArray[Any]) -> tuple[float, float] | None:
    if values.size == 0 or values.dtype.kind in "OSUT":
        return None
    return float(values.min()), float(values.max())


def _labels(source: Source, reader: Any, few: NDArray[Any] | None) -> tuple[NDArray[Any] | None, bool]:
    """Return labels, and whether these are all of them: stored apart, many are cheap to read."""
    if not source.has_labels:
        return None, False
    if hasattr(reader, "labels"):
        n = min(source.n_samples, N_LABELS)
        return np.asarray(reader.labels(0, n)), n == source.n_samples
    return few, False


def _is_class_number(labels: NDArray[Any]) -> bool:
    return labels.ndim == 1 and labels.size > 0 and labels.dtype.kind in "iu"


def _told(labels: NDArray[Any], *, is_whole: bool) -> str:
    if not _is_class_number(labels):
        return f"{labels.dtype} of {'x'.join(map(str, labels.shape[1:])) or '1'}"
    place = "" if is_whole else f" (first {len(labels):,})"
    return f"{labels.dtype} from {labels.min()} to {labels.max()}{place}"


def _image_sizes(reader: Any, n_samples: int) -> tuple[tuple[int, int], ...]:
    if not hasattr(reader, "encoded_sizes"):
        return ()
    rows = sorted(set(np.linspace(0, n_samples - 1, N_SAMPLES).astype(int).tolist()))
    sizes = sorted(reader.encoded_sizes(rows), key=math.prod)
    return (sizes[0], sizes[-1]) if sizes else ()


def _other_names(graph: Graph, names: list[str | None]) -> Iterator[str]:
    """Yield a warning for arrays with names that the network's inputs do not have."""
    wanted = graph.input_keys
    if len(names) > 1 and set(names) != set(wanted) and any(names):
        pairs = ", ".join(
            f"{names[at]!r} as {name!r}" for at, name in zip(input_order(graph, names), wanted, strict=True)
        )
        yield f"the arrays are not named as the inputs of the network, so they are taken in order: {pairs}"


def _unscaled(
    graph: Graph, source: Source, inputs: tuple[InputDescription, ...], fed: tuple[NDArray[Any], ...]
) -> Iterator[str]:
    """Yield a warning for each input that is fed with unscaled bytes."""
    order = input_order(graph, [spec.name for spec in source.inputs])
    for value, index in zip(graph.inputs, order, strict=True):
        one, values = inputs[index], fed[index]
        layer = _first_linear(graph, value)
        if layer is not None and one.fed_range == one.raw_range and _look_like_bytes(one, values):
            yield (
                f"the samples are {one.dtype} from {one.raw_range[0]:g} to {one.raw_range[1]:g} and reach the layer "  # type: ignore[index] # bytes have a range
                f"{layer!r} unscaled: if the network was trained on scaled samples, set data.divide_by = 255 "
                "(--divide-by 255) or data.preprocessing"
            )


def _look_like_bytes(one: InputDescription, values: NDArray[Any]) -> bool:
    if one.raw_range is None or one.raw_range[0] < 0:
        return False
    if one.dtype in ("uint8", "uint16"):
        return one.raw_range[1] > 1
    is_image = len(one.shape) == 3 and 127 < one.raw_range[1] <= 255
    return is_image and bool(np.all(values == np.floor(values)))


def _first_linear(graph: Graph, value: int) -> str | None:
    """Return the layer with weights that an input reaches unscaled; None if something may scale it before."""
    while graph.consumers[value]:
        first = graph.consumers[value][0]
        if first < 0:
            return None
        node = graph.nodes[first]
        if is_linear(node.operation):
            return node.name
        if node.type not in MOVING and not node.type.startswith(MOVING_PREFIXES):
            return None
        value = node.outputs[0]
    return None


def _classes(
    graph: Graph, labels: NDArray[Any] | None, names: tuple[str, ...], *, n_labels: int
) -> Iterator[str]:
    """Yield a warning if the data has other classes than the network's only output."""
    shape = graph.values[graph.outputs[0]].shape
    if len(graph.outputs) != 1 or len(shape) != 1 or shape[0] is None or labels is None:
        return
    n_outputs = max(2, shape[0])  # one output decides between two classes
    if names and len(names) != n_outputs:
        yield (
            f"the folder has {len(names)} class folders ({', '.join(map(repr, names[:4]))}"
            f"{' ...' if len(names) > 4 else ''}) and the network {n_outputs} classes: labels number the folders, so "
            "that accuracies mean nothing; set data.path to the folder that holds one for each class"
        )
    elif not names and _is_class_number(labels):
        found = f"the labels are from {labels.min()} to {labels.max()}, the network has {n_outputs} classes"
        if labels.max() >= n_outputs or labels.min() < 0:
            yield f"{found}, numbered from 0: accuracies mean nothing; choose other labels with data.labels"
        elif labels.max() - labels.min() + 1 < n_outputs and n_labels >= N_CLASSES * n_outputs:
            yield f"{found}: some never occur; are these samples of all classes, with the labels of the training?"
