"""Make the two files that the demo ships: the handwritten digits and a small trained network.

Run once by the developers, with scikit-learn installed (the package itself does not need it)::

    python tests/train_digits.py
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np

SEED = 7
N_TEST = 360  # a fifth, held out by a seeded permutation and never trained on
GREY_LEVELS = 16  # pixel values run from 0 to 16


def digits() -> tuple[Any, Any]:
    """Return the images, uint8 of shape (1797, 8, 8, 1), and their labels, uint8 of shape (1797,)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images.astype(np.uint8)[..., None], bunch.target.astype(np.uint8)


def build() -> Any:
    """Return the untrained network: two convolutions with BatchNormalization, pooling, two Dense layers."""
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(16, 3, padding="same", use_bias=False, name="conv1"),
            layers.BatchNormalization(name="conv1_norm"),
            layers.ReLU(name="conv1_relu"),
            layers.Conv2D(32, 3, padding="same", name="conv2"),
            layers.BatchNormalization(name="conv2_norm"),
            layers.Activation("relu", name="conv2_relu"),
            layers.AveragePooling2D(2, name="pool1"),
            layers.Conv2D(48, 3, activation="relu", padding="same", name="conv3"),
            layers.MaxPooling2D(2, name="pool2"),
            layers.Flatten(name="flatten"),
            layers.Dropout(0.3, name="dropout"),
            layers.Dense(64, activation="relu", name="dense1"),
            layers.Dense(10, activation="softmax", name="classes"),
        ],
        name="digits",
    )


def main() -> None:
    """Train, measure on the held-out digits, write ``digits.npz`` and ``digits.keras``."""
    parser = argparse.ArgumentParser(description=__doc__)
    demo = Path(__file__).parents[1] / "pipeline" / "demo"
    parser.add_argument("--folder", type=Path, default=demo, help="where to write the two files")
    parser.add_argument("--epochs", type=int, default=60)
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras

    keras.utils.set_random_seed(SEED)
    images, labels = digits()
    order = np.random.default_rng(SEED).permutation(len(images))
    test, train = order[:N_TEST], order[N_TEST:]
    inputs = images.astype(np.float32) / GREY_LEVELS
    model = build()
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(inputs[train], labels[train], batch_size=64, epochs=arguments.epochs, verbose=2)
    _, accuracy = model.evaluate(inputs[test], labels[test], verbose=0)
    if accuracy < 0.97:
        raise SystemExit(f"test accuracy {accuracy:.4f} is below 0.97: train longer")
    # A fresh network with the trained weights: without the optimiser's state the file is a third of the size.
    shipped = build()
    shipped.set_weights(model.get_weights())
    shipped.save(arguments.folder / "digits.keras")
    np.savez_compressed(arguments.folder / "digits.npz", x=images, y=labels, test_indices=np.sort(test))
    print(f"test accuracy {accuracy:.4f} on {N_TEST} held-out digits")


if __name__ == "__main__":
    main()
