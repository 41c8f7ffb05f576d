"""Runs without a network, and a client of the service over them."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient

from actisketch.pipeline.service import server
from actisketch.pipeline.service.access import Access
from actisketch.pipeline.service.application import ServiceSettings, make_application
from actisketch.pipeline.service.connections import BoundedProtocol
from actisketch.pipeline.service.jobs.job_queue import JobQueue
from actisketch.pipeline.service.run_root import RunRoot

from .browser import Browser
from .made_runs import N_SAMPLES as N_SAMPLES
from .made_runs import POINTS as POINTS
from .made_runs import MadeRun as MadeRun
from .made_runs import make_run as make_run
from .made_runs import values_of as values_of

TOKEN = "a-token-for-the-tests"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
OLD_RUN = Path(__file__).parents[1] / "jobs" / "version_0_1" / "finished"


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a finished run, one with channels, one of another network, one that goes on, one of version 0.1."""
    root = tmp_path_factory.mktemp("service") / "root"
    make_run(root / "first")
    make_run(root / "vgg" / "channels", changes={"sketch": {"per_channel": True}})
    make_run(root / "other", seed=0.9)
    MadeRun(root / "half").begin().record(2)
    shutil.copytree(OLD_RUN, root / "old")
    return root


@pytest.fixture
def root(made_once: Path, tmp_path: Path) -> Path:
    """A copy of the root, to be changed at will."""
    return Path(shutil.copytree(made_once, tmp_path / "root"))


def make_client(
    root: Path, *, allowed: Sequence[str] = (), jobs: JobQueue | None = None, **settings: Any
) -> TestClient:
    """Return a client with a token of the service over a root, which may act where there are jobs; enter it."""
    application = make_application(
        RunRoot.of(root, allowed),
        Access([TOKEN] if jobs is None else [], jobs_tokens=[] if jobs is None else [TOKEN]),
        settings=ServiceSettings(**{"fresh_s": 0.0, **settings}),
        jobs=jobs,
    )
    return TestClient(
        application,
        base_url="http://127.0.0.1:8570",
        headers={"authorization": f"Bearer {TOKEN}"},
        raise_server_exceptions=False,
        follow_redirects=False,
    )


@pytest.fixture
def client_of() -> Iterator[Callable[..., TestClient]]:
    """Return a client of the service over a root."""
    with ExitStack() as stack:
        yield lambda root, **facts: stack.enter_context(make_client(root, **facts))


@pytest.fixture(scope="session")
def client(made_once: Path) -> Iterator[TestClient]:
    """A client of the service over runs that are only read."""
    with make_client(made_once) as made:
        yield made


@pytest.fixture
def own(root: Path, client_of: Callable[..., TestClient]) -> TestClient:
    """A client of the service over runs that a test changes."""
    return client_of(root)


@contextmanager
def served_here(
    root: Path, *, n_connections: int | None = None, jobs: JobQueue | None = None, **settings: object
) -> Iterator[tuple[str, int]]:
    """A service in a thread of this process, over real connections; at most so many."""
    stopping = threading.Event()
    application = make_application(
        RunRoot.of(root),
        Access([TOKEN] if jobs is None else [], jobs_tokens=[] if jobs is None else [TOKEN]),
        settings=ServiceSettings(**{"fresh_s": 0.0, **settings}),
        jobs=jobs,
        stopping=stopping,
    )
    config = uvicorn.Config(
        application,
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        loop="asyncio",
        log_config=None,
        limit_concurrency=n_connections,
    )
    running = uvicorn.Server(config)
    with server.listen("127.0.0.1", 0) as bound:
        thread = threading.Thread(target=running.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            while not running.started:
                time.sleep(0.01)
            yield bound.getsockname()[:2]
        finally:
            stopping.set()
            running.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser that has the token."""
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        browser.call("Network.setExtraHTTPHeaders", headers={"Authorization": f"Bearer {TOKEN}"})
        yield browser


@pytest.fixture
def browser(started: Browser) -> Iterator[Browser]:
    """The browser, which must not complain."""
    started.problems.clear()
    yield started
    assert started.problems == []
