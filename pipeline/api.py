"""The Python calls: from a model and data, in memory or in files, to a run that answers questions."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ..storage.errors import InputError
from .display.notebook_progress import progress_shown
from .events import OnEvent, ignore_event
from .job import plan_job, run_job
from .planning.plan import Plan
from .results.run import Run, open_run
from .settings.job_settings import BATCH_SIZE, PERCENTILE, JobSettings, PointChoice
from .settings.loading import validate_job, with_settings
from .sources import Source, as_source
from .stages.describe import describe_data

__all__ = ["job_of_call", "plan", "read_from_memory", "run", "setting_tables"]

logger = logging.getLogger(__name__)


def run(
    model: Any,
    data: Any,
    labels: Any = None,
    *,
    output: str | Path,
    points: str | Sequence[str] = "neurons",
    batch_size: int = BATCH_SIZE,
    num_samples: int | None = None,
    divide_by: float | None = None,
    percentile: float = PERCENTILE,
    nonzero: bool = True,
    per_channel: bool = False,
    normalize: bool = True,
    memory_limit: int | str | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    client: Any = None,
    progress: bool | None = None,
    on_event: OnEvent = ignore_event,
) -> Run:
    """Record, sketch, normalise and certify a network; resume or reload what an earlier call finished.

    Parameters
    ----------
    model : keras.Model or path
        Sequential, functional, or (with ``normalize=False``) subclassed; it is never modified. Or a ``.keras`` or
        ``.h5`` file.
    data : array, list or dict of arrays, tf.data.Dataset, keras.utils.PyDataset, Source or path
        The samples, of shape (n_samples, *input shape), in a fixed order; see :func:`~.sources.as_source`.
    labels : array of shape (n_samples,), optional
        Classes of samples in memory, for accuracy before and after. Those of a file are named in ``settings``.
    output : path
        Folder of the run.
    points : str or sequence of str
        ``"neurons"`` (every layer with parameters, and every merge in front of spiking neurons or a quantiser, after
        its activation function), ``"parameters"`` (without the merges), ``"leaves"`` (every layer with weights of its
        own, inside other layers too), ``"all"`` (every layer), or patterns of names (``"encoder/block_1/mha/query"``).
        The BatchNormalization and the activation function behind a layer belong to it, also with ``"all"``.
    batch_size : int
        Samples that pass through the network together.
    num_samples : int, optional
        Use only the first N samples.
    divide_by : float, optional
        Divide the samples by this number: 255 for bytes, where the network takes 0 to 1.
    percentile : float
        In percent; the factor of a point is this percentile of its activations. 100 is the maximum.
    nonzero : bool
        Percentiles of the activations that are not zero.
    per_channel : bool
        A sketch and a factor for each channel.
    normalize : bool
        Rewrite the network and certify it; ``False``: stop at the factors.
    memory_limit : int or str, optional
        Bytes, or a text such as ``"4 GiB"``, beyond what Python and TensorFlow themselves take; default: 60 % of the
        machine's memory, or what control groups, SLURM and ``ulimit`` allow of it. Workers on this machine share it;
        on other machines each may take 4 GiB.
    settings : mapping, optional
        All other settings, in the tables of a job file: ``{"cache": {"dtype": "float16"}}``.
    client : distributed.Client, optional
        A Dask cluster to run on; ``settings={"record": {"workers": 4}}`` starts a local one.
    progress : bool, optional
        Show a line of progress; default: only in a notebook.
    on_event : callable
        Called with the events of the run; see :mod:`~.events`.

    Returns
    -------
    Run
        Percentiles, factors, activations and the paths of the files.

    Raises
    ------
    InputError, MismatchError, OverBudgetError
        Before anything is written, for what cannot work.
    CertificateError
        If the rewritten network does not compute what the original does.

    Examples
    --------
    >>> import keras, numpy as np
    >>> from actisketch.pipeline import run
    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)]
    ... )
    >>> x = np.random.default_rng(7).random((100, 4), dtype=np.float32)
    >>> result = run(model, x, output="small-run")
    >>> [row.point for row in result.percentiles([99.0])]  # doctest: +SKIP
    ['dense', 'dense_1']
    >>> result.certificate()["passed"]
    True
    """
    chosen = {
        "record.points": points,
        "record.batch_size": batch_size,
        "record.memory_limit": memory_limit,
        "data.num_samples": num_samples,
        "data.divide_by": divide_by,
        "sketch.per_channel": per_channel,
        "factors.per_channel": per_channel,
        "factors.percentile": percentile,
        "factors.nonzero": nonzero,
        "normalize.enabled": normalize,
    }
    job = job_of_call(model, data, output, chosen, settings)
    keras_model, source = read_from_memory(model, data, labels, job)
    with progress_shown(progress, on_event) as told:
        run_job(job, model=keras_model, source=source, client=client, on_event=told)
    return open_run(job.output, storage_options=job.cache.storage_options)


def plan(
    model: Any,
    data: Any,
    *,
    output: str | Path = "actisketch-run",
    points: str | Sequence[str] = "neurons",
    batch_size: int = BATCH_SIZE,
    num_samples: int | None = None,
    divide_by: float | None = None,
    per_channel: bool = False,
    memory_limit: int | str | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> Plan:
    """Return what :func:`run` would take: layers, blocks, bytes on disk, memory. Nothing is run or written.

    Parameters are those of :func:`run`.

    Examples
    --------
    >>> import keras, numpy as np
    >>> from actisketch.pipeline import plan
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu")])
    >>> plan(model, np.zeros((100, 4), np.float32)).activations_nbytes  # four batches of 32, padded
    4112
    """
    chosen = {
        "record.points": points,
        "record.batch_size": batch_size,
        "record.memory_limit": memory_limit,
        "data.num_samples": num_samples,
        "data.divide_by": divide_by,
        "sketch.per_channel": per_channel,
        "factors.per_channel": per_channel,
    }
    job = job_of_call(model, data, output, chosen, settings)
    keras_model, source = read_from_memory(model, data, None, job)
    prepared = plan_job(job, model=keras_model, source=source)
    for warning in describe_data(prepared).warnings:
        logger.warning("%s", warning)
    return prepared.plan


def job_of_call(
    model: Any, data: Any, output: str | Path, chosen: Mapping[str, Any], settings: Mapping[str, Any] | None
) -> JobSettings:
    """Return the settings of a call: those of its arguments, by dotted key, and those of its ``settings``."""
    plain = {key: _plain(value) for key, value in chosen.items()}
    tree = with_settings({}, {**plain, "record.points": _points(chosen["record.points"])})
    if isinstance(model, str | Path):
        tree["model"] = {"path": str(model)}
    for name, table in setting_tables(settings or {}).items():
        # What is set twice is set by `settings`, which is the more explicit.
        tree[name] = {**tree.get(name, {}), **table}
    if isinstance(data, str | Path):
        tree["data"]["path"] = str(data)
    return validate_job({**tree, "output": str(output)}, origin="the call")


def read_from_memory(model: Any, data: Any, labels: Any, job: JobSettings) -> tuple[Any, Source | None]:
    """Return the model and the source, None for files."""
    if labels is not None and isinstance(data, str | Path):
        raise InputError(
            "labels of samples in a file are read from a file too: leave out labels=, and name their array, "
            "settings={'data': {'labels': 'y'}}, or their file, settings={'data': {'labels_path': 'y.npy'}}"
        )
    chosen, source = job.data, None
    preparation = {"scale", "offset", "divide_by", "preprocessing"}
    given = chosen.model_dump(include=preparation, exclude_defaults=True)
    if not isinstance(data, str | Path):
        source = as_source(
            data, labels, num_samples=chosen.num_samples, fingerprint=chosen.fingerprint, **given
        )
    return None if isinstance(model, str | Path) else model, source


def setting_tables(settings: Any) -> dict[str, dict[str, Any]]:
    """Return the tables of a call's ``settings``; InputError if it has others than tables."""
    if not isinstance(settings, Mapping):
        raise InputError(f"settings = {settings!r} is refused: give the tables of a job file, as a mapping")
    for name, table in settings.items():
        if not isinstance(table, Mapping):
            raise InputError(
                f"settings[{name!r}] = {table!r} is refused: give a table, as {{'cache': {{'dtype': 'float16'}}}}"
            )
    return {name: {key: _plain(value) for key, value in table.items()} for name, table in settings.items()}


def _points(points: str | Iterable[str]) -> str | list[str]:
    if isinstance(points, str):
        return points if points in get_args(PointChoice) else [points]
    if not isinstance(points, Iterable):
        raise InputError(
            f"points = {points!r} is refused: give a word as 'leaves', a name, or a list of names"
        )
    return list(points)


def _plain(value: Any) -> Any:
    """Return a number of NumPy, or of another kind, as one of Python; the validator judges the rest."""
    if isinstance(value, np.generic):
        return value.item()
    is_plain = isinstance(value, int | float)
    return float(value) if isinstance(value, Real) and not is_plain else value
