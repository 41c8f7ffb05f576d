"""Clients that take connections and do not use them: there is room for others, and nothing is left behind."""

from __future__ import annotations

import gc
import hashlib
import http.client
import json
import os
import resource
import socket
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from actisketch.pipeline.service import connections
from actisketch.pipeline.service.connections import most_connections

from .conftest import AUTHORIZED, served_here

API = "/api/v1/runs"


def ask(place, path="/healthz", method="GET"):
    """Status and body of an answer over a connection of its own."""
    connection = http.client.HTTPConnection(*place, timeout=20)
    try:
        connection.request(method, path, headers=AUTHORIZED)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def held(place) -> socket.socket:
    """A connection on which nothing is asked."""
    return socket.create_connection(place, timeout=20)


def wait_for(condition, limit_s=10.0):
    until_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.02)


@pytest.fixture
def large_network(root):
    """The old run with a network of 64 MiB, more than the buffers of a connection hold."""
    path = root / "old" / "normalized.keras"
    path.write_bytes(path.read_bytes() + bytes(64 * 2**20))
    manifest = root / "old" / "run.json"
    tree = json.loads(manifest.read_text())
    content = path.read_bytes()
    tree["stages"]["normalize"]["results"]["normalized.keras"] = {
        "nbytes": len(content),
        "blake2b": hashlib.blake2b(content, digest_size=16).hexdigest(),
    }
    tree.pop("content_hash", None)
    manifest.write_text(json.dumps(tree))
    return root


def test_idle_connections_make_room_for_those_who_ask(made_once):
    with served_here(made_once, n_connections=20) as place, ExitStack() as stack:
        idle = [stack.enter_context(held(place)) for _ in range(60)]
        for _ in range(3):
            assert ask(place) == (200, b'{"status":"ok"}')
        wait_for(lambda: idle[0].recv(1) == b"")  # the one that was idle for longest

        assert ask(place, f"{API}/first/points")[0] == 200


def test_when_all_connections_wait_for_answers_others_are_told_so(made_once):
    with served_here(made_once, n_connections=5) as place, ExitStack() as stack:
        for _ in range(5):
            following = stack.enter_context(held(place))
            lines = [f"GET {API}/half/events HTTP/1.1", "Host: 127.0.0.1"]
            lines += [f"{name}: {value}" for name, value in AUTHORIZED.items()]
            following.sendall("\r\n".join([*lines, "", ""]).encode())
            assert following.recv(100).startswith(b"HTTP/1.1 200")
        status, body = ask(place, API)
        told = json.loads(body)

        assert status == 503
        assert told["kind"] == "overloaded"
        assert "ask again in" in told["detail"]
    # The streams ended with the service.


def names_open_here(folder: Path) -> list[str]:
    found = []
    for entry in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{entry}"))
    return [name for name in found if name.startswith(str(folder))]


def test_downloads_that_are_broken_off_leave_no_open_file(large_network):
    gc.disable()  # what is closed by chance only stays open
    try:
        with served_here(large_network) as place:
            for _ in range(5):
                connection = http.client.HTTPConnection(*place, timeout=20)
                connection.request("GET", f"{API}/old/network", headers=AUTHORIZED)
                answer = connection.getresponse()
                assert answer.status == 200
                answer.read(1000)
                connection.sock.shutdown(socket.SHUT_RDWR)
                connection.close()
            wait_for(lambda: names_open_here(large_network) == [])
            status, body = ask(place, f"{API}/old/network")

            assert (status, len(body)) == (200, (large_network / "old" / "normalized.keras").stat().st_size)
            wait_for(lambda: names_open_here(large_network) == [])
    finally:
        gc.enable()


def test_a_client_that_does_not_read_its_answer_is_let_go(large_network, monkeypatch):
    monkeypatch.setattr(connections, "READING_S", 0.5)
    with served_here(large_network) as place, held(place) as lazy:
        request = f"GET {API}/old/network HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        request += "".join(f"{name}: {value}\r\n" for name, value in AUTHORIZED.items())
        lazy.sendall(f"{request}\r\n".encode())
        wait_for(lambda: names_open_here(large_network) != [])
        wait_for(lambda: names_open_here(large_network) == [])
        nbytes = 0
        with suppress(ConnectionResetError):
            while part := lazy.recv(2**20):
                nbytes += len(part)

        assert nbytes < 60 * 2**20


def test_a_body_that_never_comes_is_not_waited_for(made_once, monkeypatch):
    monkeypatch.setattr(connections, "REQUEST_S", 0.4)
    with served_here(made_once) as place, held(place) as slow:
        slow.sendall(b"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\nsecret=")
        begun_s = time.monotonic()

        assert slow.recv(10) == b""
        assert time.monotonic() - begun_s < 5


def test_a_body_of_unknown_length_has_a_limit(made_once):
    with served_here(made_once) as place, held(place) as large:
        large.sendall(b"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        with suppress(ConnectionError):
            for _ in range(20):
                large.sendall(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")

        assert large.recv(100).startswith(b"HTTP/1.1 413")


@contextmanager
def open_file_limit(soft: int, hard: int, monkeypatch):
    asked = {"limit": (soft, hard)}
    with monkeypatch.context() as patch:
        patch.setattr(resource, "getrlimit", lambda _: asked["limit"])
        patch.setattr(resource, "setrlimit", lambda _, limit: asked.update(limit=limit))
        yield asked


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "n"),
    [(1024, 1024, 1024, 768), (1024, 2**20, 2256, 2000), (256, 300, 300, 150), (65536, 65536, 65536, 2000)],
)
def test_connections_are_fewer_than_files_may_be_open(monkeypatch, soft, hard, raised, n):
    with open_file_limit(soft, hard, monkeypatch) as asked:
        assert most_connections() == n
        assert asked["limit"][0] == raised


@pytest.mark.parametrize(
    "path",
    ["/healthz", API, f"{API}/first/points", f"{API}/old/network", "/", f"{API}/nope", f"{API}/half/events"],
)
def test_head_is_get_without_the_body(made_once, path):
    with served_here(made_once) as place:
        connection = http.client.HTTPConnection(*place, timeout=20)
        answers = []
        for method in ("HEAD", "GET"):
            connection.request(method, path, headers=AUTHORIZED)
            answer = connection.getresponse()
            answers.append((answer.status, answer.headers["content-length"], answer.headers["etag"]))
            if method == "HEAD":
                assert answer.read() == b""
        connection.close()

    assert answers[0] == answers[1]
