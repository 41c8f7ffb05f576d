"""Hash the user-defined code of a network: its layers, its functions and what they call.

A function that was edited keeps its name, so its code is hashed: what Python compiled, without file and module names,
line numbers, comments and memory addresses. Code of Keras, TensorFlow, NumPy and the standard library does not count.

Why not the source text: code may run without a file (cloudpickle), or its file may have been edited since. Why not the
classes alone: functions, closures, properties, globals and objects that a layer uses change what it computes as well.
tests/graph/test_own_code.py has a case for each.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import hashlib
import inspect
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...storage.errors import InputError
from .library import home, is_lambda, is_library
from .state import layer_settings
from .values import generator_state, value_parts

__all__ = [
    "brings_code",
    "code_hash",
    "code_hashes",
    "file_code_hash",
    "is_layer_or_operation",
    "told_lambdas",
]

# Settings and attributes of a layer that play no part at inference.
IRRELEVANT_ENDINGS = ("_initializer", "_regularizer", "_constraint")
# What Python adds to every class, different in each version.
GENERATED = frozenset(
    {"__dict__", "__weakref__", "__module__", "__qualname__", "__firstlineno__"}
) | frozenset(
    {"__static_attributes__", "__doc__", "__annotations__", "__annotate__", "__annotate_func__", "__slots__"}
    # The address of the class, which keras-hub keeps in it.
    | {"_api_export_symbol_id"}
)
PLAIN = (type(None), bool, int, float, complex, str, bytes)


def code_hashes(operation: Any) -> dict[str, str]:
    """Return the hash of each user-defined class and function that a layer or an operation uses, by name.

    Parameters
    ----------
    operation : keras.Operation
        Its class, the functions and objects that it holds, and those of the layers within it.

    Returns
    -------
    dict of str to str
        Its name -> the SHA-256 of its code and of all code and constants that this refers to. Empty where everything
        comes from Keras.
    """
    found: dict[str, list[str]] = {}
    for thing, is_told in _own_code(operation, seen=set()):
        if not is_told:
            name = next(_unwrapped(thing), type(thing)).__qualname__
            found.setdefault(name, []).append(code_hash(thing))
    return {name: _sha256(*hashes) for name, hashes in found.items()}


def told_lambdas(operation: Any) -> list[str]:
    """Return the hashes of the lambdas that layers of Keras hold and that refer to no user-defined code.

    Keras writes them into the settings with file and line; their code counts instead.
    """
    return [code_hash(thing) for thing, is_told in _own_code(operation, seen=set()) if is_told]


def brings_code(operation: Any) -> bool:
    """Return whether a layer or an operation uses user-defined code, or is a Lambda."""
    return type(operation).__name__ == "Lambda" or any(True for _ in _own_code(operation, seen=set()))


def file_code_hash(path: str | Path) -> str:
    """Return a hash of the compiled code of a Python file, without running it."""
    return _bytecode(compile(Path(path).read_bytes(), "", "exec", dont_inherit=True))


def _own_code(holder: Any, *, seen: set[int]) -> Iterator[tuple[Any, bool]]:
    """Yield the user-defined classes and functions that an object uses, and whether its settings contain them.

    In the order of its attributes. A callable object is yielded itself, because what it holds counts as well.
    """
    if id(holder) in seen:
        return
    seen.add(id(holder))
    if not is_library(type(holder)):
        yield holder if callable(holder) and not is_layer_or_operation(holder) else type(holder), False
    for name, value in getattr(holder, "__dict__", {}).items():
        if isinstance(value, types.FunctionType) and is_library(value):
            # Keras wraps `build` of each layer; what is wrapped is found with the class.
            value = inspect.unwrap(value)
        if is_library(type(holder)) and _is_plain_lambda(value):
            yield value, True
        elif not (name.endswith(IRRELEVANT_ENDINGS) or _is_bound_to(holder, value)):
            yield from _within(value, seen=seen)


def _is_bound_to(holder: Any, value: Any) -> bool:
    return isinstance(value, types.MethodType) and value.__self__ is holder


def _is_plain_lambda(value: Any) -> bool:
    """Return whether it is a lambda that refers to no user-defined code."""
    return is_lambda(value) and all(
        isinstance(each, types.ModuleType) or is_library(each) for _, each in _globals_of(value)
    )


def _within(value: Any, *, seen: set[int]) -> Iterator[tuple[Any, bool]]:
    if isinstance(value, (list, tuple, Mapping)):
        if id(value) not in seen:
            seen.add(id(value))
            for each in value.values() if isinstance(value, Mapping) else value:
                yield from _within(each, seen=seen)
    elif isinstance(value, (type, types.FunctionType, types.MethodType, functools.partial)):
        if not all(is_library(part) for part in _unwrapped(value)):
            yield value, False
    elif is_layer_or_operation(value) or not is_library(type(value)):
        yield from _own_code(value, seen=seen)
    elif callable(value) and not all(is_library(part) for part in _unwrapped(value)):
        yield value, False  # tf.function


def is_layer_or_operation(value: Any) -> bool:
    """Return whether it is a layer, a network or another operation of Keras, also a user-defined one."""
    return any(kind.__name__ == "Operation" and is_library(kind) for kind in type(value).__mro__)


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


def code_hash(thing: Any, *, holders: tuple[Any, ...] = ()) -> str:
    """Return a hash of a class or function and of all user-defined code and data that it refers to.

    Without ``holders``, which hold it.
    """
    hasher = hashlib.sha256()
    pending: list[tuple[str, Any]] = [("", thing)]
    # Keeps the objects alive, so that no id is used twice.
    seen: dict[int, Any] = {id(each): each for each in holders}
    while pending:
        role, each = pending.pop(0)
        if isinstance(each, PLAIN):
            hasher.update(f"{role}={each!r};".encode())
            continue
        if id(each) in seen:
            continue
        seen[id(each)] = each
        if isinstance(each, (np.ndarray, np.generic)) or _is_tensor(each):
            array = np.asarray(each.numpy() if _is_tensor(each) else each)
            is_text = array.dtype.hasobject  # its bytes are addresses
            hasher.update(
                f"{role}={array.dtype}{array.shape}:".encode() + (b"" if is_text else array.tobytes())
            )
            pending += [(role, array.ravel().tolist())] if is_text else []
        elif isinstance(each, (list, tuple, dict)):
            members = each.items() if isinstance(each, dict) else enumerate(each)
            pending += [(f"{role}[{key}]", value) for key, value in members]
        elif isinstance(each, (set, frozenset)):
            others = [one for one in each if not (isinstance(one, PLAIN) or is_layer_or_operation(one))]
            hashes = [repr(one) for one in each if isinstance(one, PLAIN)]
            hashes += [code_hash(one, holders=tuple(seen.values())) for one in others]
            hasher.update(f"{role}={sorted(hashes)};".encode())
        elif is_layer_or_operation(each):
            pending += [(role, part) for part in _layer_parts(each)]
        elif not isinstance(each, (type, types.FunctionType, functools.partial)) and not is_library(
            type(each)
        ):
            # A user-defined object: its attributes and its class.
            pending += [
                (role, type(each)),
                *sorted({**_slots(each), **getattr(each, "__dict__", {})}.items()),
            ]
        elif (parts := value_parts(each)) is not None:
            hasher.update(f"{role}={type(each).__qualname__};".encode())
            pending.append((role, parts))
        else:
            if isinstance(each, functools.partial):
                pending += [(role, each.args), (role, each.keywords)]
            if isinstance(each, types.MethodType) and not is_layer_or_operation(each.__self__):
                pending.append((role, each.__self__))
            for part in _unwrapped(each):
                if is_library(part):
                    hasher.update(f"{role}={home(part)}.{part.__qualname__};".encode())
                elif part is each or id(part) not in seen:
                    seen[id(part)] = part
                    pending += _parts(part)
                    hasher.update(f"{role}={_text(part)};".encode())
    return hasher.hexdigest()


def _layer_parts(layer: Any) -> list[Any]:
    """Return what a layer computes with that code refers to: the network need not hold it.

    Without the names of layers, which count up within a session.
    """
    import keras

    parts = [type(layer), str(getattr(layer, "compute_dtype", "")), *getattr(layer, "weights", ())]
    if isinstance(layer, keras.Model):  # its settings are full of names
        return [*parts, *layer.layers]
    # One that tells no settings was never asked for them.
    with contextlib.suppress(InputError):
        parts.append(_nameless(layer_settings(layer, layer.name)))
    return parts


def _nameless(told: Any) -> Any:
    if isinstance(told, dict):
        return {key: _nameless(each) for key, each in told.items() if key not in ("name", "build_config")}
    return [_nameless(each) for each in told] if isinstance(told, (list, tuple)) else told


def _slots(thing: Any) -> dict[str, Any]:
    """Return the attributes of an object that its classes keep in slots."""
    members = [vars(kind).items() for kind in type(thing).__mro__]
    names = [name for each in members for name, it in each if isinstance(it, types.MemberDescriptorType)]
    return {name: getattr(thing, name) for name in names if hasattr(thing, name)}


def _is_tensor(thing: Any) -> bool:
    return is_library(type(thing)) and not isinstance(thing, type) and callable(getattr(thing, "numpy", None))


def _text(part: Any) -> str:
    """Return the hash of a function's code; for a class its name and bases: its members are hashed one by one."""
    if isinstance(part, type):
        return f"class {part.__qualname__}({','.join(base.__qualname__ for base in part.__bases__)})"
    return _bytecode(part.__code__)


