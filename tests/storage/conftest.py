"""Stores of every kind; the S3 server is that of all tests."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ..conftest import BUCKET, S3Server

__all__ = ["BUCKET", "Place", "S3Server"]


class Place(NamedTuple):
    """Where a cache can be."""

    url: str
    options: dict[str, Any] | None


@pytest.fixture(params=["local", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Return an empty place on each kind of store."""
    if request.param == "local":
        return Place(str(tmp_path / "cache"), None)
    if request.param == "memory":
        return Place(f"memory://{uuid.uuid4()}", None)
    server: S3Server = request.getfixturevalue("s3")
    return Place(f"s3://{BUCKET}/{uuid.uuid4()}", server.options)
