"""Groups of points that share a scale, from a network to its factors; what cannot be is refused before recording."""

import keras
import numpy as np
import pytest

from actisketch.pipeline import run
from actisketch.storage.errors import InputError

layers = keras.layers


@keras.saving.register_keras_serializable("test_groups")
class Squared(keras.layers.Layer):
    """A layer that no rule knows."""

    def call(self, x):
        return x * x


DATA = np.random.default_rng(23).random((60, 6, 6, 3), dtype=np.float32)


def mixed_widths():
    """An Add of three and of four channels with one: the sketches of channels cannot be merged."""
    keras.utils.set_random_seed(23)
    x = keras.Input((6, 6, 3))
    a = layers.Conv2D(3, 1, activation="relu", name="a")(x)
    b = layers.Conv2D(1, 1, activation="relu", name="b")(x)
    c = layers.Conv2D(4, 1, activation="relu", name="c")(layers.Add(name="first")([a, b]))
    y = layers.Add(name="second")([c, b])
    return keras.Model(x, layers.Dense(3, activation="softmax", name="out")(layers.Flatten()(y)))


@pytest.mark.parametrize("per_channel", [False, True])
def test_merged_groups_go_with_sketches_of_channels(tmp_path, per_channel):
    model = mixed_widths()
    settings = {
        "factors": {"groups": "merged", "percentile": 95.0, "per_channel": False},
        "sketch": {"per_channel": per_channel},
        "report": {"enabled": False},
    }
    found = run(model, DATA, output=str(tmp_path / "r"), settings=settings)
    factors = found.factors().by_point()
    group = ["a", "b", "c", "first", "second"]
    together = np.concatenate(
        [keras.Model(model.inputs, model.get_layer(n).output).predict(DATA, verbose=0).ravel() for n in group]
    )

    (factor,) = {factors[name] for name in group}
    assert factor == pytest.approx(np.percentile(together[together > 0], 95.0), rel=2**-10)
    assert found.certificate()["passed"]


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"schedule": 20.0, "percentile": 50.0}, "smaller schedule"),
        ({"schedule": 20.0, "percentile": 50.0, "groups": "merged"}, "smaller schedule"),
        ({"overrides": {"cnv": {"factor": 1.0}}}, "'cnv'"),
        ({"groups": "merged", "per_channel": True}, "needs one factor per point"),
    ],
)
def test_factors_that_cannot_be_are_refused_before_recording(tmp_path, factors, message):
    settings = {"factors": factors, "sketch": {"per_channel": True}}
    with pytest.raises(InputError, match=message):
        run(mixed_widths(), DATA, output=str(tmp_path / "r"), settings=settings)

    assert not (tmp_path / "r").exists()


def test_all_layers_without_a_rule_are_told_before_recording_in_words_of_the_job(tmp_path):
    keras.utils.set_random_seed(29)
    dense = [layers.Dense(4, activation="relu", name=name) for name in "abc"]
    stack = [each for layer in dense for each in (layer, Squared())]
    model = keras.Sequential([keras.Input((6, 6, 3)), *stack, layers.Flatten(), layers.Dense(2)])
    with pytest.raises(
        InputError, match=r"(?s)3 layers .*3 of Squared .*normalize.pin = \['Squared'\]"
    ) as caught:
        run(model, DATA, output=str(tmp_path / "r"))
    assert not (tmp_path / "r").exists()

    settings = {"normalize": {"pin": list(caught.value.pin)}, "report": {"enabled": False}}
    assert run(model, DATA, output=str(tmp_path / "r"), settings=settings).certificate()["passed"]
