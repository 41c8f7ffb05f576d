"""Normalise a network, or compute its percentiles, in one of several ways; print time, memory and percentiles as JSON.

Usage: python one_way.py WAY NETWORK N_SAMPLES FOLDER. Run by test_peers.py: peak memory can only be measured in a
process of its own. Each way runs twice: with one batch, when it imports and compiles what it needs, and with all
samples. ``export`` writes the network into FOLDER; ``calibrater`` reads it from the folder that holds its own.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import numpy as np

BATCH_SIZE = 64
PERCENTILE = 99.9
N_BINS = 2048
"""Of the calibrater's histograms: its default."""
SHAPES = {"lenet": (28, 28, 1), "cifar_vgg": (32, 32, 3)}


def lenet(keras: Any) -> Any:
    """LeNet-5 with ReLU."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(SHAPES["lenet"], name="input"),
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


def cifar_vgg(keras: Any) -> Any:
    """VGG of seven convolutions."""
    layers = keras.layers
    stack: list[Any] = [keras.Input(SHAPES["cifar_vgg"], name="input")]
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


def network(name: str) -> Any:
    """Build the network with the same weights in every process."""
    import keras

    keras.utils.set_random_seed(7)
    return {"lenet": lenet, "cifar_vgg": cifar_vgg}[name](keras)


def samples(name: str, n_samples: int) -> np.ndarray:
    return np.random.default_rng(7).random((n_samples, *SHAPES[name]), dtype=np.float32)


Percentiles = list[float]
"""One for each layer with parameters, in model order."""


def by_toolbox(model: Any, x: np.ndarray, folder: Path) -> Percentiles:
    """Normalise as SNN toolbox does: it is written again here."""
    import keras

    factors, before = {}, 1.0
    for layer in model.layers:
        if not layer.weights:
            continue
        activations = keras.Model(model.inputs, layer.output).predict(x, BATCH_SIZE, verbose=0)
        np.savez_compressed(folder / layer.name, activations)
        factors[layer.name] = float(np.percentile(activations[np.nonzero(activations)], PERCENTILE))
        del activations
    for layer in model.layers:
        if layer.weights:
            after = 1.0 if layer.activation.__name__ == "softmax" else factors[layer.name]
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel * before / after, bias / after])
            before = after
    return list(factors.values())


def by_drop_in(model: Any, x: np.ndarray, folder: Path) -> Percentiles:
    """Normalise with the function that takes the place of the toolbox's."""
    from actisketch.pipeline.conversion import normalize_parameters

    config = ConfigParser()
    config["paths"] = {"log_dir_of_current_run": str(folder)}
    config["normalization"] = {"percentile": str(PERCENTILE), "normalization_schedule": "False"}
    config["simulation"] = {"batch_size": str(BATCH_SIZE)}
    normalize_parameters(model, config, x_norm=x)
    (path,) = folder.rglob(f"{PERCENTILE}.json")
    _, *factors = json.loads(path.read_text()).values()  # without that of the input
    return [float(each) for each in factors]


def run_of(model: Any, x: np.ndarray, folder: Path, *, whole: bool) -> Any:
    """Record; ``whole``: keep activations, normalise and certify too."""
    from actisketch.pipeline import run

    settings: dict[str, Any] = {"report": {"enabled": False}, "record": {"activations": whole}}
    return run(
        model,
        x,
        output=folder / "run",
        batch_size=BATCH_SIZE,
        percentile=PERCENTILE,
        nonzero=whole,
        normalize=whole,
        settings=settings,
    )


def recorded(model: Any, x: np.ndarray, folder: Path, *, whole: bool) -> Percentiles:
    """Record, and compute percentiles; ``whole`` as for `run_of`."""
    made = run_of(model, x, folder, whole=whole)
    certificate = made.certificate()
    assert not whole or (certificate is not None and certificate["passed"])
    return [row.value for row in made.percentiles([PERCENTILE], nonzero=whole)]


def by_run(model: Any, x: np.ndarray, folder: Path) -> Percentiles:
    return recorded(model, x, folder, whole=True)


def by_sketches(model: Any, x: np.ndarray, folder: Path) -> Percentiles:
    return recorded(model, x, folder, whole=False)


