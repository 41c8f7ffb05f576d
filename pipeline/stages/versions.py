"""Which versions a run was made with: results of TensorFlow differ between versions in their last bits."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

from ...storage.errors import MismatchError
from ..folder.folder import RunFolder

__all__ = ["check_made_with", "installed_versions", "noted_versions"]

# These compute activations; the others only store and count them.
_COMPUTING = ("tensorflow", "keras")


def installed_versions() -> dict[str, str]:
    """Return the versions that matter to a run, by name."""
    packages = ("actisketch", "keras", "tensorflow", "zarr", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version(), **versions}


def check_made_with(folder: RunFolder, *, accept: bool) -> None:
    """Refuse to continue a run with another TensorFlow or Keras than it was made with.

    Raises
    ------
    MismatchError
        With what differs.
    """
    made, here = folder.manifest().get("versions", {}), installed_versions()
    differing = [name for name in _COMPUTING if made.get(name, here[name]) != here[name]]
    if not differing or accept:
        return
    then = " and ".join(f"{name} {made[name]}" for name in differing)
    now = " and ".join(f"{name} {here[name]}" for name in differing)
    raise MismatchError(
        f"the run {str(folder.path)!r} was made with {then}, this is {now}: values may differ in their last bits. "
        "Install those versions, choose another output folder, or mix versions with --accept-versions "
        "(record.accept_versions = true)",
        differing=tuple(differing),
    )


def noted_versions(folder: RunFolder, *, is_new: bool = False) -> dict[str, Any]:
    """Return what the manifest notes when something is computed with the versions installed here.

    ``is_new``: nothing computed by earlier versions is left.
    """
    tree, here = folder.manifest(), installed_versions()
    made, earlier = tree.get("versions", {}), tree.get("earlier_versions", [])
    if is_new:
        return {"versions": here, "earlier_versions": []}
    is_mixture = any(made.get(name, here[name]) != here[name] for name in _COMPUTING)
    return {"versions": here, "earlier_versions": [*earlier, made] if is_mixture else earlier}
