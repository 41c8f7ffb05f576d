"""Writes that fail: at every call of a small run, on a full disk, in a read-only folder, for a while."""

from __future__ import annotations

import contextlib
import errno
import http.client
import http.server
import logging
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from actisketch.storage import Cache, connection, objects
from actisketch.storage.errors import IncompleteError, InputError, StorageError
from actisketch.storage.local import LocalFolder

from ..on_disk import contents
from . import made_up
from .conftest import BUCKET, S3Server


class FailsAt:
    """Counts the calls of the store that change something, and fails one of them."""

    def __init__(self, patch: pytest.MonkeyPatch, n: int, error: OSError) -> None:
        self.n_calls = 0
        self._n, self._error = n, error
        for name in ("write", "write_durably", "sync", "delete"):
            patch.setattr(LocalFolder, name, self._wrapped(getattr(LocalFolder, name)))

    def _wrapped(self, method: Any) -> Any:
        def call(store: LocalFolder, *arguments: Any) -> Any:
            self.n_calls += 1
            if self.n_calls == self._n:
                raise StorageError("injected", errno=self._error.errno) from self._error
            return method(store, *arguments)

        return call


def run(folder: Path) -> None:
    with Cache.create_or_resume(folder, made_up.spec()) as cache:
        made_up.fill(cache)


def test_a_write_that_fails_at_any_call_loses_nothing_that_was_committed(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        counter = FailsAt(patch, -1, OSError())
        run(tmp_path / "whole")
    whole = contents(tmp_path / "whole", without=())
    assert counter.n_calls >= 30
    for n in range(1, counter.n_calls + 1):
        folder = tmp_path / f"{n}"
        with pytest.MonkeyPatch.context() as patch:
            FailsAt(patch, n, OSError(errno.EIO, "injected"))
            with pytest.raises(StorageError, match="injected"):
                run(folder)
        committed = len(list(folder.glob(".actisketch/commits/*.block")))
        if (folder / ".actisketch/cache.json").exists():
            with Cache.create_or_resume(folder, made_up.spec()) as cache:
                assert len(cache.missing()) == 5 - committed
                assert cache.verify().is_sound
        run(folder)

        assert contents(folder, without=()) == whole
        shutil.rmtree(folder)


@pytest.mark.parametrize("where", ["os.write", "os.replace", "os.fsync"])
@pytest.mark.parametrize("n", [1, 5, 20])
def test_a_system_call_that_fails_leaves_no_half_written_file(
    tmp_path: Path, where: str, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, _, name = where.partition(".")
    assert module == "os"
    call, count = getattr(os, name), Counter[str]()

    def failing(*arguments: Any) -> Any:
        count[name] += 1
        if count[name] == n:
            raise OSError(errno.ENOSPC, "No space left on device")
        return call(*arguments)

    monkeypatch.setattr(os, name, failing)
    with pytest.raises(StorageError, match="could not") as caught:
        run(tmp_path / "cache")
    monkeypatch.undo()

    assert caught.value.exit_code == 7
    assert "bytes were needed" in str(caught.value)
    assert list((tmp_path / "cache/.actisketch").glob("tmp/*")) == []
    run(tmp_path / "cache")
    with Cache.open(tmp_path / "cache") as cache:
        made_up.check(cache)


def mounted(folder: Path, *options: str) -> bool:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, check=False)
    return done.returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    if not mounted(folder, "-t", "tmpfs", "-o", "size=160k", "tmpfs"):
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_says_how_much_was_needed_and_the_run_goes_on_where_there_is_room(
    small_disk: Path,
) -> None:
    spec = made_up.spec(n_samples=800, block_samples=80)
    with Cache.create_or_resume(small_disk / "cache", spec) as cache, pytest.raises(StorageError) as caught:
        made_up.fill(cache)

    assert caught.value.facts["needed_nbytes"] > 0
    assert caught.value.facts["free_nbytes"] < 160_000
    assert caught.value.facts["errno"] == errno.ENOSPC
    assert "make room, or run with another folder" in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert list((small_disk / "cache/.actisketch/tmp").iterdir()) == []
    committed = len(Cache.open(small_disk / "cache").committed())
    assert 0 < committed < 10
    subprocess.run(["mount", "-o", "remount,size=10M", str(small_disk)], check=True)
    with Cache.create_or_resume(small_disk / "cache", spec) as cache:
        assert len(cache.missing()) == 10 - committed
        made_up.check(made_up.fill(cache))
        assert cache.verify().problems == ()


def test_a_read_only_folder_is_refused_for_writing_and_fine_for_reading(tmp_path: Path) -> None:
    run(tmp_path / "cache")
    with Cache.create_or_resume(tmp_path / "cache", made_up.spec(n_samples=45)):
        pass
    if not mounted(tmp_path / "read", "--bind", str(tmp_path / "cache")):
        pytest.skip("mounting read-only needs root")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(tmp_path / "read")], check=True)
        with pytest.raises(StorageError, match=r"choose a folder that this user may write to, or only read"):
            Cache.create_or_resume(tmp_path / "read", made_up.spec())
        with pytest.raises(StorageError, match="choose a folder that this user may write to"):
            made_up.record(Cache.attach(tmp_path / "read"), made_up.spec(n_samples=45).block(5))

        with Cache.open(tmp_path / "read") as cache:
            assert [block.index for block in cache.missing()] == [4, 5]
            assert cache.verify().is_sound
            assert cache.read_block("all zero", cache.blocks[3]).shape == (8, 7)
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "read")], check=True)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")

    with pytest.raises(StorageError, match="could not lock"):
        Cache.create_or_resume(tmp_path / "cache", made_up.spec())


