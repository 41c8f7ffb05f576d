"""What a process may use of a machine's memory: with made-up control groups, SLURM jobs and real ``ulimit``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from actisketch.pipeline.planning.machine_memory import UsableMemory, usable_memory

GIB = 2**30
V1 = "35 31 0:32 {inside} /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory"
V2 = "41 31 0:38 {inside} /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate"
NO_LIMIT = str(2**63 - 4096)  # as version 1 writes it


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 16 GiB."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"total": 16 * GIB}))


def system(root: Path, *, groups: str, mount: str, files: dict[str, str]) -> Path:
    """Write the files in which Linux shows control groups."""
    contents = {
        "proc/self/cgroup": groups,
        "proc/self/mountinfo": f"22 1 8:1 / / rw - ext4 /dev/sda rw\n{mount}",
    }
    for name, text in {**contents, **{f"sys/fs/cgroup/{key}": value for key, value in files.items()}}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("groups", "mount", "files", "gib"),
    [
        ("0::/", V2.format(inside="/"), {"memory.max": str(5 * GIB)}, 5),
        ("0::/", V2.format(inside="/"), {"memory.max": "max"}, 16),
        ("0::/", V2.format(inside="/"), {"memory.max": "max", "memory.high": str(3 * GIB)}, 3),
        ("0::/a/b", V2.format(inside="/"), {"a/b/memory.max": "max", "a/memory.max": str(7 * GIB)}, 7),
        ("0::/a/b", V2.format(inside="/"), {"a/b/memory.max": str(2 * GIB), "a/memory.max": str(7 * GIB)}, 2),
        ("0::/a/b", V2.format(inside="/"), {"c/memory.max": str(GIB)}, 16),
        ("0::/job/1", V2.format(inside="/job"), {"1/memory.max": str(3 * GIB)}, 3),
        ("0::/../other", V2.format(inside="/"), {"memory.max": str(3 * GIB)}, 3),
        ("0::/", V2.format(inside="/"), {"memory.max": str(64 * GIB)}, 16),
        ("4:cpu,memory:/job", V1.format(inside="/"), {"memory/job/memory.limit_in_bytes": str(5 * GIB)}, 5),
        ("4:memory:/", V1.format(inside="/"), {"memory/memory.limit_in_bytes": NO_LIMIT}, 16),
        (
            "4:memory:/docker/7f",  # of the host; the container's own mount is the group
            V1.format(inside="/docker/7f"),
            {"memory/memory.limit_in_bytes": str(2 * GIB)},
            2,
        ),
        (
            "4:memory:/slurm/uid_1/job_2\n0::/",
            V1.format(inside="/"),
            {"memory/slurm/uid_1/memory.limit_in_bytes": str(11 * GIB)},
            11,
        ),
        ("4:memory:/job", V1.format(inside="/"), {"memory/job/memory.limit_in_bytes": "-"}, 16),
        ("nonsense", "nonsense", {}, 16),
    ],
)
def test_control_groups_of_both_versions_and_those_around_them_count(
    tmp_path: Path, groups: str, mount: str, files: dict[str, str], gib: int
) -> None:
    found = usable_memory(root=system(tmp_path, groups=groups, mount=mount, files=files), environment={})

    whose = "of this machine" if gib == 16 else "that the control group allows"
    assert found == UsableMemory(gib * GIB, whose)


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("variables", "gib"),
    [
        ({}, 16),
        ({"SLURM_MEM_PER_NODE": "2048"}, 2),
        ({"SLURM_MEM_PER_CPU": "1024", "SLURM_CPUS_ON_NODE": "6"}, 6),
        ({"SLURM_MEM_PER_NODE": "0"}, 16),  # --mem=0: all of the node
        ({"SLURM_MEM_PER_NODE": "99999999"}, 16),
        ({"SLURM_MEM_PER_CPU": "much", "SLURM_CPUS_ON_NODE": "6"}, 16),
    ],
)
def test_what_a_slurm_job_asked_for_counts(tmp_path: Path, variables: dict[str, str], gib: int) -> None:
    inside = usable_memory(root=tmp_path, environment={"SLURM_JOB_ID": "7", **variables})
    outside = usable_memory(root=tmp_path, environment=variables)

    whose = "of this machine" if gib == 16 else "that SLURM gives the job on this node"
    assert inside == UsableMemory(gib * GIB, whose)
    assert outside == UsableMemory(16 * GIB, "of this machine")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no ulimit")
def test_a_limit_of_the_shell_counts() -> None:
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (10**9, resource.RLIM_INFINITY));"
        "from actisketch.pipeline.planning.machine_memory import usable_memory; found = usable_memory();"
        "print(found.nbytes, found.whose)"
    )
    environment: dict[str, Any] = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )

    assert done.stdout == f"{10**9} that `ulimit -v` allows\n"
