"""Fixtures: the networks that SNN toolbox normalised, its settings, its results."""

from __future__ import annotations

import json
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

GOLDEN = Path(__file__).parent / "golden"


def _parsed_network(kind: str) -> keras.Model:
    """Rebuild a parsed network of the toolbox: its .h5 files are of Keras 2."""
    layers = keras.layers
    weights = np.load(GOLDEN / kind / "weights_before.npz")
    tensors: dict[str, Any] = {}
    inputs = None
    for entry in json.loads((GOLDEN / kind / "topology.json").read_text()):
        name, shape = entry["name"], entry["output_shape"]
        if entry["class"] == "InputLayer":
            inputs = tensors[name] = keras.Input(batch_shape=tuple(shape), name=name)
            continue
        taken = [tensors[other] for other in entry["inbound"]]
        settings: dict[str, Any] = {"name": name}
        if entry["class"] == "Conv2D":
            settings |= {"filters": shape[-1], "kernel_size": entry["weights"][0][:2], "padding": "same"}
        elif entry["class"] == "Dense":
            settings |= {"units": shape[-1]}
        elif entry["class"].endswith("Pooling2D"):
            settings |= {"pool_size": taken[0].shape[1] // shape[1]}
        if entry["activation"] is not None and entry["class"] in {"Conv2D", "Dense"}:
            settings |= {"activation": entry["activation"]}
        layer = getattr(layers, entry["class"])(**settings)
        tensors[name] = layer(taken if len(taken) > 1 else taken[0])
        if entry["weights"]:
            layer.set_weights([weights[f"{name}/{i}"] for i in range(len(entry["weights"]))])
    return keras.Model(inputs, tensors[name], name=kind)


@pytest.fixture
def parsed_network() -> Callable[[str], keras.Model]:
    return _parsed_network


@pytest.fixture
def golden() -> Path:
    return GOLDEN


@pytest.fixture(scope="session")
def x_norm() -> NDArray[np.float32]:
    with np.load(GOLDEN / "x_norm.npz") as archive:
        return np.asarray(archive["arr_0"], dtype=np.float32)


@pytest.fixture
def config(tmp_path: Path) -> ConfigParser:
    """The toolbox's settings, with its defaults."""
    parser = ConfigParser()
    parser.read_dict(
        {
            "paths": {"log_dir_of_current_run": str(tmp_path / "log")},
            "normalization": {"percentile": "99.9", "normalization_schedule": "False", "num_samples": ""},
            "simulation": {"batch_size": "50"},
            "output": {"plot_vars": "{}", "overwrite": "True", "use_simple_labels": "True"},
        }
    )
    return parser


@pytest.fixture
def folder(config: ConfigParser) -> Path:
    return Path(config.get("paths", "log_dir_of_current_run")) / "normalization"


@pytest.fixture
def settings(config: ConfigParser) -> ConfigParser:
    config.set("simulation", "batch_size", "10")
    return config
