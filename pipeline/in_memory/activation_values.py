"""The activations of a network by name of a point: plain arrays, or arrays that are read from a cache when indexed."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError, OverBudgetError
from ..api import job_of_call, read_from_memory, run, setting_tables
from ..display.notebook_progress import progress_shown
from ..display.shown_table import ShownTable
from ..display.small_pictures import distribution_svg
from ..events import OnEvent, SamplesDone, StageDone, StageStarted, counted, ignore_event
from ..report.numbers import axes_text
from ..results.activation_array import Activations
from ..results.run import Run
from ..settings.job_settings import BATCH_SIZE
from ..settings.sizes import format_bytes
from ..sketch import Sketch
from ..stages.prepare import Prepared, prepare

__all__ = ["ActivationsByPoint", "activations"]

# What settings of a call that writes nothing can be of.
_WITHOUT_FOLDER = {"model", "data", "record"}


class ActivationsByPoint(Mapping[str, "NDArray[np.float32] | Activations"]):
    """Activations by name of a point, in model order, each of shape (n_samples, *point shape).

    Attributes
    ----------
    run : Run or None
        The run that they are read from; None where they are plain arrays.
    """

    def __init__(
        self, arrays: Mapping[str, NDArray[np.float32] | Activations], run: Run | None = None
    ) -> None:
        self._arrays, self.run = dict(arrays), run

    def __getitem__(self, point: str) -> NDArray[np.float32] | Activations:
        return self._arrays[point]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        return self._shown().text()

    def _repr_html_(self) -> str:
        return self._shown(pictures=[distribution_svg(self._sketch(point)) for point in self]).html()

    def _sketch(self, point: str) -> Sketch:
        array = self._arrays[point]
        if self.run is not None:
            return copy.copy(self.run.sketches[point].layer)
        sketch = Sketch(on_nonfinite="exclude")
        sketch.update(np.asarray(array))
        return sketch

    def _shown(self, pictures: Sequence[str] = ()) -> ShownTable:
        arrays = list(self._arrays.values())
        n_samples = len(arrays[0]) if arrays else 0
        where = "in memory" if self.run is None else f"read when indexed, from {self.run.cache.url}"
        return ShownTable(
            title=f"activations of {counted(len(self), 'point')}, {counted(n_samples, 'sample')}, {where}",
            columns={
                "point": list(self._arrays),
                ">shape": [axes_text(array.shape) for array in arrays],
                "dtype": [str(array.dtype) for array in arrays],
                ">size": [format_bytes(array.nbytes) for array in arrays],
            },
            pictures=pictures,
            more="list(activations) has all names",
        )


def activations(
    model: Any,
    x: Any,
    points: str | Sequence[str] = "leaves",
    *,
    output: str | Path | None = None,
    batch_size: int = BATCH_SIZE,
    num_samples: int | None = None,
    divide_by: float | None = None,
    memory_limit: int | str | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    progress: bool | None = None,
    on_event: OnEvent = ignore_event,
) -> ActivationsByPoint:
    """Return what the layers of a network give for some samples, by name.

    Parameters
    ----------
    model : keras.Model or path
        Sequential, functional or subclassed; it is never modified. Or a ``.keras`` or ``.h5`` file.
    x : array, list or dict of arrays, tf.data.Dataset, keras.utils.PyDataset, Source or path
        The samples, with an axis of samples in front, also for one.
    points : str or sequence of str
        ``"leaves"`` (every layer with weights of its own, inside other layers too), ``"neurons"``, ``"parameters"``,
        ``"all"`` (every layer), or names and patterns: ``"conv1"``, ``"encoder/block_*/mha/query"``. The
        BatchNormalization and the activation function behind a layer belong to it, whatever is asked for but one of
        them alone: the layer's name has the values after both, and they are no points of their own.
    output : path, optional
        Record into this folder, and read from there what is indexed. It is a run as of :func:`~..api.run`, without
        normalisation: called again, it resumes or reloads. Default: arrays in memory, and nothing is written.
    batch_size, num_samples, divide_by, memory_limit, settings
        As for :func:`~..api.run`.
    progress : bool, optional
        Show a line of progress; default: only in a notebook.
    on_event : callable
        Called with the events of the run; see :mod:`~.events`.

    Returns
    -------
    ActivationsByPoint
        A mapping of name to an array of shape (n_samples, *point shape): with ``output`` an
        :class:`~..results.activation_array.Activations`, which NumPy, Dask and Keras take, otherwise a plain array of
        float32.

    Raises
    ------
    InputError
        If a point cannot be recorded, or the samples do not fit.
    OverBudgetError
        If the arrays are larger than the memory limit: before anything is computed.

    Notes
    -----
    Arrays in memory may hold NaN and infinities, to look for where they begin. With ``output`` they are refused unless
    ``settings={"sketch": {"nonfinite": "exclude"}}``.

    Examples
    --------
    >>> import keras, numpy as np
    >>> from actisketch.pipeline import activations
    >>> layers = [keras.Input((4,)), keras.layers.Dense(8, "relu", name="fc"), keras.layers.Dense(2, name="out")]
    >>> found = activations(keras.Sequential(layers), np.ones((3, 4), np.float32))
    >>> {point: values.shape for point, values in found.items()}
    {'fc': (3, 8), 'out': (3, 2)}
    """
    tables = setting_tables(settings or {})
    if output is None:
        chosen = {
            "record.points": points,
            "record.batch_size": batch_size,
            "record.memory_limit": memory_limit,
            "data.num_samples": num_samples,
            "data.divide_by": divide_by,
            "normalize.enabled": False,
        }
        with progress_shown(progress, on_event) as told:
            return _in_memory(model, x, chosen, tables, told)
    recorded = run(
        model,
        x,
        output=output,
        points=points,
        batch_size=batch_size,
        num_samples=num_samples,
        divide_by=divide_by,
        normalize=False,
        memory_limit=memory_limit,
        settings={**tables, "report": {"enabled": False, **tables.get("report", {})}},
        progress=progress,
        on_event=on_event,
    )
    return ActivationsByPoint({point: recorded.activations(point) for point in recorded.points}, recorded)


def _in_memory(
    model: Any, x: Any, chosen: Mapping[str, Any], settings: Mapping[str, Any], on_event: OnEvent
) -> ActivationsByPoint:
    useless = sorted(set(settings) - _WITHOUT_FOLDER)
    if useless:
        raise InputError(
            f"settings[{useless[0]!r}] changes nothing here: the activations are kept in memory. Leave it out, or give "
            "output='FOLDER' to record them"
        )
    job = job_of_call(model, x, "in memory", chosen, settings)
    keras_model, source = read_from_memory(model, x, None, job)
    prepared = prepare(job, model=keras_model, source=source)
    _check_memory(prepared)
    collected = _Collected(prepared, on_event)
    prepared.producer.hand_over(0, collected.n_samples, collected)
    on_event(StageDone(stage="record", message=f"{counted(collected.n_samples, 'sample')} in memory"))
    return ActivationsByPoint(collected.arrays)


def _check_memory(prepared: Prepared) -> None:
    plan = prepared.plan
    specs = prepared.producer.points
    needed = 4 * plan.n_samples * sum(math.prod(spec.shape) for spec in specs)
    if needed <= plan.memory_limit:
        return
    limit = "" if plan.default_limit is None else f" ({plan.default_limit.sentence()})"
    raise OverBudgetError(
        f"the activations of {counted(len(specs), 'point')} for {counted(plan.n_samples, 'sample')} take "
        f"{format_bytes(needed)}, memory_limit allows {format_bytes(plan.memory_limit)}{limit}: give output='FOLDER' "
        "to keep them on disk and read what is indexed, fewer samples (num_samples), or fewer points",
        needed=needed,
        allowed=plan.memory_limit,
    )


class _Collected:
    """A consumer that puts all values into arrays."""

    def __init__(self, prepared: Prepared, told: OnEvent) -> None:
        self.n_samples, self._told = prepared.plan.n_samples, told
        self.arrays = {
            spec.name: np.empty((self.n_samples, *spec.shape), np.float32)
            for spec in prepared.producer.points
        }
        self._n_taken, self._n_passed = dict.fromkeys(self.arrays, 0), 0
        told(StageStarted(stage="record", n_total=self.n_samples, unit="samples"))

    def take(self, point: str, values: NDArray[np.float32]) -> None:
        """Put the next values of a point in their place."""
        start = self._n_taken[point]
        self._n_taken[point] = start + len(values)
        self.arrays[point][start : start + len(values)] = values

    def end_batch(self, n_samples: int) -> None:
        """Tell of a batch."""
        self._n_passed += n_samples
        self._told(SamplesDone(n_done=self._n_passed))
