"""Runs without a network, whose activations anybody can compute, and a client of the service over them."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from numpy.typing import NDArray
from starlette.testclient import TestClient

from actisketch.pipeline.factors.merged_file import merged_key
from actisketch.pipeline.folder.folder import RunFolder
from actisketch.pipeline.record.point_sketch import empty_sketch, sketch_spec, with_channels
from actisketch.pipeline.service import server
from actisketch.pipeline.service.access import Access
from actisketch.pipeline.service.application import ServiceSettings, make_application
from actisketch.pipeline.service.connections import BoundedProtocol
from actisketch.pipeline.service.run_root import RunRoot
from actisketch.pipeline.settings.loading import validate_job
from actisketch.pipeline.stages.factors import FactorsStage
from actisketch.storage import Cache, CacheSpec, PointSpec

POINTS = (
    PointSpec(name="conv", shape=(3, 5, 2), meta={"layer_type": "Conv2D", "activation": "relu"}),
    PointSpec(name="<b>dense/1</b>", shape=(7,), meta={"layer_type": "Dense", "activation": "relu"}),
)
TOKEN = "a-token-for-the-tests"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
OLD_RUN = Path(__file__).parents[1] / "jobs" / "version_0_1" / "finished"
N_SAMPLES, BLOCK_SAMPLES, BATCH_SIZE = 17, 6, 3


def values_of(point: PointSpec, start: int, stop: int, *, seed: float = 0.7) -> NDArray[np.float32]:
    """The activations of some samples, half of them zero."""
    n = point.n_values
    rows = np.arange(start, stop)[:, None]
    values = np.maximum(np.sin(rows * seed + np.arange(n) * 1.3) * (1 + np.arange(n)), 0)
    return values.astype(np.float32).reshape(-1, *point.shape)


@dataclass
class MadeRun:
    """A run that is recorded block by block."""

    folder: Path
    changes: dict[str, Any] = field(default_factory=dict)
    points: Sequence[PointSpec] = POINTS
    seed: float = 0.7
    n_samples: int = N_SAMPLES

    def __post_init__(self) -> None:
        tree = {"output": str(self.folder), "normalize": {"enabled": False}, "report": {"enabled": False}}
        self.settings = validate_job({**tree, **self.changes})
        self.run = RunFolder(self.folder)
        self.spec = CacheSpec(
            points=tuple(self.points),
            n_samples=self.n_samples,
            batch_size=BATCH_SIZE,
            block_samples=BLOCK_SAMPLES,
            identity={"model": {"weights": str(self.seed)}, "data": {}, "settings": {}},
            keeps_activations=self.settings.record.activations,
        )

    def begin(self) -> MadeRun:
        """Make the cache, then the manifest, as a job does before its first block."""
        self.folder.mkdir(parents=True, exist_ok=True)
        Cache.create_or_resume(self.run.cache_path, self.spec).close()
        self.run.update_manifest(
            {
                "settings": self.settings.model_dump(mode="json"),
                "n_samples": self.n_samples,
                "model": {"name": f"net-{self.folder.name}"},
            }
        )
        return self

    def record(self, n_blocks: int | None = None) -> MadeRun:
        """Record the next blocks."""
        with Cache.create_or_resume(self.run.cache_path, self.spec) as cache:
            for block in cache.missing()[:n_blocks]:
                arrays = {p.name: self.values(p, block.start, block.stop) for p in self.points}
                sketches = {}
                for point in self.points:
                    sketch = empty_sketch(sketch_spec(self.settings), point)
                    sketch.update(with_channels(arrays[point.name]))
                    sketches[point.name] = sketch.to_bytes()
                with cache.write(block) as writer:
                    if self.spec.keeps_activations:
                        writer.append(arrays)
                    writer.commit(sketches)
        return self

    def finish(self) -> MadeRun:
        """Compute factors and statistics."""
        cache = Cache.open(self.run.cache_path)
        FactorsStage(
            folder=self.run, cache=cache, settings=self.settings, recorded=merged_key(cache)
        ).reload_or_compute()
        return self

    def values(self, point: PointSpec, start: int, stop: int) -> NDArray[np.float32]:
        return values_of(point, start, stop, seed=self.seed)

    def all_values(self, name: str, n_samples: int | None = None) -> NDArray[np.float32]:
        point = next(p for p in self.points if p.name == name)
        return self.values(point, 0, self.n_samples if n_samples is None else n_samples)


def make_run(folder: Path, **facts: Any) -> MadeRun:
    return MadeRun(folder, **facts).begin().record().finish()


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


def make_client(root: Path, *, allowed: Sequence[str] = (), **settings: Any) -> TestClient:
    """Return a client with a token of the service over a root; enter it."""
    application = make_application(
        RunRoot.of(root, allowed),
        Access([TOKEN]),
        settings=ServiceSettings(**{"fresh_s": 0.0, **settings}),
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
    root: Path, *, n_connections: int | None = None, **settings: object
) -> Iterator[tuple[str, int]]:
    """A service in a thread of this process, over real connections; at most so many."""
    stopping = threading.Event()
    application = make_application(
        RunRoot.of(root),
        Access([TOKEN]),
        settings=ServiceSettings(**{"fresh_s": 0.0, **settings}),
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
