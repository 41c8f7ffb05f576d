"""Stores of every kind, and a real S3 server that answers over HTTP."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

BUCKET = "activations"


class Place(NamedTuple):
    """Where a cache can be."""

    url: str
    options: dict[str, Any] | None


class S3Server(NamedTuple):
    """A running server."""

    endpoint: str

    @property
    def options(self) -> dict[str, Any]:
        """What obstore needs to reach it."""
        return s3_options(self.endpoint)


def s3_options(endpoint: str) -> dict[str, Any]:
    """Return the storage options of a server without TLS."""
    return {
        "endpoint": endpoint,
        "access_key_id": "test",
        "secret_access_key": "test",
        "region": "us-east-1",
        "client_options": {"allow_http": True},
    }


# The server chooses a free port itself and says which: asking the system for one beforehand is a race.
_SERVER = """
import logging, sys, threading
logging.getLogger("werkzeug").setLevel("ERROR")
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """Run moto's S3 in a process of its own, with one bucket."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        server = S3Server(f"http://127.0.0.1:{int(process.stdout.readline())}")
        urllib.request.urlopen(urllib.request.Request(f"{server.endpoint}/{BUCKET}", method="PUT")).close()
        yield server
        process.stdin.close()


@pytest.fixture(params=["local", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Return an empty place on each kind of store."""
    if request.param == "local":
        return Place(str(tmp_path / "cache"), None)
    if request.param == "memory":
        return Place(f"memory://{uuid.uuid4()}", None)
    server: S3Server = request.getfixturevalue("s3")
    return Place(f"s3://{BUCKET}/{uuid.uuid4()}", server.options)