class FailsForAWhile(http.server.BaseHTTPRequestHandler):
    """Hands requests on to the real server, but answers some with an error or not at all."""

    protocol_version = "HTTP/1.1"
    target = ""
    n_requests = 0
    harm = "none"
    guard = threading.Lock()

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        with self.guard:
            type(self).n_requests += 1
            is_bad = self.n_requests % 3 == 0
        if is_bad and self.harm == "hang up":
            self.close_connection = True
            self.connection.close()
            return
        if is_bad and self.harm == "server error":
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        upstream = http.client.HTTPConnection(self.target)
        upstream.request(
            self.command, self.path, body, {k: v for k, v in self.headers.items() if k != "Host"}
        )
        answer = upstream.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"transfer-encoding", "content-length", "connection", "server", "date"}:
                self.send_header(name, value)
        is_head = self.command == "HEAD"
        self.send_header(
            "Content-Length", answer.getheader("Content-Length", "0") if is_head else str(len(content))
        )
        self.end_headers()
        if not is_head:
            self.wfile.write(content)
        upstream.close()

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = handle_any

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def proxy(s3: S3Server, harm: str) -> Iterator[tuple[str, type[FailsForAWhile]]]:
    handler = type(
        "Handler", (FailsForAWhile,), {"target": s3.endpoint.removeprefix("http://"), "harm": harm}
    )
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", handler
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("harm", ["server error", "hang up"])
def test_a_bucket_that_fails_every_third_request_is_tried_again(
    s3: S3Server, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_WAITS_S", (0.001, 0.001, 0.001))
    url = f"s3://{BUCKET}/flaky {harm}".replace(" ", "-")
    with proxy(s3, harm) as (endpoint, handler):
        quick = {"max_retries": 1, "backoff": {"base": 2, "init_backoff": timedelta(milliseconds=1)}}
        options = {**s3.options, "endpoint": endpoint, "retry_config": quick}
        with Cache.create_or_resume(url, made_up.spec(), options) as cache:
            made_up.fill(cache)
            made_up.check(cache)
            assert cache.verify().problems == ()
        assert handler.n_requests > 60

    with Cache.create_or_resume(url, made_up.spec(), s3.options) as cache:
        assert cache.missing() == ()


def test_a_bucket_that_stays_away_is_an_error_and_the_run_can_go_on_later(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection, "_WAITS_S", (0.0, 0.01))
    url = f"s3://{BUCKET}/away"
    patient = {"retry_config": {"max_retries": 0}, **s3.options}
    with Cache.create_or_resume(url, made_up.spec(), patient) as cache:
        made_up.record(cache, cache.blocks[0])
        healthy = cache.store.obstore  # type: ignore[attr-defined]  # a bucket, not a folder
        cache.store.obstore = objects.open_bucket(url, {**patient, "endpoint": "http://127.0.0.1:9"}).obstore  # type: ignore[attr-defined]  # the same
        with (
            caplog.at_level(logging.WARNING),
            pytest.raises(StorageError, match="run again: what is committed"),
        ):
            made_up.record(cache, cache.blocks[1])
        cache.store.obstore = healthy  # type: ignore[attr-defined]  # the same

        assert "trying again in 0.01 s" in caplog.text
        assert [block.index for block in cache.missing()] == [1, 2, 3, 4]
        made_up.check(made_up.fill(cache))


def test_a_bucket_that_is_not_there_is_told(s3: S3Server) -> None:
    with pytest.raises(StorageError, match="check that the bucket exists"):
        Cache.open("s3://no-such-bucket/x", s3.options)
    with pytest.raises(StorageError, match="check that the bucket exists"):
        Cache.create_or_resume("s3://no-such-bucket/x", made_up.spec(), s3.options)


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("foo://bucket/x", {}, "is not a place that this program can open"),
        ("s3://bucket/x", {"colour": "blue"}, r"storage_options \['colour'\] do not fit"),
        (
            "s3://bucket/x",
            {"allow_http": True, "timeout": "5s"},
            r"\['allow_http', 'timeout'\] .* client_options",
        ),
        ("gs://bucket/x", {"proxy_url": "http://p"}, r"\['proxy_url'\] .* client_options"),
        ("s3://bucket/x", {"aws_allow_http": True}, r"\['aws_allow_http'\] .* client_options"),
        ("memory://x", {"region": "y"}, "leave them out"),
        ("/tmp/x", {"region": "y"}, "leave them out"),
        ("file://host/x", None, "names the host 'host'.*: give file:///path with three slashes"),
        ("file://runs/cache", None, "names the host 'runs'"),
        ("file:///a?q", None, "percent-encode them .%3F for"),
        ("file:///a#b?q", None, "percent-encode them"),
        ("file:///a#", None, "percent-encode them"),
        ("file://", None, "has no path"),
        ("s3:/bucket/x", None, r"'s3:/bucket/x' is no URL: give s3://bucket/x, or ./s3:/bucket/x for"),
        ("S3:bucket", None, "give S3://bucket"),
        ("gs:bucket/x", None, "give gs://bucket/x"),
        ("file:/tmp/x", None, "is no URL: give file:///tmp/x"),
        ("", None, "is empty"),
        ("file://localhost", None, "has no path"),
    ],
)
def test_urls_and_options_that_make_no_sense_are_refused(
    url: str, options: dict[str, Any] | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Cache.open(url, options)
    with pytest.raises(InputError, match=message):
        Cache.create_or_resume(url, made_up.spec(), options)


@pytest.mark.parametrize("host", ["", "localhost", "LOCALHOST"])
def test_odd_letters_in_a_file_url_are_percent_encoded(tmp_path: Path, host: str) -> None:
    folder = tmp_path / "100 % a#b?q"
    run(folder)

    with Cache.open(f"file://{host}{urllib.parse.quote(str(folder))}") as cache:
        assert cache.url == str(folder)
        made_up.check(cache)


def test_a_killed_process_leaves_no_half_written_files_behind_the_next_run(tmp_path: Path) -> None:
    run(tmp_path / "cache")
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    folder = tmp_path / "cache/.actisketch/tmp"
    mine, theirs = f"{os.uname().nodename}.{os.getpid()}.99", f"{os.uname().nodename}.{int(dead.stdout)}.0"
    young, old = "another.host.1.0", "pod-abc.7.0"
    for name in (mine, theirs, young, old, "notes.txt"):
        (folder / name).write_bytes(b"half")
    for name in (old, "notes.txt"):
        os.utime(folder / name, (time.time() - 25 * 3600,) * 2)
    before = {p.key: p.detail for p in Cache.open(tmp_path / "cache").verify().problems}
    run(tmp_path / "cache")
    report = Cache.open(tmp_path / "cache").verify()

    assert sorted(path.name for path in folder.iterdir()) == sorted([mine, young, "notes.txt"])
    assert sorted(key.rpartition("/")[2] for key in before) == sorted([theirs, young, old, "notes.txt"])
    assert "the next run removes it" in before[f".actisketch/tmp/{theirs}"]
    assert [(p.kind, p.key.rpartition("/")[2]) for p in sorted(report.problems, key=lambda p: p.key)] == [
        ("leftover", young),
        ("leftover", "notes.txt"),
    ]
    assert "process 1 of another.host: a run removes it once it is a day old" in str(report.problems)
    assert report.is_sound
    assert report.is_complete
    assert report.damaged == report.foreign == ()


def test_incomplete_is_not_damage(tmp_path: Path) -> None:
    with (
        Cache.create_or_resume(tmp_path / "cache", made_up.spec()) as cache,
        pytest.raises(IncompleteError, match="run again to resume"),
    ):
        cache.read_block("all zero", cache.blocks[0])
