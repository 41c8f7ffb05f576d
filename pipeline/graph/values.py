"""What values of a library are made of: slices and sets, generators of random numbers, lookup tables.

Knows no layers and no code.
"""

from __future__ import annotations

import copyreg
import enum
import operator
import os
import random
import types
from collections.abc import Iterator
from typing import Any

import numpy as np

from .library import LIBRARIES, home, is_library

__all__ = ["generator_state", "is_content", "state_parts", "value_parts"]

# Values that do not compare by what they hold, but hold nothing else.
VALUES = (operator.itemgetter, operator.attrgetter, operator.methodcaller, enum.Enum)
# Those behind `random.random` and `np.random.random`.
SHARED_GENERATORS = tuple(getattr(draw, "__self__", None) for draw in (random.random, np.random.random))


def value_parts(thing: Any) -> Any:
    """Return what a value of a library is made of, as pickle would keep it: of a slice its ends and its step.

    None for what does not compare by what it holds (a lock), for functions, for what belongs to the machine (paths and
    the environment), and for what Keras and TensorFlow keep books with; but see `state_parts`.
    """
    kind, state = type(thing), state_parts(thing)
    if state is not None:
        return state
    is_value = vars(object)["__eq__"] != kind.__eq__ and not callable(thing)
    if not (is_value or isinstance(thing, VALUES)) or hasattr(thing, "get_config"):
        return None
    is_book = home(kind).split(".")[0] != "numpy" and home(kind).split(".")[0] in LIBRARIES
    if isinstance(thing, (os.PathLike, type(os.environ))) or (is_book and "__reduce__" not in _members(kind)):
        return None
    if isinstance(thing, np.dtype):
        return None if thing.isbuiltin == 1 else str(thing)
    if isinstance(thing, memoryview):
        return bytes(thing)
    if isinstance(thing, types.MappingProxyType):
        return dict(thing)
    reduce: Any = copyreg.dispatch_table.get(kind)
    try:
        made = thing.__reduce_ex__(4) if reduce is None else reduce(thing)
    except Exception:  # each kind of value that cannot be pickled raises another error
        return None
    # The first is the constructor; lists and dicts give their members as iterators.
    return made if isinstance(made, str) else [_listed(each) for each in made[1:]]


def is_content(value: Any) -> bool:
    """Return whether it is an array, or a lookup table or a variable of TensorFlow: Keras counts none as a weight."""
    return isinstance(value, np.ndarray) or bool(_kinds(value) & {"LookupInterface", "BaseResourceVariable"})


def _kinds(value: Any) -> set[str]:
    """Return the names of the classes of TensorFlow that it is of."""
    return {kind.__name__ for kind in type(value).__mro__ if home(kind).startswith("tensorflow.")}


def state_parts(thing: Any) -> Any:
    """Return what a generator of random numbers draws from, or what a table of TensorFlow holds.

    None for anything else, and for a generator of Keras that was given no seed: it has another one in each process.
    """
    if (state := generator_state(thing)) is not None:
        return state
    if type(thing).__name__ == "SeedGenerator" and is_library(type(thing)):
        return thing.get_config()["seed"]
    if "LookupInterface" not in _kinds(thing):
        return None
    names = ("_default_value", "_num_oov_buckets", "_hasher_spec", "_table")
    beside = [getattr(thing, name, None) for name in names]
    entries = [each.numpy().tolist() for each in thing.export()] if hasattr(thing, "export") else [[], []]
    dtypes = [thing.key_dtype.name, thing.value_dtype.name]
    # TensorFlow gives the entries in any order.
    return [*dtypes, *beside, sorted(zip(*entries, strict=True), key=repr)]


def generator_state(thing: Any) -> Any:
    """Return the state of a generator of random numbers; None for anything else and for those that a process shares."""
    if isinstance(thing, np.random.Generator):
        return thing.bit_generator.state
    if isinstance(thing, np.random.BitGenerator):
        return thing.state
    if any(thing is each for each in SHARED_GENERATORS) or isinstance(thing, random.SystemRandom):
        return None
    if isinstance(thing, np.random.RandomState):
        return thing.get_state(legacy=False)
    if isinstance(thing, random.Random):
        return thing.getstate()
    return [int(thing.algorithm), thing.state.numpy()] if "Generator" in _kinds(thing) else None


def _members(kind: type) -> set[str]:
    return {name for each in kind.__mro__[:-1] for name in vars(each)}


def _listed(part: Any) -> Any:
    return list(part) if isinstance(part, Iterator) else part
