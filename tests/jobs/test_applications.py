"""Every network of keras.applications can be recorded, and normalised or told what is pinned."""

import keras
import numpy as np
import pytest

from actisketch.pipeline import run
from actisketch.pipeline.graph import read_graph, select_points
from actisketch.pipeline.normalizer import propagate

NETWORKS = sorted(name for name in dir(keras.applications) if name[0].isupper())
QUICK = {"MobileNet", "MobileNetV3Small"}
# One of each family goes through a whole run; the others have the same kinds of layers, more of them.
FAMILIES = QUICK | {
    "ConvNeXtTiny",
    "DenseNet121",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "InceptionResNetV2",
    "InceptionV3",
    "MobileNetV2",
    "NASNetMobile",
    "ResNet50",
    "ResNet50V2",
    "VGG16",
    "Xception",
}
SMALLEST = {"InceptionResNetV2": 75, "InceptionV3": 75, "Xception": 71}
# Nothing is left to normalise: a LayerNormalization or a curved function stands around every layer.
ALL_PINNED = {"ConvNeXtBase", "ConvNeXtLarge", "ConvNeXtSmall", "ConvNeXtTiny", "ConvNeXtXLarge"}


def test_the_list_is_that_of_the_installed_keras():
    assert {"VGG16", "ResNet50", "InceptionResNetV2", "EfficientNetB0"} <= set(NETWORKS)
    assert set(NETWORKS) >= QUICK | ALL_PINNED | set(SMALLEST)


@pytest.fixture
def network(request):
    """One network at a time, with random weights."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(71)
    size = SMALLEST.get(request.param, 32)
    build = getattr(keras.applications, request.param)
    yield build(weights=None, classes=7, input_shape=(size, size, 3))
    keras.backend.clear_session()


@pytest.mark.slow
@pytest.mark.parametrize("network", sorted(set(NETWORKS) - FAMILIES), indirect=True)
def test_every_layer_of_a_larger_network_has_a_rule_or_is_pinned_with_its_reason(network):
    graph = read_graph(network)
    solved = propagate(graph)

    assert len(select_points(graph)) > 15
    assert all(each.reason for each in solved.pinned)


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(name, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name in sorted(FAMILIES)
    ],
    indirect=True,
)
def test_a_network_of_keras_is_normalised_or_told_what_is_pinned(network, request, tmp_path):
    samples = np.random.default_rng(71).uniform(0, 255, (2, *network.input_shape[1:])).astype(np.float32)
    found = run(
        network,
        samples,
        output=str(tmp_path / "r"),
        batch_size=2,
        settings={"report": {"enabled": False}, "record": {"activations": False}},
    )
    certificate = found.certificate()
    free = [point["name"] for point in certificate["points"] if not point["pinned"]]
    factors = found.factors().by_point()

    assert certificate["passed"]
    assert len(found.points) == len(factors) == len(certificate["points"])
    assert all(each["reason"] for each in certificate["pinned"])
    if request.node.callspec.id in ALL_PINNED:
        assert free == []
        assert certificate["pinned"]
    else:
        assert any(factors[name] != 1.0 for name in free)
