"""Settings of a layer, and the state that saving it writes besides its weights.

Keras asks a layer, and each layer within it, for its state with two methods: ``save_own_variables`` and
``save_assets``. Vocabularies, tables and other private state are kept in a ``.keras`` file that way.
"""

from __future__ import annotations

import hashlib
import inspect
import tempfile
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from .library import is_library
from .nodes import Node
from .values import is_content

__all__ = ["check_stateless", "hand_over_state", "layer_settings", "layers_within", "state_hash"]


def layer_settings(layer: Any, name: str) -> dict[str, Any]:
    """Return the settings of a layer or an operation as they are now; ``name`` is for the message.

    Raises
    ------
    InputError
        If its class cannot return them: the name of the layer, and what it raised.
    """
    try:
        settings: dict[str, Any] = layer.get_config()
    except (NotImplementedError, TypeError):
        # Keras cannot save this class, or what it holds: its attributes are all that distinguishes it.
        return _attributes(layer)
    except Exception as error:  # whatever the layer's own code raises
        raise InputError(
            f"the layer {name!r} ({type(layer).__name__}) does not give its settings, without which the network has no "
            f"fingerprint: {type(error).__name__}: {error}; correct its get_config(), or give it what Keras can save",
            layer=name,
        ) from error
    if not getattr(type(layer).get_config, "_is_default", False):
        return settings | _untold(layer, settings)
    # Keras itself keeps what the constructor was given; the attribute may have been changed since.
    changed = {key: value for key, value in _attributes(layer).items() if key in settings}
    return settings | changed | _untold(layer, settings)


def _untold(layer: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a user-defined layer keeps and its `get_config` leaves out.

    Of constructor arguments anything; of what it made itself arrays, tables and variables: they may be those of a file.
    """
    if is_library(type(layer)):
        return {}
    given = inspect.signature(type(layer).__init__).parameters.keys()
    return {
        name: value
        for name, value in _attributes(layer).items()
        if name not in settings and (name in given or is_content(value))
    }


def _attributes(layer: Any) -> dict[str, Any]:
    """Return the attributes that only this kind of layer has, without code, which is hashed separately."""
    import keras

    of_all, code = vars(keras.layers.Layer()), (types.FunctionType, types.MethodType, type)
    return {
        name: value
        for name, value in vars(layer).items()
        if name not in of_all and not isinstance(value, code)
    }


def state_hash(nodes: Sequence[Node]) -> str | None:
    """Return a SHA-256 of the state of all layers; None where there is none besides settings and weights.

    Raises
    ------
    InputError
        If a layer cannot return its state: its name, and what it raised.
    """
    hasher, is_empty = hashlib.sha256(), True
    for node in nodes:
        for place, layer in enumerate(layers_within(node.operation)):
            for name, content in _state(layer, node.name):
                is_empty = False
                hasher.update(f"{node.index}.{place}.{name}:{len(content)};".encode() + content)
    return None if is_empty else hasher.hexdigest()


def check_stateless(nodes: Sequence[Node]) -> None:
    """Refuse stateful recurrent layers, which continue from the batch before.

    Raises
    ------
    InputError
        With their names.
    """
    import keras

    kinds = (keras.layers.RNN, keras.layers.Bidirectional)
    stateful = {
        node.name: node
        for node in nodes
        if any(isinstance(each, kinds) and each.stateful for each in layers_within(node.operation))
    }
    if stateful:
        names = ", ".join(f"{name!r} ({node.type})" for name, node in stateful.items())
        raise InputError(
            f"stateful=True of {names}: what a sample gives would depend on the batches before it, and recording would "
            "change the network; build it with stateful=False, and copy the weights with set_weights()",
            layers=tuple(stateful),
        )


def hand_over_state(original: Any, clone: Any) -> None:
    """Copy the state that saving would write from ``original`` to a layer made from its settings.

    The layers within them are taken in pairs. Raises whatever their own code does.
    """
    import keras

    for layer, other in zip(layers_within(original), layers_within(clone), strict=False):
        if not (_has_own(layer, "save_own_variables") or hasattr(layer, "save_assets")):
            continue
        store: dict[str, Any] = {}
        layer.save_own_variables(store)
        other.load_own_variables({name: keras.ops.convert_to_numpy(value) for name, value in store.items()})
        if hasattr(layer, "save_assets"):
            with tempfile.TemporaryDirectory(prefix="actisketch-") as folder:
                layer.save_assets(folder)
                other.load_assets(folder)


def layers_within(operation: Any) -> list[Any]:
    """Return a layer and the layers within it; nothing for a bare operation, which keeps no state."""
    return list(operation._flatten_layers()) if hasattr(operation, "_flatten_layers") else []


def _state(layer: Any, name: str) -> Iterator[tuple[str, bytes]]:
    """Yield what saving one layer writes besides its settings and weights."""
    import keras

    if type(layer) is keras.layers.TextVectorization:
        return  # the lookup inside it has the vocabulary
    is_lookup = isinstance(layer, (keras.layers.IntegerLookup, keras.layers.StringLookup))
    is_told = is_lookup and layer.input_vocabulary is not None
    try:
        if is_told and not _is_exchanged(layer):
            return
        if _has_own(layer, "save_own_variables") or hasattr(layer, "save_assets"):
            yield from _arrays(layer)
            yield from _files(layer)
        if is_told:
            yield "vocabulary", "\n".join(map(str, layer.get_vocabulary())).encode()
    except Exception as error:  # whatever the layer's own code raises
        raise InputError(
            f"the layer {name!r} ({type(layer).__name__}) does not give its state, without which the network has no "
            f"fingerprint: {type(error).__name__}: {error}; adapt or build it, or correct its save_own_variables() "
            "or save_assets()",
            layer=name,
        ) from error


def _has_own(layer: Any, method: str) -> bool:
    """Return whether the method is user-defined; those of Keras write the weights of their layers."""
    return not str(getattr(getattr(type(layer), method, None), "__module__", "keras")).startswith("keras.")


def _arrays(layer: Any) -> list[tuple[str, bytes]]:
    import keras

    store: dict[str, Any] = {}
    layer.save_own_variables(store)
    found = [
        (name, np.asarray(keras.ops.convert_to_numpy(value)))
        for name, value in store.items()
        if not isinstance(value, keras.Variable)
    ]
    weights = [np.asarray(weight) for weight in layer.weights]
    if len(found) == len(weights) and all(map(np.array_equal, (array for _, array in found), weights)):
        return []  # copies of the weights, in their order
    return [(name, f"{a.dtype.name}:{a.shape};".encode() + _bytes(a)) for name, a in found]


def _bytes(array: NDArray[Any]) -> bytes:
    # An array of objects, such as words, contains only their addresses.
    return repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes()


def _files(layer: Any) -> list[tuple[str, bytes]]:
    if not hasattr(layer, "save_assets"):
        return []
    with tempfile.TemporaryDirectory(prefix="actisketch-") as folder:
        layer.save_assets(folder)
        paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return [(path.relative_to(folder).as_posix(), path.read_bytes()) for path in paths]


def _is_exchanged(lookup: Any) -> bool:
    """Return whether a lookup's vocabulary was changed since it was built from its settings."""
    told = list(map(str, lookup.get_config()["vocabulary"]))
    return all(
        told != list(map(str, lookup.get_vocabulary(include_special_tokens=each))) for each in (True, False)
    )
