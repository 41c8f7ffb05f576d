"""The SLURM recipes for real: munge, slurmctld and slurmd on this machine, jobs through sbatch.

Needs Debian's ``slurm-wlm`` and root; skipped elsewhere.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from actisketch.storage import Cache

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "pipeline/demo"
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"])

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or any(shutil.which(name, path=PATH) is None for name in NEEDED),
        reason="needs root and Debian's slurm-wlm",
    ),
]


def free_ports(n: int) -> list[int]:
    """Return ports that are free, and that the system gives to nobody who asks for any port."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: set[int] = set()
    while len(found) < n:
        port = 1024 + secrets.randbelow(first - 1024)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("", port))
            found.add(port)
    return sorted(found)


@pytest.fixture(scope="module")
def slurm() -> Iterator[Path]:
    """A folder that all nodes see, with a cluster of one node; SLURM_CONF points to it."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    for name in ("state", "spool", "work"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    ports = free_ports(2)
    host, n_cores = socket.gethostname().split(".")[0], len(os.sched_getaffinity(0))
    (folder / "slurm.conf").write_text(
        f"""ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={n_cores} RealMemory=4000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
    )
    environment = {**os.environ, "PATH": PATH, "SLURM_CONF": str(folder / "slurm.conf")}
    munge = [
        f"--{name}={folder}/munge.{end}"
        for name, end in [
            ("key-file", "key"),
            ("socket", "socket"),
            ("pid-file", "pid"),
            ("log-file", "log"),
            ("seed-file", "seed"),
        ]
    ]
    commands = [["munged", "-F", "--force", *munge], ["slurmctld", "-D"], ["slurmd", "-D", "-N", host]]
    processes = []
    try:
        for command in commands:
            with (folder / f"{command[0]}.out").open("w") as out:
                processes.append(
                    subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
                )
            time.sleep(1)
            assert processes[-1].poll() is None, (folder / f"{command[0]}.out").read_text()
        yield folder
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def run(slurm: Path, *command: str) -> str:
    environment = {**os.environ, "PATH": PATH, "SLURM_CONF": str(slurm / "slurm.conf")}
    done = subprocess.run(command, env=environment, cwd=slurm / "work", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wait_until_idle(slurm: Path) -> None:
    deadline = time.monotonic() + 240
    while run(slurm, "squeue", "--noheader"):
        assert time.monotonic() < deadline, "the job does not end"
        time.sleep(1)


def job(slurm: Path, name: str) -> Path:
    path = slurm / "work" / f"{name}.toml"
    path.write_text(
        f'output = "{name}"\n[model]\npath = "{DEMO}/digits.keras"\n[data]\npath = "{DEMO}/digits.npz"\n'
        "divide_by = 16.0\n[record]\nblock_samples = 64\n"
    )
    return path


def log(slurm: Path) -> str:
    return "\n".join(path.read_text() for path in (slurm / "work").glob("*.log"))


def test_the_batch_script_is_interrupted_and_submitted_again(slurm: Path) -> None:
    script = str(ROOT / "deploy/slurm/actisketch.sbatch")
    flags = ["--ntasks=2", "--cpus-per-task=1", "--mem-per-cpu=500"]
    path = job(slurm, "batch")
    cache = slurm / "work/batch/cache"

    number = run(slurm, "sbatch", "--parsable", *flags, script, str(path)).strip()
    deadline = time.monotonic() + 200
    while len(list(cache.rglob("*.block"))) < 2:
        assert time.monotonic() < deadline, log(slurm)
        assert run(slurm, "squeue", "--noheader"), log(slurm)
        time.sleep(0.1)
    run(slurm, "scancel", "--batch", "--signal=TERM", number)  # what --signal=B:TERM@60 sends near the end
    wait_until_idle(slurm)
    assert "interrupted" in log(slurm)
    assert not list((slurm / "work").glob(".dask-*"))

    run(slurm, "sbatch", "--wait", *flags, script, str(path))

    assert not Cache.open(cache).missing()
    assert (slurm / "work/batch/normalized.keras").exists()


def test_workers_as_jobs_of_their_own_finish_the_run(slurm: Path) -> None:
    pytest.importorskip("dask_jobqueue", reason="pip install '.[deploy]'")
    script = str(ROOT / "deploy/slurm/jobqueue_run.py")
    options = [
        "--jobs",
        "2",
        "--cores",
        "1",
        "--memory",
        "1GB",
        "--walltime",
        "00:10:00",
        "--interface",
        "lo",
    ]

    told = run(slurm, sys.executable, script, str(job(slurm, "queue")), *options)

    assert "29 of 29 blocks computed" in told
    assert not Cache.open(slurm / "work/queue/cache").missing()
