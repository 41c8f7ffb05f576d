"""Hash the code that a network brings along: its own layers, functions and what they call.

Names do not tell what code computes: a function that was edited keeps its name. Keras, TensorFlow, NumPy and the
standard library are no part of it. Stable across processes and machines: no file names, line numbers or memory
addresses.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import linecache
import sys
import sysconfig
import textwrap
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["brings_code", "code_hashes"]

# What changes with the version of a library is no change of the network.
LIBRARIES = frozenset({"keras", "tensorflow", "numpy", "ml_dtypes", "h5py", "absl", "optree"})
# Attributes of a layer that play no part at inference.
IRRELEVANT_ENDINGS = ("_initializer", "_regularizer", "_constraint")
# What Python adds to a class by itself, other in each version.
GENERATED = frozenset(
    {"__dict__", "__weakref__", "__module__", "__qualname__", "__firstlineno__"}
) | frozenset(
    {"__static_attributes__", "__doc__", "__annotations__", "__annotate__", "__annotate_func__", "__slots__"}
)
PLAIN = (type(None), bool, int, float, complex, str, bytes)


def code_hashes(operation: Any) -> dict[str, str]:
    """Return the hash of each class and function of its own that a layer or an operation uses, by name.

    Parameters
    ----------
    operation : keras.Operation
        Its class, the functions and objects that it holds, and those of the layers within it.

    Returns
    -------
    dict of str to str
        ``module.qualname`` to a SHA-256 of the code, and of all code and constants that this refers to. Empty
        for what consists of Keras alone.
    """
    found: dict[str, list[str]] = {}
    for thing in _own_code(operation, seen=set()):
        found.setdefault(_name(thing), []).append(_hash_of(thing))
    return {name: _sha256(*hashes) for name, hashes in found.items()}


def brings_code(operation: Any) -> bool:
    """Tell whether a layer or an operation uses code that is not Keras', or hands on what it is told to call."""
    return type(operation).__name__ == "Lambda" or any(True for _ in _own_code(operation, seen=set()))


def _own_code(holder: Any, *, seen: set[int]) -> Iterator[Any]:
    """Yield the classes and functions that an object is made of, in the order of its attributes."""
    if id(holder) in seen:
        return
    seen.add(id(holder))
    if not _is_library(type(holder)):
        yield type(holder)
    for name, value in getattr(holder, "__dict__", {}).items():
        if isinstance(value, types.FunctionType) and _is_library(value):
            # Keras wraps `build` of each layer; what is wrapped is found with the class.
            value = inspect.unwrap(value)
        # Keras' own layers have the code of a lambda in their settings.
        is_told = _is_library(type(holder)) and _is_plain_lambda(value)
        if not (name.endswith(IRRELEVANT_ENDINGS) or is_told or _is_bound_to(holder, value)):
            yield from _within(value, seen=seen)


def _is_bound_to(holder: Any, value: Any) -> bool:
    return isinstance(value, types.MethodType) and value.__self__ is holder


def _is_plain_lambda(value: Any) -> bool:
    """Tell whether it is a lambda that refers to nothing of the user's own."""
    if not isinstance(value, types.FunctionType) or value.__name__ != "<lambda>":
        return False
    return all(isinstance(each, types.ModuleType) or _is_library(each) for _, each in _globals_of(value))


def _within(value: Any, *, seen: set[int]) -> Iterator[Any]:
    if isinstance(value, (list, tuple, Mapping)):
        if id(value) not in seen:
            seen.add(id(value))
            for each in value.values() if isinstance(value, Mapping) else value:
                yield from _within(each, seen=seen)
    elif isinstance(value, (type, types.FunctionType, types.MethodType, functools.partial)):
        if not all(_is_library(part) for part in _unwrapped(value)):
            yield value
    elif _is_operation(value) or not _is_library(type(value)):
        yield from _own_code(value, seen=seen)


def _is_operation(value: Any) -> bool:
    return any(kind.__name__ == "Operation" and _is_library(kind) for kind in type(value).__mro__)


def _unwrapped(thing: Any) -> Iterator[Any]:
    """Yield the classes and functions behind a callable: in decorators, methods, partial functions, properties."""
    pending, seen = [thing], set()
    while pending:
        each = pending.pop(0)
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, (type, types.FunctionType)):
            yield each
        if isinstance(each, (types.MethodType, staticmethod, classmethod)):
            pending.append(each.__func__)
        elif isinstance(each, (functools.partial, functools.cached_property)):
            pending.append(each.func)
        elif isinstance(each, property):
            pending.append(each.fget)
        elif not isinstance(each, (type, *PLAIN)):
            # functools.wraps leaves the first, tf.function the second.
            pending += [getattr(each, name, None) for name in ("__wrapped__", "python_function")]


def _home(thing: Any) -> str:
    """Return the module whose code it is: not the one that a decorator says."""
    if isinstance(thing, types.FunctionType):
        return str(thing.__globals__.get("__name__", ""))
    if isinstance(thing, types.ModuleType):
        return thing.__name__
    return str(getattr(thing, "__module__", None) or "")


def _is_library(thing: Any) -> bool:
    root = _home(thing).split(".")[0]
    return root in LIBRARIES or (root in sys.stdlib_module_names and _is_stdlib(root))


