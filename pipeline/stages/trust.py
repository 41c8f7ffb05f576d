"""Only the caller can allow a network to run code, never a folder: that may come from anybody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...storage.errors import InputError
from ..settings.job_settings import ModelSettings

__all__ = ["trusted_by_caller"]


def trusted_by_caller(
    asked: ModelSettings, manifest: Path, *, custom_objects: str | Path | None, safe_mode: bool
) -> dict[str, Any]:
    """Return the opt-ins of the caller, as keys of the table ``[model]``.

    ``asked`` is that table as the manifest of the run has it.

    Raises
    ------
    InputError
        If the run's folder asks for one that the caller does not give.
    """
    missing = []
    if asked.custom_objects is not None and custom_objects is None:
        missing.append(f"--custom-objects {asked.custom_objects!r}")
    if not asked.safe_mode and safe_mode:
        missing.append("--unsafe-model")
    if missing:
        raise InputError(
            f"{str(manifest)!r} wants code to be run ({' and '.join(missing)}), and a folder may come "
            "from anybody: if you trust that code, give the same flag here (in Python: custom_objects=, "
            "safe_mode=False)",
            missing=tuple(missing),
        )
    given = None if custom_objects is None else str(Path(custom_objects).absolute())
    return {"custom_objects": given, "safe_mode": safe_mode}
