"""Whatever happens to a cache, {run, kill, resume, extend, harm, verify, repair} ends equal to a fresh run."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from actisketch.storage import Block, Cache, files, local
from actisketch.storage.errors import FormatError
from actisketch.storage.local import LocalFolder

from ..on_disk import IN_WORK, contents, flip
from . import made_up

CODEC = "none"


class Killed(BaseException):
    """Stands for the end of the process: no handler of the program sees it coming."""


@contextlib.contextmanager
def killed_at(n: int) -> Any:
    """End the program at its n-th change of the store: before it, or with a file half-written."""
    count = 0

    def mortal(method: Any, *, is_write: bool) -> Any:
        def call(*arguments: Any) -> Any:
            nonlocal count
            count += 1
            if count == n:
                if is_write and n % 2:
                    (arguments[0].parent / f"elsewhere.1.{n}").write_bytes(b"half")
                raise Killed
            return method(*arguments)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "write_new", mortal(files.write_new, is_write=True))
        for name in ("sync", "write_durably", "delete"):
            patch.setattr(LocalFolder, name, mortal(getattr(LocalFolder, name), is_write=False))
        with contextlib.suppress(Killed):
            yield


def read_everything(cache: Cache, block: Block) -> None:
    """Use every door to a block."""
    for point in cache.spec.points:
        cache.read_block(point.name, block)
    cache.read_commit(block)


class History(RuleBasedStateMachine):
    """One cache and all that can happen to it."""

    fresh: ClassVar[dict[int, dict[str, bytes]]] = {}

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="history"))
        self.n_samples = 5
        self.n_created = 0

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.finish()
            shutil.rmtree(self.folder)

    def resumed(self) -> Cache:
        self.n_created += 1
        return Cache.create_or_resume(self.folder, made_up.spec(n_samples=self.n_samples, codec=CODEC))

    @rule(n_blocks=st.integers(0, 3))
    def run_and_stop(self, n_blocks: int) -> None:
        with self.resumed() as cache:
            for block in cache.missing()[:n_blocks]:
                made_up.record(cache, block)

    @rule(n_calls=st.integers(1, 30))
    def run_and_be_killed(self, n_calls: int) -> None:
        with killed_at(n_calls), self.resumed() as cache:
            made_up.fill(cache)

    @rule(n_more=st.integers(1, 20))
    def extend(self, n_more: int) -> None:
        self.n_samples = min(self.n_samples + n_more, 60)
        self.resumed().close()

    @rule(n_more=st.integers(1, 20), n_calls=st.integers(1, 8))
    def extend_and_be_killed(self, n_more: int, n_calls: int) -> None:
        self.n_samples = min(self.n_samples + n_more, 60)
        with killed_at(n_calls):
            self.resumed().close()

    @precondition(lambda self: self.n_created > 0)
    @rule(data=st.data(), harm=st.sampled_from(["delete", "cut", "flip", "swap"]))
    def harm(self, data: st.DataObject, harm: str) -> None:
        chunks = [
            p for p in sorted(self.folder.rglob("*")) if p.name.startswith("c.") or p.suffix == ".block"
        ]
        if not chunks:
            return
        path = data.draw(st.sampled_from(chunks))
        stored = path.read_bytes()
        if harm == "delete":
            path.unlink()
        elif harm == "cut":
            path.write_bytes(stored[:-1])
        elif harm == "flip":
            flip(path, data.draw(st.integers(0, max(0, len(stored) - 1))))
        else:
            path.write_bytes(data.draw(st.sampled_from(chunks)).read_bytes())

    @rule()
    def what_is_read_is_right_or_refused(self) -> None:
        with self.resumed() as cache:
            damaged = cache.verify().damaged
            for record in cache.committed() if not damaged else ():
                for point in cache.spec.points:
                    expected = made_up.activations(point, record.block.start, record.block.stop)
                    assert (cache.read_block(point.name, record.block) == expected).all()
            for block in damaged:
                with pytest.raises(FormatError):
                    read_everything(cache, block)

    @rule()
    def finish(self) -> None:
        with self.resumed() as cache:
            cache.repair(cache.verify())
            made_up.fill(cache)
            # What a process of another host left half-written stays for a day: it may be alive.
            assert [each for each in cache.verify().problems if each.kind != "leftover"] == []
            made_up.check(cache)
        assert contents(self.folder, without=IN_WORK) == self.fresh_run(self.n_samples)

    def fresh_run(self, n_samples: int) -> dict[str, bytes]:
        if n_samples not in self.fresh:
            with tempfile.TemporaryDirectory() as folder:
                with Cache.create_or_resume(folder, made_up.spec(n_samples=n_samples, codec=CODEC)) as cache:
                    made_up.fill(cache)
                self.fresh[n_samples] = contents(Path(folder), without=IN_WORK)
        return self.fresh[n_samples]


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=15, stateful_step_count=10)
