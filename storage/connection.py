"""Send requests to an object store, again where they fail in a way that may pass.

Knows what obstore raises. Does not know what is stored.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from .errors import StorageError
from .options import StorageOptions

__all__ = ["MISSING", "TAKEN", "Connection", "first_line"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Attempts after the first, on top of obstore's own (which retries what a server says is passing).
_WAITS_S = (0.2, 0.5, 1.0, 2.0, 5.0)
# obstore raises Python's own FileNotFoundError and PermissionError too, by version.
MISSING = (NotFoundError, FileNotFoundError)
TAKEN = (AlreadyExistsError, PreconditionError, FileExistsError)
"""A conditional PUT found another object than the condition names."""
# Answers that will not change, in errors that have no type of their own; only saves waiting.
_FINAL_ANSWER = re.compile(r"status code: 4(?!08|29)\d\d")
_FORBIDDEN = (PermissionDeniedError, UnauthenticatedError, PermissionError)


class Connection:
    """An object store at a URL."""

    def __init__(self, url: str, store: Any, options: Mapping[str, Any]) -> None:
        self.url = url
        self.obstore = store
        self._options = StorageOptions(options)

    def attempt(self, verb: str, key: str, action: Callable[[], T], needed: int = 0) -> T:
        """Do it, again if the store fails in a way that may pass."""
        for wait_s in (*_WAITS_S, None):
            try:
                return action()
            except TAKEN:
                raise
            except MISSING as error:
                if verb in ("read", "delete"):
                    raise
                raise self._refused(error, verb, key, needed) from error
            except _FORBIDDEN as error:
                raise self._refused(error, verb, key, needed) from error
            except (BaseError, OSError) as error:
                if wait_s is None or _FINAL_ANSWER.search(str(error)):
                    raise self._refused(error, verb, key, needed) from error
                logger.warning(
                    "could not %s %s/%s, trying again in %g s: %s",
                    verb,
                    self.url,
                    key,
                    wait_s,
                    self._options.scrub(first_line(error)),
                )
                time.sleep(wait_s)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _refused(self, error: BaseException, verb: str, key: str, needed: int) -> StorageError:
        place = f"{self.url.rstrip('/')}/{key}"
        if isinstance(error, _FORBIDDEN):
            step = "check the credentials and rights in storage_options"
        elif isinstance(error, MISSING) or _FINAL_ANSWER.search(str(error)):
            step = "check that the bucket exists and the endpoint in storage_options is its server"
        elif "error sending request" in str(error):
            step = (
                "the server was not reached: check the network and the endpoint in storage_options, and run again: "
                "what is committed is kept"
            )
        else:
            step = "check the store and run again: what is committed is kept"
        return StorageError(
            f"could not {verb} {place!r}: {self._options.scrub(first_line(error))}; {step}",
            path=place,
            needed_nbytes=needed,
        )


# What the client says of its own work: "Generic S3 error: Error performing GET https://... in 1.2s, after 6 retries".
_OF_CLIENT = re.compile(
    r"^Generic \w+ error: Error performing (\w+ \S+) in [^,\s]+(?:, after .*?)?\s+- (?:HTTP error: )?"
)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, without what the client says of itself; the rest is debug output."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return _OF_CLIENT.sub(r"\1: ", line)
