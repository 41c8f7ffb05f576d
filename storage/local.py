"""Keep keys as files of a local folder: written beside, renamed into place, synced on request.

Knows files. Does not know what they hold.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from .errors import ActisketchError, StorageError
from .files import free_nbytes, open_to_read, put_in_place, read_into, remove, sync, write_new
from .keys import COMMITS, PRIVATE, TEMPORARY, parse_temporary_key, temporary_key
from .locks import FileLock

__all__ = ["LocalFolder"]

logger = logging.getLogger(__name__)

# Not from 0: in a container that is started again host and process id are those of the one that was killed.
_counter = itertools.count(time.time_ns())

# No file takes this long to write. Whether a process of another host is alive cannot be seen from here.
ABANDONED_S = 24 * 3600


class LocalFolder:
    """Files under one folder."""

    is_remote = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = str(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalFolder, (self.folder,)

    def read(self, key: str) -> bytes | None:
        """Return all bytes of a key, or None if there is no such key."""
        try:
            with open(self.folder / key, "rb", opener=open_to_read) as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise storage_error(error, self.folder / key, "read") from error

    def read_into(self, key: str, memory: memoryview) -> bytes | memoryview | None:
        """Return what `read` does; the bytes lie in ``memory`` if they fit there."""
        try:
            return read_into(self.folder / key, memory)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise storage_error(error, self.folder / key, "read") from error

    def read_start(self, key: str, nbytes: int) -> tuple[bytes, int] | None:
        """Return the first bytes of a key and its whole length, or None if there is no such key."""
        try:
            # Joined as text: ten thousand records are opened by one scan.
            descriptor = open_to_read(f"{self.url}/{key}")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise storage_error(error, self.folder / key, "read") from error
        try:
            return os.read(descriptor, nbytes), os.fstat(descriptor).st_size
        except OSError as error:
            raise storage_error(error, self.folder / key, "read") from error
        finally:
            os.close(descriptor)

    def write(self, key: str, parts: Sequence[Any]) -> None:
        """Put the parts under a key by writing a file beside it and renaming that."""
        self._write(key, parts, is_durable=False)

    def write_durably(self, key: str, parts: Sequence[Any]) -> None:
        """Put the parts under a key and return when they would survive a power cut.

        The file is flushed before it gets its name: after a power cut the name never stands for less.
        """
        self._write(key, parts, is_durable=True)
        self._sync(self._folders_of([self.folder / key]))

    def _write(self, key: str, parts: Sequence[Any], *, is_durable: bool) -> None:
        target = self.folder / key
        beside = self.folder / temporary_key(socket.gethostname(), os.getpid(), next(_counter))
        try:
            for folder in (beside.parent, target.parent):
                folder.mkdir(parents=True, exist_ok=True)
            write_new(beside, parts)
            if is_durable:
                sync(beside)
            put_in_place(beside, target)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink()
            needed = sum(memoryview(part).nbytes for part in parts)
            raise storage_error(error, target, "write", needed) from error

    def sync(self, keys: Sequence[str]) -> None:
        """Flush the files, then the folders that name them."""
        paths = [self.folder / key for key in keys]
        self._sync([*paths, *self._folders_of(paths)])

    def _folders_of(self, paths: Sequence[Path]) -> list[Path]:
        """Return the folders that must name these files, innermost first, and the one that names the cache."""
        folders: dict[Path, None] = {}
        for path in paths:
            depth = len(path.parts) - len(self.folder.parts)
            folders.update(dict.fromkeys(path.parents[:depth]))
        return [*folders, self.folder.parent]

    def _sync(self, paths: Sequence[Path]) -> None:
        for path in paths:
            try:
                sync(path)
            except OSError as error:
                raise storage_error(error, path, "flush") from error

    def delete(self, key: str) -> None:
        """Remove a file, or an empty folder in its place, and flush its folder; a missing one is no error."""
        path = self.folder / key
        try:
            remove(path)
            sync(path.parent)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise storage_error(error, path, "delete") from error

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield (key, length) of every file under a folder, and of what lies in linked folders at its top.

        An array may be a link to another folder. Links elsewhere, and folders in a linked one, are yielded and not
        entered: they lead anywhere, also to the root of all files.
        """
        pending = [prefix]
        while pending:
            folder = pending.pop()
            try:
                entries = list(os.scandir(self.folder / folder))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise storage_error(error, self.folder / folder, "list") from error
            # The root may be a link: the user put the whole cache elsewhere.
            is_linked = bool(folder) and (self.folder / folder).is_symlink()
            for entry in entries:
                key = f"{folder}/{entry.name}" if folder else entry.name
                if _is_folder(entry) and not (is_linked or (entry.is_symlink() and folder)):
                    pending.append(key)
                else:
                    # A file may go between the listing and the look at it.
                    with contextlib.suppress(FileNotFoundError):
                        yield key, _length(entry)

    def linked_folders(self) -> Sequence[str]:
        """Return the keys at the top that are links to folders."""
        return [entry.name for entry in os.scandir(self.folder) if entry.is_symlink() and _is_folder(entry)]

    def lock(self, key: str) -> FileLock:
        """Take the lock file of this folder."""
        path = self.folder / key
        self._refuse_links()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return FileLock.acquire(path)
        except ActisketchError:
            raise
        except OSError as error:
            raise storage_error(error, path, "lock") from error

    def _refuse_links(self) -> None:
        """Refuse a link in the place of one of this program's own folders."""
        for key in (PRIVATE, COMMITS, TEMPORARY):
            path = self.folder / key
            if path.is_symlink():
                raise StorageError(
                    f"{str(path)!r} is a link to {os.readlink(path)!r}, and this program writes there "
                    "through no link: remove it, or link the whole cache's folder instead",
                    path=str(path),
                )

    def clean(self) -> None:
        """Remove the half-written files of processes of this host that are dead, and old ones of any process."""
        removed = 0
        for key, _ in self.list(TEMPORARY):
            writer = parse_temporary_key(key)
            if writer is not None and (is_alive(*writer) is False or self._age_s(key) > ABANDONED_S):
                self.delete(key)
                removed += 1
        if removed:
            logger.info("removed %d half-written files of dead processes from %s", removed, self.folder)

    def _age_s(self, key: str) -> float:
        with contextlib.suppress(OSError):
            return time.time() - os.stat(self.folder / key).st_mtime
        return 0.0


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself


