"""The calculation for a large run: VGG16 over 50,000 ImageNet images on 1,000 workers, checked by a simulation.

The coordinator is the real one; the client is a stand-in whose 1,000 workers take made-up times. The reduce is the
real one too, on records of a real size. ``pytest tests/benchmarks/test_dask_scale.py -s`` prints the table that
``deploy/README.md`` quotes.
"""

from __future__ import annotations

import heapq
import queue
import random
import time
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from actisketch.pipeline.cluster.coordinator import Coordinator
from actisketch.pipeline.cluster.limits import Limits
from actisketch.pipeline.cluster.merge_tree import FAN_IN, LEAF_BLOCKS, merge_blocks
from actisketch.pipeline.cluster.worker import run_block
from actisketch.pipeline.record.recorder import BLOCKS_IN_FLIGHT
from actisketch.pipeline.sketch import PointSketch, SketchSpec
from actisketch.storage import Block, Cache, CacheSpec, PointSpec, projection

N_WORKERS, N_IMAGES, BATCH = 1000, 50_000, 8
CONVOLUTIONS = ((224, 64, 2), (112, 128, 2), (56, 256, 3), (28, 512, 3), (14, 512, 3))
POINTS = (
    *(
        PointSpec(name=f"block{i}_conv{j}", shape=(side, side, channels))
        for i, (side, channels, depth) in enumerate(CONVOLUTIONS, 1)
        for j in range(1, depth + 1)
    ),
    *(PointSpec(name=name, shape=(n,)) for name, n in (("fc1", 4096), ("fc2", 4096), ("predictions", 1000))),
)


def vgg16_spec(n_samples: int = N_IMAGES, *, record: bool = True) -> CacheSpec:
    return CacheSpec(
        points=POINTS,
        n_samples=n_samples,
        batch_size=BATCH,
        # record.block_samples = 8: with the largest blocks that fit there would be fewer blocks than workers.
        block_samples=BATCH,
        identity={},
        keeps_activations=record,
    )


class SimulatedFuture:
    status = "pending"

    def __init__(self, key: str) -> None:
        self.key = key
        self._callbacks: list[Any] = []

    def add_done_callback(self, callback: Any) -> None:
        self._callbacks.append(callback)

    def finish(self) -> None:
        self.status = "finished"
        for callback in self._callbacks:
            callback(self)


class SimulatedClient:
    """1,000 workers that hold two blocks each. Its clock stands still but in `pass_time`."""

    status = "running"
    scheduler = None

    def __init__(self, block_s: float) -> None:
        self._block_s, self._random = block_s, random.Random(7)
        self._running: list[tuple[float, int, int, SimulatedFuture]] = []
        self._load = [(0, worker) for worker in range(N_WORKERS)]
        self._free_at = [0.0] * N_WORKERS
        self.most_keys = self._n = 0
        self.clock_s = 0.0

    def nthreads(self) -> dict[str, int]:
        return {str(worker): 1 for worker in range(N_WORKERS)}

    def submit(self, function: Any, *arguments: Any, key: str, pure: bool) -> SimulatedFuture:
        future = SimulatedFuture(key)
        n_held, worker = heapq.heappop(self._load)
        heapq.heappush(self._load, (n_held + 1, worker))
        start = max(self.clock_s, self._free_at[worker])
        end = self._free_at[worker] = start + self._block_s * self._random.uniform(0.8, 1.2)
        self._n += 1
        heapq.heappush(self._running, (end, self._n, worker, future))
        self.most_keys = max(self.most_keys, len(self._running))
        return future

    def cancel(self, futures: Any, force: bool) -> None:
        raise AssertionError("nothing fails here")

    def pass_time(self) -> None:
        """Let time go on until the next block is finished."""
        self.clock_s, _, worker, future = heapq.heappop(self._running)
        at = next(i for i, (_, each) in enumerate(self._load) if each == worker)
        self._load[at] = (self._load[at][0] - 1, worker)
        heapq.heapify(self._load)
        future.finish()


