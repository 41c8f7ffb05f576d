"""Give every tensor of a target's network a range: that of the point with the same values, or one of its own.

Names say nothing: targets rename, fold and transpose. Two tensors are the same if their values for each sample of one
batch are, in any order. Does not know any target.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from ..events import OnEvent, SamplesDone, StageDone, StageStarted, counted
from ..factors.ranges import chosen_range, describe_method
from ..settings.job_settings import FactorSettings
from ..sketch import Sketch
from ..stages.prepare import Prepared
from .exporter import ExportRequest, RangeRow, RecordedRun
from .recorded_ranges import recorded_ranges
from .reopening import inputs_of, point_values

__all__ = ["TargetNetwork", "in_order", "matched_rows"]

MOST_COMPARED = 32
"""Samples that are compared; and that pass through the target together where it does not fix their number."""
COMPARED_NBYTES = 64 * 2**20
"""Of the activations of these samples, as float32; a large network is compared on fewer samples, but at least on two:
it has as many values in them."""
TOLERANCE = 1e-3
"""Largest difference, relative to the largest value: libraries fold and add in another order. Two layers of one size
that agree so closely on every value of a batch have the same range."""


def in_order(wanted: Sequence[str], given: Sequence[str], origin: str) -> list[int]:
    """Return for each input of a target which input of the run's network it is: by name where all agree, else in order.

    Raises
    ------
    InputError
        If their numbers differ.
    """
    if len(wanted) != len(given):
        raise InputError(
            f"{origin} has {len(wanted)} inputs, the network of the run has {len(given)}: it is another network"
        )
    if set(wanted) == set(given):
        return [list(given).index(name) for name in wanted]
    return list(range(len(given)))


class TargetNetwork(Protocol):
    """A network as the target has it, with every tensor visible."""

    origin: str
    """What to call it in messages."""

    @property
    def tensors(self) -> Sequence[str]:
        """Names of all tensors of floats that depend on the samples, or may; in order."""
        ...

    @property
    def fixed_batch(self) -> int | None:
        """The number of samples that the network was exported for; None if it takes any."""
        ...

    def run(self, batch: Sequence[NDArray[Any]], names: Sequence[str]) -> Mapping[str, NDArray[Any]]:
        """Return tensors by name for samples in the order of the run's inputs; the first axis is the samples.

        Any error of its library means that the samples do not fit.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Sorted:
    """The values of a tensor for each sample, in ascending order; of shape (n_samples, n_values)."""

    values: NDArray[np.float64]

    @classmethod
    def of(cls, array: NDArray[Any], n_samples: int) -> _Sorted | None:
        if array.ndim == 0 or array.shape[0] != n_samples or array.size == 0:
            return None
        return cls(np.sort(array.reshape(n_samples, -1).astype(np.float64), axis=1))

    @property
    def is_constant(self) -> bool:
        """Whether it is one number, as that of a dead layer: then it tells nothing."""
        return bool(self.values.min() == self.values.max())

    def is_same(self, other: _Sorted) -> bool:
        if self.values.shape != other.values.shape:
            return False
        largest = float(np.abs(other.values).max())
        return float(np.abs(self.values - other.values).max()) <= TOLERANCE * largest


