"""Print, as JSON, hashes of what small networks give for each batch; once again and again in one process.

Usage: python activation_bits.py REPEATS. Run by test_same_bits.py: TensorFlow's threads are set once for a process.
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

import numpy as np

from actisketch.pipeline.graph import read_graph, select_points
from actisketch.pipeline.record.model import import_keras
from actisketch.pipeline.record.producer import KerasProducer
from actisketch.pipeline.sources import as_source


def networks(keras: Any) -> dict[str, Any]:
    """Return networks whose sums are long enough to be worth dividing among threads."""
    layers = keras.layers
    wide = [keras.Input((20_000,)), layers.Dense(256, activation="relu"), layers.Dense(10)]
    convolutions = [keras.Input((24, 24, 16))]
    convolutions += [layers.Conv2D(64, 3, padding="same"), layers.BatchNormalization(), layers.ReLU()]
    convolutions += [
        layers.DepthwiseConv2D(5),
        layers.Conv2DTranspose(16, 3),
        layers.Flatten(),
        layers.Dense(64),
    ]
    recurrent = [
        keras.Input((40, 64)),
        layers.LSTM(96, return_sequences=True),
        layers.GRU(64),
        layers.Dense(9),
    ]
    inputs = keras.Input((30, 32))
    tensor = layers.LayerNormalization()(layers.MultiHeadAttention(4, 16)(inputs, inputs))
    tensor = layers.Dense(8)(layers.GlobalAveragePooling1D()(layers.Conv1D(64, 5)(tensor)))
    return {
        "wide": keras.Sequential(wide),
        "convolutions": keras.Sequential(convolutions),
        "recurrent": keras.Sequential(recurrent),
        "attention": keras.Model(inputs, tensor),
    }


class Last:
    """Keeps the values of the last batch."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def take(self, point: str, values: Any) -> None:
        self.values[point] = values.copy()

    def end_batch(self, n_samples: int) -> None:
        pass


def main(repeats: str) -> None:
    """Print ``{network: {samples per batch: [hashes that were seen]}}``."""
    keras = import_keras()
    keras.utils.set_random_seed(7)
    found: dict[str, dict[str, list[str]]] = {}
    for name, model in networks(keras).items():
        rng = np.random.default_rng(7)
        graph, found[name] = read_graph(model), {}
        for n_last in (1, 2, 3, 16):
            samples = rng.standard_normal((16 + n_last, *model.input_shape[1:]), np.float32)
            points = select_points(graph, "all")
            producer = KerasProducer(graph, points, as_source(samples), batch_size=16)
            seen = set()
            for _ in range(int(repeats)):
                last = Last()
                producer.hand_over(0, len(samples), last)
                arrays = [last.values[point.name] for point in producer.points]
                assert all(len(array) == n_last for array in arrays)
                seen.add(hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest())
            found[name][str(n_last)] = sorted(seen)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
