"""`normalize_parameters` beside SNN toolbox's method: processor time and memory of the whole call.

``pytest tests/benchmarks/test_dropin_cost.py --benchmark-enable -s`` prints the ratios; without the option both ways
run once, small. Each way runs in a process of its own, in turn: this file is its program. The toolbox's method is
written again here: one `predict` a layer, ``np.savez_compressed``, ``np.percentile``, weights divided layer by layer.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

N_ROUNDS = 3
BATCH_SIZE = 50
CASES = [("lenet", 1024), ("lenet", 4096), ("cifar_vgg", 256), ("cifar_vgg", 1024)]


def lenet() -> Any:
    """LeNet-5 with ReLU, 28 px."""
    import keras

    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1), name="input"),
            layers.Conv2D(6, 5, padding="same", activation="relu"),
            layers.AveragePooling2D(2),
            layers.Conv2D(16, 5, activation="relu"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(120, activation="relu"),
            layers.Dense(84, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )


def cifar_vgg() -> Any:
    """VGG of seven convolutions, 32 px."""
    import keras

    layers = keras.layers
    stack: list[Any] = [keras.Input((32, 32, 3), name="input")]
    for n_channels, n_layers in ((64, 2), (128, 2), (256, 3)):
        stack += [layers.Conv2D(n_channels, 3, padding="same", activation="relu") for _ in range(n_layers)]
        stack.append(layers.AveragePooling2D(2))
    return keras.Sequential(
        [
            *stack,
            layers.Flatten(),
            layers.Dense(512, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )


def by_toolbox(model: Any, x: np.ndarray, folder: Path) -> None:
    """Normalise as SNN toolbox does."""
    import keras

    x = x[: len(x) - len(x) % BATCH_SIZE]
    factors, before = {}, 1.0
    for layer in model.layers:
        if not layer.weights:
            continue
        activations = keras.Model(model.inputs, layer.output).predict(x, BATCH_SIZE, verbose=0)
        np.savez_compressed(folder / layer.name, activations)
        factors[layer.name] = np.percentile(activations[np.nonzero(activations)], 99.9)
        del activations
    for layer in model.layers:
        if layer.weights:
            after = 1.0 if layer.activation.__name__ == "softmax" else factors[layer.name]
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel * before / after, bias / after])
            before = after


def by_actisketch(model: Any, x: np.ndarray, folder: Path) -> None:
    """Normalise with the drop-in."""
    from actisketch.pipeline.conversion import normalize_parameters

    config = ConfigParser()
    config["paths"] = {"log_dir_of_current_run": str(folder)}
    config["normalization"] = {"percentile": "99.9", "normalization_schedule": "False"}
    config["simulation"] = {"batch_size": str(BATCH_SIZE)}
    normalize_parameters(model, config, x_norm=x)


def measured(way: str, network: str, n_samples: int) -> dict[str, float]:
    """Run one way; return its processor seconds and the bytes by which the peak lies above what there was before."""
    import tensorflow as tf

    model = {"lenet": lenet, "cifar_vgg": cifar_vgg}[network]()
    x = np.random.default_rng(7).random((n_samples, *model.input_shape[1:]), dtype=np.float32)
    model(tf.constant(x[:1]))
    used, peak = resource.getrusage(resource.RUSAGE_SELF), resource.RUSAGE_SELF
    with tempfile.TemporaryDirectory() as folder:
        {"toolbox": by_toolbox, "actisketch": by_actisketch}[way](model, x, Path(folder))
    after = resource.getrusage(peak)
    return {
        "cpu_s": after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime,
        "peak_nbytes": 1024.0 * (after.ru_maxrss - used.ru_maxrss),
    }


def in_process(way: str, network: str, n_samples: int) -> dict[str, float]:
    command = [sys.executable, __file__, way, network, str(n_samples)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("network", "n_samples"), CASES)
def test_normalising_in_place_beside_the_toolbox(
    network: str, n_samples: int, request: pytest.FixtureRequest
) -> None:
    is_measured = bool(request.config.getoption("benchmark_enable"))
    if not is_measured and (network, n_samples) != CASES[0]:
        return  # one small run shows that both ways work
    rounds = [
        {
            way: in_process(way, network, n_samples if is_measured else 100)
            for way in ("toolbox", "actisketch")
        }
        for _ in range(N_ROUNDS if is_measured else 1)
    ]
    ratios = [each["actisketch"]["cpu_s"] / each["toolbox"]["cpu_s"] for each in rounds]
    peaks = {way: statistics.median(each[way]["peak_nbytes"] for each in rounds) / 1e6 for way in rounds[0]}
    print(
        f"\n{network}, {n_samples} samples: {statistics.median(ratios):.2f} x the toolbox's processor time; memory "
        f"beyond the network {peaks['actisketch']:.0f} MB beside {peaks['toolbox']:.0f} MB"
    )

    assert all(ratio > 0 for ratio in ratios)


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
