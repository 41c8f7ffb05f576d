"""Who may ask: one-time keys for browsers, tokens for scripts. Compared in constant time, kept as hashes only.

Knows secrets. Does not know requests.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import secrets
import select
import stat
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path

from ...storage.errors import InputError

__all__ = ["JOBS_TOKEN_VARIABLE", "TOKEN_VARIABLE", "Access", "read_tokens"]

TOKEN_VARIABLE = "ACTISKETCH_TOKEN"
JOBS_TOKEN_VARIABLE = "ACTISKETCH_JOBS_TOKEN"
# A shorter one can be guessed.
SHORTEST_TOKEN = 16
LONGEST_TOKEN = 1000
LARGEST_FILE_NBYTES = 2**20
PIPE_S = 5.0
# A browser signs in again after a week. Each sign-in needs a key that was printed, so there are few.
SESSION_S = 7 * 24 * 3600
MOST_SESSIONS = 1000


class Access:
    """The secrets of one service.

    Parameters
    ----------
    tokens : iterable of str
        For scripts that read.
    jobs_tokens : iterable of str
        For scripts that read, and start and end jobs.
    key_acts : bool
        Whether a browser that signs in with the key may start and end jobs.
    """

    def __init__(
        self,
        tokens: Iterable[str] = (),
        *,
        jobs_tokens: Iterable[str] = (),
        key_acts: bool = False,
    ) -> None:
        self._jobs_tokens = [_hash(token) for token in jobs_tokens]
        self._tokens = [_hash(token) for token in tokens] + self._jobs_tokens
        self._key_acts = key_acts
        self._key = b""
        # When each ends, and whether it may act.
        self._sessions: OrderedDict[bytes, tuple[float, bool]] = OrderedDict()

    @property
    def has_tokens(self) -> bool:
        """Whether scripts can ask."""
        return bool(self._tokens)

    def new_key(self) -> str:
        """Return the key that the next browser signs in with; an earlier one that was not used is void."""
        key = secrets.token_urlsafe(32)
        self._key = _hash(key)
        return key

    def exchange(self, key: str) -> str | None:
        """Return a session for a key, which is void then; None if it is not the key."""
        if not self._key or not hmac.compare_digest(self._key, _hash(key)):
            return None
        self._key = b""
        return self.new_session(may_act=self._key_acts)

    def new_session(self, *, may_act: bool) -> str:
        """Return a session for a browser that has shown a key or a token, which say whether it may act."""
        session = secrets.token_urlsafe(32)
        self._sessions[_hash(session)] = (time.monotonic() + SESSION_S, may_act)
        while len(self._sessions) > MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def is_token(self, token: str) -> bool:
        """Whether it is one of the tokens."""
        return _is_among(token, self._tokens)

    def is_jobs_token(self, token: str) -> bool:
        """Whether it is one of the tokens that may start and end jobs."""
        return _is_among(token, self._jobs_tokens)

    def is_session(self, session: str) -> bool:
        """Whether it is a session that is not over."""
        return self._session(session) is not None

    def is_acting_session(self, session: str) -> bool:
        """Whether it is a session that may start and end jobs."""
        return self._session(session) is True

    def _session(self, session: str) -> bool | None:
        """Return whether a session may act; None if there is none, or it is over."""
        # Looked up by its hash: how long that takes tells nothing of the session.
        ends_s, may_act = self._sessions.get(_hash(session), (0.0, False))
        return may_act if time.monotonic() < ends_s else None


def _is_among(token: str, known: Iterable[bytes]) -> bool:
    found = _hash(token)
    # All are compared: how long it takes does not tell which.
    return sum(hmac.compare_digest(found, each) for each in known) > 0


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _content(path: Path) -> tuple[bytes, int]:
    """Return what is in a file and its mode. A pipe, as of ``<(pass show token)``, is waited for, but not for ever."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        mode, content = os.fstat(descriptor).st_mode, b""
        while len(content) <= LARGEST_FILE_NBYTES:
            if not select.select([descriptor], [], [], PIPE_S)[0]:
                raise OSError(errno.ETIMEDOUT, "nothing was written to this pipe for five seconds")
            part = os.read(descriptor, LARGEST_FILE_NBYTES)
            if not part:
                return content, mode
            content += part
    finally:
        os.close(descriptor)
    raise OSError(errno.EFBIG, f"it has more than {LARGEST_FILE_NBYTES:,} bytes")


def read_tokens(
    path: Path | None, environment: Mapping[str, str] = os.environ, variable: str = TOKEN_VARIABLE
) -> tuple[tuple[str, ...], list[str]]:
    """Return the tokens in a file (one a line, ``#`` begins a comment) and in an environment variable, and warnings.

    Raises
    ------
    InputError
        If the file cannot be read, or a token could be guessed or not be sent.
    """
    found, told = [], []
    if path is not None:
        try:
            content, mode = _content(path)
            lines = content.decode("ascii").splitlines()
        except OSError as error:
            raise InputError(f"the token file {str(path)!r} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise InputError(
                f"the token file {str(path)!r} is not ASCII text: write one token a line"
            ) from None
        found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not found:
            raise InputError(
                f"the token file {str(path)!r} has no token: write one a line, of 16 characters or more"
            )
        if stat.S_ISREG(mode) and mode & (stat.S_IRWXG | stat.S_IRWXO):
            told.append(f"others can read the token file {str(path)!r}: `chmod 600` it")
    if environment.get(variable):
        found.append(environment[variable].strip())
    for token in found:
        if (
            not SHORTEST_TOKEN <= len(token) <= LONGEST_TOKEN
            or not token.isascii()
            or not token.isprintable()
        ):
            raise InputError(
                f"a token of {len(token)} characters is refused: give {SHORTEST_TOKEN} to {LONGEST_TOKEN} printable "
                "ASCII characters, as from `openssl rand -hex 32`"
            )
        if " " in token:
            raise InputError("a token contains a space, which a request cannot send: write one token a line")
    return tuple(found), told
