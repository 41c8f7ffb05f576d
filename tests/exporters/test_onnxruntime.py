"""The calibration cache by the real ONNX Runtime: what it quantises with is what we wrote."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from actisketch.pipeline import run
from actisketch.pipeline.cli import commands
from actisketch.storage.errors import InputError, MismatchError

from .conftest import QUIET, with_outlier

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def exported(small_run: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command line writes for the small run."""
    path = tmp_path_factory.mktemp("onnx") / "small.json"
    command = ["export", str(small_run["run"].folder.path), "--format", "onnxruntime", "--output", str(path)]
    # Keras numbers the tensors of a process: with long names the table breaks its lines elsewhere.
    done = CliRunner(env={"COLUMNS": "400"}).invoke(commands, command)
    assert done.exit_code == 0, (done.output, done.exception)
    ranges = {
        name: (each["lowest"]["data"], each["highest"]["data"])
        for name, each in json.loads(path.read_text())["data"].items()
    }
    return {"cache": path, "onnx": path.with_suffix(".onnx"), "ranges": ranges, "printed": done.output}


def all_values(path: Path, samples: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor of floats of a network, computed by ONNX Runtime."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    known = {each.name for each in model.graph.output}
    floats = [v for v in model.graph.value_info if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    model.graph.output.extend(v for v in floats if v.name not in known)
    session = ort.InferenceSession(model.SerializeToString())
    name = session.get_inputs()[0].name
    outputs = [each.name for each in session.get_outputs()]
    return {name: samples, **dict(zip(outputs, session.run(outputs, {name: samples}), strict=True))}


@contextmanager
def no_advice() -> Iterator[None]:
    """Hide what ONNX Runtime advises on the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def quantised(network: Path, cache: Path, output: Path, **options: Any) -> Any:
    from onnxruntime.quantization import quantize_static

    with no_advice():
        quantize_static(network, output, None, calibration_cache_path=cache, **options)
    return onnx.load(output)


def scales(model: Any) -> dict[str, float]:
    """The scale of each tensor that is quantised in the file."""
    numbers = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    return {
        node.input[0]: float(numbers[node.input[1]])
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and node.input[1] in numbers
    }


def test_every_tensor_has_a_range_and_every_point_a_tensor(exported, small_run):
    values = all_values(exported["onnx"], small_run["samples"])
    rows = small_run["run"].exported("onnxruntime", options={"onnx": exported["onnx"]}).rows

    assert set(values) == {row.tensor for row in rows} == set(exported["ranges"])
    assert {row.point for row in rows} == {"conv", "hidden", "classes", None}
    for row in rows:
        x = values[row.tensor].astype(np.float64).ravel()
        x = x[x != 0]
        if row.point == "classes":
            expected = 0.0, x.max()  # softmax is bounded: never clipped
        else:
            expected = min(np.percentile(x, 0.1), 0.0), max(np.percentile(x, 99.9), 0.0)
        assert (row.lo, row.hi) == pytest.approx(expected, rel=2e-3, abs=1e-6)
        assert exported["ranges"][row.tensor] == (np.float32(row.lo), np.float32(row.hi))


def test_a_point_is_found_by_its_values_whatever_the_names(exported, small_run, tmp_path):
    model = onnx.load(exported["onnx"])
    names = {
        name: f"t{i}" for i, name in enumerate(dict.fromkeys(n for x in model.graph.node for n in x.output))
    }
    for node in model.graph.node:
        node.output[:] = [names.get(name, name) for name in node.output]
        node.input[:] = [names.get(name, name) for name in node.input]
    for each in (*model.graph.output, *model.graph.value_info):
        each.name = names.get(each.name, each.name)
    onnx.save(model, tmp_path / "renamed.onnx")
    before = small_run["run"].exported("onnxruntime", options={"onnx": exported["onnx"]}).rows
    after = small_run["run"].exported("onnxruntime", options={"onnx": tmp_path / "renamed.onnx"}).rows

    assert [(names.get(row.tensor, row.tensor), row.point, row.lo, row.hi) for row in before] == [
        (row.tensor, row.point, row.lo, row.hi) for row in after
    ]


def test_the_scales_in_the_quantised_file_are_ours(exported, tmp_path):
    found = scales(quantised(exported["onnx"], exported["cache"], tmp_path / "q.onnx"))

    assert len(found) >= 3
    own = [
        name for name, scale in found.items() if name in exported["ranges"] and _is_own(scale, name, exported)
    ]
    assert {name.split("/")[1].split("_")[0] for name in own if "/" in name} >= {"conv", "hidden"}


def test_max_pooling_keeps_the_scale_of_its_input_as_the_table_says(exported, tmp_path):
    file = quantised(exported["onnx"], exported["cache"], tmp_path / "q.onnx")
    behind = {name: node for node in file.graph.node for name in node.input}
    (pool,) = (node for node in file.graph.node if node.op_type == "MaxPool")
    before = next(node for node in file.graph.node if node.output[0] == pool.input[0])
    after = behind[pool.output[0]]

    assert (before.op_type, after.op_type) == ("DequantizeLinear", "QuantizeLinear")
    assert after.input[1] == before.input[1]
    assert "MaxPool, Flatten, Reshape, Transpose and Slice keep the scale" in " ".join(
        exported["printed"].split()
    )


def _is_own(scale, name, exported):
    lo, hi = exported["ranges"][name]
    return scale == pytest.approx((hi - lo) / 255, rel=1e-6)


def test_overrides_give_the_same_scales(exported, small_run, tmp_path):
    from actisketch.pipeline.exporters.as_onnxruntime import tensor_quant_overrides

    rows = small_run["run"].exported("onnxruntime", options={"onnx": exported["onnx"]}, method="max").rows
    overrides = tensor_quant_overrides([row for row in rows if row.point == "hidden"])
    options = {"extra_options": {"TensorQuantOverrides": overrides}}
    found = scales(quantised(exported["onnx"], exported["cache"], tmp_path / "q.onnx", **options))
    (name,) = overrides

    assert found[name] == pytest.approx(float(overrides[name][0]["rmax"]) / 255, rel=1e-6)


def test_the_table_says_where_each_range_came_from(exported):
    words = " ".join(exported["printed"].split())

    assert "percentile 99.9, from the run" in words
    assert "no point: percentile 99.9, of its own values for 83 samples" in words
    assert "max, as softmax is bounded, from the run" in words
    assert f"wrote {exported['onnx']}" in words
    assert "measuring tensors that are no points: 83 of 83 samples to do" in words


def test_a_network_for_a_fixed_number_of_samples_gives_the_same(exported, small_run, tmp_path):
    model = onnx.load(exported["onnx"])
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 6  # 83 is no multiple of it
    onnx.save(model, tmp_path / "six.onnx")
    rows = small_run["run"].exported("onnxruntime", options={"onnx": tmp_path / "six.onnx"}).rows

    for row in rows:
        assert (np.float32(row.lo), np.float32(row.hi)) == pytest.approx(
            exported["ranges"][row.tensor], rel=1e-5
        )


def test_single_numbers_in_a_network_for_a_fixed_number_of_samples_are_no_hindrance(
    exported, small_run, tmp_path
):
    model = onnx.load(exported["onnx"])
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 6
    (relu,) = (node for node in model.graph.node if node.op_type == "Relu" and "hidden" in node.name)
    zero = onnx.helper.make_node(
        "Constant", [], ["zero"], value=onnx.numpy_helper.from_array(np.float32(0.0))
    )
    clip = onnx.helper.make_node("Max", [*relu.input, "zero"], [*relu.output])
    place = list(model.graph.node).index(relu)
    model.graph.node.remove(relu)
    model.graph.node.insert(place, clip)
    model.graph.node.insert(place, zero)
    onnx.save(model, tmp_path / "clipped.onnx")
    rows = small_run["run"].exported("onnxruntime", options={"onnx": tmp_path / "clipped.onnx"}).rows
    ranges = {row.tensor: (np.float32(row.lo), np.float32(row.hi)) for row in rows}

    assert ranges.pop("zero") == (0.0, 0.0)
    assert ranges.keys() == exported["ranges"].keys()
    for tensor, ends in ranges.items():
        assert ends == pytest.approx(exported["ranges"][tensor], rel=1e-5)


def test_samples_that_were_moved_are_found_at_a_url_too(exported, small_run):
    options = {"onnx": exported["onnx"], "data": (small_run["folder"] / "x.npy").as_uri()}
    rows = small_run["run"].exported("onnxruntime", options=options).rows

    for row in rows:
        assert (np.float32(row.lo), np.float32(row.hi)) == exported["ranges"][row.tensor]


@pytest.mark.slow
def test_on_standard_output_the_network_of_the_tensors_is_missed(exported, small_run):
    command = ["export", str(small_run["run"].folder.path), "--format", "onnxruntime"]
    lacking = CliRunner().invoke(commands, command)
    whole = CliRunner().invoke(commands, [*command, "--onnx", str(exported["onnx"])])

    assert "written beside the output (.onnx) is missing: give --output" in " ".join(lacking.stderr.split())
    assert "is missing" not in whole.stderr
    assert json.loads(whole.stdout)["data"].keys() == exported["ranges"].keys()


@pytest.mark.slow
def test_a_dead_layer_is_not_said_to_be_folded_away(tmp_path):
    import keras
    from keras import layers

    keras.utils.set_random_seed(4)
    inputs = keras.Input((5,))
    dead = layers.Dense(3, activation="relu", bias_initializer=keras.initializers.Constant(-99), name="dead")
    both = layers.Concatenate()([layers.Dense(4, name="live")(inputs), dead(inputs)])
    model = keras.Model(inputs, layers.Dense(2, name="out")(both))
    samples = np.random.default_rng(4).normal(size=(20, 5)).astype(np.float32)
    found = run(model, samples, output=str(tmp_path / "r"), settings=QUIET)
    made = found.exported("onnxruntime", options={"model": model, "data": samples})
    (warning,) = made.warnings

    assert warning.startswith("all values of 'dead' are the same for the first 20 samples")
    assert {row.point for row in made.rows} == {None, "live", "out"}


def test_another_network_is_refused_with_the_points_that_were_looked_for(exported, small_run, tmp_path):
    model = onnx.load(exported["onnx"])
    for each in model.graph.initializer:
        values = onnx.numpy_helper.to_array(each)
        if values.dtype == np.float32:
            each.CopyFrom(onnx.numpy_helper.from_array(values * 1.3 + 0.1, each.name))
    onnx.save(model, tmp_path / "other.onnx")
    before = list(tmp_path.iterdir())
    command = ["export", str(small_run["run"].folder.path), "--format", "onnxruntime"]
    done = CliRunner().invoke(
        commands, [*command, "--onnx", str(tmp_path / "other.onnx"), "--output", str(tmp_path / "c.json")]
    )

    assert isinstance(done.exception, InputError)
    assert "looked for 'conv', 'hidden', 'classes'" in str(done.exception)
    assert list(tmp_path.iterdir()) == before


def test_a_network_that_is_quantised_already_is_refused(exported, small_run, tmp_path):
    quantised(exported["onnx"], exported["cache"], tmp_path / "q.onnx")

    with pytest.raises(InputError, match=r"is quantised already .*DequantizeLinear"):
        small_run["run"].exported("onnxruntime", options={"onnx": tmp_path / "q.onnx"})


def test_other_shapes_files_and_samples_are_refused(exported, small_run, tmp_path):
    run = small_run["run"]
    (tmp_path / "no.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="is no network of ONNX"):
        run.exported("onnxruntime", options={"onnx": tmp_path / "no.onnx"})
    with pytest.raises(InputError, match=r"there is no file .*leave --onnx out"):
        run.exported("onnxruntime", options={"onnx": tmp_path / "missing.onnx"})
    with pytest.raises(InputError, match=r"missing\.npy"):
        run.exported("onnxruntime", options={"data": tmp_path / "missing.npy", "onnx": exported["onnx"]})
    with pytest.raises(MismatchError, match="samples 0 to"):
        run.exported("onnxruntime", options={"data": small_run["samples"] + 1, "onnx": exported["onnx"]})
    model = onnx.load(exported["onnx"])
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5
    onnx.save(model, tmp_path / "narrow.onnx")
    with pytest.raises(InputError, match="cannot be run on the samples of the run"):
        run.exported("onnxruntime", options={"onnx": tmp_path / "narrow.onnx"})


def test_an_older_onnxruntime_is_named_with_both_versions(small_run, monkeypatch):
    import importlib.metadata

    installed = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "1.31.0" if name == "onnxruntime" else installed(name)
    )

    with pytest.raises(InputError, match=r"needs onnxruntime 1.32 or newer, 1.31.0 is installed"):
        small_run["run"].exported("onnxruntime")


def test_without_the_package_the_error_names_the_extra(small_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    with pytest.raises(InputError, match=r"needs the package 'onnxruntime'.*actisketch\[onnxruntime\]"):
        small_run["run"].exported("onnxruntime")


class Samples:
    """What ONNX Runtime calibrates with."""

    def __init__(self, samples):
        self._batches = iter([{"image": samples[i : i + 32]} for i in range(0, len(samples), 32)])

    def get_next(self):
        return next(self._batches, None)


def accuracy(path, samples, labels):
    session = ort.InferenceSession(str(path))
    return float(np.mean(session.run(None, {"image": samples})[0].argmax(axis=1) == labels))


def own_accuracies(network, samples, x, labels, folder):
    from onnxruntime.quantization import CalibrationMethod, quantize_static

    found = {}
    for method in (CalibrationMethod.MinMax, CalibrationMethod.Percentile, CalibrationMethod.Entropy):
        # The last batch of its histograms has to be whole.
        whole = samples[: len(samples) // 32 * 32]
        with no_advice():
            quantize_static(network, folder / "own.onnx", Samples(whole), calibrate_method=method)
        found[method.name] = accuracy(folder / "own.onnx", x, labels)
    return found


@pytest.mark.slow
def test_digits_keep_their_accuracy_in_8_bits(record_digits, digits, tmp_path):
    x, labels = digits
    found, options = record_digits(x)
    network, ours = tmp_path / "percentile.onnx", {}
    for method in ("percentile", "max", "mse", "entropy"):
        cache = tmp_path / f"{method}.json"
        given = {"onnx": network} if network.exists() else {}
        found.exported("onnxruntime", options={**options, **given}, method=method).write(cache)
        quantised(network, cache, tmp_path / "q.onnx")
        ours[method] = accuracy(tmp_path / "q.onnx", x, labels)

    assert min(ours.values()) >= accuracy(network, x, labels) - 0.005, ours
    assert ours["percentile"] >= max(own_accuracies(network, x, x, labels, tmp_path).values())


@pytest.mark.slow
def test_a_network_like_mobilenet_keeps_its_accuracy_in_8_bits(mobile_digits, record_digits, tmp_path):
    model, x, labels = mobile_digits
    found, options = record_digits(x, model)
    network, cache = tmp_path / "c.onnx", tmp_path / "c.json"
    made = found.exported("onnxruntime", options=options)
    made.write(cache)
    file = quantised(network, cache, tmp_path / "q.onnx")
    ours, before = accuracy(tmp_path / "q.onnx", x, labels), accuracy(network, x, labels)
    own = own_accuracies(network, x, x, labels, tmp_path)
    print("float", before, "ours", ours, own)

    assert before > 0.99
    assert ours >= before - 0.005
    assert ours >= max(own.values())
    of_file, ranges = scales(file), {row.tensor: row for row in made.rows if row.point is not None}
    within = ranges.keys() & of_file.keys()
    assert len(within) == 9  # all but the softmax, whose scale is fixed
    for name in within:
        assert of_file[name] == pytest.approx((ranges[name].hi - ranges[name].lo) / 255, rel=1e-5)


@pytest.mark.slow
def test_one_outlier_ruins_its_own_calibrations_and_not_ours(record_digits, digits, tmp_path):
    x, labels = digits
    samples = with_outlier(x)
    found, options = record_digits(samples)
    found.exported("onnxruntime", options=options).write(tmp_path / "c.json")
    quantised(tmp_path / "c.onnx", tmp_path / "c.json", tmp_path / "q.onnx")
    before = accuracy(tmp_path / "c.onnx", x, labels)

    assert accuracy(tmp_path / "q.onnx", x, labels) >= before - 0.005
    own = own_accuracies(tmp_path / "c.onnx", samples, x, labels, tmp_path)
    assert max(own.values()) < before - 0.10, own
