"""What changes after a run is noticed: data, blocks that were computed again, damage."""

import json
import re

import numpy as np
import pytest

from actisketch.pipeline import open_run, run
from actisketch.pipeline.events import BlockDone, StageDone
from actisketch.pipeline.rerun import repair_run
from actisketch.storage.errors import MismatchError

from ..on_disk import contents, flip

N_SAMPLES, BLOCK = 53, 16


class Job:
    """A network and samples in files, and what is run with them."""

    def __init__(self, folder, model, data):
        self.folder, self.data_path, self.output = folder, folder / "x.npy", folder / "run"
        self.model = model
        model.save(folder / "small.keras")
        np.save(self.data_path, data)

    def run(self, *, output=None, normalize=False, **more):
        settings = {"report": {"enabled": False}, **more.pop("settings", {})}
        settings["record"] = {"block_samples": BLOCK, **settings.get("record", {})}
        return run(
            self.folder / "small.keras", self.data_path, output=output or self.output, batch_size=8,
            normalize=normalize, percentile=100, settings=settings, **more,
        )  # fmt: skip

    def scale_row(self, row, factor):
        data = np.load(self.data_path)
        data[row] *= factor
        np.save(self.data_path, data)
        return data

    def record(self, block):
        return sorted((self.output / "cache" / ".actisketch" / "commits").iterdir())[block]

    def chunk(self, block, point="second"):
        return self.output / "cache" / point / f"c.{block}.0"


@pytest.fixture
def job(tmp_path, small_model, small_data):
    return Job(tmp_path, small_model, small_data)


def blocks_recorded(job):
    return [record.block.index for record in open_run(job.output).cache.committed()]


@pytest.mark.parametrize("rows", [(2,), (50,), (2, 50)], ids=["a sound block", "the damaged block", "both"])
def test_repair_refuses_other_data_and_changes_nothing(job, rows):
    job.run()
    flip(job.chunk(3))
    for row in rows:
        job.scale_row(row, 3.0)
    before = contents(job.output)

    with pytest.raises(MismatchError, match="the data has changed"):
        repair_run(open_run(job.output))
    assert contents(job.output) == before


def test_repair_compares_the_data_of_a_block_whose_sketches_are_damaged(job):
    job.run()
    flip(job.record(3))
    job.scale_row(50, 3.0)

    with pytest.raises(MismatchError, match="the data has changed"):
        repair_run(open_run(job.output))


def test_repair_computes_damaged_blocks_and_leaves_missing_ones(job):
    job.run()
    whole = contents(job.output)
    job.record(0).unlink()
    flip(job.chunk(2))
    events = []
    n_repaired = repair_run(open_run(job.output), on_event=events.append)

    assert n_repaired == 1
    assert blocks_recorded(job) == [1, 2, 3]
    assert "1 block of 4 not recorded yet" in events[-1].message
    job.run()
    assert {n: b for n, b in contents(job.output).items() if n != "run.json"} == {
        n: b for n, b in whole.items() if n != "run.json"
    }


def test_repair_does_not_take_samples_that_came_since(job, small_data):
    job.run()
    flip(job.chunk(2))
    np.save(job.data_path, np.concatenate([small_data, small_data]))

    assert repair_run(open_run(job.output)) == 1
    assert open_run(job.output).cache.spec.n_samples == N_SAMPLES
    assert open_run(job.output).cache.verify().problems == ()


@pytest.mark.parametrize("activations", [True, False], ids=["activations", "sketches only"])
def test_a_block_that_was_computed_again_makes_statistics_factors_and_sketches_anew(
    job, small_model, activations
):
    import keras

    kept = {"record": {"activations": activations}}
    job.run(settings=kept)
    job.record(1).unlink()
    data = job.scale_row(20, 50.0)
    job.run(settings=kept)
    first = keras.Model(small_model.inputs, small_model.layers[0].output).predict(data, verbose=0)
    results = {
        name: json.loads((job.output / name).read_text()) for name in ("statistics.json", "factors.json")
    }

    assert results["statistics.json"]["points"]["first"]["maximum"] == pytest.approx(first.max(), rel=1e-5)
    assert results["factors.json"]["points"][0]["factor"] == pytest.approx(first.max(), rel=1e-5)
    assert open_run(job.output).percentile("first", 100.0).value == pytest.approx(first.max(), rel=1e-5)


def test_asking_after_a_block_was_computed_again_is_not_answered_from_the_sketches_before(job, small_model):
    """As after a repair, which computes no factors."""
    import keras

    job.run()
    kept = (job.output / "sketches.npz").read_bytes()
    job.record(1).unlink()
    data = job.scale_row(20, 50.0)
    job.run()
    (job.output / "sketches.npz").write_bytes(kept)
    first = keras.Model(small_model.inputs, small_model.layers[0].output).predict(data, verbose=0)

    assert open_run(job.output).percentile("first", 100.0).value == pytest.approx(first.max(), rel=1e-5)


def test_the_certificate_is_of_the_blocks_that_are_there(job):
    job.run(normalize=True)
    before = (job.output / "certificate.json").read_bytes()
    job.record(1).unlink()
    # Smaller: no percentile, no factor moves, and yet these are other samples.
    job.scale_row(20, 0.5)
    job.run(normalize=True)

    assert (job.output / "certificate.json").read_bytes() != before


def test_limits_that_were_lowered_refuse_nothing_where_nothing_is_to_be_computed(job):
    job.run(memory_limit="4 GiB")
    result = job.run(memory_limit="1 MiB", settings={"record": {"disk_limit": 1}})

    assert result.status().is_recorded


@pytest.mark.parametrize("hashed", [("sampled", "full"), ("full", "sampled")], ids=" then ".join)
@pytest.mark.parametrize("in_memory", [False, True], ids=["file", "memory"])
def test_how_samples_are_hashed_may_change_without_recording_them_again(job, monkeypatch, hashed, in_memory):
    from actisketch.pipeline.sources import prepared

    # So that blocks of 16 rows are too large to be hashed whole.
    monkeypatch.setattr(prepared, "HASH_BUDGET_NBYTES", 3 * 6 * 4)

    def again(way):
        events = []
        data = np.load(job.data_path)
        if in_memory:
            job.data_path = data
        try:
            job.run(settings={"data": {"fingerprint": way}}, on_event=events.append)
        finally:
            job.data_path = job.folder / "x.npy"
        return [event for event in events if isinstance(event, BlockDone)]

    assert len(again(hashed[0])) == 4
    assert again(hashed[1]) == []
    job.scale_row(16, 2.0)  # the first row of a block, which is hashed either way
    with pytest.raises(MismatchError, match="the data has changed"):
        again(hashed[1])


def test_a_report_shows_the_noise_of_the_bits_that_are_set(job):
    """Also where no factor follows from them: then only the page is made anew."""

    def report(bits):
        told = []
        job.run(settings={"report": {"enabled": True}, "factors": {"bits": bits}}, on_event=told.append)
        page = (job.output / "report" / "index.html").read_text(encoding="utf-8")
        reloaded = {event.stage: event.reloaded for event in told if isinstance(event, StageDone)}
        return reloaded, re.findall(r"rounding to (\d+) bits", page)

    _, first = report(8)
    cache, factors = contents(job.output / "cache"), (job.output / "factors.json").read_bytes()
    anew, second = report(4)
    again, _ = report(4)

    assert (first, second) == (["8"], ["4"])
    assert (anew["factors"], anew["report"]) == (True, False)
    assert again["report"]
    assert contents(job.output / "cache") == cache
    assert (job.output / "factors.json").read_bytes() == factors
    assert open_run(job.output).status().has_report
