"""The exporters by name: those of this package, and those of others by their entry points.

A module of a target is loaded when its name is asked for.
"""

from __future__ import annotations

import importlib
import importlib.metadata

from ...storage.errors import InputError
from .exporter import Exporter

__all__ = ["BUILT_IN", "GROUP", "exporter_names", "load_exporter"]

GROUP = "actisketch.exporters"
BUILT_IN = {
    "json": "as_json",
    "csv": "as_csv",
    "tdigest": "as_tdigest",
    "toolbox": "as_toolbox",
    "toolbox-parsed": "as_toolbox_parsed",
    "onnxruntime": "as_onnxruntime",
    "litert": "as_litert",
    "hls4ml": "as_hls4ml",
    "nir": "as_nir",
    "tensorboard": "as_tensorboard",
}
"""Names -> modules of this package; each has an ``EXPORTER``."""


def exporter_names() -> tuple[str, ...]:
    """Return the names of all exporters: ours first, then those of installed packages."""
    others = {point.name for point in importlib.metadata.entry_points(group=GROUP)}
    return (*BUILT_IN, *sorted(others - BUILT_IN.keys()))


def load_exporter(name: str) -> Exporter:
    """Return an exporter; one of ours is never replaced by another of its name.

    Raises
    ------
    InputError
        For an unknown name, or an entry point that cannot be loaded or is no `Exporter`.
    """
    if name in BUILT_IN:
        ours: Exporter = importlib.import_module(f".{BUILT_IN[name]}", __package__).EXPORTER
        return ours
    for point in importlib.metadata.entry_points(group=GROUP, name=name):
        return _loaded(point)
    *first, last = exporter_names()
    raise InputError(f"export as {name!r} is refused: {', '.join(first)} or {last}")


def _loaded(point: importlib.metadata.EntryPoint) -> Exporter:
    package = point.dist.name if point.dist is not None else "an unknown package"
    try:
        found = point.load()
    except Exception as error:  # whatever the module of others raises when it is imported
        raise InputError(
            f"the exporter {point.name!r} of {package} cannot be loaded ({type(error).__name__}: {error}): update or "
            "remove that package"
        ) from error
    if not isinstance(found, Exporter):
        raise InputError(
            f"the exporter {point.name!r} of {package} is a {type(found).__name__}: its entry point {point.value!r} "
            "has to name an actisketch.pipeline.exporters.Exporter"
        )
    return found
