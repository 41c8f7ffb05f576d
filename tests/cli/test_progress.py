"""What is shown while a job works: samples that are done, and a time left that holds."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from rich.console import Console

from actisketch.pipeline.display.job_progress import STAGE_LABELS, JobProgress
from actisketch.pipeline.events import BlockDone, Event, SamplesDone, StageName, StageStarted

Timed = Iterator[tuple[float, Event]]


def steady(n_samples: int, *, n_done: int, first_s: float, per_s: float, batch: int = 32) -> Timed:
    """A network that is traced first, then takes each batch in the same time; blocks of 10 batches."""
    now_s, n_passed = first_s, 0
    while n_passed < n_samples - n_done:
        n_passed += batch
        now_s += batch / per_s
        yield now_s, SamplesDone(n_done=n_passed)
        if n_passed % (10 * batch) == 0:
            yield now_s, BlockDone(block=0, n_samples=10 * batch, nbytes=1000)


def cluster(n_samples: int, *, n_workers: int, first_s: float, block_s: float, block: int = 100) -> Timed:
    """Workers that load TensorFlow first and finish their blocks almost together; no word of batches."""
    for i in range(n_samples // block):
        turn, worker = divmod(i, n_workers)
        yield first_s + (turn + 1) * block_s + 0.1 * worker, BlockDone(block=i, n_samples=block, nbytes=1000)


def slower(n_samples: int) -> Timed:
    """The disk's memory is full after a tenth: from then on a fifth of the pace."""
    now_s = 0.0
    for n_done in range(10, n_samples + 1, 10):
        now_s += 0.1 if n_done <= n_samples // 10 else 0.5
        yield now_s, SamplesDone(n_done=n_done)


def n_passed(timed: list[tuple[float, Event]]) -> int:
    return max([event.n_done for _, event in timed if isinstance(event, SamplesDone)], default=0)


def n_recorded(timed: list[tuple[float, Event]]) -> int:
    return sum(event.n_samples for _, event in timed if isinstance(event, BlockDone))


def lines_of(
    monkeypatch: pytest.MonkeyPatch, started: StageStarted, events: Timed
) -> list[tuple[float, str]]:
    """Return what is printed without a terminal, and when."""
    clock, shown = [0.0], []
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    text = io.StringIO()
    with JobProgress(Console(file=text, width=200)) as progress:
        progress(started)
        for now_s, event in events:
            clock[0] = now_s
            text.truncate(text.seek(0))
            progress(event)
            shown += [(now_s, line) for line in text.getvalue().splitlines()]
    return shown


def seconds_left(line: str) -> float | None:
    found = re.search(r"about ([\d,]+) s left", line)
    return None if found is None else float(found[1].replace(",", ""))


@pytest.mark.parametrize(
    ("events", "n_done", "tolerance", "from_part"),
    [
        (steady(32_000, n_done=0, first_s=12, per_s=100), 0, 0.05, 0.05),
        (steady(32_000, n_done=16_000, first_s=40, per_s=100), 16_000, 0.05, 0.21),
        (steady(4_000, n_done=0, first_s=3, per_s=1, batch=8), 0, 0.05, 0.01),
        (cluster(32_000, n_workers=4, first_s=15, block_s=20), 0, 0.15, 0.1),
        (cluster(32_000, n_workers=1, first_s=5, block_s=45), 0, 0.05, 0.05),
        (slower(32_000), 0, 0.1, 0.2),
    ],
    ids=["tracing first", "resumed", "a batch takes 8 s", "a cluster", "blocks of 45 s", "slower later"],
)
def test_the_time_left_is_about_what_it_takes(
    monkeypatch: pytest.MonkeyPatch, events: Timed, n_done: int, tolerance: float, from_part: float
) -> None:
    timed = list(events)
    end_s, n_samples = timed[-1][0], n_done + max(n_passed(timed), n_recorded(timed))
    started = StageStarted(stage="record", n_total=n_samples, n_done=n_done, unit="samples")
    shown = [
        (now_s, seconds_left(line))
        for now_s, line in lines_of(monkeypatch, started, iter(timed))
        if now_s > from_part * end_s
    ]

    assert len(shown) > 10
    for now_s, left_s in shown:
        assert left_s is not None
        assert left_s == pytest.approx(end_s - now_s, rel=tolerance, abs=0.02 * end_s)


