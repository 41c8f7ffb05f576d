"""Files of Keras 2: change what Keras 3 does not read in their configuration, where the meaning stays the same.

Works on the JSON in an ``.h5`` file. Knows no Keras and no weights.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import h5py

from ...storage.errors import InputError
from ..events import counted

__all__ = ["as_keras_3_reads_it", "check_meaning", "keras_version"]

logger = logging.getLogger(__name__)

_TRANSPOSED = ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
_SEPARABLE = ("SeparableConv1D", "SeparableConv2D")
_RECURRENT = ("RNN", "SimpleRNN", "LSTM", "GRU", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
_RANDOM = ("Brightness", "Contrast", "Crop", "Flip", "Rotation", "Translation", "Zoom")
DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    **{name: {"groups": 1} for name in (*_TRANSPOSED, *_SEPARABLE, "DepthwiseConv1D", "DepthwiseConv2D")},
    **{name: {"time_major": False} for name in _RECURRENT},
    **{f"SpatialDropout{n}D": {"noise_shape": None} for n in (1, 2, 3)},
}
"""By class: settings that Keras 3 no longer has, and the value with which a layer computes the same without them."""
WITHOUT_EFFECT: Final[Mapping[str, tuple[str, ...]]] = {
    # How weights are initialised and trained, which does not matter once they are loaded.
    **dict.fromkeys(_SEPARABLE, ("kernel_initializer", "kernel_regularizer", "kernel_constraint")),
    **{f"SpatialDropout{n}D": ("trainable",) for n in (1, 2, 3)},
    **{f"Random{name}": ("rng_type",) for name in _RANDOM},
}
"""By class: settings that Keras 3 no longer has, and that do not affect inference."""
GONE: Final = {
    "TFOpLambda": "layers (Add, ReLU, Rescaling)",
    "TensorFlowOpLayer": "layers (Add, ReLU, Rescaling)",
    "SlicingOpLambda": "a layer (Cropping)",
    "LocallyConnected1D": "a convolution or Dense",
    "LocallyConnected2D": "a convolution or Dense",
    "ThresholdedReLU": "ReLU(threshold=...)",
}
"""Classes that Keras 3 does not have, and what to use instead."""
OTHER_FUNCTIONS: Final = {
    "hard_sigmoid": "clip(0.2 x + 0.5, 0, 1) in Keras 2, clip(x / 6 + 0.5, 0, 1) in Keras 3"
}
"""Activation functions that Keras 3 computes differently."""


def keras_version(path: Path) -> str:
    """Return the version of Keras that wrote a ``.keras`` or ``.h5`` file; empty if the file does not say."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive, archive.open("metadata.json") as file:
                return str(json.loads(file.read(10_000)).get("keras_version", ""))
        with h5py.File(path, "r") as file:
            version = file.attrs.get("keras_version", "")
            return version.decode() if isinstance(version, bytes) else str(version)
    except (OSError, KeyError, ValueError, AttributeError):
        return ""


def check_meaning(path: Path) -> None:
    """Refuse a file of Keras 2 that Keras 3 may read, but would compute differently.

    Raises
    ------
    InputError
        The message names the layer and the function.
    """
    if not keras_version(path).startswith("2."):
        return
    config = _config_of(path)
    for kind, layer in _layers_in(config):
        for key, value in layer.items():
            if key.endswith("activation") and isinstance(value, str) and value in OTHER_FUNCTIONS:
                name = layer.get("name", kind)
                raise InputError(
                    f"the layer {name!r} ({kind}) has {key} = {value!r}, which is {OTHER_FUNCTIONS[value]}: the "
                    "network would compute something else; train it with another activation function",
                    layer=name,
                )


@contextmanager
def as_keras_3_reads_it(path: Path) -> Iterator[Path | None]:
    """Provide a copy of a Keras 2 ``.h5`` file with a configuration that Keras 3 reads; None if it need not differ.

    What is dropped is logged as a warning.

    Raises
    ------
    InputError
        If a layer would compute something else, or cannot be expressed in Keras 3; the message names the layer.
    """
    config = _config_of(path)
    before = json.dumps(config)
    dropped: dict[str, list[str]] = {}
    _mend(config, dropped)
    if json.dumps(config) == before:
        yield None
        return
    for what, layers in dropped.items():
        names = ", ".join(map(repr, layers[:5])) + (" ..." if len(layers) > 5 else "")
        logger.warning(
            "%s is of Keras 2: %s of %s dropped (%s)",
            path.name,
            what,
            counted(len(layers), "layer"),
            names,
        )
    with tempfile.TemporaryDirectory(prefix="actisketch-") as folder:
        copy = Path(folder) / path.name
        shutil.copyfile(path, copy)
        with h5py.File(copy, "r+") as file:
            file.attrs["model_config"] = json.dumps(config)
        yield copy


