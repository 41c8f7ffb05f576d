"""Record all missing blocks on a cluster. Workers write to the store themselves, and only report that they are done."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ...storage import Block, Cache, sample_nbytes
from ...storage.errors import StorageError
from ...storage.reachability import token_in
from ..events import BlockDone, OnEvent, ignore_event
from ..record.producer import Producer
from ..sketch import SketchSpec
from .coordinator import Coordinator, installed, raise_failures
from .environment import check_versions
from .limits import Limits
from .recipes import Recipe
from .worker import BlockPlugin, run_block

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["record_missing_on"]


def record_missing_on(
    client: Client,
    cache: Cache,
    recipe: Recipe[Producer],
    *,
    sketch: SketchSpec,
    storage_options: Mapping[str, Any] | None = None,
    n_threads: int | None = None,
    limits: Limits | None = None,
    on_event: OnEvent = ignore_event,
) -> int:
    """Record every block that the cache lacks on the workers of a Dask cluster.

    Parameters
    ----------
    client : distributed.Client
        Of the cluster. Workers may come and go.
    cache : Cache
        Open for writing here; the workers attach to the same place.
    recipe : Recipe
        How a worker makes its producer.
    sketch : SketchSpec
        Sketch resolution.
    storage_options : mapping, optional
        As the cache was opened with.
    n_threads : int, optional
        TensorFlow threads of each worker; default: ``dask worker --nthreads``.
    limits : Limits, optional
        Retries and patience.
    on_event : callable
        Told about each block.

    Returns
    -------
    int
        How many blocks were computed.

    Raises
    ------
    MismatchError
        If the workers have other versions than this process: with the table, before the run.
    InputError
        If a worker cannot reach the cache, the network or the data: before the run.
    IncompleteError
        If blocks failed everywhere (``failures`` names index and cause; the others are finished), the scheduler
        was lost, or no worker was left. Run again to resume.
    """
    limits = limits or Limits()
    blocks = cache.missing()
    if not blocks:
        return 0
    check_versions(client)
    per_sample = sample_nbytes(cache.spec.points)

    def tell(block: Block, result: None) -> None:
        n_samples = block.stop - block.start
        on_event(BlockDone(block=block.index, n_samples=n_samples, nbytes=n_samples * per_sample))

    name = f"actisketch-{secrets.token_hex(6)}"
    with token_in(cache, storage_options or {}) as token:
        plugin = BlockPlugin(name, recipe, token, sketch=sketch, n_threads=n_threads)
        with installed(client, plugin):
            run = Coordinator(client, partial(run_block, name), name=name, limits=limits, on_done=tell)
            run.run(blocks)
    still = {block.index for block in cache.missing()} - set(run.failures)
    if still:
        raise StorageError(
            f"{len(still)} blocks were written by workers but are not in {cache.url!r} (the first is "
            f"{min(still)}): do all hosts see the same folder?",
            blocks=sorted(still),
        )
    raise_failures(run.failures, what="block", n_parts=len(blocks))
    return len(blocks)
