"""The Python calls: a Keras model in memory and arrays or a data set, to a run with all its answers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from ..storage.errors import InputError
from .events import OnEvent, ignore_event
from .job import plan_job, run_job
from .planning.plan import Plan
from .results.run import Run, open_run
from .settings.job import JobSettings
from .settings.loading import validate_job
from .settings.sizes import parse_bytes
from .sources import Source, as_source
from .stages.describe import describe_data

__all__ = ["plan", "run"]

logger = logging.getLogger(__name__)


def run(
    model: Any,
    data: Any,
    labels: Any = None,
    *,
    output: str | Path,
    points: str | Sequence[str] = "neurons",
    batch_size: int = 32,
    num_samples: int | None = None,
    percentile: float = 99.9,
    nonzero: bool = True,
    per_channel: bool = False,
    normalize: bool = True,
    memory_limit: int | str = "4 GiB",
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    client: Any = None,
    on_event: OnEvent = ignore_event,
) -> Run:
    """Record, sketch, normalise and certify a network; resume or reload what an earlier call finished.

    Parameters
    ----------
    model : keras.Model or path
        Sequential or functional; it is never modified. Or a ``.keras`` or ``.h5`` file.
    data : array, list or dict of arrays, tf.data.Dataset, keras.utils.PyDataset, Source or path
        The samples, of shape (n_samples, *input shape), in a fixed order; see :func:`~.sources.as_source`.
    labels : array of shape (n_samples,), optional
        Classes, for accuracy before and after.
    output : path
        Folder of the run.
    points : str or sequence of str
        ``"neurons"`` (every layer with parameters, and every merge that neurons or a quantiser stand behind, after
        its activation), ``"parameters"`` (the former only), ``"all"``, or patterns.
    batch_size : int
        Samples that go through the network together.
    num_samples : int, optional
        Use the first so many.
    percentile : float
        In percent; the factor of a point is this percentile of its activations. 100 is the maximum.
    nonzero : bool
        Percentiles over activations that are not zero.
    per_channel : bool
        A sketch and a factor for each channel.
    normalize : bool
        Rewrite the network and certify it; ``False``: stop at the factors.
    memory_limit : int or str
        Bytes, or ``"4 GiB"``; beyond what Python and TensorFlow themselves take.
    settings : mapping, optional
        Everything else, in the tables of a job file: ``{"cache": {"dtype": "float16"}}``.
    client : distributed.Client, optional
        A Dask cluster to run on; ``settings={"record": {"workers": 4}}`` starts a local one.
    on_event : callable
        Told about progress; see :mod:`~.events`.

    Returns
    -------
    Run
        Percentiles, factors, activations and the places of the files.

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
    job, keras_model, source = _job(
        model,
        data,
        labels,
        output=output,
        points=points,
        batch_size=batch_size,
        num_samples=num_samples,
        percentile=percentile,
        nonzero=nonzero,
        per_channel=per_channel,
        normalize=normalize,
        memory_limit=memory_limit,
        settings=settings,
    )
    run_job(job, model=keras_model, source=source, client=client, on_event=on_event)
    return open_run(job.output, storage_options=job.cache.storage_options)


def plan(
    model: Any,
    data: Any,
    *,
    output: str | Path = "actisketch-run",
    points: str | Sequence[str] = "neurons",
    batch_size: int = 32,
    num_samples: int | None = None,
    per_channel: bool = False,
    memory_limit: int | str = "4 GiB",
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
    job, keras_model, source = _job(
        model,
        data,
        None,
        output=output,
        points=points,
        batch_size=batch_size,
        num_samples=num_samples,
        per_channel=per_channel,
        memory_limit=memory_limit,
        settings=settings,
    )
    prepared = plan_job(job, model=keras_model, source=source)
    for warning in describe_data(prepared).warnings:
        logger.warning("%s", warning)
    return prepared.plan


def _job(
    model: Any,
    data: Any,
    labels: Any,
    *,
    output: str | Path,
    points: str | Sequence[str],
    batch_size: int,
    num_samples: int | None,
    memory_limit: int | str,
    per_channel: bool,
    settings: Mapping[str, Mapping[str, Any]] | None,
    percentile: float = 99.9,
    nonzero: bool = True,
    normalize: bool = True,
) -> tuple[JobSettings, Any, Source | None]:
    """Return the settings of the call, and the model and the source where they are not files."""
    tree = _tables(settings or {})
    flat = {
        "record": {
            "points": points
            if isinstance(points, str) and points in {"neurons", "parameters", "all"}
            else _patterns(points),
            "batch_size": batch_size,
            "memory_limit": _nbytes(memory_limit),
        },
        "sketch": {"per_channel": per_channel},
        "factors": {"percentile": _plain(percentile), "nonzero": nonzero, "per_channel": per_channel},
        "normalize": {"enabled": normalize},
        "model": {"path": str(model)} if isinstance(model, str | Path) else {},
        "data": {"num_samples": num_samples} if num_samples is not None else {},
    }
    for name, table in flat.items():
        # What is said twice is said by `settings`, which is the more explicit.
        tree[name] = {**table, **tree.get(name, {})}
    is_path = isinstance(data, str | Path)
    if is_path:
        tree["data"]["path"] = str(data)
    job = validate_job({**tree, "output": str(output)}, origin="the call")
    source = None if is_path else _source(data, labels, job)
    return job, None if isinstance(model, str | Path) else model, source


def _source(data: Any, labels: Any, job: JobSettings) -> Source:
    chosen = job.data
    preparation: dict[str, Any] = {
        "scale": chosen.scale,
        "offset": chosen.offset,
        "divide_by": chosen.divide_by,
        "preprocessing": chosen.preprocessing,
    }
    given = {key: value for key, value in preparation.items() if value != getattr(type(chosen)(), key)}
    return as_source(data, labels, num_samples=chosen.num_samples, fingerprint=chosen.fingerprint, **given)


def _tables(settings: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(settings, Mapping):
        raise InputError(f"settings = {settings!r} is refused: give the tables of a job file, as a mapping")
    for name, table in settings.items():
        if not isinstance(table, Mapping):
            raise InputError(
                f"settings[{name!r}] = {table!r} is refused: give a table, as {{'cache': {{'dtype': 'float16'}}}}"
            )
    return {name: dict(table) for name, table in settings.items()}


def _plain(number: Any) -> Any:
    """Return a number of NumPy's as Python's; the validator judges what is none."""
    is_bool = isinstance(number, bool)
    return float(number) if isinstance(number, Real) and not is_bool else number


def _patterns(points: str | Sequence[str]) -> list[str]:
    return [points] if isinstance(points, str) else list(points)


def _nbytes(limit: int | str) -> Any:
    try:
        return parse_bytes(limit)
    except ValueError as error:
        raise InputError(f"memory_limit = {limit!r} is refused: {error}") from None