def _config_of(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))
    with h5py.File(path, "r") as file:
        return json.loads(file.attrs.get("model_config", "null"))


def _layers_in(node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield class and settings of every layer, also of those in wrappers; inner ones first."""
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _layers_in(each)
    if isinstance(node, dict) and isinstance(node.get("config"), dict) and "class_name" in node:
        yield str(node["class_name"]), node["config"]


def _mend(config: Any, dropped: dict[str, list[str]]) -> None:
    """Change the settings of all layers, and note what is dropped from which."""
    for kind, layer in list(_layers_in(config)):
        name = str(layer.get("name", kind))
        if kind in GONE:
            raise InputError(
                f"the layer {name!r} is a {kind} of Keras 2, which Keras 3 does not have: put {GONE[kind]} in its "
                "place in Keras 2, and save the network again",
                layer=name,
            )
        _drop(kind, name, layer, dropped)
        if isinstance(layer.get("dtype"), dict):
            # A policy; Keras 3 reads its name.
            layer["dtype"] = layer["dtype"].get("config", {}).get("name", layer["dtype"])
        if isinstance(layer.get("axis"), list) and len(layer["axis"]) == 1:
            layer["axis"] = layer["axis"][0]
        if isinstance(layer.get("layers"), list):
            _mend_model(layer, is_outermost=layer is config["config"])


def _drop(kind: str, name: str, layer: dict[str, Any], dropped: dict[str, list[str]]) -> None:
    for key, default in DEFAULTS.get(kind, {}).items():
        if key in layer:
            if layer[key] != default:
                raise InputError(
                    f"the layer {name!r} ({kind}) has {key} = {layer[key]!r}, and Keras 3 knows only {default!r}: "
                    "change that in Keras 2, and save the network again",
                    layer=name,
                )
            del layer[key]
            dropped.setdefault(f"{key} = {default!r}", []).append(name)
    for key in WITHOUT_EFFECT.get(kind, ()):
        if layer.pop(key, None) is not None:
            dropped.setdefault(f"{key} (without effect at inference)", []).append(name)


def _mend_model(model: dict[str, Any], *, is_outermost: bool) -> None:
    """Change how a model refers to its parts, not what they compute."""
    layers = [layer for layer in model["layers"] if isinstance(layer, dict) and "config" in layer]
    if layers and layers[0].get("class_name") == "InputLayer":
        for layer in layers[1:]:
            if layer["class_name"] != "InputLayer":
                layer["config"].pop("batch_input_shape", None)  # the input has it
    for layer in layers:
        if layer["class_name"] in ("Functional", "Model"):
            # Keras 3 then finds it by the name of its class: its module has another name there.
            for key in ("module", "registered_name", "build_config"):
                layer.pop(key, None)
    if "output_layers" not in model:
        return
    own = {layer["name"]: layer["class_name"] for layer in layers if _is_model_with_input(layer)}
    for layer in layers:
        for reference in _references(layer):
            if reference[0] in own:
                # Keras 2 numbers the calls of a nested model from 1, because 0 is the model's own.
                reference[1] -= 1
    outputs = model["output_layers"]
    for reference in outputs:
        if isinstance(reference, list) and own.get(reference[0]) == "Sequential":
            reference[1] -= 1  # Keras 3 corrects those of functional models itself
    if len(outputs) == 1 and isinstance(outputs[0], list) and not is_outermost:
        # Keras 2 treats a list of one output as that output; Keras 3 returns a list.
        model["output_layers"] = outputs[0]


def _is_model_with_input(layer: dict[str, Any]) -> bool:
    inner = layer["config"].get("layers")
    if layer["class_name"] in ("Functional", "Model"):
        return True
    return bool(layer["class_name"] == "Sequential" and inner and inner[0].get("class_name") == "InputLayer")


def _references(layer: dict[str, Any]) -> Iterator[list[Any]]:
    """Yield the arguments of the calls of a layer, each as ``[layer, call, tensor, keywords]``.

    Raises
    ------
    InputError
        If a tensor is passed by keyword, which Keras 3 does not read.
    """
    for call in layer.get("inbound_nodes", []):
        for reference in call:
            for key, value in reference[3].items() if len(reference) > 3 else ():
                if isinstance(value, list) and len(value) == 3 and isinstance(value[0], str):
                    raise InputError(
                        f"the layer {layer['name']!r} ({layer['class_name']}) takes {key!r}, the output of "
                        f"{value[0]!r}, by keyword, which Keras 3 does not read from an .h5 file of Keras 2: build the "
                        "network in Keras 3 and load the weights alone",
                        layer=layer["name"],
                    )
            yield reference
