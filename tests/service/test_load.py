"""Long questions, and many readers at a time, over real connections."""

from __future__ import annotations

import http.client
import re
import shutil
import threading
import time
from pathlib import Path

import pytest

from actisketch.pipeline.service import open_runs

from .conftest import AUTHORIZED, N_SAMPLES, POINTS, MadeRun, served_here, values_of

API = "/api/v1/runs"


class SlowChunks:
    """Reading a chunk takes a while; counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from actisketch.storage import cache

        self.n_read, decode = 0, cache.decode

        def slow(*arguments: object, **more: object) -> object:
            self.n_read += 1
            time.sleep(0.1)
            return decode(*arguments, **more)

        monkeypatch.setattr(cache, "decode", slow)


@pytest.fixture
def slow_run(tmp_path):
    """A run of 20 blocks, with buckets so wide that exact percentiles have to read the activations."""
    MadeRun(tmp_path / "root" / "slow", changes={"sketch": {"bits": 12}}, n_samples=120).begin().record()
    return tmp_path / "root"


def test_a_question_that_takes_too_long_is_stopped(slow_run, client_of, monkeypatch):
    chunks = SlowChunks(monkeypatch)
    client = client_of(slow_run, time_limit_s=0.5, n_long_threads=1, n_long_waiting=0)
    answer = client.get(f"{API}/slow/percentile?q=60&exact=true")

    assert answer.status_code == 504
    assert "--time-limit" in answer.json()["detail"]
    assert answer.headers["retry-after"]
    time.sleep(0.3)
    n_read = chunks.n_read
    time.sleep(0.4)
    assert chunks.n_read == n_read < 15


def test_runs_whose_opening_takes_longer_than_the_limit_are_opened_once(root, client_of, monkeypatch):
    begun, may_end, merge = [], threading.Event(), open_runs.recorded_so_far

    def merge_slowly(run, *rest):
        begun.append(run.folder.path.name)
        may_end.wait(30)
        return merge(run, *rest)

    monkeypatch.setattr(open_runs, "recorded_so_far", merge_slowly)
    runs = [f"copy{i}" for i in range(9)]  # one more than threads that open runs
    for name in runs:
        shutil.copytree(root / "first", root / name)
    client = client_of(root, time_limit_s=0.2, fresh_s=3600.0)

    def ask(name):
        return client.get(f"{API}/{name}/percentile?q=100&point=conv")

    tried = [ask(name) for name in runs * 2]

    assert {(answer.status_code, answer.json()["kind"]) for answer in tried} == {(504, "too-long")}
    assert sorted(begun) == runs[:8]
    may_end.set()
    for name in runs:
        while (answer := ask(name)).status_code == 504:
            pass
        (row,) = answer.json()["percentiles"]
        assert row["value"] == values_of(POINTS[0], 0, N_SAMPLES).max()
    assert sorted(begun) == runs


def test_a_question_whose_client_has_gone_is_stopped_and_others_wait_their_turn(slow_run, monkeypatch):
    chunks = SlowChunks(monkeypatch)
    with served_here(slow_run, n_long_threads=1, n_long_waiting=0) as place:
        first = http.client.HTTPConnection(*place)
        first.request("GET", f"{API}/slow/percentile?q=60&exact=true", headers=AUTHORIZED)
        while not chunks.n_read:
            time.sleep(0.01)
        second = http.client.HTTPConnection(*place)
        second.request("GET", f"{API}/slow/percentile?q=61&exact=true", headers=AUTHORIZED)
        refused = second.getresponse()

        assert refused.status == 503
        assert b"ask again" in refused.read()
        second.request("GET", f"{API}/slow/percentile?q=61", headers=AUTHORIZED)
        assert second.getresponse().read().startswith(b'{"run":"slow"')

        first.close()
        time.sleep(0.8)
        n_read = chunks.n_read
        time.sleep(0.4)

        assert chunks.n_read == n_read < 30
        second.close()


@pytest.mark.parametrize("question", ["runs/slow/factors", "runs/slow/factors?format=csv"])
def test_factors_of_a_run_that_has_exact_ones_are_long_questions(tmp_path, monkeypatch, question):
    chunks = SlowChunks(monkeypatch)
    changes = {"sketch": {"bits": 12}, "factors": {"exact": True}}
    MadeRun(tmp_path / "root" / "slow", changes=changes, n_samples=120).begin().record()
    with served_here(tmp_path / "root", n_long_threads=1, n_long_waiting=0, n_threads=1) as place:
        first = http.client.HTTPConnection(*place)
        first.request("GET", f"/api/v1/{question}", headers=AUTHORIZED)
        while not chunks.n_read:
            time.sleep(0.01)
        second = http.client.HTTPConnection(*place)
        second.request("GET", f"{API}/slow/factors", headers=AUTHORIZED)
        refused = second.getresponse()
        assert (refused.status, refused.headers["retry-after"] is not None) == (503, True)
        refused.read()
        second.request("GET", f"{API}/slow/factors?exact=false", headers=AUTHORIZED)
        assert second.getresponse().read().startswith(b'{"run":"slow"')
        second.close()

        first.close()  # the client goes away: nothing more is read for it
        time.sleep(0.8)
        n_read = chunks.n_read
        time.sleep(0.4)
        assert chunks.n_read == n_read < 35


def test_a_disk_that_hangs_under_some_runs_holds_up_no_others(made_once, monkeypatch):
    from actisketch.pipeline.service import live, open_runs, run_root

    waits, is_over = threading.Semaphore(0), threading.Event()

    def hang(function, is_slow):
        def slow(*arguments, **more):
            if is_slow(*arguments):
                waits.release()
                is_over.wait(20)
            return function(*arguments, **more)

        return slow

    def is_other(folder):
        return folder.name in ("other", "old")

    monkeypatch.setattr(open_runs, "open_run", hang(open_runs.open_run, is_other))
    monkeypatch.setattr(live, "open_run", hang(live.open_run, is_other))
    monkeypatch.setattr(run_root, "_listed", hang(run_root._listed, lambda *_: True))
    slow = [f"{API}/{run}{what}" for run in ("other", "old") for what in ("/points", "/live", "")] + [API]
    with served_here(made_once) as place:
        askers = [threading.Thread(target=ask_once, args=(place, path)) for path in slow * 3]
        for asker in askers:
            asker.start()
        for _ in range(5):  # each run is read once for its answers and once for what goes on; the list once
            assert waits.acquire(timeout=10)
        begun = time.monotonic()
        for what in ("/points", "/live", "", "/percentile?q=5"):
            assert ask_once(place, f"{API}/first{what}") == 200
        assert time.monotonic() - begun < 5
        is_over.set()
        for asker in askers:
            asker.join()


def ask_once(place: tuple[str, int], path: str) -> int:
    connection = http.client.HTTPConnection(*place, timeout=60)
    connection.request("GET", path, headers=AUTHORIZED)
    status = connection.getresponse().status
    connection.close()
    return status


def ask_all_the_time(
    place: tuple[str, int], until: threading.Event, problems: list[str], times: list[float]
) -> None:
    """Ask for the maximum, which never falls while more is recorded."""
    connection, largest = http.client.HTTPConnection(*place, timeout=60), 0.0
    while not until.is_set():
        begun = time.perf_counter()
        connection.request("GET", f"{API}/growing/percentile?q=100&point=conv", headers=AUTHORIZED)
        answer = connection.getresponse()
        body = answer.read()
        times.append(time.perf_counter() - begun)
        found = re.search(rb'"value":([0-9.]+)', body)
        if answer.status != 200 or (found and float(found[1]) < largest):
            problems.append(body.decode()[:500])
            return
        largest = float(found[1]) if found else largest
    connection.close()


def read_while_recording(root: Path, *, n_readers: int, n_blocks: int) -> tuple[list[str], list[float]]:
    """Many readers while a run is recorded; return what went wrong, and how long each answer took."""
    made = MadeRun(root / "growing", n_samples=6 * n_blocks).begin()
    problems: list[str] = []
    times: list[float] = []
    until = threading.Event()
    with served_here(root) as place:
        readers = [
            threading.Thread(target=ask_all_the_time, args=(place, until, problems, times))
            for _ in range(n_readers)
        ]
        for reader in readers:
            reader.start()
        for _ in range(n_blocks):
            made.record(1)
        made.finish()
        until.set()
        for reader in readers:
            reader.join()
    return problems, times


def test_readers_of_a_run_that_is_recorded_never_see_an_error(tmp_path):
    problems, times = read_while_recording(tmp_path, n_readers=8, n_blocks=25)

    assert problems == []
    assert len(times) > 25
