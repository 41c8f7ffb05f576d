"""Networks that SNN toolbox 0.6.0 parsed; ``golden/parsed_names.json`` holds the names that it gave.

The same code builds them with the toolbox's Keras 2.15 and with ours.
"""

from __future__ import annotations

from typing import Any


def chain(layers: Any, models: Any) -> Any:
    """A Sequential: Activation layers, Dropout and a Flatten of its own."""
    return models.Sequential(
        [
            layers.InputLayer((8, 8, 1)),
            layers.Conv2D(4, 3, name="first"),
            layers.Activation("relu", name="spike"),
            layers.MaxPooling2D(2, name="pool"),
            layers.Dropout(0.1, name="drop"),
            layers.Conv2D(5, 2, activation="relu", name="second"),
            layers.Flatten(name="flat"),
            layers.Dense(7, activation="relu", name="hidden"),
            layers.Dense(3, activation="softmax", name="classes"),
        ]
    )


def normed(layers: Any, models: Any) -> Any:
    """BatchNormalization, ReLU layers and global pooling: eleven layers, so two digits."""
    x = layers.Input((8, 8, 2), name="image")
    y = layers.Conv2D(4, 3, use_bias=False, padding="same", name="conv_a")(x)
    y = layers.ReLU(name="relu_a")(layers.BatchNormalization(name="norm_a")(y))
    y = layers.ZeroPadding2D(1, name="pad")(y)
    y = layers.DepthwiseConv2D(3, strides=2, name="depth")(y)
    y = layers.ReLU(name="relu_b")(layers.BatchNormalization(name="norm_b")(y))
    y = layers.GlobalAveragePooling2D(name="mean")(y)
    return models.Model(x, layers.Dense(3, activation="softmax", name="classes")(y))


def residual(layers: Any, models: Any) -> Any:
    """An Add, which the toolbox makes a Concatenate and a convolution of."""
    x = layers.Input((8, 8, 1), name="image")
    y = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(x)
    z = layers.Conv2D(4, 3, padding="same", name="branch")(y)
    y = layers.Activation("relu", name="spike")(layers.Add(name="join")([y, z]))
    y = layers.AveragePooling2D(2, name="pool")(y)
    y = layers.Conv2D(5, 3, activation="relu", name="head")(y)
    return models.Model(
        x, layers.Dense(3, activation="softmax", name="classes")(layers.Flatten(name="flat")(y))
    )


def branches(layers: Any, models: Any) -> Any:
    """A Concatenate of two branches."""
    x = layers.Input((8, 8, 1), name="image")
    y = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(x)
    a = layers.Conv2D(3, 1, activation="relu", name="left")(y)
    b = layers.Conv2D(2, 3, padding="same", activation="relu", name="right")(y)
    y = layers.Concatenate(name="join")([a, b])
    y = layers.Conv2D(5, 3, activation="relu", name="head")(y)
    return models.Model(
        x, layers.Dense(3, activation="softmax", name="classes")(layers.Flatten(name="flat")(y))
    )


NETWORKS = {"chain": chain, "normed": normed, "residual": residual, "branches": branches}
