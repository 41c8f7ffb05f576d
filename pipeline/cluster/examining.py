"""Examine a normalised network on a cluster: parts of the samples go to workers, their findings come back.

Findings are whole numbers, extremes and exact sums, so any parts on any workers add up to the bits of one process.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from ...storage import Block
from ..certifier import Doubt, Examination, Findings, Measured, add_up
from .coordinator import Coordinator, installed, raise_failures
from .environment import check_versions
from .limits import Limits
from .recipes import ExaminationRecipe
from .worker import LoadedOnce, plugin_named

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["examine_on", "parts"]

# What comes back from a part is as large as a commit record, 1-10 MB for a large network: no more parts than are needed
# so that no worker waits long for the last one, and on a large cluster one for each.
PARTS_PER_WORKER = 8
MOST_PARTS = 1024
# Workers that join late should find something to do.
LARGEST_PART = 32
"""In batches."""


def parts(n_samples: int, *, batch_size: int, n_workers: int) -> tuple[Block, ...]:
    """Return the samples in parts of whole batches.

    Examples
    --------
    >>> [(part.start, part.stop) for part in parts(100, batch_size=10, n_workers=1)]
    [(0, 20), (20, 40), (40, 60), (60, 80), (80, 100)]
    """
    n_batches = -(-n_samples // batch_size)
    per_worker = max(1, min(PARTS_PER_WORKER, MOST_PARTS // n_workers))
    each = min(-(-n_batches // (per_worker * n_workers)), LARGEST_PART) * batch_size
    return tuple(
        Block(index=index, start=start, stop=min(start + each, n_samples))
        for index, start in enumerate(range(0, n_samples, each))
    )


def examine_on(
    client: Client,
    recipe: ExaminationRecipe,
    examination: Examination,
    *,
    doubtful: Callable[[Findings], Mapping[int, Doubt]],
    progress: Callable[[int], None],
    n_threads: int | None = None,
    limits: Limits | None = None,
) -> tuple[Findings, Mapping[int, Measured]]:
    """Do on a cluster what :class:`~..certifier.Examiner` promises.

    Parameters
    ----------
    client : distributed.Client
    recipe : ExaminationRecipe
        How a worker makes its own copy of ``examination``.
    examination : Examination
        No sample goes through it here.
    doubtful, progress
        As :class:`~..certifier.Examiner`.
    n_threads : int, optional
        TensorFlow threads of each worker; default: ``dask worker --nthreads``.
    limits : Limits, optional
        Retries and patience.

    Raises
    ------
    MismatchError, InputError
        If a worker has other versions, or cannot make its copy.
    IncompleteError
        If parts failed everywhere, the scheduler was lost, or no worker was left.
    """
    limits = limits or Limits()
    check_versions(client)
    found = examination.empty()

    def take(part: Block, result: Findings) -> None:
        add_up([result], into=found)
        progress(found.n_samples)

    name = f"actisketch-certify-{secrets.token_hex(6)}"
    with installed(client, ExaminationPlugin(name, recipe, n_threads=n_threads)):
        n_workers = max(1, len(client.nthreads()))
        blocks = parts(examination.n_samples, batch_size=examination.batch_size, n_workers=n_workers)
        run = Coordinator(
            client,
            partial(examine_part, name),
            name=name,
            limits=limits,
            on_done=take,
            what="part",
            collects=True,
        )
        run.run(blocks)
        raise_failures(run.failures, what="part", n_parts=len(blocks))
        rounding = _rounding(client, name, doubtful(found), limits)
    return found, rounding


def _rounding(
    client: Client, name: str, doubts: Mapping[int, Doubt], limits: Limits
) -> Mapping[int, Measured]:
    """Measure on a worker, whose float32 is what was found doubtful; a GPU rounds otherwise than this host."""
    if not doubts:
        return {}
    measured: dict[int, Measured] = {}
    run = Coordinator(
        client,
        partial(measure_rounding, name, dict(doubts)),
        name=f"{name}-rounding",
        limits=limits,
        on_done=lambda part, result: measured.update(result),
        what="measurement of rounding",
        collects=True,
    )
    run.run([Block(index=0, start=0, stop=1)])
    raise_failures(run.failures, what="measurement of rounding", n_parts=1)
    return measured


class ExaminationPlugin(LoadedOnce[Examination]):
    """Keeps both networks of an examination in a worker process; the recipe makes it."""

    def _load(self, host: str) -> Examination:
        examination: Examination = self._made()
        return examination

    def examine(self, part: Block) -> Findings:
        """Examine a part; one at a time in a process, since TensorFlow has all of its threads."""
        examination = self.ready()
        with self._turn:
            return examination.examine(part.start, part.stop)

    def rounding(self, doubts: Mapping[int, Doubt]) -> dict[int, Measured]:
        """Measure rounding errors."""
        examination = self.ready()
        with self._turn:
            return examination.rounding(doubts)


def examine_part(name: str, part: Block) -> Findings:
    """Examine one part: the task."""
    return plugin_named(name, ExaminationPlugin).examine(part)


def measure_rounding(name: str, doubts: Mapping[int, Doubt], part: Block) -> dict[int, Measured]:
    """Measure rounding errors: the task."""
    return plugin_named(name, ExaminationPlugin).rounding(doubts)
