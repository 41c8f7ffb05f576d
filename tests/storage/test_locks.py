"""One writer at a time; a lock of a dead process needs no human. Real processes, a real S3 server."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import PreconditionError

from actisketch.storage import Cache, locks
from actisketch.storage.errors import BusyError, StorageError
from actisketch.storage.leases import LEASE_S, Lease
from actisketch.storage.locks import FileLock, Holder
from actisketch.storage.objects import Bucket, open_bucket

from . import made_up
from .conftest import BUCKET, Place, S3Server

HOLD = r"""
import sys, time, json, os
from actisketch.storage.stores import open_store
lock = open_store(sys.argv[1], json.loads(sys.argv[2])).lock(".actisketch/lock")
if len(sys.argv) > 3 and os.fork() == 0:
    os.write(1, b"%d\n" % os.getpid())
    time.sleep(600)
os.write(1, b"%d\n" % os.getpid())
time.sleep(600)
"""


def gone(**where: str) -> Holder:
    """A holder whose process id another process has now, if it counts where this process is."""
    me = Holder.me()
    return dataclasses.replace(me, started_s=me.started_s - 60, **where)


class Held:
    """A process that holds the lock of a place."""

    def __init__(self, url: str, options: dict[str, Any] | None, *more: str) -> None:
        command = [sys.executable, "-c", HOLD, url, json.dumps(options or {}), *more]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.pids = [int(self.process.stdout.readline()) for _ in range(1 + len(more))]

    def __enter__(self) -> Held:
        return self

    def kill(self) -> None:
        """End the holder, as the kernel would; not its child."""
        self.process.kill()
        self.process.wait()

    def __exit__(self, *error: object) -> None:
        self.kill()
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                if pid != self.process.pid:
                    os.kill(pid, signal.SIGKILL)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "local":
        return Place(str(tmp_path / "cache"), None)
    return Place(f"s3://{BUCKET}/{uuid.uuid4()}", request.getfixturevalue("s3").options)


@pytest.mark.parametrize("place", ["local", "s3"], indirect=True)
def test_a_live_process_is_named_and_a_killed_one_is_taken_over_at_once(place: Place) -> None:
    with Held(*place) as holder:
        with pytest.raises(
            BusyError, match=f"process {holder.pids[0]} on {socket.gethostname()} is writing to"
        ):
            Cache.create_or_resume(place.url, made_up.spec(), place.options)
        holder.kill()

        start_s = time.monotonic()
        with Cache.create_or_resume(place.url, made_up.spec(), place.options) as cache:
            made_up.fill(cache)
        assert time.monotonic() - start_s < LEASE_S / 2


def test_a_child_that_outlives_the_holder_does_not_keep_the_lock(tmp_path: Path) -> None:
    with Held(str(tmp_path), None, "with a child") as holder:
        holder.kill()
        with open(tmp_path / ".actisketch/lock") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

        FileLock.acquire(tmp_path / ".actisketch/lock").release()


def test_a_process_id_that_was_given_again_is_not_taken_for_the_holder() -> None:
    me = Holder.me()

    assert not me.is_dead
    assert Holder(host=me.host, pid=me.pid, started_s=me.started_s - 60, since_s=0).is_dead
    assert not Holder(host="elsewhere", pid=me.pid, started_s=0, since_s=0).is_dead


def test_a_process_of_another_container_with_this_host_name_keeps_its_lock(tmp_path: Path) -> None:
    """It holds the flock, and its process id says nothing here; nor does one of another machine of this name."""
    for where in ({"pid_namespace": "pid:[7]"}, {"boot": "another"}):
        lock = FileLock.acquire(tmp_path / "lock")
        (tmp_path / "lock").write_bytes(gone(**where).encode())

        with pytest.raises(BusyError, match=f"process {os.getpid()} on"):
            FileLock.acquire(tmp_path / "lock")
        lock.check()
        lock.release()


def test_a_container_does_not_take_the_lock_of_a_live_process_outside(tmp_path: Path) -> None:
    inside = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("this user may make no namespaces")
    take = (
        "import sys; from pathlib import Path; from actisketch.storage.locks import FileLock; "
        "FileLock.acquire(Path(sys.argv[1]))"
    )
    lock = FileLock.acquire(tmp_path / "lock")
    command = [*inside, sys.executable, "-c", take, str(tmp_path / "lock")]
    said = subprocess.run(command, capture_output=True, text=True)

    assert f"BusyError: process {os.getpid()} on" in said.stderr
    lock.check()
    lock.release()


def test_a_lock_that_nobody_holds_is_free_whatever_its_text_says(tmp_path: Path) -> None:
    """After a restart of the machine, or of a container."""
    (tmp_path / "lock").write_bytes(gone(pid_namespace="pid:[7]", boot="earlier").encode())

    FileLock.acquire(tmp_path / "lock").release()


@pytest.mark.parametrize("text", [b"", b"{}", b"nonsense", b'{"pid": "x"}', b"[1]", b"\xff"])
def test_a_lock_file_with_anything_in_it_is_free_when_nobody_holds_it(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "lock").write_bytes(text)
    lock = FileLock.acquire(tmp_path / "lock")

    assert Holder.parse((tmp_path / "lock").read_bytes()) is not None
    lock.release()
    lock.release()
    assert (tmp_path / "lock").read_bytes() == b""


class TestWithoutFlock:
    @pytest.fixture(autouse=True)
    def no_flock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(locks, "_flock", lambda descriptor: None)

    def test_a_live_process_of_this_host_keeps_others_out(self, tmp_path: Path) -> None:
        lock = FileLock.acquire(tmp_path / "lock")
        with pytest.raises(BusyError, match=f"process {os.getpid()}"):
            FileLock.acquire(tmp_path / "lock")
        lock.release()

        FileLock.acquire(tmp_path / "lock").release()

    def test_a_dead_process_of_this_host_does_not(self, tmp_path: Path) -> None:
        me = Holder.me()
        dead = Holder(host=me.host, pid=me.pid, started_s=me.started_s - 60, since_s=0)
        (tmp_path / "lock").write_bytes(dead.encode())

        FileLock.acquire(tmp_path / "lock").release()

    @pytest.mark.parametrize(
        ("boot", "namespace", "is_dead"),
        [
            ("now", "pid:[4026531836]", True),
            ("earlier", "pid:[4026531836]", True),  # the machine itself was restarted
            ("now", "pid:[7]", False),
            ("earlier", "pid:[7]", False),
        ],
    )
    def test_a_process_of_this_machine_is_dead_after_a_restart_and_one_of_a_container_is_not_known(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, boot: str, namespace: str, is_dead: bool
    ) -> None:
        monkeypatch.setattr(locks, "_where", lambda: ("now", "pid:[4026531836]"))
        (tmp_path / "lock").write_bytes(gone(boot=boot, pid_namespace=namespace).encode())
        with contextlib.nullcontext() if is_dead else pytest.raises(BusyError):
            FileLock.acquire(tmp_path / "lock").release()

        # A container that has the number of an earlier one is still not known to be on the same machine.
        monkeypatch.setattr(locks, "_where", lambda: ("later", "pid:[7]"))
        (tmp_path / "lock").write_bytes(gone(boot=boot, pid_namespace="pid:[7]").encode())
        with pytest.raises(BusyError):
            FileLock.acquire(tmp_path / "lock")

    def test_where_the_system_names_no_namespaces_the_process_id_decides(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(locks, "_where", lambda: ("", ""))
        (tmp_path / "lock").write_bytes(gone().encode())

        FileLock.acquire(tmp_path / "lock").release()

    def test_another_host_is_believed(self, tmp_path: Path) -> None:
        holder = Holder(host="node7", pid=1, started_s=0, since_s=0)
        (tmp_path / "lock").write_bytes(holder.encode())

        with pytest.raises(BusyError, match=r"process 1 on node7 is writing to .* since 1970-01-01T00:00:00"):
            FileLock.acquire(tmp_path / "lock")


def test_a_lock_that_was_taken_away_stops_the_writer(tmp_path: Path) -> None:
    with Cache.create_or_resume(tmp_path, made_up.spec()) as cache:
        made_up.record(cache, cache.blocks[0])
        (tmp_path / ".actisketch/lock").unlink()

        with pytest.raises(BusyError):
            made_up.record(cache, cache.blocks[1])


@pytest.mark.parametrize(
    ("what", "told"), [("cache", "removed it while"), ("cache/.actisketch/lock", "removed its lock file")]
)
def test_a_folder_that_was_removed_is_not_called_busy(tmp_path: Path, what: str, told: str) -> None:
    with Cache.create_or_resume(tmp_path / "cache", made_up.spec()) as cache:
        made_up.record(cache, cache.blocks[0])
        (tmp_path / what).rename(tmp_path / "away")

        with pytest.raises(BusyError, match=told):
            made_up.record(cache, cache.blocks[1])


class TestLease:
    """Quick beats, on a real S3 server and in memory; a lease is so long that a slow machine keeps it."""

    @pytest.fixture(params=["memory", "s3"])
    def bucket(self, request: pytest.FixtureRequest) -> Iterator[Bucket]:
        if request.param == "memory":
            yield open_bucket(f"memory://{uuid.uuid4()}", {})
        else:
            server: S3Server = request.getfixturevalue("s3")
            yield open_bucket(f"s3://{BUCKET}/{uuid.uuid4()}", server.options)

    def acquire(self, bucket: Bucket, *, lease_s: float = 60.0) -> Lease:
        return Lease.acquire(bucket, "lock", lease_s=lease_s, beat_s=0.1)

    def test_a_beating_holder_is_left_alone_whatever_the_clocks_say(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lease = self.acquire(bucket)
        with monkeypatch.context() as patch:
            patch.setattr("actisketch.storage.leases.time.time", lambda: 0.0)
            with pytest.raises(BusyError, match=f"process {os.getpid()}"):
                self.acquire(bucket)
        lease.check()
        lease.release()
        lease.release()

        self.acquire(bucket).release()

    def test_a_silent_holder_on_another_host_is_taken_over_and_finds_out(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        silent = self.acquire(bucket)
        monkeypatch.setattr(silent, "_put", lambda *a: pytest.fail("a silent holder does not put"))
        silent._stop.set()
        silent._thread.join()
        with monkeypatch.context() as patch:
            patch.setattr(Holder, "is_dead", False)
            patch.setattr("actisketch.storage.leases.time.time", lambda: 0.0)
            mine = self.acquire(bucket, lease_s=2.0)
        silent._lost = True

        with pytest.raises(BusyError):
            silent.check()
        mine.check()
        mine.release()

    def test_a_holder_whose_lock_was_replaced_is_told_by_its_next_beat(self, bucket: Bucket) -> None:
        lease = self.acquire(bucket)
        bucket.write("lock", [Holder(host="other", pid=1, started_s=0, since_s=0).encode()])
        lease._thread.join()  # it beats until it is told

        with pytest.raises(BusyError, match="process 1 on other"):
            lease.check()
        lease.release()
        assert b"other" in (bucket.read("lock") or b"")

    @pytest.mark.parametrize("where", [{"pid_namespace": "pid:[7]"}, {"boot": "another"}])
    def test_a_beating_holder_of_another_container_with_this_host_name_is_left_alone(
        self, bucket: Bucket, where: dict[str, str]
    ) -> None:
        note = json.dumps({**json.loads(gone(**where).encode()), "token": "7", "beat_s": time.time() + 0.05})
        bucket.write("lock", [note.encode()])
        with pytest.raises(BusyError, match=f"process {os.getpid()}"):
            Lease.acquire(bucket, "lock", lease_s=60.0, beat_s=15.0)

        assert bucket.read("lock") == note.encode()

    @pytest.mark.parametrize("error", [StorageError("no network"), RuntimeError("of the client")])
    def test_a_beat_that_fails_in_any_way_is_not_the_last(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        lease, put = self.acquire(bucket), obstore.put
        failed, beaten = threading.Event(), threading.Event()

        def put_and_lose_the_answer(store: Any, key: str, body: bytes, mode: Any) -> Any:
            with contextlib.suppress(PreconditionError):
                put(store, key, body, mode=mode)
            raise PreconditionError("of the client's second attempt")

        def get(*_: Any) -> Any:
            failed.set()
            raise error

        def put_again(*args: Any, **more: Any) -> Any:
            done = put(*args, **more)
            beaten.set()
            return done

        with monkeypatch.context() as patch:
            patch.setattr("actisketch.storage.connection._WAITS_S", ())
            patch.setattr(obstore, "put", put_and_lose_the_answer)
            patch.setattr(obstore, "get", get)
            assert failed.wait(30)
        monkeypatch.setattr(obstore, "put", put_again)

        assert beaten.wait(30)
        lease.check()
        lease.release()
        assert json.loads(bucket.read("lock") or b"") == {"released": True}

    def test_a_holder_without_beats_is_told_that_another_has_the_lock(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However its thread came to an end."""
        monkeypatch.setattr(threading.Thread, "start", lambda thread: None)
        lease = self.acquire(bucket, lease_s=0.1)
        bucket.write("lock", [Holder(host="other", pid=1, started_s=0, since_s=0).encode()])
        time.sleep(0.2)

        with pytest.raises(BusyError, match="process 1 on other"):
            lease.check()

    def test_a_server_that_ignores_conditions_is_warned_of(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        put = obstore.put
        monkeypatch.setattr(obstore, "put", lambda store, key, body, mode: put(store, key, body))
        lease = self.acquire(bucket)

        assert "ignores conditional writes" in caplog.text
        lease.release()
