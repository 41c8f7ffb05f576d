"""The fingerprint of a model: what it computes, without names and paths.

Stable across processes: no names that count up within a session, no memory addresses, no paths.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from .code import IRRELEVANT_ENDINGS, code_hash, code_hashes, is_layer_or_operation, told_lambdas
from .kinds import is_misnamed
from .library import LIBRARIES, is_library
from .nodes import Node, Slot
from .opaque import opaque_node
from .reading import is_subclassed, read_graph
from .state import layer_settings, layers_within, state_hash
from .values import state_parts, value_parts

__all__ = ["model_fingerprint"]

# What a layer is called or how it was trained does not change what it computes at inference. Layers of Keras and
# keras-hub have all of these settings; a user's layer may compute with what it calls so.
ALWAYS_IRRELEVANT = frozenset({"name", "trainable"})
WRITTEN_BY_KERAS = frozenset({"registered_name", "build_config", "shared_object_id"})
IRRELEVANT_KEYS = ALWAYS_IRRELEVANT | WRITTEN_BY_KERAS | {"seed"}
KERAS_PACKAGES = frozenset({"keras", "keras_hub", "keras_nlp", "keras_cv"})


def model_fingerprint(model: Any) -> dict[str, str]:
    """Return the hashes that identify the function that ``model`` computes.

    Parameters
    ----------
    model : keras.Model
        Functional, built Sequential, or subclassed and built.

    Returns
    -------
    dict of str to str
        ``topology``: SHA-256 of the graph and every layer's settings. ``weights``: SHA-256 of
        all weights in topological order, read one array at a time. ``dtype_policy``: the policies in use.
        ``code of {name}``: the hash of each user-defined class and function. ``state``: the hash of what saving would
        write besides, such as the vocabulary of an adapted lookup; left out where there is none.

    Raises
    ------
    InputError
        If a layer cannot return its settings or its state: its name, and what it raised.

    Notes
    -----
    Names of layers, initialisers, regularisers and the optimizer are no part of it. The same network saved
    and loaded, or built anew in another process with the same weights, has the same fingerprint.
    """
    # What a subclassed model is called with belongs to the data.
    nodes, first, ends = _read(model)
    first_calls = {id(node.operation): node.index for node in first}
    precisions = [_precisions(node.operation) for node in nodes]
    is_mixed = len({each for found in precisions for each in found}) > 1
    topology = [
        {
            "type": node.type,
            "class": None if node.operation is None else _class_name(type(node.operation)),
            "config": {} if node.operation is None else _settings(node.operation, node.name),
            "args": _canonical([node.args, dict(node.kwargs)]),
            "inputs": list(node.inputs),
            "layer": first_calls.get(id(node.operation)),
            **({"lambdas": lambdas} if (lambdas := told_lambdas(node.operation)) else {}),
            **({"functions": functions} if (functions := _misnamed(node.operation)) else {}),
            **({"within": within} if (within := _settings_within(node.operation)) else {}),
            # Settings have it as a name, which does not count. What all have is told by `dtype_policy`.
            **({"precisions": found} if is_mixed and found else {}),
        }
        for node, found in zip(nodes, precisions, strict=True)
    ]
    text = json.dumps([topology, *ends], sort_keys=True, separators=(",", ":"))
    fingerprint = {
        "topology": hashlib.sha256(text.encode()).hexdigest(),
        "weights": _weights_hash(first),
        "dtype_policy": ",".join(sorted({_policy(node.operation) for node in nodes} - {""})),
        **_code(first),
    }
    state = state_hash(first)
    return fingerprint if state is None else {**fingerprint, "state": state}


def _read(model: Any) -> tuple[Sequence[Node], Sequence[Node], tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return the nodes of a network, the first of each layer, and its inputs and outputs."""
    if is_subclassed(model):
        node = opaque_node(model)
        return [node], [node], ((), ())
    graph = read_graph(model)
    return graph.nodes, graph.first_calls, (graph.inputs, graph.outputs)


def _code(nodes: Sequence[Node]) -> dict[str, str]:
    """Return the hash of each user-defined class and function."""
    hashes: dict[str, list[str]] = {}
    for node in nodes:
        for name, found in code_hashes(node.operation).items():
            hashes.setdefault(name, []).append(found)
    # Several lambdas of a function share a name.
    return {
        f"code of {name}": hashlib.sha256("".join(dict.fromkeys(found)).encode()).hexdigest()
        for name, found in hashes.items()
    }


