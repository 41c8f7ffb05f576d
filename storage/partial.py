"""Write a file whole or not at all: beside its name, flushed, renamed. Remove what killed writers left.

Knows files. Does not know what they hold.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import StorageError
from .files import put_in_place, remove, sync
from .local import ABANDONED_S, IN_THE_WAY, is_alive

__all__ = ["discard", "is_partial", "no_empty_folder", "partial_name", "remove_leftovers", "replacing"]

logger = logging.getLogger(__name__)

# Earlier programs named no host.
_PARTIAL = re.compile(r"\..+?(?:@(?P<host>[^@/]+))?\.(?P<pid>[0-9]+)\.partial.*")


def partial_name(stem: str, ending: str = "") -> str:
    """Return the name of a file or folder that this process makes and that is not finished yet."""
    return f".{stem}@{socket.gethostname()}.{os.getpid()}.partial{ending}"


def is_partial(name: str) -> bool:
    """Whether a name is that of something unfinished, of whatever process."""
    return _PARTIAL.fullmatch(name) is not None


@contextmanager
def no_empty_folder(folder: Path) -> Iterator[None]:
    """If the work fails, remove the folder and its parents again, as far as they are new and empty."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        for path in new:
            with suppress(OSError):
                path.rmdir()
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; the file takes the name ``path`` if no error was raised.

    The file is flushed before it gets its name: after a power cut the name stands for the old bytes or the new.

    Raises
    ------
    StorageError
        If the system refuses.
    """
    partial = path.with_name(partial_name(path.stem, path.suffix))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A link of that name would be written through.
        partial.unlink(missing_ok=True)
        yield partial
        sync(partial)
        put_in_place(partial, path)
        sync(path.parent)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise _refused(path, "written", error) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def discard(path: Path) -> None:
    """Remove a file; a link or an empty folder in its place too.

    Raises
    ------
    StorageError
        If the system refuses.
    """
    try:
        remove(path)
    except OSError as error:
        raise _refused(path, "removed", error) from error


def remove_leftovers(folder: Path) -> None:
    """Remove from a folder the unfinished files of this host's dead processes, and all that are a day old."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            found = _PARTIAL.fullmatch(entry.name)
            if found is None or not _is_abandoned(entry, found["host"], int(found["pid"])):
                continue
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)
                logger.info("removed %s, which a process that is gone left unfinished", entry.path)


def _is_abandoned(entry: os.DirEntry[str], host: str | None, pid: int) -> bool:
    if host is not None and is_alive(host, pid) is False:
        return True
    with suppress(OSError):
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > ABANDONED_S
    return False


def _refused(path: Path, what: str, error: OSError) -> StorageError:
    step = IN_THE_WAY.get(error.errno or 0, "free space or choose another folder, then run again")
    return StorageError(f"{str(path)!r} cannot be {what}: {error.strerror or error}; {step}", path=str(path))
