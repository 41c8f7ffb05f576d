"""Compare a normalised network on a cluster: parts of the samples go to workers, their totals come back.

Totals are whole numbers, extremes and exact sums, so any parts on any workers add up to the bits of one process.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ...storage import SampleRange
from ..certifier import Comparer, Comparison, ComparisonTotals, Doubt, Measured
from .coordinator import Coordinator, installed, raise_failures
from .environment import check_versions
from .limits import Limits
from .recipes import ComparisonRecipe
from .worker import LoadedOnce, plugin_named

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["comparing_on", "parts"]

# The result of a part is as large as a commit record, 1-10 MB for a large network: only as many parts as are needed so
# that no worker waits long for the last one, and on a large cluster one for each worker.
PARTS_PER_WORKER = 8
MOST_PARTS = 1024
# Small enough that workers that join late find something to do.
LARGEST_PART = 32
"""In batches."""


def parts(n_samples: int, *, batch_size: int, n_workers: int) -> tuple[SampleRange, ...]:
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
        SampleRange(index=index, start=start, stop=min(start + each, n_samples))
        for index, start in enumerate(range(0, n_samples, each))
    )


@contextmanager
def comparing_on(
    client: Client,
    recipe: ComparisonRecipe,
    comparison: Comparison,
    *,
    n_threads: int | None = None,
    limits: Limits | None = None,
) -> Iterator[Comparer]:
    """Give a :class:`~..certifier.Comparer` whose samples go through the networks on the workers of a cluster.

    Parameters
    ----------
    client : distributed.Client
    recipe : ComparisonRecipe
        How a worker makes its own copy of ``comparison``.
    comparison : Comparison
        No sample goes through it here.
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
    check_versions(client)
    name = f"actisketch-certify-{secrets.token_hex(6)}"
    with installed(client, ComparisonPlugin(name, recipe, n_threads=n_threads)):
        yield _WorkersCompare(client, name, comparison, limits or Limits())


@dataclass(frozen=True, slots=True)
class _WorkersCompare:
    """A comparer: the plugin ``name`` is in every worker."""

    client: Client
    name: str
    comparison: Comparison
    limits: Limits

    def totals(self, progress: Callable[[int], None], *, from_cache: bool = True) -> ComparisonTotals:
        found = self.comparison.empty()

        def take(part: SampleRange, result: ComparisonTotals) -> None:
            found.merge(result)
            progress(found.n_samples)

        ranges = parts(
            self.comparison.n_samples,
            batch_size=self.comparison.settings.batch_size,
            n_workers=max(1, len(self.client.nthreads())),
        )
        task = partial(compare_part, self.name, from_cache)
        name = self.name if from_cache else f"{self.name}-again"
        self._run(task, ranges, take, name=name, what="part")
        return found

    def rounding(self, doubts: Mapping[int, Doubt]) -> dict[int, Measured]:
        """Measure on a worker, whose float32 is what was found doubtful; a GPU rounds otherwise than this host."""
        measured: dict[int, Measured] = {}
        if doubts:
            self._run(
                partial(measure_rounding, self.name, dict(doubts)),
                [SampleRange(index=0, start=0, stop=1)],
                lambda part, result: measured.update(result),
                name=f"{self.name}-rounding",
                what="measurement of rounding",
            )
        return measured

    def _run(
        self,
        task: Callable[[SampleRange], Any],
        ranges: Sequence[SampleRange],
        take: Callable[[SampleRange, Any], None],
        *,
        name: str,
        what: str,
    ) -> None:
        run = Coordinator(
            self.client, task, name=name, limits=self.limits, on_done=take, what=what, collects=True
        )
        run.run(ranges)
        raise_failures(run.failures, what=what, n_parts=len(ranges))


class ComparisonPlugin(LoadedOnce[Comparison]):
    """Keeps both networks of a comparison in a worker process; the recipe makes it."""

    def compare(self, part: SampleRange, *, from_cache: bool) -> ComparisonTotals:
        """Compare a part; one at a time in a process, since TensorFlow has all of its threads."""
        comparison = self.ready()
        with self._turn:
            return comparison.compare(part.start, part.stop, from_cache=from_cache)

    def rounding(self, doubts: Mapping[int, Doubt]) -> dict[int, Measured]:
        """Measure rounding errors."""
        comparison = self.ready()
        with self._turn:
            return comparison.rounding(doubts)


def compare_part(name: str, from_cache: bool, part: SampleRange) -> ComparisonTotals:
    """Compare one part: the task."""
    return plugin_named(name, ComparisonPlugin).compare(part, from_cache=from_cache)


def measure_rounding(name: str, doubts: Mapping[int, Doubt], part: SampleRange) -> dict[int, Measured]:
    """Measure rounding errors: the task."""
    return plugin_named(name, ComparisonPlugin).rounding(doubts)
