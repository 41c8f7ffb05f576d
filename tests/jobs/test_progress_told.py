"""A job tells others how far it is, through a file in its folder, and what it failed of."""

from __future__ import annotations

import os

import pytest

from actisketch.pipeline import run
from actisketch.pipeline.folder.progress_file import read_progress

SETTINGS = {"record": {"block_samples": 16}, "report": {"enabled": False}}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr("actisketch.pipeline.folder.progress_file.INTERVAL_S", 0.0)


def test_others_see_every_stage_of_a_job(tmp_path, small_model, small_data):
    seen = []

    def look(event):
        if (told := read_progress(tmp_path / "run")) is not None:
            seen.append(told)

    run(small_model, small_data, output=tmp_path / "run", batch_size=8, settings=SETTINGS, on_event=look)
    recorded = [told for told in seen if told.stage == "record"]

    assert [told.holder.pid for told in seen] == [os.getpid()] * len(seen)
    assert list(dict.fromkeys(told.stage for told in seen if told.stage)) == [
        "record",
        "factors",
        "normalize",
        "certify",
    ]
    assert max(told.n_done for told in recorded) == len(small_data)
    assert max(told.n_blocks for told in recorded) == 4
    assert not (tmp_path / "run" / "progress.json").exists()


def test_others_see_why_a_job_failed_and_the_next_one_replaces_that(tmp_path, small_model, small_data):
    def fail(event):
        if getattr(event, "block", None) == 1:
            raise KeyboardInterrupt

    job = {"output": tmp_path / "run", "batch_size": 8, "settings": SETTINGS}
    with pytest.raises(KeyboardInterrupt):
        run(small_model, small_data, **job, on_event=fail)
    told = read_progress(tmp_path / "run")

    assert (told.stage, told.error) == ("record", "interrupted")
    run(small_model, small_data, **job)
    assert read_progress(tmp_path / "run") is None
