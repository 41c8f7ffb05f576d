"""Refuse an object store without credentials: its client would ask the metadata service of a cloud machine for them.

That service answers at an address of the local network (169.254.169.254), which a program must not ask unless it was
told to: elsewhere the request ends after a minute, or at somebody else's machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from obstore.store import AzureStore, GCSStore, S3Store

from .errors import InputError

__all__ = ["check_credentials"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cloud:
    """What tells a client where credentials come from."""

    prefix: re.Pattern[str]
    variables: re.Pattern[str]
    """How the names of the variables begin that the client reads: `TOKEN` and the like are of other programs."""
    enough: frozenset[str]
    """Options, or variables after their prefix: any of them settles where credentials come from."""
    advice: str


_AWS = _Cloud(
    prefix=re.compile(r"^aws_"),
    variables=re.compile(r"AWS_"),
    enough=frozenset(
        {
            "access_key_id", "skip_signature", "web_identity_token_file", "container_credentials_relative_uri",
            "container_credentials_full_uri", "metadata_endpoint", "credential_provider",
        }
    ),
    advice="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment; for a public bucket set "
    "storage_options = { skip_signature = true }, for the role of a machine of AWS { metadata_endpoint = "
    "'http://169.254.169.254' }",
)  # fmt: skip
_GOOGLE = _Cloud(
    prefix=re.compile(r"^google_"),
    variables=re.compile(r"GOOGLE_|(SERVICE_ACCOUNT|GCE_METADATA_(HOST|ROOT|IP))$"),
    enough=frozenset(
        {
            "service_account", "service_account_path", "service_account_key", "application_credentials",
            "skip_signature", "credential_provider", "gce_metadata_host", "gce_metadata_root", "gce_metadata_ip",
        }
    ),
    advice="set GOOGLE_APPLICATION_CREDENTIALS in the environment; for a public bucket set storage_options = { "
    "skip_signature = true }, for the account of a machine of Google the variable "
    "GCE_METADATA_HOST=metadata.google.internal",
)  # fmt: skip
_AZURE = _Cloud(
    prefix=re.compile(r"^azure_(storage_)?"),
    # Not AZURE_TOKEN, for one: that is AZURE_STORAGE_TOKEN.
    variables=re.compile(r"AZURE_(STORAGE|CLIENT|MSI|IDENTITY|OBJECT|FEDERATED|USE_AZURE|SKIP)_|IDENTITY_ENDPOINT$"),
    enough=frozenset(
        {
            "access_key", "account_key", "master_key", "sas_key", "sas_token", "bearer_token", "token", "client_id",
            "client_secret", "federated_token_file", "use_azure_cli", "skip_signature", "msi_endpoint",
            "identity_endpoint", "msi_resource_id", "object_id", "use_emulator", "credential_provider",
        }
    ),
    advice="set AZURE_STORAGE_ACCOUNT_KEY in the environment; for a public container set storage_options = { "
    "skip_signature = true }, for the identity of a machine of Azure { msi_endpoint = "
    "'http://169.254.169.254/metadata/identity/oauth2/token' }",
)  # fmt: skip
# Where the tool `gcloud` keeps what a user signed in with.
_GCLOUD = Path(".config", "gcloud", "application_default_credentials.json")


def check_credentials(url: str, store: Any, options: Mapping[str, Any]) -> None:
    """Refuse a store of a cloud if neither its options nor the environment say where credentials come from.

    Raises
    ------
    InputError
        With how to say so.
    """
    if isinstance(store, S3Store):
        cloud = _AWS
    elif isinstance(store, GCSStore):
        cloud = _GOOGLE
    elif isinstance(store, AzureStore):
        cloud = _AZURE
    else:
        return
    given = {name for table in (options, options.get("config") or {}) for name in table}
    given |= {name for name, value in os.environ.items() if value and cloud.variables.match(name)}
    if {cloud.prefix.sub("", str(name).lower()) for name in given} & cloud.enough:
        return
    if cloud is _GOOGLE and (Path.home() / _GCLOUD).is_file():
        return
    raise InputError(f"there are no credentials for {url!r}: {cloud.advice}", place=url)
