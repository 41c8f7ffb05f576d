"""What a job tells others about how far it is."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from actisketch.pipeline.events import BlockDone, Remark, SamplesDone, StageDone, StageStarted
from actisketch.pipeline.folder import progress_file
from actisketch.pipeline.folder.folder import RunFolder
from actisketch.pipeline.folder.progress_file import progress_told, read_progress
from actisketch.storage.errors import StorageError


@pytest.fixture
def told(monkeypatch):
    """Every event is written at once; those that were handed on are kept."""
    monkeypatch.setattr(progress_file, "INTERVAL_S", 0.0)
    return []


def test_a_job_tells_its_stage_its_blocks_and_its_pace(tmp_path, told):
    with progress_told(RunFolder(tmp_path), told.append) as listen:
        listen(StageStarted(stage="record", n_total=100, n_done=20, unit="samples"))
        first = read_progress(tmp_path)
        for n_done in (7, 10):
            listen(SamplesDone(n_done=n_done))
            time.sleep(0.02)
        listen(BlockDone(block=3, n_samples=11, nbytes=700))
        listen(Remark(topic="data", message="fine"))
        second = read_progress(tmp_path)
        listen(StageDone(stage="record", message="done"))
        listen(StageStarted(stage="factors"))
        third = read_progress(tmp_path)

    assert (first.stage, first.n_done, first.n_total, first.unit) == ("record", 20, 100, "samples")
    assert (second.n_done, second.n_blocks, second.nbytes) == (31, 1, 700)
    assert second.per_second > 0
    assert second.left_s > 0
    assert second.is_alive
    assert second.holder.pid == os.getpid()
    assert (third.stage, third.n_done, third.n_total) == ("factors", 0, 0)
    assert third.messages == ("data: fine", "record: done")
    assert len(told) == 7


def test_a_job_that_ended_well_leaves_nothing(tmp_path, told):
    with progress_told(RunFolder(tmp_path), told.append) as listen:
        listen(StageStarted(stage="record"))

    assert list(tmp_path.iterdir()) == []
    assert read_progress(tmp_path) is None


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StorageError("the disk is full"), "the disk is full"),
        (KeyboardInterrupt(), "interrupted"),
        (RuntimeError("a bug"), "RuntimeError: a bug"),
    ],
)
def test_a_job_that_failed_says_why(tmp_path, told, error, said):
    def work():
        with progress_told(RunFolder(tmp_path), told.append) as listen:
            listen(StageStarted(stage="record"))
            raise error

    with pytest.raises(type(error)):
        work()

    assert read_progress(tmp_path).error == said
    assert not read_progress(tmp_path).is_alive


def test_a_job_that_is_refused_before_it_works_changes_nothing(tmp_path, told):
    (tmp_path / "progress.json").write_text("of another job")
    with pytest.raises(StorageError), progress_told(RunFolder(tmp_path), told.append):
        raise StorageError("refused")

    assert (tmp_path / "progress.json").read_text() == "of another job"


def test_a_killed_process_works_no_more(tmp_path, told):
    with progress_told(RunFolder(tmp_path), told.append) as listen:
        listen(StageStarted(stage="record"))
        tree = json.loads((tmp_path / "progress.json").read_text())
        assert read_progress(tmp_path).is_alive
        tree["holder"]["started_s"] -= 100
        (tmp_path / "progress.json").write_text(json.dumps(tree))
        assert not read_progress(tmp_path).is_alive

        # Of another host, or a container that has this host name, only the time can be seen.
        for elsewhere in ({"host": "elsewhere"}, {"pid_namespace": "pid:[7]"}):
            holder = {**tree["holder"], **elsewhere}
            for age_s, is_alive in ((0, True), (3600, False)):
                seen = {**tree, "holder": holder, "updated_s": tree["updated_s"] - age_s}
                (tmp_path / "progress.json").write_text(json.dumps(seen))
                assert read_progress(tmp_path).is_alive == is_alive


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"actisketch_progress": 2}', b'{"actisketch_progress": 1}']
)
def test_a_file_of_something_else_is_no_progress(tmp_path, content):
    (tmp_path / "progress.json").write_bytes(content)

    assert read_progress(tmp_path) is None


def test_a_link_in_the_place_of_the_file_is_not_written_through(tmp_path, told):
    other = tmp_path / "other"
    other.write_text("precious")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "progress.json").symlink_to(other)
    with progress_told(RunFolder(folder), told.append) as listen:
        listen(StageStarted(stage="record"))

        assert read_progress(folder).stage == "record"
    assert other.read_text() == "precious"


def test_a_disk_that_refuses_stops_no_job(tmp_path, told, monkeypatch):
    def refuse(*_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(progress_file, "put_in_place", refuse)
    with progress_told(RunFolder(tmp_path), told.append) as listen:
        listen(StageStarted(stage="record"))

    assert len(told) == 1