def _settings_within(operation: Any) -> list[Any]:
    """Return the settings of user-defined layers inside a layer, and of all layers inside a user-defined one.

    The outer layer's settings may not contain them.
    """
    holder, *held = layers_within(operation) or [None]
    is_own = holder is not None and not is_library(type(holder))
    found = []
    for layer in held:
        if is_own or not is_library(type(layer)):
            # One that tells no settings was never asked for them by the layer that holds it.
            with contextlib.suppress(InputError):
                found.append([_class_name(type(layer)), _settings(layer, layer.name)])
    return found


def _misnamed(operation: Any) -> list[str]:
    """Return the functions whose name in the settings means another: ``keras.ops.gelu`` is not ``activations.gelu``."""
    held = [each for layer in layers_within(operation) for each in vars(layer).values()]
    return [
        f"{each.__module__}.{each.__qualname__}" for each in held if is_misnamed(each) and is_library(each)
    ]


def _weights_hash(nodes: Sequence[Node]) -> str:
    hasher = hashlib.sha256()
    for node in nodes:
        for variable in getattr(node.operation, "weights", ()):
            array = np.ascontiguousarray(np.asarray(variable))
            hasher.update(f"{node.index}:{array.dtype.name}:{array.shape};".encode())
            hasher.update(array.reshape(-1).view(np.uint8).data)
    return hasher.hexdigest()


def _precisions(operation: Any) -> list[str]:
    """Return in which dtypes a layer, and each within it, keeps its weights and computes, where that is in floats."""
    layers = [each for each in layers_within(operation) if not _is_frame(each)]
    found = [(str(each.variable_dtype), str(each.compute_dtype)) for each in layers]
    return [f"{kept}:{computed}" for kept, computed in found if "float" in computed]


def _is_frame(layer: Any) -> bool:
    """Return whether it computes nothing: its policy is that of the session in which it was made, or loaded."""
    import keras

    is_graph = isinstance(layer, keras.Model) and not is_subclassed(layer)
    return is_graph or isinstance(layer, keras.layers.InputLayer)


def _policy(operation: Any) -> str:
    if _is_frame(operation):
        return "float32"
    policy = getattr(operation, "dtype_policy", None)
    return "" if policy is None else str(policy.name)


def _class_name(kind: type) -> str:
    """Return the name of a class, without module where it is Keras' or user-defined: modules move."""
    root = kind.__module__.split(".")[0]
    if root == "keras":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}" if is_library(kind) else f"own {kind.__qualname__}"


def _settings(holder: Any, name: str, *, path: tuple[int, ...] = ()) -> Any:
    """Return the settings of an object that has `get_config`, without those that do not change what it computes."""
    settings = layer_settings(holder, name)
    is_keras = type(holder).__module__.split(".")[0] in KERAS_PACKAGES
    return _canonical(
        _relevant(settings, is_keras=is_keras, is_layer=is_layer_or_operation(holder)),
        path=(*path, id(holder)),
    )


def _relevant(settings: dict[Any, Any], *, is_keras: bool, is_layer: bool) -> dict[Any, Any]:
    if is_keras:
        return {
            key: each
            for key, each in settings.items()
            if not (str(key) in IRRELEVANT_KEYS or str(key).endswith(IRRELEVANT_ENDINGS))
        }
    return {
        key: each
        for key, each in settings.items()
        if not (
            (is_layer and key in ALWAYS_IRRELEVANT)
            or (key in IRRELEVANT_KEYS and each is None)
            or (str(key).endswith(IRRELEVANT_ENDINGS) and _is_of_training(each))
        )
    }


def _is_of_training(setting: Any) -> bool:
    """Return whether it is what Keras takes as an initialiser, a regulariser or a constraint of weights."""
    import keras

    if isinstance(setting, dict):
        return "class_name" in setting
    if not isinstance(setting, str):
        kinds = (keras.initializers.Initializer, keras.regularizers.Regularizer, keras.constraints.Constraint)
        return setting is None or isinstance(setting, kinds)
    # Those four are short names that the module does not have.
    if setting in ("normal", "uniform", "zero", "one"):
        return True
    modules = (keras.initializers, keras.regularizers, keras.constraints)
    return any(isinstance(getattr(each, setting, None), type) for each in modules)