def by_ranges(model: Any, x: np.ndarray, folder: Path) -> Percentiles:
    """Record, and write the calibration cache of onnxruntime: a range for every tensor of the exported network."""
    found = run_of(model, x, folder, whole=False)
    (network,) = folder.parents[1].glob("*.onnx")
    made = found.exported("onnxruntime", options={"model": model, "data": x, "onnx": network})
    made.write(folder / "cache.json")
    return [row.hi for row in made.rows if row.point is not None]


def calibration(
    name: str, x: np.ndarray, folder: Path, *, of_points: bool = True
) -> Callable[[], Percentiles]:
    """Load the exported network into onnxruntime's Percentile calibrater; return the call that is measured.

    Left to itself it takes every tensor; ``of_points``: it holds as little as ours.
    """
    from onnxruntime.quantization import CalibrationDataReader
    from onnxruntime.quantization.calibrate import PercentileCalibrater

    class Batches(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, batches: Any) -> None:
            self.batches = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    class OfPoints(PercentileCalibrater):  # type: ignore[misc]
        def select_tensors_to_calibrate(self, model: Any) -> Any:
            _, infos = super().select_tensors_to_calibrate(model)
            return set(activations(model)), infos

    def activations(model: Any) -> list[str]:
        return [node.output[0] for node in model.graph.node if node.op_type in ("Relu", "Softmax")]

    calibrater = (OfPoints if of_points else PercentileCalibrater)(
        folder.parents[1] / f"{name}.onnx",
        augmented_model_path=str(folder / "augmented.onnx"),
        symmetric=True,
        num_bins=N_BINS,
        percentile=PERCENTILE,
    )
    calibrater.augment_graph()
    calibrater.create_inference_session()
    names = activations(calibrater.model)
    (given,) = calibrater.infer_session.get_inputs()

    def calibrate() -> Percentiles:
        starts = range(0, len(x), BATCH_SIZE)
        calibrater.collect_data(Batches({given.name: x[i : i + BATCH_SIZE]} for i in starts))
        found = calibrater.compute_data()
        return [float(found[each].range_value[1]) for each in names]

    calibrater.infer_session.run(None, {given.name: x[:1]})
    return calibrate


def prepared(way: str, name: str, x: np.ndarray, folder: Path) -> Callable[[], Percentiles]:
    """Build or load the network and call it once; return the call that is measured."""
    folder.mkdir(exist_ok=True)
    if way in ("calibrater", "all tensors"):
        return calibration(name, x, folder, of_points=way == "calibrater")
    import tensorflow as tf

    model = network(name)
    model(tf.constant(x[:1]))
    action = {
        "toolbox": by_toolbox,
        "drop-in": by_drop_in,
        "run": by_run,
        "sketches": by_sketches,
        "ranges": by_ranges,
    }[way]
    return lambda: action(model, x, folder)


def peak_nbytes() -> int:
    """Return the peak of this process; ``ru_maxrss`` begins with that of the process that started it."""
    (line,) = (
        each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM:")
    )
    return 1024 * int(line.split()[1])


def measured(action: Callable[[], Percentiles]) -> dict[str, Any]:
    """Return seconds, processor seconds, the bytes by which the peak lies above the peak before, and percentiles."""
    peak = peak_nbytes()
    before, start_s = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    percentiles = action()
    elapsed_s, after = time.perf_counter() - start_s, resource.getrusage(resource.RUSAGE_SELF)
    return {
        "elapsed_s": elapsed_s,
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "added_nbytes": peak_nbytes() - peak,
        "percentiles": percentiles,
    }


def main(way: str, name: str, n_samples: str, folder: str) -> None:
    """Measure a way and print the figures of both turns."""
    x = samples(name, int(n_samples))
    if way == "export":
        model = network(name)
        model(x[:1])
        model.export(str(Path(folder, f"{name}.onnx")), format="onnx", verbose=False)
        return
    turns = {"one batch": x[:BATCH_SIZE], "all": x}
    print(
        json.dumps(
            {turn: measured(prepared(way, name, part, Path(folder, turn))) for turn, part in turns.items()}
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
