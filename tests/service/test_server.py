"""The service as its own process and over real connections: addresses, signals, strange requests, slow clients."""

from __future__ import annotations

import http.client
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from actisketch.pipeline.exporters import exporter_names, load_exporter
from actisketch.pipeline.service import connections

from .conftest import TOKEN, served_here

API = "/api/v1/runs"


def command(*arguments: object, is_quiet: bool = False) -> list[str]:
    quiet = ["--quiet"] if is_quiet else []
    return [sys.executable, "-m", "actisketch.pipeline", *quiet, "serve", *map(str, arguments)]


@contextmanager
def started(
    *arguments: object, is_quiet: bool = False, n_files: int | None = None, **environment: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A service in a process of its own, and the address that it printed; quiet, it logs no requests.

    It may open at most `n_files` files.
    """
    limit = (
        None if n_files is None else lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (n_files, n_files))
    )
    process = subprocess.Popen(
        command(*arguments, "--port", 0, is_quiet=is_quiet),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        preexec_fn=limit,
    )
    with process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address.startswith("http://"), process.communicate()[1]
            yield process, address
        finally:
            process.kill()


@pytest.fixture(scope="module")
def served(made_once):
    with started(made_once, ACTISKETCH_TOKEN=TOKEN) as (process, address):
        yield process, address


def raw(address: str, request: bytes) -> bytes:
    """Everything that is answered to these bytes."""
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer


def get(address: str, path: str) -> bytes:
    host = urlsplit(address).netloc
    return raw(
        address,
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n".encode(
            "latin-1"
        ),
    )


def test_the_printed_address_signs_a_browser_in(served):
    _, address = served
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    with browser.open(address) as page:
        assert page.status == 200
        assert "key" not in page.url
    with browser.open(address.partition("?")[0] + "api/v1/runs") as answer:
        assert b"vgg~1channels" in answer.read()


def test_no_secret_stands_in_the_list_of_processes(served):
    process, address = served
    line = Path(f"/proc/{process.pid}/cmdline").read_bytes().decode()

    assert TOKEN not in line
    assert urlsplit(address).query.removeprefix("key=") not in line


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/runs/..",
        "/api/v1/runs/.",
        "/api/v1/runs/../../../../etc/passwd",
        "/api/v1/runs/first/../../../outside",
        "/api/v1/runs/%2e%2e/points",
        "/api/v1/runs/%2e%2e%2foutside/points",
        "/api/v1/runs/..%2f..%2f..%2fetc%2fpasswd/network",
        "/api/v1/runs/%252e%252e%252foutside/points",
        "/api/v1/runs/first%00/points",
        "/api/v1/runs/%c0%ae%c0%ae%c0%afoutside/points",
        "/api/v1/runs/first%2fcache/points",
        "/api/v1/runs//first/points",
        "//api/v1/runs",
        "/../../etc/passwd",
        "/static/../../etc/passwd",
        "/healthz/../api/v1/runs/nope",
        "/api/v1/runs/" + "a/" * 5000,
    ],
)
def test_a_strange_path_is_not_found(served, path):
    answer = get(served[1], path)

    assert answer.startswith(b"HTTP/1.1 404"), answer[:300]
    assert b"root:" not in answer


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),
        (b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil\r\nConnection: close\r\n\r\n", b"4"),
        (b"GET / HTTP/1.1\r\nHost: evil.example.org\r\nConnection: close\r\n\r\n", b"421"),
        (
            b"GET http://evil.example.org/ HTTP/1.1\r\nHost: evil.example.org\r\nConnection: close\r\n\r\n",
            b"421",
        ),
        (
            b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 999999999\r\nConnection: close\r\n\r\n",
            b"413",
        ),
    ],
)
def test_a_strange_request_is_refused(served, request_bytes, status):
    try:
        answer = raw(served[1], request_bytes)
    except ConnectionError:  # while a megabyte was still on its way
        answer = b"HTTP/1.1 400"

    assert answer.startswith(b"HTTP/1.1 " + status), answer[:200]
    assert b"Traceback" not in answer


def test_tensorflow_is_never_loaded(served):
    process, address = served
    asked = ["", "/points", "/percentile?q=5&exact=true", "/factors?per_channel=true", "/factors?format=csv"]
    asked += [f"/distribution?point=conv&format={kind}" for kind in ("json", "png", "svg")]
    asked += ["/digest?point=conv&channel=0", "/channels?point=conv", "/live"]
    for question in asked:
        assert get(address, f"{API}/vgg~1channels{question}").startswith(b"HTTP/1.1 200")
    for question in ("/network", "/certificate"):
        assert get(address, f"{API}/old{question}").startswith(b"HTTP/1.1 200")
    assert get(address, "/api/v1/compare?a=first&b=other").startswith(b"HTTP/1.1 200")
    for kind in exporter_names():
        answer = get(address, f"{API}/old/factors?format={kind}")
        # Version 0.1 did not note the names that the toolbox's parser gives.
        is_refused = load_exporter(kind).opens_network or kind == "toolbox-parsed"
        assert answer.startswith(b"HTTP/1.1 422" if is_refused else b"HTTP/1.1 200")
    for path in ("/", "/service.js", "/jobs.js", "/drawing.js", "/service.css", "/metrics"):
        assert get(address, path).startswith(b"HTTP/1.1 200")
    libraries = Path(f"/proc/{process.pid}/maps").read_text()

    assert "numpy" in libraries
    assert not re.search(r"tensorflow|jaxlib|/torch/", libraries)


def test_a_service_that_is_told_to_stop_ends_well(made_once):
    with started(made_once) as (process, address):
        assert b"421" not in get(address, "/healthz")
        process.send_signal(signal.SIGTERM)

        assert process.wait(30) == 0
        _, errors = process.communicate()

    assert '"path": "/healthz"' in errors
    assert "Traceback" not in errors


@pytest.fixture
def refused(monkeypatch, capsys):
    """Start a service that cannot be; return what it says."""
    from actisketch.pipeline.cli import commands
    from actisketch.pipeline.cli.session import run_command

    monkeypatch.delenv("ACTISKETCH_TOKEN", raising=False)
    monkeypatch.setattr("actisketch.pipeline.cli.serving._log_requests", lambda quiet: None)

    def refused(*arguments):
        assert run_command(commands, ["serve", *map(str, arguments)]) == 2
        return capsys.readouterr().err

    return refused


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--host", "0.0.0.0"], "token"),
        (["--host", "::"], "token"),
        (["--host", "nowhere.invalid"], "no address"),
        (["--root-path", "stats"], "--root-path"),
        (["--root-path", "/stats/"], "--root-path"),
        (["--root-path", "/a\r\nb"], "--root-path"),
        (["--token-file", "missing"], "cannot be read"),
        (["--memory-limit", "much"], "--memory-limit"),
        (["--auto-resume"], "--allow-jobs"),
        (["--allow-scheduler", "tcp://head:8786"], "--allow-jobs"),
        (["--allow-jobs", "--jobs-token-file", "missing"], "cannot be read"),
    ],
)
def test_a_service_that_cannot_be_is_refused(made_once, refused, arguments, told):
    assert told in refused(made_once, *arguments)


def test_a_port_that_is_taken_and_a_root_that_is_none_are_refused(made_once, refused, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "--port" in refused(made_once, "--port", taken.getsockname()[1])
    assert "no folder" in refused(tmp_path / "nowhere")
    assert "the folder above it" in refused(made_once / "first")


def trickle(connection: socket.socket) -> None:
    """Send the headers of a request byte by byte, for five seconds."""
    connection.sendall(b"GET / HTTP/1.1\r\nX: ")
    for _ in range(100):
        connection.sendall(b"y")
        time.sleep(0.05)


def test_a_client_that_never_ends_its_request_is_let_go(made_once, monkeypatch):
    monkeypatch.setattr(connections, "REQUEST_S", 0.4)
    with served_here(made_once) as place:
        idle = socket.create_connection(place, timeout=10)
        slow = socket.create_connection(place, timeout=10)
        begun = time.monotonic()
        with slow, pytest.raises((BrokenPipeError, ConnectionResetError)):
            trickle(slow)

        assert time.monotonic() - begun < 4
        assert idle.recv(10) == b""
        idle.close()

        # A connection that has been answered is given the same time for its next request.
        used = http.client.HTTPConnection(*place, timeout=10)
        used.request("GET", "/healthz")
        assert used.getresponse().read() == b'{"status":"ok"}'
        used.sock.sendall(b"GET /healthz HT")
        assert used.sock.recv(10) == b""
        used.close()


@pytest.mark.slow
def test_many_more_idle_connections_than_files_may_be_open_hold_nobody_up(made_once):
    with (
        started(made_once, is_quiet=True, n_files=700, ACTISKETCH_TOKEN=TOKEN) as (process, address),
        ExitStack() as stack,
    ):
        parts = urlsplit(address)
        for _ in range(2000):
            stack.enter_context(socket.create_connection((parts.hostname, parts.port), timeout=20))
        for _ in range(3):
            assert get(address, f"{API}/first/points").startswith(b"HTTP/1.1 200")
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=30)[1]

    assert "Too many open files" not in errors
    assert process.returncode == 0
