"""Record all layers in one pass into a Zarr cache, or reload it; a cache of anything else is replaced."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...storage import Cache
from ...storage.errors import FormatError, MismatchError
from ...storage.removal import remove_cache
from ..folder.folder import RunFolder
from ..job import plan_job
from ..record.point_sketch import sketch_spec
from ..record.recorder import record_missing
from ..settings.job_settings import JobSettings
from ..settings.loading import validate_job
from ..sources import Source
from ..stages.same_data import check_data

__all__ = ["recorded_cache"]

logger = logging.getLogger(__name__)


def recorded_cache(
    model: Any, source: Source, *, batch_size: int, folder: Path, points: str | Sequence[str] = "parameters"
) -> Cache:
    """Return the cache of a network's activations, complete and open for reading.

    Parameters
    ----------
    model : keras.Model
        Not changed.
    source : Source
    batch_size : int
    folder : Path
        Holds the cache, or will hold it.
    points : str or sequence of str

    Raises
    ------
    MismatchError
        If the cache would have to be replaced, and its folder holds files that are not part of a cache.

    Notes
    -----
    An existing cache is used if it was made by this network from these samples, every one of which is compared; an
    interrupted recording goes on. Any other cache is replaced, with a RuntimeWarning.
    """
    record = {"points": points if isinstance(points, str) else list(points), "batch_size": batch_size}
    settings = validate_job({"output": str(folder), "record": record, "normalize": {"enabled": False}})
    try:
        return _recorded(settings, model, source)
    except (MismatchError, FormatError) as error:
        warnings.warn(
            f"the stored activations are not used and computed again: {error}", RuntimeWarning, stacklevel=3
        )
        remove_cache(RunFolder(folder).cache_path)
        return _recorded(settings, model, source)


def _recorded(settings: JobSettings, model: Any, source: Source) -> Cache:
    job = plan_job(settings, model=model, source=source)
    if job.existing is not None:
        check_data(job.existing, source)
    job.check_budget()
    with job.open_to_write() as cache:
        n_computed = record_missing(cache, job.producer, sketch=sketch_spec(settings))
    logger.info("activations of %d points: %d blocks computed", len(job.points), n_computed)
    return cache
