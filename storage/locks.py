"""Let one process at a time write: a lock file that is free when its process ends.

The kernel's lock (flock) decides where there is one. The text of the file is for people, and decides only on file
systems without flock: there, the lock of another host counts until somebody removes it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from .errors import BusyError
from .files import is_plain, open_unlinked, remove
from .parsing import parse_json

__all__ = ["FileLock", "Holder", "busy"]

# The kernel counts the start of a process in clock ticks of a hundredth of a second.
_SAME_START_S = 0.02
# Of a machine's own processes; those of its containers have others. A constant of Linux (PROC_PID_INIT_INO).
_FIRST_NAMESPACE = "pid:[4026531836]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds a lock."""

    host: str
    pid: int
    started_s: float
    """When the process started, seconds since 1970: process ids are used again, the pair is not."""
    since_s: float
    """When it took the lock, seconds since 1970."""
    boot: str = ""
    """Names a machine from its start to its end; empty where the system has no such name, and in earlier notes."""
    pid_namespace: str = ""
    """Where the process id counts: containers may share a host name and not the ids. Empty as above."""

    @classmethod
    def me(cls) -> Holder:
        """Return this process, now."""
        started = psutil.Process().create_time()
        boot, namespace = _where()
        return cls(
            host=socket.gethostname(),
            pid=os.getpid(),
            started_s=started,
            since_s=time.time(),
            boot=boot,
            pid_namespace=namespace,
        )

    @classmethod
    def parse(cls, text: bytes) -> Holder | None:
        """Return the holder that `encode` wrote, or None for anything else."""
        try:
            document: dict[str, Any] = parse_json(text)
            return cls(
                host=str(document["host"]),
                pid=int(document["pid"]),
                started_s=float(document["started_s"]),
                since_s=float(document["since_s"]),
                boot=str(document.get("boot", "")),
                pid_namespace=str(document.get("pid_namespace", "")),
            )
        except (ValueError, KeyError, TypeError):
            return None

    def encode(self) -> bytes:
        """Return the holder as JSON."""
        return json.dumps(asdict(self)).encode()

    @property
    def is_here(self) -> bool:
        """Whether the process can be seen from here: not one of another host, start of the machine, or container."""
        noted = (self.boot, self.pid_namespace)
        is_other = any(a and b and a != b for a, b in zip(noted, _where(), strict=True))
        return self.host == socket.gethostname() and not is_other

    @property
    def is_dead(self) -> bool:
        """Whether the process is gone, as far as notes tell: False where it cannot be seen."""
        if not self.is_here:
            # Two machines with one name look like this, too: whoever can ask the kernel, or watch for beats, does so.
            boot, namespace = _where()
            is_restarted = bool(self.boot and boot) and self.boot != boot
            is_machine = self.pid_namespace == namespace == _FIRST_NAMESPACE
            return self.host == socket.gethostname() and is_restarted and is_machine
        try:
            process = psutil.Process(self.pid)
            is_other = abs(float(process.create_time()) - self.started_s) > _SAME_START_S
            return is_other or bool(process.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False


def _where() -> tuple[str, str]:
    """Return the name of the machine's start and of the namespace of process ids; empty where there are none."""
    boot = namespace = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    with contextlib.suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return boot, namespace


def busy(place: str, holder: Holder | None) -> BusyError:
    """Return the error that says who holds the lock and since when."""
    step = "wait for it, stop it, or choose another folder"
    if holder is None:
        return BusyError(f"another process is writing to {place!r}: {step}", place=place)
    since = datetime.fromtimestamp(holder.since_s, UTC).isoformat(timespec="seconds")
    return BusyError(
        f"process {holder.pid} on {holder.host} is writing to {place!r} since {since}: {step}",
        place=place,
        pid=holder.pid,
        host=holder.host,
        since=since,
    )


class FileLock:
    """A lock file in a local folder, held by this process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor: int | None = descriptor
        self._pid = os.getpid()

    @classmethod
    def acquire(cls, path: Path) -> FileLock:
        """Take the lock, also from a process that is dead; BusyError if a live one holds it."""
        while True:
            descriptor = open_unlinked(path, os.O_RDWR)
            try:
                lock = cls._try(path, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            if lock is not None:
                return lock
            os.close(descriptor)

    @classmethod
    def _try(cls, path: Path, descriptor: int) -> FileLock | None:
        """Return the lock, or None if the file was replaced meanwhile."""
        is_ours = _flock(descriptor)
        is_own = is_plain(descriptor)
        holder = Holder.parse(_content(descriptor))
        is_held = is_ours is False or (is_ours is None and holder is not None)
        # A flock ends with the machine: if it is held, its holder is not one of an earlier start.
        is_stale = holder is not None and holder.is_dead and (holder.is_here or is_ours is None)
        if is_held and not is_stale:
            raise busy(str(path.parent.parent), holder)
        if is_ours is False or not is_own:
            # The holder is dead, but a child of it has inherited the flock; or the file has a second name, and is
            # somebody's under that one: the name must go.
            _remove_stale(path, descriptor)
        if not _is_same_file(path, descriptor):
            return None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, Holder.me().encode(), 0)
        return cls(path, descriptor)

    def check(self) -> None:
        """Raise BusyError if the lock file is no longer ours."""
        if self._descriptor is not None and _is_same_file(self._path, self._descriptor):
            return
        place = self._path.parent.parent
        if self._descriptor is None or os.path.lexists(self._path):
            raise busy(str(place), None)
        gone = "its lock file" if place.exists() else "it"
        raise BusyError(
            f"somebody removed {gone} while this process was writing to {str(place)!r}: run it again, what is left is "
            "kept",
            place=str(place),
        )

    def release(self) -> None:
        """Empty the file and let go; in a forked child only the descriptor is closed."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        if os.getpid() == self._pid:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
        os.close(descriptor)


def _flock(descriptor: int) -> bool | None:
    """Return whether the kernel's lock is ours now, or None where there is no such lock."""
    try:
        import fcntl
    except ImportError:  # pragma: no cover - Windows
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL):
            return None
        raise
    return True


def _content(descriptor: int) -> bytes:
    try:
        return os.pread(descriptor, 4096, 0)
    except OSError as error:
        if error.errno != errno.ESPIPE:
            raise
        return b""  # of a pipe


def _is_same_file(path: Path, descriptor: int) -> bool:
    try:
        here, there = os.lstat(path), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _remove_stale(path: Path, descriptor: int) -> None:
    """Remove the name of a stale file; harmless if somebody else was faster."""
    if _is_same_file(path, descriptor):
        remove(path)