def _length(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:
        if not entry.is_symlink():
            raise
        return entry.stat(follow_symlinks=False).st_size  # a link to nowhere or to itself


def is_alive(host: str, pid: int) -> bool | None:
    """Whether there is such a process; None for other hosts, where it cannot be seen."""
    return bool(psutil.pid_exists(pid)) if host == socket.gethostname() else None


IN_THE_WAY = dict.fromkeys(
    (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR),
    "a folder stands where a file belongs, or a file where a folder belongs: move it elsewhere and run again",
)
"""What to do about these errors of the system."""
_NO_RIGHT = "choose a folder that this user may write to, or only read with Cache.open"
_STEPS = {
    **IN_THE_WAY,
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _NO_RIGHT),
    errno.ELOOP: "it is a link that leads to itself: remove it and run again",
    errno.ESPIPE: "no file of a cache is one: remove it and run again",
    errno.EXDEV: "its folder is a link to another file system: link the whole cache's folder instead, and run again",
    errno.ENOENT: "no folder can be made or kept there: choose another one",
}


def storage_error(error: OSError, path: Path, verb: str, needed: int = 0) -> StorageError:
    """Return an error of the system as one that names the next step."""
    facts: dict[str, Any] = {"path": str(path), "errno": error.errno}
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = free_nbytes(path)
        facts |= {"needed_nbytes": needed, "free_nbytes": free}
        step = (
            f"{needed:,} bytes were needed, {free if free is None else format(free, ',')} are free: make room, "
            "or run with another folder; what is committed is kept and the next run goes on from there"
        )
    elif verb in ("read", "list") and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        step = "give this user the right to read it"
    else:
        step = _STEPS.get(error.errno or 0, "check the disk and run again: what is committed is kept")
    return StorageError(f"could not {verb} {str(path)!r}: {error.strerror or error}; {step}", **facts)
