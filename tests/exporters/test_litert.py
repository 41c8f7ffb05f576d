"""The calibration result by the real ai-edge-quantizer: what it quantises with is what we wrote."""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import numpy as np
import pytest

from actisketch.storage.errors import InputError

from .conftest import QUIET, with_outlier

pytest.importorskip("ai_edge_litert")
pytest.importorskip("ai_edge_quantizer")
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning", "ignore::ResourceWarning"
)


@pytest.fixture(scope="module")
def exported(small_run: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("litert") / "small.json"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = small_run["run"].exported("litert")
    made.write(path)
    return {"result": path, "tflite": path.with_suffix(".tflite"), "rows": made.rows}


def opened(content: bytes) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_content=bytes(content), experimental_preserve_all_tensors=True)


def quantised(tflite: bytes, result: Any) -> bytes:
    from ai_edge_quantizer import quantizer, recipe
    from ai_edge_quantizer.utils.calibration_utils import load_calibration_results

    tool = quantizer.Quantizer(bytearray(tflite))
    tool.load_quantization_recipe(recipe.static_wi8_ai8())
    if callable(result):
        found = result(tool)
    else:
        found, _ = load_calibration_results(str(result))
    return bytes(tool.quantize(found, enable_progress_report=False).quantized_model)


def test_every_tensor_has_the_range_of_its_values(exported, small_run):
    interpreter = opened(exported["tflite"].read_bytes())
    (given,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(given["index"], small_run["samples"].shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], small_run["samples"])
    interpreter.invoke()
    values = {
        each["name"]: interpreter.get_tensor(each["index"]) for each in interpreter.get_tensor_details()
    }

    assert {row.point for row in exported["rows"]} == {"conv", "hidden", "classes", None}
    for row in exported["rows"]:
        x = values[row.tensor].astype(np.float64).ravel()
        x = x[x != 0]
        high = x.max() if row.point == "classes" else np.percentile(x, 99.9)
        low = 0.0 if row.point == "classes" else np.percentile(x, 0.1)
        assert (row.lo, row.hi) == pytest.approx((min(low, 0), max(high, 0)), rel=2e-3, abs=1e-6)


def test_the_scales_in_the_quantised_file_are_ours(exported):
    content = quantised(exported["tflite"].read_bytes(), exported["result"])
    found = {each["name"]: each["quantization"][0] for each in opened(content).get_tensor_details()}
    points = [row for row in exported["rows"] if row.point in ("conv", "hidden")]

    assert len(points) == 2
    for row in points:
        assert found[row.tensor] == pytest.approx((row.hi - row.lo) / 255, rel=1e-5)


def test_what_is_no_network_of_floats_is_refused(exported, small_run, tmp_path):
    run = small_run["run"]
    (tmp_path / "no.tflite").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="is no network of LiteRT"):
        run.exported("litert", options={"tflite": tmp_path / "no.tflite"})
    with pytest.raises(InputError, match=r"there is no file .*leave --tflite out"):
        run.exported("litert", options={"tflite": tmp_path / "missing.tflite"})
    content = quantised(exported["tflite"].read_bytes(), exported["result"])
    (tmp_path / "q.tflite").write_bytes(content)
    with pytest.raises(InputError, match="is quantised already"):
        run.exported("litert", options={"tflite": tmp_path / "q.tflite"})


def test_without_the_package_the_error_names_the_extra(small_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)

    with pytest.raises(InputError, match=r"needs the package 'ai-edge-litert'.*actisketch\[litert\]"):
        small_run["run"].exported("litert")


