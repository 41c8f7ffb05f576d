"""Get a client of a Dask cluster: of local processes, of a cluster that runs already, or the caller's own.

Knows how Dask starts. Does not know what the cluster is for.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...storage.errors import IncompleteError, InputError
from .limits import Limits

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["connected", "dashboard_link", "local_threads", "reported"]

logger = logging.getLogger(__name__)

# With Dask's default of 15 s, a local cluster never used a worker again that took longer to come back with TensorFlow.
LOST_WORKER_TIMEOUT = "5 minutes"
CONNECT_TIMEOUT_S = 30


@contextmanager
def connected(
    *, workers: int = 0, scheduler: str | None = None, client: Any = None, limits: Limits | None = None
) -> Iterator[Client]:
    """Give a client with at least one worker; afterwards close what was started here, and nothing else.

    Parameters
    ----------
    workers : int
        Start this many processes on this machine.
    scheduler : str, optional
        ``tcp://host:8786``, or the path of a scheduler file, of a cluster that runs already.
    client : distributed.Client, optional
        The caller's own; it stays open.
    limits : Limits, optional
        ``no_workers_s`` is how long the first worker may take to join.

    Raises
    ------
    InputError
        If there is no scheduler at the address, or more than one way to a cluster is given.
    IncompleteError
        If no worker appears in time.
    """
    limits = limits or Limits()
    if sum((workers > 0, scheduler is not None, client is not None)) != 1:
        raise InputError("choose one: record.workers for a local cluster, record.scheduler, or a client")
    if client is not None:
        _wait_for_a_worker(client, limits)
        yield client
        return
    if scheduler is not None:
        with _client_of(scheduler) as remote:
            _wait_for_a_worker(remote, limits)
            yield remote
        return
    import dask
    from distributed import Client

    settings = {"distributed.deploy.lost-worker-timeout": LOST_WORKER_TIMEOUT}
    # One Dask thread: a worker computes one block at a time with all its TensorFlow threads, while a thread that has
    # left the pool writes the block before. The plan bounds memory: Dask would only slow the run down by pausing at
    # 60-80 % of a limit that it guesses.
    with (
        dask.config.set(settings),
        _local_cluster(workers) as cluster,
        Client(cluster) as local,
    ):
        _wait_for_a_worker(local, limits)
        yield local


def _local_cluster(workers: int) -> Any:
    from distributed import LocalCluster

    try:
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,
            silence_logs=logging.ERROR,
            dashboard_address="127.0.0.1:0",
        )
    except RuntimeError as error:
        raise InputError(
            f"the {workers} local worker processes did not start ({error}): each runs the main script again, so "
            'that all it does must stand below its line `if __name__ == "__main__":`; if it does, use fewer workers'
        ) from error


def local_threads(workers: int) -> int:
    """Return the TensorFlow threads of each local worker, so that workers x threads = cores."""
    return max(1, len(os.sched_getaffinity(0)) // max(workers, 1))


def dashboard_link(client: Client) -> str | None:
    """Return the address of Dask's dashboard; None where bokeh is not installed."""
    if importlib.util.find_spec("bokeh") is None:
        return None
    link: str = client.dashboard_link
    return link


@contextmanager
def reported(path: str | os.PathLike[str] | None) -> Iterator[None]:
    """Write Dask's performance report of what happens inside to an HTML file, if a path is given.

    Raises
    ------
    InputError
        If bokeh, which draws it, is not installed.
    """
    if path is None:
        yield
        return
    if importlib.util.find_spec("bokeh") is None:
        raise InputError(
            "a performance report is drawn by bokeh: `pip install bokeh`, or leave the report out"
        )
    from distributed import performance_report

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with performance_report(filename=str(path)):
        yield


def _client_of(scheduler: str) -> Any:
    from distributed import Client

    is_file = "://" not in scheduler and Path(scheduler).exists()
    if scheduler.endswith(".json") and not is_file:
        raise InputError(
            f"no scheduler file {scheduler!r}: has the scheduler started, and is the folder shared?"
        )
    try:
        with warnings.catch_warnings():
            # Dask warns of different versions; `environment` compares and refuses them.
            warnings.filterwarnings("ignore", message="Mismatched versions", category=UserWarning)
            if is_file:
                return Client(scheduler_file=scheduler, timeout=CONNECT_TIMEOUT_S)
            return Client(scheduler, timeout=CONNECT_TIMEOUT_S)
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers at {scheduler!r}: {error}; start one with `dask scheduler`, or use workers",
            scheduler=scheduler,
        ) from None


def _wait_for_a_worker(client: Client, limits: Limits) -> None:
    try:
        client.wait_for_workers(1, timeout=limits.no_workers_s)
    except TimeoutError:
        raise IncompleteError(
            f"no worker joined the scheduler {client.scheduler.address} within {limits.no_workers_s:.0f} s: "
            f"start some with `dask worker {client.scheduler.address}`",
            scheduler=client.scheduler.address,
        ) from None
