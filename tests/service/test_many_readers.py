"""Two hundred readers while a run is recorded: service, recording and readers are processes of their own.

``READERS_S=60 pytest -m slow tests/service/test_many_readers.py -s`` asks for a minute and prints what was measured.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from .conftest import AUTHORIZED, TOKEN, make_run
from .test_server import started

N_READERS = 200
API = "/api/v1/runs"
# So much may the memory of the service grow after the first quarter: allocators keep what threads have freed.
MOST_GROWTH_NBYTES = 24 * 2**20


@dataclass
class Seen:
    """What readers saw."""

    times_s: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    rss_nbytes: list[int] = field(default_factory=list)


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> tuple[int, bytes]:
    headers = "".join(f"{name}: {value}\r\n" for name, value in AUTHORIZED.items())
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    return int(head.split()[1]), await reader.readexactly(int(length[1]) if length else 0)


async def read_on(place: tuple[str, int], seed: int, until_s: float, seen: Seen) -> None:
    """Ask one question after the other over one connection; the maximum of the run that grows never falls."""
    chance, largest = random.Random(seed), 0.0
    reader, writer = await asyncio.open_connection(*place)
    while time.monotonic() < until_s:
        run, q = (
            chance.choice(["growing", "growing", "done"]),
            chance.choice([100, 99.9, chance.uniform(0, 100)]),
        )
        begun_s = time.perf_counter()
        status, body = await ask(reader, writer, f"{API}/{run}/percentile?q={q}&point=conv")
        seen.times_s.append(time.perf_counter() - begun_s)
        found = re.search(rb'"value":([0-9.]+)', body)
        if status != 200 or b'"lo":' not in body:
            seen.problems.append(body.decode()[:500])
            break
        if (run, q) == ("growing", 100) and found:
            if float(found[1]) < largest:
                seen.problems.append(f"the maximum fell from {largest} to {found[1].decode()}")
            largest = float(found[1])
    writer.close()


async def read_all(place: tuple[str, int], pid: int, seconds: float) -> Seen:
    """Let all readers ask; look at the memory of the service meanwhile."""
    seen, until_s, service = Seen(), time.monotonic() + seconds, psutil.Process(pid)
    readers = [asyncio.create_task(read_on(place, seed, until_s, seen)) for seed in range(N_READERS)]
    while time.monotonic() < until_s:
        seen.rss_nbytes.append(service.memory_info().rss)
        await asyncio.sleep(seconds / 40)
    await asyncio.gather(*readers)
    return seen


@pytest.mark.slow
@pytest.mark.alone
def test_200_readers_while_a_run_is_recorded(tmp_path):
    seconds = float(os.environ.get("READERS_S", "15"))
    make_run(tmp_path / "root" / "done")
    script = Path(__file__).with_name("record_slowly.py")
    recording = subprocess.Popen([sys.executable, script, tmp_path / "root" / "growing", str(seconds + 30)])
    try:
        with started(tmp_path / "root", is_quiet=True, ACTISKETCH_TOKEN=TOKEN) as (process, address):
            parts = urlsplit(address)
            assert parts.hostname is not None
            assert parts.port is not None
            while not list((tmp_path / "root").glob("growing/cache/.actisketch/commits/*")):
                time.sleep(0.05)
            seen = asyncio.run(read_all((parts.hostname, parts.port), process.pid, seconds))
    finally:
        recording.kill()
        recording.wait()
    ordered, n = sorted(seen.times_s), len(seen.times_s)
    median_s, p99_s = ordered[n // 2], ordered[int(n * 0.99)]
    settled = max(seen.rss_nbytes[: len(seen.rss_nbytes) // 4])
    growth = max(seen.rss_nbytes) - settled
    times = f"median {1000 * median_s:.0f} ms, p99 {1000 * p99_s:.0f} ms"
    memory = f"memory of the service {settled / 2**20:.0f} MiB, then {growth / 2**20:+.1f} MiB"
    print(f"\n{n:,} answers in {seconds:g} s to {N_READERS} readers: {times}; {memory}")

    assert seen.problems == []
    assert n > 3 * N_READERS
    assert p99_s < 10 * median_s
    assert growth < MOST_GROWTH_NBYTES