def outputs(content, x):
    interpreter = opened(content)
    (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], x.shape)
    interpreter.allocate_tensors()
    if given["dtype"] == np.int8:
        scale, zero = given["quantization"]
        x = np.clip(np.rint(x / scale) + zero, -128, 127).astype(np.int8)
    interpreter.set_tensor(given["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(result["index"])


def accuracy(content, x, labels):
    return float(np.mean(outputs(content, x).argmax(axis=1) == labels))


@pytest.mark.slow
def test_a_network_with_a_loop_has_ranges_outside_of_it(tmp_path):
    """The loop and its condition are graphs of their own in the file."""
    import keras
    from ai_edge_quantizer import qtyping, quantizer

    from actisketch.pipeline import run

    class Halved(keras.layers.Layer):
        def call(self, x):
            return keras.ops.while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x * 0.5), (0, x))[1]

        def compute_output_shape(self, shape):
            return shape

    inputs = keras.Input((6,), name="image")
    x = Halved(name="loop")(keras.layers.Dense(5, activation="relu", name="first")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3, name="out")(x))
    samples = np.random.default_rng(3).normal(size=(64, 6)).astype(np.float32)
    found = run(model, samples, output=str(tmp_path / "r"), settings=QUIET)
    made = found.exported("litert", options={"model": model, "data": samples})
    made.write(tmp_path / "c.json")

    assert {row.point for row in made.rows} == {"first", "out", None}
    assert any(
        "has 2 graphs in its loops and branches, whose tensors get no range" in w for w in made.warnings
    )
    tool = quantizer.Quantizer(bytearray((tmp_path / "c.tflite").read_bytes()))
    tool.add_static_config(".*", qtyping.TFLOperationName.FULLY_CONNECTED, 8, 8)
    content = bytes(
        tool.quantize(json.loads((tmp_path / "c.json").read_text())["model_qsvs"]).quantized_model
    )
    assert outputs(content, samples) == pytest.approx(np.asarray(model(samples)), abs=0.05)


@pytest.mark.slow
def test_a_network_like_mobilenet_keeps_its_accuracy_in_8_bits(mobile_digits, record_digits, tmp_path):
    """Also if the first batch is zero, from which its own moving average starts."""
    model, x, labels = mobile_digits
    empty = x[:256].copy()
    empty[:32] = 0
    ours, own = {}, {}
    for name, samples in (("whole", x), ("first batch zero", empty)):
        found, options = record_digits(samples, model)
        made = found.exported("litert", options=options)
        made.write(tmp_path / "c.json")
        tflite = (tmp_path / "c.tflite").read_bytes()

        def calibrated(tool, samples=samples):
            return tool.calibrate(
                {"serving_default": [{"image": samples[i : i + 32]} for i in range(0, len(samples), 32)]}
            )

        content = quantised(tflite, tmp_path / "c.json")
        ours[name], own[name] = (
            accuracy(each, x, labels) for each in (content, quantised(tflite, calibrated))
        )
        of_file = {each["name"]: each["quantization"][0] for each in opened(content).get_tensor_details()}
        points = [row for row in made.rows if row.point not in (None, "classes")]
        assert len(points) == 9
        for row in points:
            assert of_file[row.tensor] == pytest.approx((row.hi - row.lo) / 255, rel=1e-5)
    before = accuracy(tflite, x, labels)
    print("float", before, "ours", ours, "own", own)

    assert min(ours.values()) >= before - 0.005
    assert ours["whole"] >= own["whole"]
    assert own["first batch zero"] < before - 0.10


@pytest.mark.slow
def test_digits_keep_their_accuracy_with_an_outlier_wherever_it_is(record_digits, digits, tmp_path):
    """Its own calibration is a moving average: it forgets an early outlier, and believes a late one."""
    x, labels = digits
    found = {}
    for place in (5, len(x) - 1):
        samples = with_outlier(x, place)
        recorded, options = record_digits(samples)
        recorded.exported("litert", options=options).write(tmp_path / "c.json")
        tflite = (tmp_path / "c.tflite").read_bytes()

        def own(tool, samples=samples):
            return tool.calibrate({"serving_default": [{"image": one[None]} for one in samples]})

        before = accuracy(tflite, x, labels)
        assert accuracy(quantised(tflite, tmp_path / "c.json"), x, labels) >= before - 0.005
        found[place] = before - accuracy(quantised(tflite, own), x, labels)

    assert found[len(x) - 1] > 0.10, found
