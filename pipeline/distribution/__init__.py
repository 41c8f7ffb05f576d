"""Activation statistics of Keras networks, certified percentiles, scale factors, a normaliser with a certificate.

Installed as the package ``actisketch`` itself, around ``actisketch.pipeline`` and ``actisketch.storage``. It has the
public names of the pipeline, each of which is loaded when it is used.
"""

from __future__ import annotations

import importlib
from typing import Any

_PIPELINE = f"{__name__}.pipeline"


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("actisketch")
    if not name.startswith("_"):
        pipeline = importlib.import_module(_PIPELINE)
        if name in pipeline.__all__:
            return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *importlib.import_module(_PIPELINE).__all__, "__version__"]
