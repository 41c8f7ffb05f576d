"""What the samples are divided by: a number, numbers of channels, or measured in one pass over the samples."""

import json

import keras
import numpy as np
import pytest

from actisketch.pipeline import open_run, run
from actisketch.pipeline.folder.folder import content_key
from actisketch.pipeline.rerun import normalize_run
from actisketch.pipeline.sketch import SketchSpec
from actisketch.pipeline.sources import as_source
from actisketch.storage.errors import InputError, MismatchError

layers = keras.layers
RNG = np.random.default_rng(41)
PIXELS = (RNG.normal(size=(50, 6, 6, 3)) * [1, 4, 9]).astype(np.float32)


def network():
    keras.utils.set_random_seed(41)
    inputs = keras.Input((6, 6, 3), name="image")
    a = layers.Conv2D(4, 3, activation="relu", name="a")(inputs)
    return keras.Model(inputs, layers.Dense(2, name="out")(layers.Flatten()(a)))


def finished(folder, model, data, input_factor, **settings):
    tables = {"report": {"enabled": False}, "normalize": {"input_factor": input_factor}, **settings}
    return run(model, data, output=str(folder), batch_size=16, percentile=90.0, settings=tables)


def assert_divided(result, model, data, divided):
    """The saved network, fed with divided samples, times its factors, gives what the original gives."""
    normalised = keras.saving.load_model(result.folder.network_path)
    factors = result.factors().by_point()
    for name, factor in factors.items():
        before, after = (
            keras.Model(m.inputs, m.get_layer(name).output).predict(x, verbose=0)
            for m, x in ((model, data), (normalised, divided))
        )
        assert np.allclose(after * factor, before, rtol=1e-5, atol=1e-5 * np.abs(before).max()), name


@pytest.mark.parametrize("nonzero", [True, False])
def test_a_measured_input_factor_is_the_percentile_of_the_size_of_the_samples(tmp_path, nonzero):
    data = np.where(RNG.random(PIXELS.shape) < 0.4, 0, PIXELS).astype(np.float32)
    model = network()
    result = finished(
        tmp_path / "r", model, data, "measured", factors={"percentile": 90.0, "nonzero": nonzero}
    )
    sizes = np.abs(data[data != 0] if nonzero else data)
    factor = json.loads((tmp_path / "r" / "factors.json").read_text())["input_factor"]

    assert factor == pytest.approx(np.percentile(sizes, 90.0), rel=2**-10)
    assert result.certificate()["passed"]
    assert_divided(result, model, data, data / np.float32(factor))
    assert open_run(tmp_path / "r").factors(percentile=50.0).input_factor == factor


def test_a_measured_input_factor_is_measured_once_and_again_for_more_samples(tmp_path):
    events = []
    model = network()
    settings = {"report": {"enabled": False}, "normalize": {"input_factor": "measured"}}

    def again(data):
        events.clear()
        run(model, data, output=str(tmp_path / "r"), settings=settings, batch_size=16, on_event=events.append)
        return next(e.reloaded for e in events if getattr(e, "message", "") and e.stage == "input")

    assert [again(PIXELS[:32]), again(PIXELS[:32]), again(PIXELS)] == [False, True, False]


def test_a_cache_of_another_network_is_refused_before_its_samples_are_measured(tmp_path):
    model, events = network(), []
    tables = {"report": {"enabled": False}, "normalize": {"enabled": False, "input_factor": "measured"}}
    asked = {"output": tmp_path / "r", "batch_size": 16, "settings": tables}
    run(model, PIXELS, **asked)
    model.set_weights([2 * weight for weight in model.get_weights()])

    with pytest.raises(MismatchError, match="made for something else"):
        run(model, PIXELS, **asked, on_event=events.append)
    assert events == []