def matched_rows(
    target: TargetNetwork, job: Prepared, request: ExportRequest
) -> tuple[list[RangeRow], tuple[str, ...]]:
    """Return a row for every tensor, and warnings.

    A tensor that has the values of a point has its range, from the statistics of the run. Every other one is counted
    while all samples pass through the target once, and gets the range that the same method chooses for it.

    Raises
    ------
    InputError
        If no tensor is a point, or the samples do not fit: the target is another network.
    """
    run, settings = request.run, request.settings
    n_first = _n_compared(run, job.source.n_samples)
    first = _values(target, inputs_of(job, 0, n_first), target.tensors)
    points = {
        name: _Sorted(np.sort(values.reshape(n_first, -1).astype(np.float64), axis=1))
        for name, values in point_values(run, job, n_first).items()
    }
    matches = {name: _match(first[name], points, n_first) for name in target.tensors}
    lost = [name for name in points if name not in matches.values()]
    if len(lost) == len(points):
        raise InputError(
            f"no tensor of {target.origin} has the values of a point (looked for {_listed(lost)}): it is another "
            "network, or its inputs are prepared in another way; export it from the network of the run"
        )
    others = [name for name, point in matches.items() if point is None]
    sketches = _counted(target, job, others, n_first, request.on_event)
    recorded = recorded_ranges(run, settings)
    own = _own_settings(settings)
    source = f"no point: {describe_method(own)}, of its own values for {job.source.n_samples} samples"
    rows = []
    for name, point in matches.items():
        if point is None:
            found = chosen_range(sketches[name], own)
            rows.append(RangeRow(tensor=name, point=None, lo=found.lo, hi=found.hi, source=source))
        else:
            given = recorded[point]
            rows.append(
                RangeRow(tensor=name, point=point, lo=given.found.lo, hi=given.found.hi, source=given.source)
            )
    constant = [name for name in lost if points[name].is_constant]
    folded = [name for name in lost if name not in constant]
    warnings = []
    if folded:
        warnings.append(
            f"no tensor of {target.origin} has the values of {_listed(folded)}: the target folded them away"
        )
    if constant:
        warnings.append(
            f"all values of {_listed(constant)} are the same for the first {n_first} samples, so no tensor is known to "
            "have them: it is measured as those that are no points"
        )
    return rows, tuple(warnings)


def _own_settings(settings: FactorSettings) -> FactorSettings:
    # The few different values of an image mislead the divergence: it would keep only the darkest.
    return settings if settings.method != "entropy" else settings.model_copy(update={"method": "percentile"})


def _match(array: NDArray[Any], points: Mapping[str, _Sorted], n_samples: int) -> str | None:
    tensor = _Sorted.of(array, n_samples)
    if tensor is None or tensor.is_constant:
        return None
    return next((name for name, values in points.items() if tensor.is_same(values)), None)


def _n_compared(run: RecordedRun, n_samples: int) -> int:
    nbytes = 4 * sum(math.prod(point.shape) for point in run.cache.spec.points)
    return min(n_samples, MOST_COMPARED, max(2, COMPARED_NBYTES // nbytes))


def _values(
    target: TargetNetwork, inputs: Sequence[NDArray[Any]], names: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """Return tensors by name; samples that the last batch of a fixed size lacks are repeated and cut off."""
    size = target.fixed_batch or len(inputs[0])
    parts: dict[str, list[NDArray[Any]]] = {}
    for start in range(0, len(inputs[0]), size):
        here = [array[start : start + size] for array in inputs]
        n_here = len(here[0])
        padded = [np.resize(array, (size, *array.shape[1:])) for array in here]
        try:
            found = target.run(padded, names)
        except Exception as error:  # of the target's library: classes without a common base
            reason = " ".join(str(error).split())[:280]
            raise InputError(
                f"{target.origin} cannot be run on the samples of the run ({reason}): it is another network, or has "
                "operators that its library does not know; give a file of the run's network"
            ) from None
        for name, array in found.items():
            part = array[:n_here] if array.ndim and len(array) == size else array
            parts.setdefault(name, []).append(part)
    # Single numbers, such as the bounds of a Clip, have no axis of samples to lie along.
    return {
        name: np.concatenate([np.atleast_1d(each) for each in arrays]) if len(arrays) > 1 else arrays[0]
        for name, arrays in parts.items()
    }


def _counted(
    target: TargetNetwork, job: Prepared, names: Sequence[str], n_together: int, on_event: OnEvent
) -> dict[str, Sketch]:
    """Return the sketches of tensors over all samples, batch by batch."""
    sketches, n_samples = {name: Sketch() for name in names}, job.source.n_samples
    if not names:
        return sketches
    on_event(StageStarted(stage="export", n_total=n_samples, unit="samples"))
    for start in range(0, n_samples, n_together):
        stop = min(start + n_together, n_samples)
        for name, array in _values(target, inputs_of(job, start, stop), names).items():
            sketches[name].update(array, point=name)
        on_event(SamplesDone(n_done=stop))
    on_event(
        StageDone(stage="export", message=f"measured {counted(len(names), 'tensor')} that are no points")
    )
    return sketches


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
