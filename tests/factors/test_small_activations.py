"""A layer that is small, and not dead, is told: its factor is 1 although its activations are nowhere near."""

import logging

import numpy as np
import pytest

from actisketch.pipeline import run

X = np.random.default_rng(263).random((40, 4), dtype=np.float32)


def scaled_by(factor):
    import keras

    keras.utils.set_random_seed(269)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(6, activation="relu", name="hidden"),
            keras.layers.Dense(2, name="classes"),
        ]
    )
    model.layers[0].kernel.assign(model.layers[0].kernel * factor)
    return model


def warnings_of(model, folder, caplog, **factors):
    caplog.set_level(logging.WARNING)
    result = run(model, X, output=folder, settings={"report": {"enabled": False}, "factors": factors})
    return result, [text for text in caplog.messages if "treated as dead" in text]


@pytest.mark.parametrize("factor", [1e-8, 1e-20, 1e-30])
def test_a_small_layer_below_the_floor_is_named(tmp_path, caplog, factor):
    result, told = warnings_of(scaled_by(factor), tmp_path / "run", caplog)

    assert result.factors().by_point()["hidden"] == 1.0
    assert len(told) == 1
    assert "'hidden'" in told[0]
    assert "factors.floor" in told[0]


def test_with_a_lower_floor_it_gets_its_factor_as_the_warning_says(tmp_path, caplog):
    result, told = warnings_of(scaled_by(1e-8), tmp_path / "run", caplog, floor=1e-12)

    assert result.factors().by_point()["hidden"] == pytest.approx(result.percentile("hidden", 99.9).value)
    assert not told


@pytest.mark.parametrize("factor", [0.0, 1.0], ids=["dead", "usual"])
def test_nothing_is_said_of_others(tmp_path, caplog, factor):
    assert warnings_of(scaled_by(factor), tmp_path / "run", caplog)[1] == []
