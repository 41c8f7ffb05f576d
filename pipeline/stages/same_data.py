"""Compare the samples of a run with those that its cache was recorded from: all of them, as cheaply as possible.

The run's manifest remembers what the file system says of a file, or a hash of every byte in memory. It is not part of
the cache's identity, because a copied file has other dates. If it differs or is unknown, every block is compared.
"""

from __future__ import annotations

import logging

from ...storage import Cache, CommitRecord
from ...storage.errors import MismatchError
from ..factors.merged_file import merged_key
from ..folder.folder import RunFolder
from ..sources import Source

__all__ = ["check_data", "check_data_of_damaged", "check_data_unchanged", "data_state", "remember_data"]

logger = logging.getLogger(__name__)

_KEY = "samples"


def data_state(source: Source) -> str | None:
    """Return a state that changes when the samples change, and is cheap to get. Ask for it before reading samples."""
    state: str | None = source.state() if hasattr(source, "state") else None
    return state


def remember_data(folder: RunFolder, state: str | None, *, recorded: str) -> None:
    """Note in a run's manifest that its cache was recorded from samples of this state.

    ``recorded`` is the ``merged_key`` of the cache: it differs if the cache was recorded anew.
    """
    seen = {"state": state, "recorded": recorded}
    if state is not None and folder.manifest().get(_KEY) != seen:
        folder.update_manifest({_KEY: seen})


def check_data(
    cache: Cache, source: Source, *, folder: RunFolder | None = None, state: str | None = None
) -> None:
    """Refuse a cache whose blocks were recorded from other samples than the source has.

    Parameters
    ----------
    cache : Cache
        An existing cache.
    source : Source
        The samples of this run.
    folder : RunFolder, optional
        The folder of the run, which may remember samples.
    state : str, optional
        The samples' :func:`data_state`. If the folder remembers the same state, no sample is read.

    Raises
    ------
    MismatchError
        With the first block that differs.
    """
    if state is not None and folder is not None:
        seen = folder.manifest().get(_KEY, {})
        if seen.get("state") == state and seen.get("recorded") == merged_key(cache):
            return
    records = [record for record in cache.committed() if record.block.stop <= source.n_samples]
    logger.info("comparing the samples with what %d blocks were recorded from", len(records))
    for record in records:
        _compare(record, source)


def check_data_unchanged(cache: Cache, source: Source, *, state: str | None) -> None:
    """Refuse a cache whose samples were written to while it was recorded, so that its blocks may be of different ones.

    ``state`` is the samples' :func:`data_state` from before. If it is the same now, no sample is read.

    Raises
    ------
    MismatchError
        With the first block that differs from the samples as they are now.
    """
    if state is not None and data_state(source) != state:
        check_data(cache, source)


def check_data_of_damaged(cache: Cache, source: Source) -> None:
    """Do what :func:`check_data` does for every block whose record can be read, whatever else is damaged.

    Raises
    ------
    MismatchError
        With the first block that differs.
    """
    for record in cache.readable_headers():
        if record.block.stop <= source.n_samples:
            _compare(record, source)


def _compare(record: CommitRecord, source: Source) -> None:
    block, recorded = record.block, record.facts.get("data")
    if recorded is not None and recorded != source.content_hash(block.start, block.stop):
        raise MismatchError(
            f"the samples {block.start} to {block.stop - 1} are not those that the cache was recorded from: "
            "the data has changed or is in another order; choose another output folder",
            block=block.index,
            start=block.start,
            stop=block.stop,
        )
