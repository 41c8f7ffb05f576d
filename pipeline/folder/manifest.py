"""The types of the parts of a manifest, which are checked because a manifest may come from anybody.

Settings are checked by `settings/`, hashes of results where they are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

__all__ = ["check_manifest"]

Number = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Part(BaseModel):
    # Keys of earlier or later versions are allowed.
    model_config = ConfigDict(extra="allow", strict=True)


class _Network(_Part):
    name: str = ""
    fingerprint: dict[str, Any] = {}


class _Ties(_Part):
    layer: dict[str, int] = {}
    channel: dict[str, list[int]] = {}
    fixed: list[Annotated[list[Number | int], Field(min_length=2, max_length=2)]] = []
    joined: dict[str, list[list[int]]] = {}
    joined_channel: dict[str, list[list[int]]] = {}


class _Measured(_Part):
    key: str = ""
    factor: Number | dict[str, Number | list[Number]] | None = None


class _Samples(_Part):
    state: str | None = None
    recorded: str = ""


class _ToolboxNames(_Part):
    input: str = "input"
    parsed: dict[str, str | None] | None = None
    unparsed: list[str] = []


class _Manifest(_Part):
    actisketch_run: int
    settings: dict[str, Any] = {}
    model: _Network = _Network()
    n_samples: Annotated[int, Field(ge=1)] = 1
    ties: _Ties = _Ties()
    toolbox: _ToolboxNames = _ToolboxNames()
    versions: dict[str, str] = {}
    earlier_versions: list[dict[str, str]] = []
    random_layers: list[str] = []
    withheld: list[str] = []
    labels: str | None = None
    measured_input: _Measured = _Measured()
    samples: _Samples = _Samples()
    stages: dict[str, str | dict[str, Any]] = {}


def check_manifest(tree: Mapping[str, Any]) -> None:
    """Refuse a manifest with parts of other types than this program writes.

    Raises
    ------
    ValueError
        The message names the part and what is wrong with it, in a few words.
    """
    try:
        _Manifest.model_validate(tree)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part)[:60] for part in first["loc"][:3])
        raise ValueError(f"{place!r}: {first['msg'][:100]}") from None