class SimulatedWait(queue.SimpleQueue[Any]):
    """Where the coordinator waits for finished blocks: the only place where simulated time passes.

    So a slow or busy machine makes no difference to what is simulated.
    """

    def __init__(self, client: SimulatedClient) -> None:
        self._client = client

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if block and self.empty():
            self._client.pass_time()
        return super().get(block, timeout)


def test_a_thousand_workers_are_kept_busy_by_one_coordinator() -> None:
    spec = vgg16_spec()
    client = SimulatedClient(block_s := 4.0)
    run = Coordinator(
        client,
        partial(run_block, "simulated"),
        name="simulated",
        limits=Limits(),
        on_done=lambda block, result: None,
    )
    run._health.n_workers = N_WORKERS
    run._done = SimulatedWait(client)

    started = time.perf_counter()
    run.run(spec.blocks)
    coordinator_s = time.perf_counter() - started

    ideal_s = spec.n_blocks * block_s / N_WORKERS
    print(
        f"\n{spec.n_blocks} blocks of {block_s:.0f} s on {N_WORKERS} workers: {client.clock_s:.0f} s, ideal "
        f"{ideal_s:.0f} s; at most {client.most_keys} keys; the coordinator took "
        f"{coordinator_s / spec.n_blocks * 1e3:.2f} ms a block"
    )
    assert run.failures == {}
    assert client.most_keys <= Limits().window(N_WORKERS, BLOCKS_IN_FLIGHT)
    # The last block of each worker ends at its own time: some two blocks beyond the ideal.
    assert client.clock_s < ideal_s + 3 * block_s


def test_bytes_files_and_the_memory_of_a_reducer(tmp_path: Path) -> None:
    whole = projection(vgg16_spec())
    sketches = {
        point.name: _typical_sketch(np.random.default_rng(i), point) for i, point in enumerate(POINTS)
    }
    record_nbytes = sum(map(len, sketches.values()))
    leaf = vgg16_spec(LEAF_BLOCKS * 8, record=False)
    with Cache.create_or_resume(tmp_path / "c", leaf) as cache:
        for block in cache.blocks:
            with cache.write(block) as writer:
                writer.commit(sketches)
    blocks: list[Block] = list(cache.blocks)[:LEAF_BLOCKS]
    merge_blocks(cache.url, {}, blocks[:1])  # compiled and imported: not of this leaf

    tracemalloc.start()
    merged = merge_blocks(cache.url, {}, blocks)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    started = time.perf_counter()
    merge_blocks(cache.url, {}, blocks)
    leaf_s = time.perf_counter() - started

    levels = [-(-whole.n_blocks // LEAF_BLOCKS)]
    while levels[-1] > 1:
        levels.append(-(-levels[-1] // FAN_IN))
    merged_nbytes = sum(map(len, merged.values()))
    print(
        f"\nVGG16, {N_IMAGES} images: {whole.nbytes / 1e12:.2f} TB of activations in {whole.n_files} files, "
        f"{whole.n_blocks} blocks; a record {record_nbytes / 1e6:.1f} MB, all "
        f"{record_nbytes * whole.n_blocks / 1e9:.1f} "
        f"GB; reduce in levels of {levels}: a leaf of {len(blocks)} records {leaf_s:.1f} s and {peak / 2**20:.0f} MiB, "
        f"so about {leaf_s * (1 + FAN_IN / LEAF_BLOCKS * (len(levels) - 1)):.1f} s in all on {levels[0]} workers"
    )
    assert peak + FAN_IN * merged_nbytes < 2 * 2**30


def _typical_sketch(rng: np.random.Generator, point: PointSpec) -> bytes:
    """Of rectified, log-normal values: as many occupied buckets as a real layer has."""
    sketch = PointSketch.empty(SketchSpec())
    n_values = min(int(np.prod(point.shape)), 2_000_000)
    values = rng.lognormal(0, 1.2, (1, n_values)) * (rng.random((1, n_values)) < 0.5)
    sketch.update(values.astype(np.float32))
    return sketch.to_bytes()
