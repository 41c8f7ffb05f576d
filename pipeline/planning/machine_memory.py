"""How much memory the processes of a run may use on this machine.

The physical memory is not the whole answer: containers and batch systems allow less, through control groups, SLURM's
own limits and ``ulimit -v``. Reads the system; decides nothing.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["UsableMemory", "usable_memory"]

# Soft limits too: beyond memory.high, Linux slows a process down until it hardly moves.
_LIMIT_FILES = {"cgroup2": ("memory.max", "memory.high"), "cgroup": ("memory.limit_in_bytes",)}
# A line of /proc/self/mountinfo: what of the file system is mounted and where, its kind and options.
_MOUNT = re.compile(r"\S+ \S+ \S+ (\S+) (\S+) .*- (\S+) \S+ (\S+)")


@dataclass(frozen=True, slots=True, order=True)
class UsableMemory:
    """An amount of memory, and who allows no more."""

    nbytes: int
    whose: str
    """For the end of a sentence: ``"of this machine"``."""


def usable_memory(*, root: Path = Path("/"), environment: Mapping[str, str] | None = None) -> UsableMemory:
    """Return the smallest of the machine's memory and of the limits on this process.

    Parameters
    ----------
    root : path
        Of the file system that holds ``proc`` and ``sys``.
    environment : mapping, optional
        Variables of the environment; default: those of this process.
    """
    found = [UsableMemory(psutil.virtual_memory().total, "of this machine")]
    control_groups = (UsableMemory(n, "that the control group allows") for n in _control_group_nbytes(root))
    slurm = _slurm_nbytes(os.environ if environment is None else environment)
    found += [*control_groups, *(UsableMemory(n, "that SLURM gives the job on this node") for n in slurm)]
    found += [UsableMemory(n, "that `ulimit -v` allows") for n in _address_space_nbytes()]
    return min(found, key=lambda each: each.nbytes)  # the machine itself, if a limit is the same


def _control_group_nbytes(root: Path) -> Iterator[int]:
    """Yield the limits of the control groups of this process, of version 1 and 2, and of the groups around them."""
    for kind, mounted, group in _control_groups(root):
        # In a container, the path can be that of the host, which is not to be seen here: the mount is the group then.
        for folder in (group, *group.parents):
            for name in _LIMIT_FILES[kind]:
                yield from _number_in(folder / name)
            if folder == mounted:
                break


def _control_groups(root: Path) -> Iterator[tuple[str, Path, Path]]:
    """Yield version, mount and folder of each control group of this process that can limit memory."""
    paths = {}
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "" or "memory" in controllers.split(","):
            paths["cgroup" if controllers else "cgroup2"] = path
    for line in _lines(root / "proc/self/mountinfo"):
        if (found := _MOUNT.fullmatch(line)) is None:
            continue
        inside, mount, kind, options = found.groups()
        if kind in paths and (kind == "cgroup2" or "memory" in options.split(",")):
            mounted, path = root / mount.lstrip("/"), paths[kind]
            yield kind, mounted, mounted / path.removeprefix(inside).lstrip("/")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # another system than Linux
        return []


def _number_in(path: Path) -> Iterator[int]:
    for line in _lines(path)[:1]:
        if line.strip().isdecimal() and int(line) > 0:  # "max" is no limit
            yield int(line)


def _slurm_nbytes(environment: Mapping[str, str]) -> Iterator[int]:
    """Yield what a SLURM job asked for on this node: not every site has SLURM set control groups."""

    def number(name: str) -> int:
        text = environment.get(name, "")
        return int(text) if text.isdecimal() else 0

    if "SLURM_JOB_ID" not in environment:
        return
    mebibytes = number("SLURM_MEM_PER_NODE") or number("SLURM_MEM_PER_CPU") * number("SLURM_CPUS_ON_NODE")
    if mebibytes:  # --mem=0 asks for the whole node
        yield mebibytes * 2**20


def _address_space_nbytes() -> Iterator[int]:
    if sys.platform == "win32":
        return
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        yield soft
