"""Tell the options of an object store that may be shown from those that are secrets.

Knows the names of obstore's settings. What is not known to be harmless counts as a secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

__all__ = ["StorageOptions", "has_credentials", "hide_credentials", "is_in_environment", "variables_of"]

# fmt: off
_HARMLESS = frozenset({
    "account_name", "allow_http", "allow_invalid_certificates", "backoff", "base", "bucket", "bucket_name",
    "checksum_algorithm", "conditional_put", "connect_timeout", "container_name", "copy_if_not_exists",
    "default_content_type", "default_region", "disable_bulk_delete", "disable_tagging", "endpoint",
    "endpoint_url", "http1_only", "http2_only", "http2_keep_alive_interval", "http2_keep_alive_timeout",
    "http2_keep_alive_while_idle", "http2_max_frame_size", "init_backoff", "max_backoff", "max_retries",
    "pool_idle_timeout", "pool_max_idle_per_host", "proxy_excludes", "randomize_addresses", "read_timeout",
    "region", "request_payer", "retry_timeout", "s3_express", "server_side_encryption", "skip_signature",
    "sse_bucket_key_enabled", "sts_endpoint", "timeout", "unsigned_payload", "use_emulator",
    "use_fabric_endpoint", "user_agent", "virtual_hosted_style_request",
})
# Of these, those that say which server is asked, or that it need not prove who it is.
_STEERING = frozenset({
    "account_name", "allow_invalid_certificates", "bucket", "bucket_name", "container_name", "endpoint", "endpoint_url",
    "proxy_excludes", "s3_express", "sts_endpoint", "use_emulator", "use_fabric_endpoint",
})
# fmt: on
# A region with a slash in it would be an address.
_NO_ADDRESS = re.compile(r"[\w.+-]*")
# Tables whose own keys are judged.
_TABLES = frozenset({"client_options", "config", "retry_config"})
_PREFIX = re.compile(r"^(aws|google|azure_storage|azure)_")
# Shorter ones would hide ordinary words.
_SHORTEST_SECRET = 4
_VARIABLES = {"s3": ("AWS",), "s3a": ("AWS",), "gs": ("GOOGLE",)}
_AZURE = ("AZURE_STORAGE", "AZURE")


class StorageOptions(dict[str, Any]):
    """Options of an object store; secrets among them are hidden in its text.

    Pickled whole, as workers need them; a log that shows the arguments of a task shows this text.
    """

    def __repr__(self) -> str:
        hidden = "".join(f", {name}=***" for name in self.secrets())
        return f"{type(self).__name__}({self.public()!r}{hidden})"

    __str__ = __repr__

    def public(self) -> dict[str, Any]:
        """Return what may be written and shown."""
        return _public(self)

    def secrets(self) -> dict[str, str]:
        """Return the secrets as text, by dotted name."""
        return dict(_others(self, _is_harmless, prefix=""))

    def steering(self) -> dict[str, str]:
        """Return those that may have another server asked, as text, by dotted name; all secrets are among them."""
        return dict(_others(self, _is_neutral, prefix=""))

    def scrub(self, text: str) -> str:
        """Return a foreign text, such as a server's answer, without the secrets."""
        for secret in sorted(self.secrets().values(), key=len, reverse=True):
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, "***")
        return text


def _public(options: Mapping[str, Any]) -> dict[str, Any]:
    shown = {}
    for name, value in options.items():
        if _is_table(name, value):
            shown[name] = _public(value)
        elif _is_harmless(name, value):
            shown[name] = value
    return shown


def _others(
    options: Mapping[str, Any],
    is_fine: Callable[[str, object], bool],
    prefix: str,
    *,
    known: bool = True,
) -> Iterator[tuple[str, str]]:
    """Yield name and text of each option that is not fine; in a table that is not known, none is."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _others(value, is_fine, f"{prefix}{name}.", known=known and _is_table(name, value))
        elif not (known and is_fine(name, value)):
            text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
            yield f"{prefix}{name}", text


def _is_table(name: str, value: object) -> bool:
    return str(name).lower() in _TABLES and isinstance(value, Mapping)


def _is_harmless(name: str, value: object) -> bool:
    plain = _PREFIX.sub("", str(name).lower())
    return plain in _HARMLESS and not isinstance(value, Mapping | list | tuple) and not has_credentials(value)


def _is_neutral(name: str, value: object) -> bool:
    is_steering = _PREFIX.sub("", str(name).lower()) in _STEERING
    return not is_steering and _is_harmless(name, value) and bool(_NO_ADDRESS.fullmatch(str(value)))


def has_credentials(value: object) -> bool:
    """Whether a text is a URL with a user, a password or a signature in it."""
    if not isinstance(value, str) or "://" not in value or value.lower().startswith("file:"):
        return False
    return hide_credentials(value) != value


def hide_credentials(text: str) -> str:
    """Return a text with the credentials of the URLs in it left out."""
    text = re.sub(r"(\w://)[^/?#\s'\"]*@", r"\1***@", text)
    return re.sub(r"(\w://[^?\s'\"]*)\?[^\s'\"]*", r"\1?***", text)


def variables_of(name: str, url: str) -> tuple[str, ...]:
    """Return the environment variables that stand for an option; none for one that has none."""
    if "." in name:
        return ()
    plain = _PREFIX.sub("", name.lower()).upper()
    return tuple(f"{prefix}_{plain}" for prefix in _VARIABLES.get(urlsplit(url).scheme, _AZURE))


def is_in_environment(name: str, url: str) -> bool:
    """Whether a variable stands for the option."""
    return any(os.environ.get(variable) for variable in variables_of(name, url))
