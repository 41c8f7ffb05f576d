"""The base of every table of settings."""

from pydantic import BaseModel, ConfigDict

__all__ = ["SettingTable"]


class SettingTable(BaseModel):
    """A frozen table without unknown settings; the docstrings of its fields are their texts."""

    # strict: "32" is not a batch size and 1 is not true; a job file has types of its own.
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_default=True, use_attribute_docstrings=True
    )
