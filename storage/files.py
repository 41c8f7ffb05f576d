"""Write and read one file fast: past the page cache where the system lets us.

Activations are written once and read much later, if at all. Through the page cache, every byte first takes fresh
memory from the kernel (0.35-0.45 GB/s measured, 1.4-2.5 GB/s past it) and pushes out more useful pages, and fsync has
to wait for it all the same. Reading through it takes eight times the processor time.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "STAGING_NBYTES",
    "check_opened",
    "free_nbytes",
    "is_plain",
    "open_own",
    "open_to_read",
    "open_unlinked",
    "put_in_place",
    "read_into",
    "remove",
    "sync",
    "write_new",
]

STAGING_NBYTES = 4 * 2**20
"""Aligned memory per writing thread, through which direct writes go."""

# Below this the page cache is as fast, and a file that small is read again soon (records, documents).
_DIRECT_NBYTES = 2**20
# Direct reads and writes need offsets, lengths and addresses in whole pages.
_PAGE_NBYTES = 4096

# A folder made by somebody else may have a link, or a pipe, under any name that this program uses.
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)

_thread = threading.local()


def write_new(path: Path, parts: Sequence[Any]) -> None:
    """Write buffers one after the other into a new file; OSError if it exists or the system refuses."""
    nbytes = sum(memoryview(part).nbytes for part in parts)
    if nbytes >= _DIRECT_NBYTES and _write_direct(path, parts, nbytes):
        return
    with open(path, "xb", buffering=0) as file:
        for part in parts:
            _write_all(file.fileno(), memoryview(part).cast("B"))


def _write_direct(path: Path, parts: Sequence[Any], nbytes: int) -> bool:
    """Write past the page cache; False, with no file left, where that is not possible."""
    flag = getattr(os, "O_DIRECT", None)
    if flag is None:  # pragma: no cover - macOS, Windows
        return False
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flag, 0o666)
    except OSError as error:
        if error.errno == errno.EINVAL:  # some file systems know no direct writes
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            return False
        raise
    try:
        for page_aligned in _staged(parts):
            _write_all(descriptor, page_aligned)
        os.ftruncate(descriptor, nbytes)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        path.unlink()
        return False
    finally:
        os.close(descriptor)
    return True


def _staged(parts: Sequence[Any]) -> Iterator[memoryview]:
    """Yield the bytes of all parts in whole pages; the last piece is padded with what was there before."""
    staging = _staging()
    filled = 0
    for part in parts:
        left = memoryview(part).cast("B")
        while left:
            n = min(len(left), len(staging) - filled)
            staging[filled : filled + n] = left[:n]
            left, filled = left[n:], filled + n
            if filled == len(staging):
                yield staging
                filled = 0
    if filled:
        yield staging[: -(-filled // _PAGE_NBYTES) * _PAGE_NBYTES]


def _staging() -> memoryview:
    if not hasattr(_thread, "staging"):
        _thread.staging = memoryview(mmap.mmap(-1, STAGING_NBYTES))
    staging: memoryview = _thread.staging
    return staging


def _write_all(descriptor: int, left: memoryview) -> None:
    while left:
        left = left[os.write(descriptor, left) :]


def read_into(path: Path, memory: memoryview) -> bytes | memoryview:
    """Return the bytes of a file, which lie in ``memory`` if they fit there; OSError if the system refuses.

    Memory that begins with a page, and has some to spare, is fastest.
    """
    with open(path, "rb", buffering=0, opener=open_to_read) as file:
        n_done = 0 if _is_cached(file.fileno()) else _read_direct(path, memory)
        file.seek(n_done)
        while n_new := file.readinto(memory[n_done:]):
            n_done += n_new
        rest = file.read()
    return memory[:n_done].tobytes() + rest if rest else memory[:n_done]


def _is_cached(descriptor: int) -> bool:
    """Return whether the page cache has the begin of a file, or the system does not say."""
    try:
        os.preadv(descriptor, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except (AttributeError, OSError):  # not Linux; some file systems cannot tell
        return True
    return True


def _read_direct(path: Path, memory: memoryview) -> int:
    """Read past the page cache into whole pages of memory, and return how many bytes; 0 where that is not possible."""
    whole = len(memory) - len(memory) % _PAGE_NBYTES
    if whole < _DIRECT_NBYTES:
        return 0
    try:
        descriptor = open_to_read(path, os.O_RDONLY | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems know no direct reads
            raise
        return 0
    try:
        return os.readv(descriptor, [memory[:whole]])
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return 0
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk; OSError if the system refuses."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems know no fsync of a folder; of a file it must work.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def open_unlinked(path: str | os.PathLike[str], flags: int) -> int:
    """Open one of this program's files, creating it if needed; a link or an empty folder in its place is removed.

    Raises
    ------
    OSError
        If the system refuses, as for a folder with files in it.
    """
    while True:
        try:
            return os.open(path, flags | os.O_CREAT | _NO_LINK, 0o666)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EMLINK, errno.EISDIR, errno.ENXIO):
                raise
        remove(Path(path))


def open_to_read(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
    """Open a file for reading; an ``opener`` for `open`.

    Raises
    ------
    OSError
        If the system refuses, and for a pipe or a device, which would be waited for without end.
    """
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    try:
        _refuse_others(descriptor, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _refuse_others(descriptor: int, path: str | os.PathLike[str]) -> None:
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # reading a folder says what it is
        raise OSError(errno.ESPIPE, "it is a pipe or a device", os.fspath(path))
    check = getattr(_thread, "check_opened", None)
    if check is not None:
        check(_true_path(descriptor, path))


def check_opened(check: Callable[[str], None]) -> None:
    """From now on, give `check` the true path of each file that this thread opens for reading.

    What it raises, an OSError, refuses the file. Links that were put in place after somebody looked are seen.
    """
    _thread.check_opened = check


def _true_path(descriptor: int, path: str | os.PathLike[str]) -> str:
    """Return where an open file lies, whatever has been done to the names that led there."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:  # pragma: no cover - macOS, or no /proc
        return os.path.realpath(path)


def is_plain(descriptor: int) -> bool:
    """Whether an open file is a regular one with no second name (hard link), so that no other file is written."""
    about = os.fstat(descriptor)
    return stat.S_ISREG(about.st_mode) and about.st_nlink <= 1


def open_own(path: str | os.PathLike[str], flags: int) -> int:
    """As `open_unlinked`, also for files with a second name (a hard link), which are removed under this one.

    An ``opener`` for `open`.
    """
    while True:
        descriptor = open_unlinked(path, flags)
        if is_plain(descriptor):
            return descriptor
        os.close(descriptor)
        remove(Path(path))


def remove(path: Path) -> None:
    """Remove a file, a link or an empty folder; a missing one is no error, a folder with files in it is an OSError."""
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()


def put_in_place(beside: Path, target: Path) -> None:
    """Rename a file to its name; a link or an empty folder that stands there is replaced, not followed."""
    try:
        os.replace(beside, target)
    except IsADirectoryError:
        target.rmdir()  # which the system refuses if foreign files are in it
        os.replace(beside, target)


def free_nbytes(path: Path) -> int | None:
    """Return the free bytes of the file system that `path` is or would be on; None where that has no size."""
    for folder in (path, *path.parents):
        with contextlib.suppress(OSError):
            usage = shutil.disk_usage(folder)
            # A pseudo file system (/proc) has no size; the first write to it fails.
            return usage.free if usage.total else None
    return None