@functools.cache
def _is_stdlib(name: str) -> bool:
    """Tell a module of Python from one of the user's own that has its name, such as `code` or `test`."""
    place = getattr(sys.modules.get(name), "__file__", None)
    return place is None or Path(place).is_relative_to(sysconfig.get_path("stdlib"))


def _name(thing: Any) -> str:
    part = next(_unwrapped(thing))
    return f"{_home(part)}.{part.__qualname__}"


def _hash_of(thing: Any) -> str:
    """Return a hash of a class or function and of everything of the user's own that it refers to."""
    digest = hashlib.sha256()
    pending: list[tuple[str, Any]] = [("", thing)]
    # With the things, so that none is freed and its id taken by another.
    seen: dict[int, Any] = {}
    while pending:
        role, each = pending.pop(0)
        if isinstance(each, PLAIN):
            digest.update(f"{role}={each!r};".encode())
            continue
        if id(each) in seen:
            continue
        seen[id(each)] = each
        if isinstance(each, (np.ndarray, np.generic)):
            array = np.asarray(each)
            digest.update(f"{role}={array.dtype}{array.shape}:".encode() + array.tobytes())
        elif isinstance(each, (list, tuple, dict)):
            members = each.items() if isinstance(each, dict) else enumerate(each)
            pending += [(f"{role}[{key}]", value) for key, value in members]
        elif isinstance(each, (set, frozenset)):
            digest.update(f"{role}={sorted(repr(one) for one in each if isinstance(one, PLAIN))};".encode())
        elif not isinstance(each, (type, types.FunctionType, functools.partial)) and not _is_library(
            type(each)
        ):
            # An object of the user's own: what it holds, and what it can do.
            pending += [(role, type(each)), *sorted(getattr(each, "__dict__", {}).items())]
        else:
            if isinstance(each, functools.partial):
                pending += [(role, each.args), (role, each.keywords)]
            for part in _unwrapped(each):
                if _is_library(part):
                    digest.update(f"{role}={_name(part)};".encode())
                elif part is each or id(part) not in seen:
                    seen[id(part)] = part
                    pending += _parts(part)
                    digest.update(f"{role}={_text(part)};".encode())
    return digest.hexdigest()


def _text(part: Any) -> str:
    """Return the code of a function; of a class its name and bases, its parts are hashed one by one."""
    if isinstance(part, type):
        return f"class {part.__qualname__}({','.join(base.__qualname__ for base in part.__bases__)})"
    return _source(part) or _bytecode(part.__code__)


def _parts(part: Any) -> list[tuple[str, Any]]:
    """Return what belongs to a class or a function, each with its role."""
    if isinstance(part, type):
        members = [(name, value) for name, value in vars(part).items() if name not in GENERATED]
        return [*members, *((f"base {i}", base) for i, base in enumerate(part.__bases__))]
    defaults = [("default", each) for each in part.__defaults__ or ()]
    defaults += sorted((part.__kwdefaults__ or {}).items())
    return [*defaults, *_closure(part), *_globals_of(part)]


def _globals_of(function: types.FunctionType) -> list[tuple[str, Any]]:
    """Return what the code of a function finds by name in its module, and in modules of the user's own."""
    # Sorted: in which order names are used, a compiler decides.
    names = sorted(set(_names(function.__code__)))
    space = function.__globals__
    used = [(name, space[name]) for name in names if name in space and not name.startswith("__")]
    for module in [value for _, value in used if isinstance(value, types.ModuleType)]:
        if not _is_library(module):
            used += [(f"{module.__name__}.{n}", vars(module)[n]) for n in names if n in vars(module)]
    return used


def _closure(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # not filled yet
            continue
        yield name, value


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _source(function: types.FunctionType) -> str | None:
    """Return the source of a function; None where it is not known to be that of the code which runs.

    The file may have been edited since it was loaded, and a lambda out of a model file names a file that need not
    be there: the code is compiled again and compared.
    """
    code = function.__code__
    linecache.checkcache(code.co_filename)
    text = "".join(linecache.getlines(code.co_filename, function.__globals__))
    if not text or code.co_name == "<lambda>" or code not in _compiled(text):
        return None
    try:
        return textwrap.dedent(inspect.getsource(code))
    except (OSError, TypeError, SyntaxError, IndentationError):
        return None


@functools.lru_cache(maxsize=32)
def _compiled(text: str) -> frozenset[types.CodeType]:
    try:
        pending = [compile(text, "", "exec", dont_inherit=True)]
    except (SyntaxError, ValueError):
        return frozenset()
    found: set[types.CodeType] = set()
    while pending:
        code = pending.pop()
        found.add(code)
        pending += [each for each in code.co_consts if isinstance(each, types.CodeType)]
    return frozenset(found)


def _bytecode(code: types.CodeType) -> str:
    """Return a hash of compiled code, without where it was."""
    constants = [
        _bytecode(each) if isinstance(each, types.CodeType) else _constant(each) for each in code.co_consts
    ]
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    return _sha256(code.co_code.hex(), repr(code.co_names), repr(code.co_varnames), repr(counts), *constants)


def _constant(thing: Any) -> str:
    return f"frozenset{sorted(map(repr, thing))}" if isinstance(thing, frozenset) else repr(thing)


def _sha256(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
