"""Ranges of points follow every setting of factors, or the export is refused in a sentence."""

import numpy as np
import pytest

from actisketch.pipeline import run
from actisketch.storage.errors import InputError


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A run with activations and channels, its network, and what it recorded of each layer."""
    import keras

    keras.utils.set_random_seed(13)
    inputs = keras.Input((6,))
    x = keras.layers.Dense(5, activation="relu", name="one")(inputs)
    x = keras.layers.Dense(4, name="two")(x)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="classes")(x))
    settings = {
        "normalize": {"enabled": False},
        "report": {"enabled": False},
        "sketch": {"per_channel": True},
        "factors": {"per_channel": True},
    }
    samples = np.random.default_rng(13).normal(size=(211, 6)).astype(np.float32)
    found = run(model, samples, output=str(tmp_path_factory.mktemp("ranges") / "r"), settings=settings)
    values = {name: np.asarray(found.activations(name)[:]).ravel() for name in found.points}
    return found, model, values


def exported(recorded, **changes):
    found, model, _ = recorded
    return found.exported("hls4ml", options={"model": model}, **changes)


def rows(recorded, **changes):
    return {row.point: row for row in exported(recorded, **changes).rows}


def test_exact_ranges_are_those_of_the_activations_to_the_last_bit(recorded):
    found = rows(recorded, exact=True, percentile=97.0, per_channel=False)

    for name in ("one", "two"):
        x = recorded[2][name]
        x = x[x != 0]
        low, high = (float(np.percentile(x, q, method="linear")) for q in (100.0 - 97.0, 97.0))
        assert (found[name].lo, found[name].hi) == (min(low, 0.0), max(high, 0.0))
        assert "exact percentile 97, from the run" in found[name].source


def test_a_schedule_lowers_the_percentile_from_point_to_point(recorded):
    found = rows(recorded, percentile=99.0, schedule=4.0, exact=True, per_channel=False)
    x = recorded[2]["two"]

    assert found["two"].hi == float(np.percentile(x, 95.0))
    assert "percentile 95" in found["two"].source


def test_an_override_changes_its_point_alone(recorded):
    before = rows(recorded, per_channel=False)
    found = rows(recorded, per_channel=False, overrides={"two": {"factor": 2.5}, "one": {"factor": 0.5}})

    assert (found["two"].lo, found["two"].hi) == (-2.5, 2.5)
    assert (found["one"].lo, found["one"].hi) == (0.0, 0.5)
    assert found["classes"] == before["classes"]
    with pytest.raises(InputError, match="names 'three', which is not a recorded point"):
        exported(recorded, per_channel=False, overrides={"three": {"factor": 2.5}})


def test_ranges_of_channels_are_refused_where_a_tensor_has_one(recorded):
    with pytest.raises(InputError) as refused:
        exported(recorded, per_channel=True)
    warned = exported(recorded).warnings  # only the run asks for them

    words = "'hls4ml' has one range for each tensor, none for channels (factors.per_channel)"
    assert str(refused.value) == f"{words}: leave per_channel out"
    assert warned == (f"{words}: these are the ranges of layers",)
    assert exported(recorded, per_channel=False).warnings == ()
    assert exported(recorded, per_channel=False).content == exported(recorded).content
