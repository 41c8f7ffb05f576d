"""The statistics of a network's activations as a table, from a run in a temporary folder."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ...storage.errors import InputError
from ..api import run, setting_tables
from ..events import OnEvent, ignore_event
from ..results.percentile_rows import as_percents
from ..results.statistics_table import StatisticsTable
from ..settings.job_settings import BATCH_SIZE, PERCENTILE

__all__ = ["statistics"]


def statistics(
    model: Any,
    data: Any,
    *,
    points: str | Sequence[str] = "leaves",
    percentiles: float | Sequence[float] = (PERCENTILE,),
    nonzero: bool = True,
    per_channel: bool = False,
    batch_size: int = BATCH_SIZE,
    num_samples: int | None = None,
    divide_by: float | None = None,
    memory_limit: int | str | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    progress: bool | None = None,
    on_event: OnEvent = ignore_event,
) -> StatisticsTable:
    """Return count, zeros, mean, std, min, max and percentiles of the activations of each point, in bounded memory.

    No activations are kept, and no folder: while this works, sketches of a few megabytes are in a temporary folder,
    which is removed before this returns, also if it fails or is interrupted. :func:`~..api.run` keeps a run.

    Parameters
    ----------
    model, data
        As for :func:`~..api.run`.
    points : str or sequence of str
        ``"leaves"`` (every layer with weights of its own, inside other layers too), ``"neurons"``, ``"parameters"``,
        ``"all"`` (every layer), or names and patterns. The BatchNormalization and the activation function behind a
        layer belong to it, and are no points of their own: its numbers are of the values after both.
    percentiles : float or sequence of float
        In percent: those that the table shows. It answers any other with its ``percentile(point, q)``.
    nonzero : bool
        Percentiles of the activations that are not zero; ``False``: of all.
    per_channel : bool
        For each channel too: ``to_dataframe()`` has them.
    batch_size, num_samples, divide_by, memory_limit, settings
        As for :func:`~..api.run`.
    progress : bool, optional
        Show a line of progress; default: only in a notebook.
    on_event : callable
        Called with the events of the run; see :mod:`~.events`.

    Returns
    -------
    StatisticsTable
        A mapping of point to its numbers, which a notebook shows with its distributions. It is in memory and needs
        neither model nor data.

    Raises
    ------
    InputError, OverBudgetError
        For what cannot work, before anything is computed.

    Examples
    --------
    >>> import keras, numpy as np
    >>> from actisketch.pipeline import statistics
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu", name="fc")])
    >>> table = statistics(model, np.ones((100, 4), np.float32), percentiles=[50, 99])
    >>> table["fc"].count
    800
    >>> found = table.percentile("fc", 99.9)
    >>> found.lo <= found.value <= found.hi
    True
    """
    percentiles = as_percents(percentiles)
    tables = setting_tables(settings or {})
    if "cache" in tables:
        raise InputError(
            "settings['cache'] changes nothing here: no activations are kept. Leave it out, or keep a run with "
            "run(..., output='FOLDER')"
        )
    record = {**tables.get("record", {}), "activations": False}
    with _temporary_folder() as folder:
        recorded = run(
            model,
            data,
            output=folder,
            points=points,
            batch_size=batch_size,
            num_samples=num_samples,
            divide_by=divide_by,
            per_channel=per_channel,
            normalize=False,
            memory_limit=memory_limit,
            settings={**tables, "record": record, "report": {"enabled": False}},
            progress=progress,
            on_event=on_event,
        )
        return recorded.table(percentiles, nonzero=nonzero)


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """Make a folder for this context.

    A second Ctrl-C may come while it is removed: what is left then is removed when the program ends.
    """
    folder = Path(tempfile.mkdtemp(prefix="actisketch-"))
    remove = partial(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(remove)
    try:
        yield folder
    finally:
        remove()
        if not folder.exists():
            atexit.unregister(remove)
