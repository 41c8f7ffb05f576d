"""What goes on in a run now, as server-sent events: from its progress file and its commits, whoever started it.

Each event is the whole state, so a client that comes back misses nothing; its Last-Event-ID spares it what it has.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from ...storage.errors import ActisketchError
from ..folder.folder import content_key
from ..folder.progress_file import Progress, read_progress
from ..results.run import open_run
from ..settings.visible import visible
from .answers import LiveAnswer, number
from .catalogue import Catalogue, RunState, checked_state
from .run_root import RunRoot, path_in_id
from .workers import Overloaded, Workers

__all__ = ["Live", "id_of_state"]

INTERVAL_S = 1.0
SHARED_S = 0.5
# Proxies close connections on which nothing is sent.
KEEP_ALIVE_S = 15.0
MOST_STREAMS = 500
# The client asks again after so long when the connection was lost.
RETRY_MS = 2000

IsGone = Callable[[], Awaitable[bool]]


class Live:
    """Watches runs. Belongs to one event loop.

    Parameters
    ----------
    root : RunRoot
    catalogue : Catalogue
    workers : Workers
        Threads that read files.
    stopping : threading.Event
        Set when the service stops: streams end then.
    """

    def __init__(
        self, root: RunRoot, catalogue: Catalogue, workers: Workers, stopping: threading.Event
    ) -> None:
        self._root, self._catalogue = root, catalogue
        self._workers, self._stopping = workers, stopping
        self._looks: OrderedDict[str, tuple[float, asyncio.Task[LiveAnswer]]] = OrderedDict()
        self.n_streams = 0

    async def state(self, run_id: str) -> LiveAnswer:
        """Return what goes on in a run now. All who ask within half a second, or until it is done, share one look.

        Raises
        ------
        NotFoundError, InputError, FormatError, StorageError
            If the run is not there, may not be read, or cannot be.
        """
        now_s = asyncio.get_running_loop().time()
        until_s, task = self._looks.get(run_id, (0.0, None))
        if task is None or (task.done() and now_s >= until_s):
            task = asyncio.create_task(self._workers.run(lambda _: self._look(run_id)))
            self._looks[run_id] = (now_s + SHARED_S, task)
            self._looks.move_to_end(run_id)
            if len(self._looks) > MOST_STREAMS:
                self._looks.popitem(last=False)
        return await asyncio.shield(task)

    def _look(self, run_id: str) -> LiveAnswer:
        folder = self._root.folder_of(run_id)
        self._root.check_inside(folder, None, with_arrays=False)
        run = open_run(folder)
        cache = run.settings.cache
        self._root.check_inside(folder, cache.url, options=cache.storage_options, with_arrays=False)
        spec = run.cache.spec
        missing = run.cache.missing()
        row = self._catalogue.row(path_in_id(run_id))
        state: RunState = "stopped" if row is None else checked_state(row.state, run.status)
        progress = read_progress(folder)
        if progress is not None and not progress.is_alive and state != "stopped":
            # Left by a job that came to no good end: a verb has done the rest since, or works now.
            progress = None
        return LiveAnswer(
            run=run_id,
            state=state,
            n_blocks=spec.n_blocks,
            n_blocks_done=spec.n_blocks - len(missing),
            n_samples=spec.n_samples,
            n_samples_done=spec.n_samples - sum(block.n_samples for block in missing),
            **({} if progress is None else _told(progress)),
        )

    def check_room(self) -> None:
        """Raise Overloaded if too many clients listen already."""
        if self.n_streams >= MOST_STREAMS:
            raise Overloaded

    async def events(self, run_id: str, last_id: str | None, is_gone: IsGone) -> AsyncIterator[str]:
        """Yield an event whenever something has changed, until the run is complete or gone, or nobody listens.

        Parameters
        ----------
        run_id : str
        last_id : str, optional
            Of the last event that the client has.
        is_gone : callable
            Whether the client has gone away.
        """
        self.n_streams += 1
        try:
            yield f"retry: {RETRY_MS}\n\n"
            silent_s = 0.0
            while not self._stopping.is_set() and not await is_gone():
                try:
                    state = await self.state(run_id)
                except ActisketchError as error:
                    yield f"event: problem\ndata: {json.dumps({'detail': visible(str(error))})}\n\n"
                    return
                event_id = id_of_state(state)
                if event_id != last_id:
                    yield f"id: {event_id}\nevent: {state.event}\ndata: {state.model_dump_json()}\n\n"
                    last_id, silent_s = event_id, 0.0
                elif silent_s >= KEEP_ALIVE_S:
                    yield ": still here\n\n"
                    silent_s = 0.0
                if state.event == "complete":
                    return
                await asyncio.sleep(INTERVAL_S)
                silent_s += INTERVAL_S
        finally:
            self.n_streams -= 1


def id_of_state(state: LiveAnswer) -> str:
    """Return the id of an event: equal for equal states."""
    return content_key(state.model_dump(mode="json"))


def _told(progress: Progress) -> dict[str, Any]:
    """Return what a progress file says, as the fields of the answer."""
    return {
        "stage": progress.stage,
        "unit": progress.unit,
        "n_done": progress.n_done,
        "n_total": progress.n_total,
        "nbytes": progress.nbytes,
        "per_second": number(progress.per_second) if progress.is_alive else None,
        "left_s": number(progress.left_s) if progress.is_alive else None,
        "pid": progress.holder.pid,
        "updated_s": progress.updated_s,
        "messages": [visible(message) for message in progress.messages],
        "error": _error(progress),
    }


def _error(progress: Progress) -> str | None:
    if progress.error is not None:
        return visible(progress.error, kept="\n")
    if progress.is_alive:
        return None
    return (
        "the process that worked here is gone without a word, as after kill -9: run the job again to resume"
    )
