"""A whole run without a network that ends, as by kill -9, before its n-th change of the file system.

Usage: python crash_points.py FOLDER kill|refuse SEED; run by test_crash_points.py. Each crash is a real one: a forked
process that kills itself. One process imports everything, so that hundreds of crashes take seconds.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from actisketch.pipeline.factors.factors_file import Factors
from actisketch.pipeline.factors.merged_file import merged_key
from actisketch.pipeline.folder.folder import RunFolder
from actisketch.pipeline.record.producer import Consumer
from actisketch.pipeline.record.recorder import record_missing
from actisketch.pipeline.results.run import open_run
from actisketch.pipeline.settings.job_settings import JobSettings
from actisketch.pipeline.settings.loading import validate_job
from actisketch.pipeline.sketch import SketchSpec
from actisketch.pipeline.stages.factors import FactorsStage
from actisketch.storage import Cache, CacheSpec, PointSpec
from actisketch.storage.errors import StorageError

POINTS = (PointSpec(name="conv/1", shape=(3, 5, 2)), PointSpec(name="dense", shape=(7,)))
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}


class Producer:
    """Activations that follow from the index of a sample."""

    points, batch_size = POINTS, 3

    def content_hash(self, start: int, stop: int) -> str:
        return f"{start}-{stop}"

    def hand_over(self, start: int, stop: int, consumer: Consumer) -> None:
        for first in range(start, stop, self.batch_size):
            rows = np.arange(first, min(first + self.batch_size, stop))
            for p in POINTS:
                consumer.take(p.name, _rows(rows, p.shape))
            consumer.end_batch(len(rows))


def _rows(rows: Any, shape: tuple[int, ...]) -> Any:
    n = int(np.prod(shape))
    return np.maximum(np.sin(rows[:, None] * 0.7 + np.arange(n)), 0).astype(np.float32).reshape(-1, *shape)


def work(folder: Path) -> None:
    """Record, reduce, write statistics, factors, merged sketches and the manifest: as a job does."""
    settings: JobSettings = validate_job({"output": str(folder), "normalize": {"enabled": False}})
    run = RunFolder(folder)
    run.check_claim()
    run.manifest()
    spec = CacheSpec(
        points=POINTS,
        n_samples=17,
        batch_size=3,
        block_samples=6,
        identity={"model": {}, "data": {}, "settings": {}},
    )
    with Cache.create_or_resume(run.cache_path, spec) as cache:
        run.clean()
        if cache.missing():
            run.update_manifest({"settings": settings.model_dump(mode="json")})
        record_missing(cache, Producer(), sketch=SketchSpec(bits=16))
    run.update_manifest({"settings": settings.model_dump(mode="json"), "n_samples": 17})
    cache = Cache.open(run.cache_path)
    FactorsStage(folder=run, cache=cache, settings=settings, recorded=merged_key(cache)).reload_or_compute()


class Ends:
    """Does something before the n-th change of the file system; counts them."""

    def __init__(self, n: int, end: Callable[[], None]) -> None:
        self.n_seen, self._n, self._end = 0, n, end
        sys.addaudithook(self._hook)
        write = os.write

        def counted(*arguments: Any) -> int:
            self.step()
            return write(*arguments)

        # What a killed process wrote is there without a flush, and disks are slow: flushes are counted, not done.
        os.write, os.fsync = counted, lambda _: self.step()  # type: ignore[assignment]  # on purpose

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES or (event == "open" and arguments[2] & (os.O_CREAT | os.O_TRUNC)):
            self.step()

    def step(self) -> None:
        self.n_seen += 1
        if self.n_seen == self._n:
            self._end()


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse() -> None:
    raise OSError(28, os.strerror(28))


def forked(folder: Path, *, n: int = -1, end: Callable[[], None] = kill) -> tuple[int, int]:
    """Work in a process of its own; return how it ended and how many changes there were."""
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        with open(read, "rb") as pipe:
            said = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return status, int(said or 0)
    code = 1
    try:
        os.close(read)
        say = os.write
        ends = Ends(n, end)
        try:
            work(folder)
            code = 0
        except StorageError as error:
            code = error.exit_code
        say(write, str(ends.n_seen).encode())
    finally:
        os._exit(code)


def contents(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "lock")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def check(folder: Path, whole: dict[str, bytes]) -> None:
    """What a crash left is sound and names nothing foreign; the next run ends in the bytes of one left alone."""
    run = RunFolder(folder)
    if (run.cache_path / ".actisketch/cache.json").exists():
        report = Cache.open(run.cache_path).verify()
        # A document of Zarr that was not written yet is written by the next run, before any block.
        assert not report.damaged, report.problems
        assert not report.foreign, report.problems
        assert not (report.documents and report.n_committed), report.problems
    if run.manifest_path.exists():
        open_run(folder)
    if run.factors_path.exists():
        Factors.load(run.factors_path)
    assert forked(folder)[0] == 0
    after = {
        name: stored.replace(str(folder).encode(), b"FOLDER") for name, stored in contents(folder).items()
    }
    # The manifest names the folder, and its hash follows from that.
    after.pop("run.json"), whole.pop("run.json", None)
    assert after.keys() == whole.keys(), after.keys() ^ whole.keys()
    assert after == whole, [name for name in whole if after[name] != whole[name]]


def main(place: str, how: str, seed: str) -> None:
    """End at every change, a third of the times once more in the next run; print the counts as JSON."""
    home, chance, counts = Path(place), random.Random(int(seed)), Counter[str]()
    end, expected = {"kill": (kill, -9), "refuse": (refuse, 7)}[how]
    work(home / "warm")  # imports and compiles what every fork would
    code, n_changes = forked(home / "whole")
    assert code == 0
    whole = contents(home / "whole")
    for n in range(1, n_changes + 1):
        folder = home / "harmed"
        code, _ = forked(folder, n=n, end=end)
        # Where a file cannot be cleared away, nobody need know; a killed process is gone.
        assert code == expected or (code == 0 and end is refuse), (n, code)
        counts["ended" if code else "went on"] += 1
        if n % 3 == 0:
            counts["ended twice"] += forked(folder, n=chance.randrange(1, n_changes), end=end)[0] == expected
        check(folder, whole)
        counts["same bytes"] += 1
        shutil.rmtree(folder)
    sys.stdout.write(json.dumps({"changes": n_changes, **counts}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