def _canonical(thing: Any, *, path: tuple[int, ...] = ()) -> Any:
    """Return ``thing`` as JSON-able data that is the same in every process; ``path`` is what it is held by."""
    if isinstance(thing, Slot):
        return {"value": thing.value}
    if thing is None or isinstance(thing, (bool, int, float, str)):
        return thing
    if id(thing) in path:
        return {"holder": len(path) - path.index(id(thing))}
    path = (*path, id(thing))
    if isinstance(thing, dict):
        return _canonical_dict(thing, path=path)
    if isinstance(thing, (list, tuple)):
        return [_canonical(each, path=path) for each in thing]
    if isinstance(thing, (set, frozenset)):
        if not thing:  # as TensorFlow keeps in many objects
            return _class_name(type(thing))
        members = [_canonical(each, path=path) for each in thing]
        return {"set": sorted(members, key=functools.partial(json.dumps, sort_keys=True))}
    if isinstance(thing, np.ndarray):
        return _canonical_array(thing, path=path)
    if isinstance(thing, np.generic) and not isinstance(thing.item(), np.generic):
        return _canonical(thing.item(), path=path)
    if isinstance(thing, (bytes, complex, np.generic)):
        return {type(thing).__name__: repr(thing)}
    if isinstance(thing, functools.partial):
        return {"partial": _canonical([thing.func, thing.args, thing.keywords], path=path)}
    if callable(thing) and hasattr(thing, "__qualname__"):
        return _canonical_function(thing, path=path)
    if (state := state_parts(thing)) is not None:
        return {_class_name(type(thing)): _canonical(state, path=path)}
    if hasattr(thing, "get_config"):
        settings = _settings(thing, getattr(thing, "name", "?"), path=path[:-1])
        return {"class": _class_name(type(thing)), "config": settings}
    if _is_weight(thing):  # its shape and dtype are told with all weights
        return {"array": hashlib.sha256(np.ascontiguousarray(thing).tobytes()).hexdigest()}
    if hasattr(thing, "numpy"):
        return _canonical(np.asarray(thing), path=path)
    if not is_library(type(thing)):  # an object of the user's own: what it holds counts
        return f"{_class_name(type(thing))} {code_hash(thing)}"
    parts = value_parts(thing)
    name = _class_name(type(thing))
    return name if parts is None else {name: _canonical(parts, path=path)}


def _is_weight(thing: Any) -> bool:
    import keras

    return isinstance(thing, keras.Variable)


def _canonical_dict(thing: dict[Any, Any], *, path: tuple[int, ...]) -> dict[str, Any]:
    if _is_written_lambda(thing):
        return {"class_name": "__lambda__"}  # see `told_lambdas`: what is written here names a file
    if not {"class_name", "config"} <= thing.keys():
        return {str(key): _canonical(each, path=path) for key, each in thing.items()}
    # Written by Keras; a layer of a nested network has its name outside its settings too.
    of_keras = WRITTEN_BY_KERAS | ({"name"} if "inbound_nodes" in thing else set())
    told = {
        key: each for key, each in thing.items() if key not in of_keras and not _is_own_module(thing, key)
    }
    settings = thing["config"]
    if isinstance(settings, dict):
        root = str(thing.get("module")).split(".")[0]
        is_keras = root in KERAS_PACKAGES
        told["config"] = _relevant(settings, is_keras=is_keras, is_layer="trainable" in settings)
        if is_keras and thing["class_name"] == "SeedGenerator" and settings.get("seed") is not None:
            told["config"] = {"seed": settings["seed"]}
    return {str(key): _canonical(each, path=path) for key, each in told.items()}


def _canonical_array(array: NDArray[Any], *, path: tuple[int, ...]) -> Any:
    if array.dtype.hasobject:  # its bytes are addresses
        return {"array": [list(array.shape), _canonical(array.ravel().tolist(), path=path)]}
    hasher = hashlib.sha256(f"{array.dtype!r}{array.shape}:".encode())
    hasher.update(np.ascontiguousarray(array).tobytes())
    return {"array": hasher.hexdigest()}


def _canonical_function(thing: Any, *, path: tuple[int, ...]) -> Any:
    owner = getattr(thing, "__self__", None)
    if isinstance(thing, types.BuiltinMethodType) and not isinstance(
        owner, (type, types.ModuleType, type(None))
    ):
        return [thing.__qualname__, _canonical(owner, path=path)]
    if not is_library(thing):
        return f"own {thing.__qualname__} {code_hash(thing)}"
    return f"{thing.__module__}.{thing.__qualname__}"


def _is_own_module(written: dict[Any, Any], key: Any) -> bool:
    """Return whether an entry names the user's module that something written by Keras lies in: it may move."""
    root = str(written.get("module")).split(".")[0]
    return key == "module" and "class_name" in written and root not in {*LIBRARIES, "builtins", "None"}


def _is_written_lambda(written: dict[Any, Any]) -> bool:
    """Return whether Keras wrote a lambda so: compiled code, defaults and closure."""
    value = written.get("value") if set(written) == {"value"} else None  # of an activation function
    is_code = isinstance(value, (tuple, list)) and len(value) == 3 and isinstance(value[0], str)
    if is_code and value is not None and value[0].startswith(("4w", "Yw")):  # compiled code in base64
        return True
    return written.get("class_name") == "__lambda__"
