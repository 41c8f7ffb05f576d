"""What runs in a worker process: it loads once what a job needs; the task records a block.

Knows Dask's workers. The block task itself is :func:`~..record.recorder.record_block`, the same as in process.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from distributed import Worker, WorkerPlugin, get_worker, secede
from distributed.protocol.pickle import dumps, loads

from ...storage import Block, Cache, WritingThreads
from ...storage.errors import IncompleteError, InputError
from ...storage.reachability import Token, check_token
from ..record.producer import Producer
from ..record.recorder import BLOCKS_IN_FLIGHT, record_block, writing_threads
from ..sketch import SketchSpec
from .recipes import Recipe

__all__ = ["BlockPlugin", "LoadedOnce", "WorkerNotReady", "make_ready", "plugin_named", "run_block"]

logger = logging.getLogger(__name__)

Loaded = TypeVar("Loaded")


class WorkerNotReady(IncompleteError):
    """A worker cannot work at all; another one may. Only for the coordinator."""


class LoadedOnce(WorkerPlugin, Generic[Loaded]):  # type: ignore[misc] # distributed has no types
    """Keeps what a job needs in a worker process, and loads it once.

    Parameters
    ----------
    name : str
        Of the job: several jobs may share a cluster.
    recipe : Recipe
        Sent as bytes, and unpickled where errors can be reported.
    n_threads : int, optional
        TensorFlow threads; default: the worker's own number (``dask worker --nthreads``).
    """

    def __init__(self, name: str, recipe: Recipe[Any], *, n_threads: int | None = None) -> None:
        self.name = name
        self._recipe = dumps(recipe)
        self._n_threads = n_threads

    def setup(self, worker: Worker) -> None:
        """Prepare to load with the first task, not here: loading would delay the worker's heartbeat."""
        if self._n_threads is None:
            self._n_threads = worker.state.nthreads
        self._address = worker.address
        self._loading = threading.Lock()
        self._turn = threading.Lock()
        self._loaded: Loaded | None = None

    def teardown(self, worker: Worker) -> None:
        """Free the network."""
        self._loaded = None

    def ready(self) -> Loaded:
        """Load, once.

        Raises
        ------
        WorkerNotReady
            With the host and the cause.
        """
        with self._loading:
            if self._loaded is None:
                host = socket.gethostname()
                try:
                    self._loaded = self._load(host)
                except Exception as error:
                    logger.warning("this worker is not ready", exc_info=True)
                    raise WorkerNotReady(f"{error}", host=host, address=self._address) from error
        return self._loaded

    def _made(self) -> Any:
        """Return what the recipe makes here."""
        recipe: Recipe[Any] = loads(self._recipe)
        return recipe.make(self._n_threads or 1)

    def _load(self, host: str) -> Loaded:
        """Return what the tasks of this kind of job need: what the recipe makes. ``host`` is for messages."""
        loaded: Loaded = self._made()
        return loaded


@dataclass(frozen=True, slots=True)
class _Recording:
    cache: Cache
    producer: Producer
    writing: WritingThreads
    available: threading.Semaphore
    """Limits how many blocks are in memory."""


class BlockPlugin(LoadedOnce[_Recording]):
    """Keeps the network and the cache of one run in a worker process.

    Parameters
    ----------
    name, recipe, n_threads
        As `LoadedOnce`; the recipe makes a producer.
    token : Token
        Of the cache.
    sketch : SketchSpec
        Sketch resolution.
    """

    def __init__(
        self,
        name: str,
        recipe: Recipe[Producer],
        token: Token,
        *,
        sketch: SketchSpec,
        n_threads: int | None = None,
    ) -> None:
        super().__init__(name, recipe, n_threads=n_threads)
        self._token, self._sketch = token, sketch

    def _load(self, host: str) -> _Recording:
        check_token(self._token, host=host)
        producer: Producer = self._made()
        cache = Cache.attach(self._token.url, storage_options=self._token.storage_options)
        if tuple(point.name for point in producer.points) != tuple(p.name for p in cache.spec.points):
            raise InputError("the network on this worker has other points than the cache")
        return _Recording(cache, producer, writing_threads(cache.spec), threading.Semaphore(BLOCKS_IN_FLIGHT))

    def record(self, block: Block, leave_pool: Callable[[], None]) -> None:
        """Compute and commit a block, unless that was done already."""
        ready = self.ready()
        if ready.cache.is_committed(block):
            return  # the worker that committed it died before Dask knew
        with ready.available:
            record_block(
                ready.cache,
                ready.producer,
                block,
                sketch=self._sketch,
                writing=ready.writing,
                turn=_in_turn(self._turn, leave_pool),
            )


@contextmanager
def _in_turn(turn: threading.Lock, leave_pool: Callable[[], None]) -> Iterator[None]:
    """Wait for the turn to compute a block in this process, and leave the thread pool at its end.

    The next block is computed while this one is written and committed, whatever the number of Dask's threads.
    """
    with turn:
        yield
    leave_pool()


def run_block(name: str, block: Block) -> None:
    """Record one block of the run ``name``: the task. It sends nothing back."""
    plugin_named(name, BlockPlugin).record(block, secede)


Plugin = TypeVar("Plugin", bound=LoadedOnce[Any])


def plugin_named(name: str, kind: type[Plugin]) -> Plugin:
    """Return the plugin of a job in this worker.

    Raises
    ------
    WorkerNotReady
        If the worker has none.
    """
    plugin = get_worker().plugins.get(name)
    if not isinstance(plugin, kind):
        address = get_worker().address
        raise WorkerNotReady(f"worker {address} does not know the run {name!r}", address=address)
    return plugin


async def make_ready(name: str, dask_worker: Any) -> str:
    """Load what a job needs in this worker; return what is wrong, or an empty text."""
    plugin: LoadedOnce[Any] = dask_worker.plugins[name]
    try:
        await asyncio.get_running_loop().run_in_executor(None, plugin.ready)
    except WorkerNotReady as error:
        return str(error)
    return ""