def test_a_measured_input_factor_is_measured_again_for_another_floor(tmp_path):
    model, data = network(), np.float32(0.02) * PIXELS
    measured = np.percentile(np.abs(data), 90.0)

    def found(floor):
        events = []
        tables = {"report": {"enabled": False}, "normalize": {"enabled": False, "input_factor": "measured"}}
        result = run(
            model, data, output=str(tmp_path / "r"), settings={**tables, "factors": {"floor": floor}},
            percentile=90.0, batch_size=16, on_event=events.append,
        )  # fmt: skip
        reloaded = next(e.reloaded for e in events if getattr(e, "message", "") and e.stage == "input")
        return result.written_factors().input_factor, reloaded

    assert 1e-6 < measured < 0.5
    assert found(0.5) == (1.0, False)
    assert found(1e-6) == (pytest.approx(measured, rel=2**-10), False)
    assert found(1e-6) == (pytest.approx(measured, rel=2**-10), True)
    assert found(0.5) == (1.0, False)
    assert found(0.5) == (1.0, True)


def test_an_input_factor_that_an_earlier_version_measured_is_reloaded(tmp_path):
    finished(tmp_path / "r", network(), PIXELS, "measured")
    noted = json.loads((tmp_path / "r" / "run.json").read_text())["measured_input"]
    first = as_source(PIXELS).fingerprint()

    assert noted["key"] == content_key(first, len(PIXELS), 90.0, True, SketchSpec().bits)


def test_each_channel_of_the_input_may_have_a_factor_of_its_own(tmp_path):
    model = network()
    result = finished(tmp_path / "r", model, PIXELS, {"image": [1.0, 4.0, 9.0]})

    assert result.written_factors().input_factor == {"image": [1.0, 4.0, 9.0]}
    assert result.certificate()["passed"]
    assert_divided(result, model, PIXELS, PIXELS / np.array([1, 4, 9], np.float32))
    with pytest.raises(InputError, match="one factor for one input"):
        result.export("toolbox")


def test_inputs_are_measured_apart(tmp_path):
    left, right = keras.Input((5,), name="left"), keras.Input((4,), name="right")
    both = layers.Concatenate()([left, right])
    model = keras.Model([left, right], layers.Dense(3, activation="relu", name="a")(both))
    data = {
        "right": RNG.normal(size=(30, 4)).astype(np.float32),
        "left": (RNG.normal(size=(30, 5)) * 50).astype(np.float32),
    }
    result = finished(tmp_path / "r", model, data, "measured")
    expected = {name: np.percentile(np.abs(data[name]), 90.0) for name in ("left", "right")}

    assert result.written_factors().input_factor == pytest.approx(expected, rel=2**-10)
    assert result.certificate()["passed"]


def test_normalize_goes_on_with_the_input_factor_of_the_run(tmp_path):
    model = network()
    model.save(tmp_path / "net.keras")
    np.save(tmp_path / "x.npy", PIXELS)
    tables = {"report": {"enabled": False}, "normalize": {"input_factor": "measured"}}
    result = run(tmp_path / "net.keras", tmp_path / "x.npy", output=str(tmp_path / "r"), settings=tables)
    other = tmp_path / "f50.json"
    other.write_text(json.dumps(result.factors(percentile=50.0).to_dict()))
    certificate = normalize_run(open_run(tmp_path / "r"), factors_path=other, output=tmp_path / "f50")
    other.write_text(json.dumps({**json.loads(other.read_text()), "input_factor": {"image": [1, 2, 3]}}))

    assert certificate.passed
    with pytest.raises(MismatchError, match="input factor"):
        normalize_run(open_run(tmp_path / "r"), factors_path=other, output=tmp_path / "f50")


@pytest.mark.parametrize(
    ("factor", "match"),
    [({"picture": 2.0}, "normalize.input_factor names 'picture'"), ({"image": [1.0, 2.0]}, "its 3 channels")],
)
def test_an_input_factor_that_does_not_fit_is_refused_before_anything_is_written(tmp_path, factor, match):
    with pytest.raises(InputError, match=match):
        finished(tmp_path / "r", network(), PIXELS, factor)

    assert not (tmp_path / "r").exists()


def test_whole_numbers_are_not_measured(tmp_path):
    inputs = keras.Input((6, 6, 3), dtype="uint8", name="image")
    model = keras.Model(
        inputs, layers.Conv2D(2, 3, activation="relu", name="a")(layers.Rescaling(1.0)(inputs))
    )
    with pytest.raises(InputError, match="'image' is uint8"):
        finished(tmp_path / "r", model, PIXELS.astype(np.uint8), "measured")

    assert not (tmp_path / "r").exists()