def _parts(part: Any) -> list[tuple[str, Any]]:
    """Return what belongs to a class or a function, each with its role."""
    if isinstance(part, type):
        # Sorted, because pickling changes the order.
        members = sorted((name, value) for name, value in vars(part).items() if name not in GENERATED)
        return [*members, *((f"base {i}", base) for i, base in enumerate(part.__bases__))]
    defaults = [("default", each) for each in part.__defaults__ or ()]
    defaults += sorted((part.__kwdefaults__ or {}).items())
    return [*defaults, *_closure(part), *_globals_of(part)]


def _globals_of(function: types.FunctionType) -> list[tuple[str, Any]]:
    """Return the globals that a function uses, in its own module and in user-defined modules.

    Without generators of random numbers: whatever else draws from them would count.
    """
    space, code = function.__globals__, list(_codes(function.__code__))
    loaded = {
        step.argval
        for each in code
        for step in dis.get_instructions(each)
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    # Sorted, because the order depends on the compiler.
    used = [(name, space[name]) for name in sorted(loaded) if name in space and not name.startswith("__")]
    names = sorted({name for each in code for name in each.co_names})
    for module in [value for _, value in used if isinstance(value, types.ModuleType)]:
        if not is_library(module):
            used += [(name, vars(module)[name]) for name in names if name in vars(module)]
    return [(name, value) for name, value in used if generator_state(value) is None]


def _closure(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # not filled yet
            continue
        yield name, value


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield compiled code and that of the functions within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _bytecode(code: types.CodeType) -> str:
    """Return a hash of compiled code, without file name and line numbers."""
    constants = [
        _bytecode(each) if isinstance(each, types.CodeType) else _constant(each) for each in code.co_consts
    ]
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    jumps = getattr(code, "co_exceptiontable", b"")
    return _sha256(
        code.co_code.hex(), jumps.hex(), repr((code.co_names, code.co_varnames)), repr(counts), *constants
    )


def _constant(thing: Any) -> str:
    return f"frozenset{sorted(map(repr, thing))}" if isinstance(thing, frozenset) else repr(thing)


def _sha256(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