def test_progress_counts_samples_as_they_pass_and_not_twice_when_their_block_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = StageStarted(stage="record", n_total=1500, n_done=500, unit="samples")
    events: list[tuple[float, Event]] = [
        (11, SamplesDone(n_done=400)),
        (22, BlockDone(block=1, n_samples=300, nbytes=2**20)),
        (33, BlockDone(block=2, n_samples=300, nbytes=2**20)),
        (44, SamplesDone(n_done=1000)),
    ]
    lines = [line for _, line in lines_of(monkeypatch, started, iter(events))]

    assert lines[0] == "recording activations: 900/1,500 samples"
    assert lines[1] == "recording activations: 900/1,500 samples, 1.0 MiB"
    assert lines[2].startswith(
        "recording activations: 1,100/1,500 samples, 9 samples/s, 2.0 MiB, about 44 s left"
    )
    assert lines[3].startswith(
        "recording activations: 1,500/1,500 samples, 17 samples/s, 2.0 MiB, about 0 s left"
    )


@pytest.mark.parametrize("width", [50, 80, 120])
def test_a_terminal_shows_samples_and_time_left(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    text = io.StringIO()
    with JobProgress(
        Console(file=text, width=width, force_terminal=True, _environ={"TERM": "xterm"})
    ) as progress:
        progress(StageStarted(stage="record", n_total=1600, unit="samples"))
        for i in range(1, 9):
            clock[0] = 7.0 + i
            progress(SamplesDone(n_done=100 * i))
        assert progress._bar is not None
        progress._bar.refresh()
        last = text.getvalue().splitlines()[-1]

    assert "800/1600" in last
    assert "0:00:08" in last


def called(folder: Path, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Call the command line in a process of its own, with TensorFlow's own messages; look into the path first."""
    env = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    if path is not None:
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(path), env.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "actisketch.pipeline", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=env)


@pytest.mark.parametrize("arguments", [("plan", "job.toml"), ("verify", "run", "--repair")])
def test_a_word_is_said_before_tensorflow_is_loaded(
    finished: Any, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    stand_in = tmp_path / "path" / "tensorflow"
    stand_in.mkdir(parents=True)
    (stand_in / "__init__.py").write_text("raise ImportError('no libtensorflow')")
    answer = called(finished["folder"], *arguments, path=stand_in.parent)

    said, *after = answer.stderr.splitlines()
    assert said == "loading TensorFlow and the network ..."
    assert "no libtensorflow" in "".join(after)


@pytest.mark.parametrize(
    "arguments",
    [("--quiet", "plan", "job.toml"), ("status", "run")],
    ids=["TensorFlow is silent too", "answers without it"],
)
def test_nothing_is_said_where_nobody_wants_to_hear_it_or_nothing_is_loaded(
    finished: Any, arguments: tuple[str, ...]
) -> None:
    answer = called(finished["folder"], *arguments)

    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""


def test_a_run_tells_of_samples_and_blocks_in_turn(tmp_path: Any) -> None:
    """In process every batch is told of; each sample once, and the block after its samples."""
    import keras
    import numpy as np

    from actisketch.pipeline import run

    heard: list[Event] = []
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, name="hidden")])
    samples = np.random.default_rng(7).standard_normal((150, 5)).astype(np.float32)
    settings = {
        "record": {"block_samples": 32},
        "normalize": {"enabled": False},
        "report": {"enabled": False},
    }
    for n_samples in (70, 150):
        run(
            model,
            samples[:n_samples],
            output=tmp_path / "run",
            batch_size=16,
            settings=settings,
            on_event=heard.append,
        )
    stages = [event for event in heard if isinstance(event, StageStarted) and event.stage == "record"]
    passed = [event.n_done for event in heard if isinstance(event, SamplesDone)]
    blocks = [event.n_samples for event in heard if isinstance(event, BlockDone)]

    assert [(s.n_done, s.n_total, s.unit) for s in stages] == [(0, 70, "samples"), (64, 150, "samples")]
    assert passed == [16, 32, 48, 64, 70, 16, 32, 48, 64, 80, 86]
    assert blocks == [32, 32, 6, 32, 32, 22]


def test_every_stage_has_a_label_and_no_other() -> None:
    assert set(STAGE_LABELS) == set(get_args(StageName))
