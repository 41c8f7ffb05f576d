"""What an engine does for the stages of a job. `LocalEngine` defines the meaning; every engine gives the same bytes.

No stage asks which engine it has. ``tests/cluster/test_engine_contract.py`` runs all engines through the same cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, Self

from ...storage import Cache
from ..certifier import Comparer, Comparison
from ..events import OnEvent
from ..factors.exact_source import ExactSource
from ..factors.merge import merged_sketches
from ..factors.packed_sketches import PackedSketches
from ..normalizer import Rewriting
from ..record.point_sketch import sketch_spec
from ..record.recorder import record_missing
from ..sketch import PointSketch
from .prepare import Prepared

__all__ = ["Engine", "LocalEngine"]


class Engine(Protocol):
    """Does the work of the stages; open while they run."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> None: ...

    def record_missing(self, job: Prepared, cache: Cache, on_event: OnEvent) -> int:
        """Record the missing blocks; return how many there were."""
        ...

    def merge_sketches(self, cache: Cache) -> PackedSketches:
        """Return the sketches of all blocks merged, by point."""
        ...

    def exact_source(
        self, cache: Cache, sketches: Mapping[str, PointSketch], *, accept_rounding: bool
    ) -> ExactSource:
        """Return what answers exact percentiles from the cache.

        Raises
        ------
        InputError
            If the cache has no activations, or rounded ones that were not accepted.
        """
        ...

    def compare_networks(
        self, comparison: Comparison, rewriting: Rewriting, *, fingerprint: Mapping[str, Any]
    ) -> AbstractContextManager[Comparer]:
        """Give a comparer that sends the samples of ``comparison`` through both networks.

        Parameters
        ----------
        comparison : Comparison
        rewriting : Rewriting
            How its normalised network was made.
        fingerprint : mapping
            Of the original network.
        """
        ...


class LocalEngine(AbstractContextManager["LocalEngine"]):
    """The work done in this process."""

    def __exit__(self, *exception: object) -> None:
        pass

    def record_missing(self, job: Prepared, cache: Cache, on_event: OnEvent) -> int:
        """Record the missing blocks; return how many there were."""
        return record_missing(cache, job.producer, sketch=sketch_spec(job.settings), on_event=on_event)

    def merge_sketches(self, cache: Cache) -> PackedSketches:
        """Return the sketches of all blocks merged, by point."""
        return merged_sketches(cache)

    def exact_source(
        self, cache: Cache, sketches: Mapping[str, PointSketch], *, accept_rounding: bool
    ) -> ExactSource:
        """Return what answers exact percentiles from the cache."""
        return ExactSource(cache, sketches, accept_rounding)

    def compare_networks(
        self, comparison: Comparison, rewriting: Rewriting, *, fingerprint: Mapping[str, Any]
    ) -> AbstractContextManager[Comparer]:
        """Give the comparison itself."""
        return nullcontext(comparison)
