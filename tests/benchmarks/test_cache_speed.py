"""How fast a block becomes durable, and how fast thousands of blocks are found again.

``pytest tests/benchmarks/test_cache_speed.py --benchmark-enable -s`` prints the figures; ratios come from one
run, alternating, because disks differ from minute to minute. Without the option each is run once, small.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actisketch.storage import Block, Cache, CacheSpec, CommitRecord, PointSpec
from actisketch.storage.codecs import encode
from actisketch.storage.keys import COMMITS, record_key

from .conftest import timed

POINTS = (
    PointSpec(name="conv1", shape=(112, 112, 32)),
    PointSpec(name="conv2", shape=(28, 28, 128)),
    PointSpec(name="classes", shape=(1000,)),
)

SKETCH = bytes(200_000)


def save_each(folder: Path, arrays: Mapping[str, NDArray[np.float32]]) -> None:
    for name, array in arrays.items():
        np.save(folder / name, array)


def write_block(
    cache: Cache, block: Block, arrays: Mapping[str, NDArray[np.float32]], sketches: Mapping[str, bytes]
) -> None:
    with cache.write(block) as writer:
        writer.append(arrays)
        writer.commit(sketches)


def test_a_block_is_written_at_the_speed_of_the_disk(tmp_path: Path, *, is_measured: bool) -> None:
    """Against the bare codec, np.save (which flushes nothing) and np.savez_compressed (SNN toolbox's way)."""
    n_blocks, n_samples = (8, 128) if is_measured else (2, 8)
    rng = np.random.default_rng(7)
    arrays = {p.name: np.maximum(rng.standard_normal((n_samples, *p.shape), np.float32), 0) for p in POINTS}
    nbytes = sum(array.nbytes for array in arrays.values())
    spec = CacheSpec(
        points=POINTS,
        n_samples=n_blocks * n_samples,
        batch_size=n_samples,
        block_samples=n_samples,
        identity={},
    )
    sketches = {point.name: SKETCH for point in POINTS}
    n_part = max(1, n_samples // 16)
    part = [array[:n_part] for array in arrays.values()]
    seconds: dict[str, list[float]] = {}

    def note(name: str, action: Callable[[], object], share: float = 1.0) -> None:
        seconds.setdefault(name, []).append(timed(action) / share)

    with Cache.create_or_resume(tmp_path / "cache", spec) as cache:
        for block in cache.blocks:
            folder = tmp_path / f"numpy{block.index}"
            folder.mkdir()
            note("cache, flushed", partial(write_block, cache, block, arrays, sketches))
            note("np.save, not flushed", partial(save_each, folder, arrays))
            note("codec none alone", lambda: [encode(array, "none") for array in arrays.values()])
            # A part of the block, because it takes as long as all the others together.
            note(
                "np.savez_compressed",
                partial(np.savez_compressed, folder / "z.npz", *part),
                n_part / n_samples,
            )
            shutil.rmtree(folder)
    rates = {name: nbytes / statistics.median(times) / 1e6 for name, times in seconds.items()}
    if is_measured:
        print(f"\nblocks of {nbytes / 1e6:.0f} MB, median of {n_blocks}, MB/s:")
        for name, rate in sorted(rates.items(), key=lambda item: -item[1]):
            print(f"  {name:22s} {rate:8.0f}   {rate / rates['np.savez_compressed']:6.1f} x savez_compressed")
        print("  wanted: at least 10 x savez_compressed")


def test_ten_thousand_blocks_are_found_again_in_under_two_seconds(
    tmp_path: Path, *, is_measured: bool
) -> None:
    n_blocks = 10_000 if is_measured else 2_000
    point = PointSpec(name="dense", shape=(3,))
    spec = CacheSpec(
        points=(point,),
        n_samples=n_blocks * 2,
        batch_size=2,
        block_samples=2,
        identity={},
        keeps_activations=False,
    )
    Cache.create_or_resume(tmp_path, spec).close()
    digest = spec.short_hash
    (tmp_path / COMMITS).mkdir()
    for block in spec.blocks[:-3]:
        record = CommitRecord(
            block=block, cache_hash=digest, chunks={}, sketches={"dense": SKETCH[:20_000]}, facts={}
        )
        (tmp_path / record_key(block.index, block.start, block.stop)).write_bytes(record.encode())

    def resume() -> None:
        with Cache.create_or_resume(tmp_path, spec) as cache:
            assert len(cache.missing()) == 3

    first_s, again_s = timed(resume), timed(resume)
    headers_s = timed(lambda: Cache.open(tmp_path).committed())
    if is_measured:
        print(
            f"\nresume scan of {n_blocks} blocks: {first_s:.2f} s, again {again_s:.2f} s; with "
            f"headers {headers_s:.2f} s; wanted: under 2 s"
        )
