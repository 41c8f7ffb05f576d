"""Samples that do not fit a network are refused by one rule, with one message: when recorded and when certified."""

import keras
import numpy as np
import pytest

from actisketch.pipeline.certifier import certify
from actisketch.pipeline.graph import read_graph, select_points
from actisketch.pipeline.normalizer import normalize_model
from actisketch.pipeline.record.producer import KerasProducer
from actisketch.pipeline.sources import as_source
from actisketch.storage.errors import InputError

SHAPES = {
    "another shape": (np.zeros((5, 7), np.float32), "'x' takes samples of shape"),
    "too many arrays": ([np.zeros((5, 6), np.float32)] * 2, "the network has 1 input"),
    "text": (np.array([["a"] * 6] * 5, object), "'x' takes numbers"),
}


@pytest.mark.parametrize("what", SHAPES)
def test_recording_and_certifying_refuse_the_same_with_the_same_words(what):
    inputs = keras.Input((6,), name="x")
    model = keras.Model(inputs, keras.layers.Dense(3, name="out")(inputs))
    data, words = SHAPES[what]
    graph, source = read_graph(model), as_source(data)
    normalized = normalize_model(model, {"out": 2.0})

    with pytest.raises(InputError, match=words) as recording:
        KerasProducer(graph, select_points(graph, "parameters"), source, batch_size=2)
    with pytest.raises(InputError, match=words) as certifying:
        certify(model, normalized, source, batch_size=2)
    assert str(recording.value) == str(certifying.value)
