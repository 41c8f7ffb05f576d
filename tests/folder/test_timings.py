"""What the stages of a run took is noted beside its results, and nowhere in them."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from actisketch.pipeline.events import Event, StageDone, StageStarted
from actisketch.pipeline.folder.folder import RunFolder
from actisketch.pipeline.folder.timings import read_timings, timed

STARTED = StageStarted(stage="record", n_total=10)
DONE = StageDone(stage="record", message="")


@pytest.fixture(autouse=True)
def without_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)


def tell(folder: Path, *events: Event, pause_s: float = 0.0) -> None:
    with timed(RunFolder(folder), lambda _: None) as told:
        for event in events:
            told(event)
            time.sleep(pause_s)


def test_a_stage_is_timed_from_its_start_to_the_next_one(tmp_path: Path) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    tell(
        tmp_path, STARTED, StageStarted(stage="factors"), StageDone(stage="factors", message=""), pause_s=0.2
    )

    timings = read_timings(RunFolder(tmp_path))
    assert list(timings) == ["record", "factors"]
    for timing in timings.values():
        assert 0.2 <= timing.wall_s < 30
        assert timing.cpu_s <= timing.wall_s
        assert timing.peak_nbytes > 2**20
        assert before <= datetime.fromisoformat(timing.began) <= datetime.now(UTC)


def test_what_is_reloaded_keeps_its_time(tmp_path: Path) -> None:
    tell(tmp_path, STARTED, DONE)
    kept = (tmp_path / "timings.json").read_bytes()

    tell(tmp_path, STARTED, StageDone(stage="record", message="", reloaded=True))

    assert (tmp_path / "timings.json").read_bytes() == kept


def test_a_resumed_stage_adds_up_and_one_from_the_start_does_not(tmp_path: Path) -> None:
    def interrupted() -> None:
        with timed(RunFolder(tmp_path), lambda _: None) as told:
            told(STARTED)
            time.sleep(0.2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    first = read_timings(RunFolder(tmp_path))["record"]
    tell(tmp_path, StageStarted(stage="record", n_total=10, n_done=4), DONE, pause_s=0.2)
    both = read_timings(RunFolder(tmp_path))["record"]
    tell(tmp_path, STARTED, DONE)

    assert both.began == first.began
    assert both.wall_s >= first.wall_s + 0.2 >= 0.4
    assert read_timings(RunFolder(tmp_path))["record"].wall_s < first.wall_s


def test_whoever_asks_for_reproducible_files_gets_no_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")

    tell(tmp_path, STARTED, DONE)

    assert list(tmp_path.iterdir()) == []


def test_nothing_is_noted_where_there_is_no_run_or_the_disk_refuses(tmp_path: Path) -> None:
    tell(tmp_path / "missing", STARTED, DONE)
    (tmp_path / "timings.json").mkdir()
    (tmp_path / "timings.json" / "mine").write_text("mine")
    tell(tmp_path, STARTED, DONE)

    assert not (tmp_path / "missing").exists()
    assert (tmp_path / "timings.json" / "mine").read_text() == "mine"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"actisketch_timings": 1}', '{"actisketch_timings": 2, "stages": {}}', "null"]
)
def test_a_damaged_file_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "timings.json").write_text(content)

    assert read_timings(RunFolder(tmp_path)) == {}


def test_a_file_of_others_is_replaced_and_no_link_is_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious.json"
    precious.write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "timings.json").symlink_to(precious)

    tell(tmp_path / "run", STARTED, DONE)

    assert precious.read_text() == "mine"
    assert json.loads((tmp_path / "run" / "timings.json").read_text())["stages"].keys() == {"record"}
