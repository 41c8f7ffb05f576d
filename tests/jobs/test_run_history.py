"""Whatever happens to a run, {run, interrupt, lose, damage, repair, extend} ends in the bytes of a fresh run."""

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actisketch.pipeline import open_run
from actisketch.pipeline.job import run_job
from actisketch.pipeline.rerun import repair_run
from actisketch.pipeline.settings.loading import validate_job
from actisketch.storage.errors import FormatError, IncompleteError

from ..on_disk import flip

RESULTS = ("statistics.json", "factors.json", "sketches.npz")
N_MOST, BLOCK = 30, 4


class Interrupted(BaseException):
    """Stands for Ctrl-C: no handler of the program sees it coming."""


class History(RuleBasedStateMachine):
    """One run of a tiny network and all that can happen to it."""

    home: ClassVar[Path]
    fresh: ClassVar[dict[int, dict[str, bytes]]] = {}

    @initialize()
    def begin(self):
        self.output = Path(tempfile.mkdtemp(dir=self.home)) / "run"
        self.n_samples = 9
        self.may_be_refused = False

    def teardown(self):
        if hasattr(self, "output"):
            self.finish()
            shutil.rmtree(self.output.parent)

    def go(self, output=None, **options):
        job = {
            "output": str(output or self.output),
            "model": {"path": str(self.home / "tiny.keras")},
            "data": {"path": str(self.home / "x.npy"), "num_samples": self.n_samples},
            "record": {"batch_size": 2, "block_samples": BLOCK},
            "normalize": {"enabled": False},
            "report": {"enabled": False},
        }
        return run_job(validate_job(job), **options)

    def kept(self, pattern):
        return sorted(self.output.glob(f"cache/{pattern}"))

    @rule()
    def run(self):
        # A record that is damaged where a run reads it stops the run; nothing else does.
        with contextlib.suppress(*((FormatError,) if self.may_be_refused else ())):
            self.go()

    @rule(n_events=st.integers(1, 9))
    def run_and_be_interrupted(self, n_events):
        seen = []

        def listen(event):
            seen.append(event)
            if len(seen) == n_events:
                raise Interrupted

        with contextlib.suppress(Interrupted, *((FormatError,) if self.may_be_refused else ())):
            self.go(on_event=listen)

    @rule(data=st.data())
    def lose_a_record(self, data):
        if records := self.kept(".actisketch/commits/*.block"):
            data.draw(st.sampled_from(records)).unlink()

    @rule(data=st.data(), harm=st.sampled_from(["delete", "flip", "swap"]))
    def damage_a_chunk(self, data, harm):
        if not (chunks := self.kept("hidden/c.*")):
            return
        path = data.draw(st.sampled_from(chunks))
        if harm == "delete":
            path.unlink()
        elif harm == "flip":
            flip(path, data.draw(st.integers(0, path.stat().st_size - 1)))
        else:
            path.write_bytes(data.draw(st.sampled_from(chunks)).read_bytes())

    @rule(data=st.data())
    def damage_a_record(self, data):
        if records := self.kept(".actisketch/commits/*.block"):
            path = data.draw(st.sampled_from(records))
            flip(path, data.draw(st.integers(0, path.stat().st_size - 1)))
            self.may_be_refused = True

    @precondition(lambda self: (self.output / "run.json").exists())
    @rule()
    def repair(self):
        run = open_run(self.output)
        report = run.cache.verify()
        n_repaired = repair_run(run)
        after = open_run(self.output).cache.verify()

        assert n_repaired == len(report.damaged)
        assert after.damaged == ()
        assert after.n_committed == report.n_blocks - sum(p.kind == "uncommitted" for p in report.problems)
        self.may_be_refused = False

    @rule(n_more=st.integers(1, 8))
    def extend(self, n_more):
        self.n_samples = min(self.n_samples + n_more, N_MOST)

    @invariant()
    def what_is_read_is_right_or_refused(self):
        """By the network that recorded it, which is a matrix here."""
        if not hasattr(self, "output") or not (self.output / "run.json").exists():
            return
        run = open_run(self.output)
        activations = run.activations("hidden")
        for start in range(0, len(activations), BLOCK):
            with contextlib.suppress(FormatError, IncompleteError):
                assert np.allclose(
                    activations[start : start + BLOCK],
                    self.expected[start : start + BLOCK][: len(activations) - start],
                    atol=1e-6,
                )

    def finish(self):
        if (self.output / "run.json").exists():
            self.repair()
        self.go()

        assert self.results(self.output) == self.results_of_a_fresh_run()

    def results(self, output):
        return {name: (output / name).read_bytes() for name in RESULTS}

    def results_of_a_fresh_run(self):
        if self.n_samples not in self.fresh:
            output = self.home / f"fresh-{self.n_samples}"
            self.go(output)
            self.fresh[self.n_samples] = self.results(output)
        return self.fresh[self.n_samples]


@pytest.fixture(autouse=True, scope="module")
def home(tmp_path_factory):
    """A network of two layers, thirty samples, and what the first layer makes of them."""
    import keras

    History.home = tmp_path_factory.mktemp("history")
    rng = np.random.default_rng(17)
    samples, kernel = rng.normal(size=(N_MOST, 3)).astype(np.float32), rng.normal(size=(3, 5))
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(5, "relu", name="hidden"), keras.layers.Dense(2, name="last")]
    )
    model.layers[0].set_weights([kernel, np.zeros(5)])
    model.save(History.home / "tiny.keras")
    np.save(History.home / "x.npy", samples)
    History.expected = np.maximum(samples @ kernel, 0)


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=10, stateful_step_count=8)
