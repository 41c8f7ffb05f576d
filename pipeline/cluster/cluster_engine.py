"""The engine that does the work of a job's stages on the workers of a cluster.

Knows jobs and clusters; :mod:`~..stages.engine` says what an engine does.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...storage import Cache
from ...storage.errors import InputError, OverBudgetError
from ...storage.options import StorageOptions
from ..certifier import Comparer, Comparison
from ..events import OnEvent, Remark, ignore_event
from ..factors.exact_source import ExactSource
from ..factors.packed_sketches import PackedSketches
from ..graph import model_fingerprint, places_of
from ..normalizer import Rewriting
from ..planning.machine_memory import usable_memory
from ..planning.memory_limit import PROCESS_NBYTES
from ..record.model import save_network
from ..record.point_sketch import sketch_spec
from ..settings.job_settings import JobSettings
from ..settings.sizes import format_bytes
from ..sketch import PointSketch
from ..sources import Source
from ..stages.prepare import Prepared
from .comparing import comparing_on
from .connecting import connected, dashboard_link, local_threads, reported
from .limits import Limits
from .merge_tree import exact_percentiles_on, merged_sketches_on
from .recipes import ComparisonRecipe, KerasRecipe, NetworkRecipe
from .record_blocks import record_missing_on
from .scripts import check_main_guard

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["ClusterEngine", "check_local_memory"]

logger = logging.getLogger(__name__)

# A network in memory is sent to every worker through the scheduler, which keeps it for workers that join late.
LARGEST_MODEL_NBYTES = 2 * 2**30
LARGEST_SOURCE_NBYTES = 256 * 2**20


class ClusterEngine:
    """An engine that connects to its cluster when the first stage has work, not before.

    Parameters
    ----------
    settings : JobSettings
        ``record.workers`` or ``record.scheduler`` say which cluster.
    client : distributed.Client, optional
        The caller's own cluster, in place of both. It stays open.
    performance_report : path, optional
        HTML file for Dask's performance report.
    limits : Limits, optional
        Retries and patience.
    on_event : callable
        Receives events, such as where the cluster is.
    """

    def __init__(
        self,
        settings: JobSettings,
        *,
        client: Any = None,
        performance_report: str | Path | None = None,
        limits: Limits | None = None,
        on_event: OnEvent = ignore_event,
    ) -> None:
        self._settings, self._given, self._report = settings, client, performance_report
        self._limits, self._on_event = limits or Limits(), on_event
        self._client: Client | None = None
        self._stack = ExitStack()
        is_local = client is None and settings.record.scheduler is None
        self._n_local = settings.record.workers if is_local else 0
        if self._n_local:
            check_main_guard()
        self._n_threads = local_threads(self._n_local) if self._n_local else None

    def __enter__(self) -> ClusterEngine:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()
        self._client = None

    def _connected(self) -> Client:
        """Return the client; every call returns the same.

        Raises
        ------
        InputError, IncompleteError
            If there is no scheduler, or no worker.
        """
        if self._client is None:
            scheduler = self._settings.record.scheduler if self._given is None else None
            self._client = self._stack.enter_context(
                connected(workers=self._n_local, scheduler=scheduler, client=self._given, limits=self._limits)
            )
            self._stack.enter_context(reported(self._report))
            self._on_event(Remark(topic="cluster", message=_described(self._client, self._n_threads)))
        return self._client

    def record_missing(self, job: Prepared, cache: Cache, on_event: OnEvent) -> int:
        """Record the missing blocks; return how many there were."""
        n_missing = len(cache.missing())
        if not n_missing:
            return 0
        if self._n_local:
            check_local_memory(self._n_local, job.plan.memory.total)
        network = _network_recipe(
            job.settings, model=job.model, fingerprint=job.fingerprint, source=job.source
        )
        record = job.settings.record
        recipe = KerasRecipe(
            network=network,
            points=places_of(job.points),
            batch_size=record.batch_size,
            allow_random=job.settings.model.allow_random,
        )
        client = self._connected()
        if n_missing < (n_workers := len(client.nthreads())):
            # The bytes of a cache depend on its block size, so the number of workers must not change it.
            advice = (
                f"{n_missing} blocks for {n_workers} workers: some stay idle, unless a new run has a smaller "
                "record.block_samples"
            )
            on_event(Remark(topic="cluster", message=advice))
        return record_missing_on(
            client,
            cache,
            recipe,
            sketch=sketch_spec(job.settings),
            storage_options=job.settings.cache.storage_options,
            n_threads=self._n_threads,
            limits=self._limits,
            on_event=on_event,
        )

    def merge_sketches(self, cache: Cache) -> PackedSketches:
        """Return the sketches of all blocks merged, by point; merged as a tree."""
        return merged_sketches_on(
            self._connected(),
            cache,
            storage_options=self._settings.cache.storage_options,
            limits=self._limits,
        )

    def exact_source(
        self, cache: Cache, sketches: Mapping[str, PointSketch], *, accept_rounding: bool
    ) -> ExactSource:
        """Return what answers exact percentiles from the cache; in this process if activations are rounded."""
        if cache.spec.dtype != "float32":
            return ExactSource(cache, sketches, accept_rounding)
        options = self._settings.cache.storage_options
        return _ExactOnWorkers(
            cache,
            sketches,
            accept_rounding,
            connected=self._connected,
            storage_options=options,
            limits=self._limits,
        )

    def compare_networks(
        self, comparison: Comparison, rewriting: Rewriting, *, fingerprint: Mapping[str, Any]
    ) -> AbstractContextManager[Comparer]:
        """Give a comparer that sends the samples of ``comparison`` through both networks on the workers."""
        network = _network_recipe(
            self._settings, model=comparison.graph.model, fingerprint=fingerprint, source=comparison.source
        )
        recipe = ComparisonRecipe(
            network=network,
            rewriting=rewriting,
            normalized=model_fingerprint(comparison.normalized.model),
            settings=comparison.settings,
            cache_url=None if comparison.cache is None else comparison.cache.url,
            cache_hash="" if comparison.cache is None else comparison.cache.spec.content_hash,
            storage_options=StorageOptions(self._settings.cache.storage_options),
        )
        return comparing_on(
            self._connected(), recipe, comparison, n_threads=self._n_threads, limits=self._limits
        )


@dataclass(frozen=True, kw_only=True)
class _ExactOnWorkers(ExactSource):
    """Workers read the activations for the percentiles of whole points; those of channels are found in this process."""

    connected: Callable[[], Client]
    storage_options: Mapping[str, Any]
    limits: Limits

    def percentiles(self, point: str, qs: Sequence[float], *, nonzero: bool) -> list[float]:
        """Return the percentiles of one point."""
        return exact_percentiles_on(
            self.connected(),
            self.cache,
            point,
            qs,
            self.sketches[point],
            nonzero=nonzero,
            storage_options=self.storage_options,
            limits=self.limits,
        )


def check_local_memory(workers: int, per_worker_nbytes: int) -> None:
    """Refuse a local cluster that needs more memory than it may use on this machine.

    Raises
    ------
    OverBudgetError
        With the numbers.
    """
    needed, usable = workers * (per_worker_nbytes + PROCESS_NBYTES), usable_memory()
    if needed > usable.nbytes:
        raise OverBudgetError(
            f"{workers} workers need {format_bytes(needed)} of memory ({format_bytes(per_worker_nbytes)} each and "
            f"{format_bytes(PROCESS_NBYTES)} for TensorFlow), more than the {format_bytes(usable.nbytes)} "
            f"{usable.whose}: use fewer record.workers, or a smaller record.memory_limit, which is for each worker",
            needed=needed,
            allowed=usable.nbytes,
        )


def _described(client: Client, threads: int | None) -> str:
    workers = client.nthreads()
    each = f"{threads} threads each" if threads else f"{sum(workers.values())} threads in all"
    link = dashboard_link(client)
    seen = f"; dashboard {link}" if link else ""
    return f"{len(workers)} workers with {each} at {client.scheduler.address}{seen}"


def _network_recipe(
    settings: JobSettings, *, model: Any, fingerprint: Mapping[str, Any], source: Source
) -> NetworkRecipe:
    """Return how a worker gets network and samples.

    Raises
    ------
    InputError
        If the samples or the network cannot be sent.
    """
    return NetworkRecipe(
        model_path=settings.model.path,
        model_bytes=_saved(model) if settings.model.path is None else None,
        custom_objects=settings.model.custom_objects,
        safe_mode=settings.model.safe_mode,
        fingerprint=dict(fingerprint),
        source=_sendable(source),
        data=source.fingerprint(),
    )


def _saved(model: Any) -> bytes:
    with tempfile.TemporaryDirectory(prefix="actisketch-") as folder:
        path = Path(folder) / "model.keras"
        save_network(model, path)
        nbytes = path.stat().st_size
        if nbytes > LARGEST_MODEL_NBYTES:
            raise InputError(
                f"the network in memory takes {format_bytes(nbytes)}, too much to send to every worker: save it "
                "where all workers read it and give its path"
            )
        return path.read_bytes()


def _sendable(source: Source) -> Source:
    """Return the source, if it can be sent to workers."""
    from distributed.protocol.pickle import dumps

    advice = "save the samples as .npy, .npz, zarr or TFRecord where all workers read them, and give the path"
    try:
        nbytes = len(dumps(source))
    except Exception as error:  # whatever the user's objects raise when they are pickled
        raise InputError(f"the samples cannot be sent to workers ({error}): {advice}") from error
    if nbytes > LARGEST_SOURCE_NBYTES:
        raise InputError(
            f"the samples are {format_bytes(nbytes)} in memory, too much to send to every worker: {advice}"
        )
    return source
