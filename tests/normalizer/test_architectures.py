"""Whole architectures: divided by the real maxima of their points, certified on samples.

Weights are random with statistics and biases that matter, or trained on the shipped digits. ``-s`` prints the
residuals; the large networks are slow: ``pytest -m slow tests/normalizer/test_architectures.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from actisketch.pipeline.certifier import Certificate, certify
from actisketch.pipeline.normalizer import Mode, NormalizedModel, normalize_model
from actisketch.pipeline.sources import as_source

layers = keras.layers
N_CLASSES = 7
Normalize = Callable[..., tuple[NormalizedModel, Certificate]]


def application(name: str, size: int) -> keras.Model:
    """A network of keras.applications at the smallest size that it takes."""
    keras.utils.set_random_seed(3)
    build = getattr(keras.applications, name)
    model: keras.Model = build(weights=None, input_shape=(size, size, 3), classes=N_CLASSES)
    return model


def images(size: int, n: int = 4, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((n, size, size, 3), dtype=np.float32)


def unet() -> keras.Model:
    """Two levels down and up, with BatchNormalization, skip connections and both ways of upsampling."""
    keras.utils.set_random_seed(4)

    def block(x: Any, n: int) -> Any:
        for _ in range(2):
            x = layers.Conv2D(n, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
        return x

    inputs = layers.Input((16, 16, 3))
    top = block(inputs, 8)
    middle = block(layers.MaxPooling2D()(top), 12)
    bottom = layers.Dropout(0.2)(block(layers.MaxPooling2D()(middle), 16))
    up = layers.Conv2DTranspose(12, 2, strides=2)(bottom)
    up = block(layers.Concatenate()([up, middle]), 12)
    up = layers.UpSampling2D(interpolation="bilinear")(up)
    up = block(layers.Concatenate()([top, up]), 8)
    return keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid")(up), name="unet")


def siamese() -> keras.Model:
    """One encoder, a nested model, for two inputs; what differs and both codes decide."""
    keras.utils.set_random_seed(5)
    encoder = keras.Sequential(
        [
            layers.Input((12, 12, 1)),
            layers.Conv2D(6, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            layers.Conv2D(8, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(10, activation="relu"),
        ],
        name="encoder",
    )
    left, right = layers.Input((12, 12, 1), name="left"), layers.Input((12, 12, 1), name="right")
    codes = [encoder(left), encoder(right)]
    x = layers.Concatenate()([layers.Subtract()(codes), *codes])
    x = layers.Dense(9, activation="relu")(x)
    return keras.Model([left, right], layers.Dense(1, activation="sigmoid")(x), name="siamese")


def report(normalized: NormalizedModel, certificate: Certificate) -> None:
    worst = certificate.worst
    assert worst is not None
    measured = sum(point.rounding is not None for point in certificate.points)
    print(
        f"\n{certificate.model_name}, {certificate.mode}: {len(certificate.points)} points, "
        f"{len(normalized.pinned_points)} pinned, {len(normalized.groups)} groups; {certificate.summary()}; "
        f"residual {worst.max_residual / worst.allowed:.2f} of what is allowed, rounding measured at {measured}"
    )


def check(certificate: Certificate) -> None:
    """It passed, and it was no comparison of zeros."""
    assert certificate.passed, certificate.summary()
    assert not any(point.is_dead for point in certificate.points)
    scaled = [point for point in certificate.points if not point.pinned]
    assert all(point.factor == 1.0 for point in certificate.points if point.pinned)
    assert all(point.peak <= 1 + 1e-5 for point in scaled)
    assert max((abs(np.log(point.factor)) for point in scaled), default=1) > 0.1
    for output in certificate.outputs:
        assert output.class_agreement in {None, 1.0}


@pytest.mark.parametrize("mode", ["layer", "channel"])
@pytest.mark.parametrize("build", [unet, siamese])
def test_networks_with_skips_and_with_two_inputs_are_normalised(
    build: Callable[[], keras.Model],
    mode: str,
    randomize: Callable[..., None],
    peaks: Callable[..., Any],
    certified: Normalize,
) -> None:
    model = build()
    randomize(model)
    rng = np.random.default_rng(2)
    samples = [rng.random((6, *tensor.shape[1:]), dtype=np.float32) for tensor in model.inputs]
    normalized, certificate = certified(model, peaks(model, samples, mode=mode), samples, mode=mode)
    report(normalized, certificate)
    check(certificate)
    assert [point.name for point in certificate.points if point.pinned] == [certificate.points[-1].name]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["layer", "channel"])
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("VGG16", 32),
        ("ResNet50", 32),
        ("ResNet50V2", 32),
        ("InceptionV3", 75),
        ("MobileNet", 32),
        ("MobileNetV2", 32),
        ("DenseNet121", 32),
        ("Xception", 71),
    ],
)
def test_a_homogeneous_architecture_is_normalised_everywhere_but_at_its_softmax(
    name: str,
    size: int,
    mode: str,
    randomize: Callable[..., None],
    peaks: Callable[..., Any],
    certified: Normalize,
) -> None:
    model = application(name, size)
    randomize(model)
    samples = images(size)
    normalized, certificate = certified(model, peaks(model, samples, mode=mode), samples, mode=mode)
    report(normalized, certificate)
    check(certificate)
    assert [point.name for point in certificate.points if point.pinned] == [certificate.points[-1].name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        # Squeezing gates and SiLU everywhere, but the projections between blocks are linear: they are scaled.
        ("EfficientNetB0", ["silu is not positively homogeneous", "subtracts a mean"]),
        ("ConvNeXtTiny", ["gelu is not positively homogeneous", "normalises by its own statistics"]),
    ],
)
def test_curved_architectures_list_what_is_pinned_and_pass(
    name: str,
    reasons: list[str],
    randomize: Callable[..., None],
    peaks: Callable[..., Any],
    certified: Normalize,
) -> None:
    model = application(name, 32)
    randomize(model)
    samples = images(32)
    normalized, certificate = certified(model, peaks(model, samples), samples)
    report(normalized, certificate)
    check(certificate)
    told = {reason for _, _, reason in certificate.pinned}
    assert set(reasons) <= told
    free = [point for point in certificate.points if not point.pinned]
    print(f"  pinned: {sorted(told)}; free: {len(free)} of {len(certificate.points)} points")
    if not free:  # normalised by its own statistics all along: the same network comes back, to the bit
        assert {point.max_residual for point in certificate.points} == {0.0}


@pytest.fixture(scope="module")
def trained_residual(digits: tuple[NDArray[np.float32], NDArray[Any]]) -> keras.Model:
    """Two residual blocks with BatchNormalization, trained on the shipped digits for a few epochs."""
    keras.utils.set_random_seed(6)

    def norm_conv(x: Any, n: int, stride: int = 1, size: int = 3) -> Any:
        x = layers.Conv2D(n, size, strides=stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization(momentum=0.8)(x)

    inputs = layers.Input((8, 8, 1))
    x = layers.ReLU()(norm_conv(inputs, 12))
    for n, stride in ((12, 1), (24, 2)):
        short = x if stride == 1 else norm_conv(x, n, stride, size=1)
        x = norm_conv(layers.ReLU()(norm_conv(x, n, stride)), n)
        x = layers.ReLU()(layers.Add()([x, short]))
    outputs = layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs, name="residual")
    model.compile(keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy")
    model.fit(*digits, batch_size=64, epochs=6, verbose=0)
    return model


@pytest.fixture
def shipped(demo_files: dict[str, str]) -> keras.Model:
    return keras.models.load_model(demo_files["model"])


@pytest.mark.parametrize("mode", ["layer", "channel"])
@pytest.mark.parametrize("network", ["shipped", pytest.param("trained_residual", marks=pytest.mark.slow)])
def test_a_trained_network_keeps_its_accuracy(
    network: str,
    mode: Mode,
    digits: tuple[NDArray[np.float32], NDArray[Any]],
    peaks: Callable[..., Any],
    request: pytest.FixtureRequest,
) -> None:
    model = request.getfixturevalue(network)
    factors = peaks(model, digits[0], mode=mode)
    normalized = normalize_model(model, factors, mode=mode)
    certificate = certify(model, normalized, as_source(*digits), batch_size=256)
    report(normalized, certificate)
    print(f"  accuracy {certificate.accuracy_before:.4f} before, {certificate.accuracy_after:.4f} after")
    assert certificate.passed, certificate.summary()
    assert certificate.accuracy_before == certificate.accuracy_after
    assert (certificate.accuracy_before or 0) > 0.95
    assert certificate.outputs[0].class_agreement == 1.0
    assert all(point.peak <= 1 + 1e-5 for point in certificate.points if not point.pinned)


def test_a_mask_is_decided_at_every_position_and_held_to_its_labels(
    randomize: Callable[..., None], peaks: Callable[..., Any]
) -> None:
    model = unet()
    randomize(model)
    samples = np.random.default_rng(8).random((6, 16, 16, 3), dtype=np.float32)
    labels = model.predict(samples, verbose=0) > 0.5
    labels[:, :4] ^= True
    normalized = normalize_model(model, peaks(model, samples))
    certificate = certify(model, normalized, as_source(samples, labels), batch_size=4)
    assert certificate.passed, certificate.summary()
    assert certificate.outputs[0].n_decisions == 6 * 16 * 16
    assert certificate.accuracy_before == certificate.accuracy_after == 0.75
