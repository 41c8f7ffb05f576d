"""The errors of actisketch, sorted by what the one who catches them does next.

They live in ``storage`` because it stands at the bottom of the import order. Every error has a
sentence (what was asked, what was found, what to do next), facts as keyword arguments that
survive pickling between processes, and the exit code of the command line.

::

    ActisketchError
    |- InputError (ValueError)           2   fix the call, the job file or the data
    |  `- NotFoundError                      there is no cache yet: make one, or check the path
    |- MismatchError (ValueError)        3   a cache or factors of something else: choose another folder
    |- FormatError (ValueError)          4   the files are damaged or newer than this program
    |- OverBudgetError (MemoryError)     5   change the setting that is named, or raise the limit
    |- BusyError                         6   another process is writing there: wait or choose another folder
    |- StorageError (OSError)            7   the disk or the object store refused
    |- CertificateError                  8   the normalised network does not compute what the original does
    `- IncompleteError                   9   some blocks are missing or failed: run again to resume
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ActisketchError",
    "BusyError",
    "CertificateError",
    "FormatError",
    "IncompleteError",
    "InputError",
    "MismatchError",
    "NotFoundError",
    "OverBudgetError",
    "StorageError",
]


class ActisketchError(Exception):
    """Base of all errors that a user can do something about.

    Parameters
    ----------
    message : str
        One sentence or two: what was asked, what was found, what to do next.
    **facts : object
        What a program may want to know (``point="conv1"``, ``block=3``); kept in ``facts`` and
        also readable as attributes.
    """

    exit_code = 1

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.facts = facts

    def __getattr__(self, name: str) -> Any:
        facts = self.__dict__.get("facts", {})
        if name in facts:
            return facts[name]
        raise AttributeError(name)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.facts)

    def __str__(self) -> str:
        return str(self.args[0])


def _rebuild(kind: type[ActisketchError], args: tuple[str], facts: dict[str, Any]) -> ActisketchError:
    return kind(*args, **facts)


class InputError(ActisketchError, ValueError):
    """The call, the job file or the data is wrong: fix it and call again."""

    exit_code = 2


class NotFoundError(InputError):
    """There is no cache at the place that was named."""


class MismatchError(ActisketchError, ValueError):
    """The cache or the factors belong to another model, other data or other settings."""

    exit_code = 3


class FormatError(ActisketchError, ValueError):
    """The files are damaged, incomplete or newer than this program."""

    exit_code = 4


class OverBudgetError(ActisketchError, MemoryError):
    """The projected memory or disk space is over the limit."""

    exit_code = 5


class BusyError(ActisketchError):
    """Another live process is writing to the same place."""

    exit_code = 6


class StorageError(ActisketchError, OSError):
    """The disk or the object store refused: full, read-only, not there."""

    exit_code = 7


class CertificateError(ActisketchError):
    """The normalised network does not compute what the original does."""

    exit_code = 8


class IncompleteError(ActisketchError):
    """Some blocks are missing or failed; what is finished is kept, run again to resume."""

    exit_code = 9
