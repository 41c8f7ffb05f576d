"""Tell what comes with Keras, TensorFlow, NumPy or Python from what is user-defined."""

from __future__ import annotations

import functools
import sys
import sysconfig
import types
from pathlib import Path
from typing import Any

__all__ = ["LIBRARIES", "home", "is_lambda", "is_library"]

# Another version of a library does not make another network.
LIBRARIES = frozenset({"keras", "tensorflow", "numpy", "ml_dtypes", "h5py", "absl", "optree"})


def is_lambda(value: Any) -> bool:
    """Return whether it is a function without a name."""
    return isinstance(value, types.FunctionType) and value.__name__ == "<lambda>"


def home(thing: Any) -> str:
    """Return the module that the code belongs to, which a decorator may name wrongly."""
    if isinstance(thing, types.FunctionType):
        return str(thing.__globals__.get("__name__", ""))
    if isinstance(thing, types.ModuleType):
        return thing.__name__
    return str(getattr(thing, "__module__", None) or "")


def is_library(thing: Any) -> bool:
    """Return whether something comes with Keras, TensorFlow, NumPy or Python, and is not user-defined."""
    # A lambda out of a model file lives in the module of Keras that read it.
    if is_lambda(thing):
        return False
    root = home(thing).split(".")[0]
    return root in LIBRARIES or (root in sys.stdlib_module_names and _is_stdlib(root))


@functools.cache
def _is_stdlib(name: str) -> bool:
    """Return whether a module is Python's, and not a user's module of the same name, such as `code` or `test`."""
    place = getattr(sys.modules.get(name), "__file__", None)
    return place is None or Path(place).is_relative_to(sysconfig.get_path("stdlib"))
