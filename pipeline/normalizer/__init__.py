"""Rewrite a network so that its activations are divided by factors, so that it computes the same.

Each name is loaded when it is used: questions about a finished run need `tied_scales` alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .normalizing import NormalizedModel as NormalizedModel
    from .normalizing import Rewriting as Rewriting
    from .normalizing import normalize_in_place as normalize_in_place
    from .normalizing import normalize_model as normalize_model
    from .propagation import Exceptions as Exceptions
    from .propagation import Mode as Mode
    from .propagation import Pinned as Pinned
    from .propagation import Propagation as Propagation
    from .solving import Factor as Factor
    from .solving import Solution as Solution
    from .solving import held_scales as held_scales
    from .solving import propagate as propagate
    from .solving import solve as solve
    from .solving import without_factor as without_factor
    from .variables import tied_scales as tied_scales

_HOMES = {
    "Exceptions": "propagation",
    "Factor": "solving",
    "Mode": "propagation",
    "NormalizedModel": "normalizing",
    "Pinned": "propagation",
    "Propagation": "propagation",
    "Rewriting": "normalizing",
    "Solution": "solving",
    "held_scales": "solving",
    "normalize_in_place": "normalizing",
    "normalize_model": "normalizing",
    "propagate": "solving",
    "solve": "solving",
    "tied_scales": "variables",
    "without_factor": "solving",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
