"""The main job on the shipped digits, from the command line: what the README promises, looked at from outside."""

import json
import subprocess
import sys

import numpy as np
import pytest
import zarr


def arrays_of(folder):
    """The cached activations, read with plain zarr, by the name that each array carries."""
    group = zarr.open_group(str(folder / "cache"), mode="r")
    return {name: array[:] for name, array in group.arrays()}


def test_the_demo_prints_a_row_per_layer_accuracy_certificate_and_places(demo_run):
    folder, printed = demo_run
    for layer in ("conv1", "conv2", "conv3", "dense1", "classes"):
        assert layer in printed
    for column in ("shape", "values", "zeros", "max", "p99.9", "factor", "residual"):
        assert column in printed

    assert "8x8x16" in printed
    assert "accuracy: 99." in printed
    assert "certificate: passed" in printed
    for name in (
        "cache",
        "statistics.json",
        "factors.json",
        "normalized.keras",
        "certificate.json",
        "run.log",
    ):
        assert str(folder / name) in printed
        assert (folder / name).exists()


def test_a_second_demo_computes_nothing_and_says_so(demo_run, call):
    folder, printed = demo_run
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    again = call("demo", "--output", folder)
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    changed = {path.name for path in before if before[path] != after.get(path)}

    assert again.code == 0
    assert "nothing was recomputed: all 29 blocks were reloaded" in again.out
    assert "reloaded the normalised network" in again.err
    assert printed.splitlines()[:6] == again.out.splitlines()[:6]
    assert changed <= {"run.json", "run.log", "lock"}


@pytest.mark.parametrize("flag", ["--nonzero", "--all-values"])
def test_exact_percentiles_are_those_of_numpy_on_the_cached_arrays_to_the_last_bit(demo_run, call, flag):
    folder, _ = demo_run
    qs = [1.0, 50.0, 99.0, 99.9, 100.0]
    arguments = [part for q in qs for part in ("-q", q)]
    answer = call("percentiles", folder, *arguments, flag, "--exact", "--json")
    rows = json.loads(answer.out)
    for name, array in arrays_of(folder).items():
        values = array[array != 0] if flag == "--nonzero" else array
        found = [row["value"] for row in rows if row["point"] == name]

        assert found == [float(np.percentile(values, q, method="linear")) for q in qs]


def test_every_interval_contains_the_exact_percentile(demo_run, call):
    folder, _ = demo_run
    qs = [0.0, 0.1, 25.0, 50.0, 90.0, 99.0, 99.9, 99.99, 100.0]
    arguments = [part for q in qs for part in ("-q", q)]
    rows = json.loads(call("percentiles", folder, *arguments, "--json").out)
    arrays = arrays_of(folder)

    assert len(rows) == len(qs) * len(arrays)
    for row in rows:
        values = arrays[row["point"]]
        exact = np.percentile(values[values != 0], row["q"])
        assert row["lo"] <= exact <= row["hi"]
        assert row["lo"] <= row["value"] <= row["hi"]


def test_the_normalised_network_decides_as_the_original_on_all_digits(demo_run, demo_files, digits):
    import keras

    folder, _ = demo_run
    inputs, _ = digits
    original = keras.saving.load_model(demo_files["model"])
    normalised = keras.saving.load_model(folder / "normalized.keras")  # safe mode, no custom objects
    before, after = (model.predict(inputs, verbose=0) for model in (original, normalised))

    assert np.array_equal(before.argmax(axis=1), after.argmax(axis=1))
    assert np.abs(before - after).max() < 1e-5


def test_each_activation_times_its_factor_is_the_original_and_reaches_one(demo_run, digits):
    import keras

    folder, _ = demo_run
    inputs, _ = digits
    normalised = keras.saving.load_model(folder / "normalized.keras")
    factors = {p["name"]: p["factor"] for p in json.loads((folder / "factors.json").read_text())["points"]}
    recorded = arrays_of(folder)
    # The activation of a layer is what the next layer with parameters is fed from: the output of its ReLU.
    outputs = {"conv1": "conv1_relu", "conv2": "conv2_relu", "conv3": "conv3", "dense1": "dense1"}
    for point, layer in outputs.items():
        names = [each.name for each in normalised.layers]
        tensor = normalised.get_layer(layer if layer in names else point).output
        activations = keras.Model(normalised.inputs, tensor).predict(inputs, verbose=0)

        assert np.abs(activations * factors[point] - recorded[point]).max() <= 1e-5 * factors[point]
        assert np.percentile(activations[activations > 0], 99.9) == pytest.approx(1.0, rel=1e-3)


def test_the_shipped_network_is_as_good_as_promised_on_digits_it_never_saw(demo_files, digits):
    import keras

    inputs, labels = digits
    with np.load(demo_files["data"]) as archive:
        held_out = archive["test_indices"]
    model = keras.saving.load_model(demo_files["model"])
    kinds = {type(layer).__name__ for layer in model.layers}
    accuracy = (model.predict(inputs[held_out], verbose=0).argmax(axis=1) == labels[held_out]).mean()

    assert {"Conv2D", "BatchNormalization", "MaxPooling2D", "Dense"} <= kinds
    assert accuracy >= 0.97


def test_the_shipped_digits_are_those_of_scikit_learn(digits):
    from sklearn.datasets import load_digits

    bunch = load_digits()
    inputs, labels = digits

    assert np.array_equal(inputs[..., 0] * 16, bunch.images)
    assert np.array_equal(labels, bunch.target)


def test_the_report_is_one_page_that_needs_no_network(demo_run):
    folder, _ = demo_run
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")

    assert "conv1" in page
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page
    assert len(list((folder / "report" / "figures").glob("*-activations.svg"))) == 5


def test_status_tells_that_everything_is_there(demo_run, call):
    folder, _ = demo_run
    answer = json.loads(call("status", folder, "--json").out)

    assert answer["is_complete"] is True
    assert (answer["n_blocks_done"], answer["n_samples"], answer["n_points"]) == (29, 1797, 5)
    assert answer["certificate_passed"] is True


def test_verify_finds_the_demo_sound(demo_run, call):
    folder, _ = demo_run
    answer = call("verify", folder)

    assert answer.code == 0
    assert "29 of 29 blocks" in answer.out
    assert "sound" in answer.out


def test_asking_never_loads_tensorflow(demo_run):
    folder, _ = demo_run
    code = (
        "import sys; from actisketch.pipeline import open_run; "
        f"run = open_run({str(folder)!r}); run.factors(percentile=99.0); run.percentile('conv1', 50.0, exact=True); "
        "run.statistics(); run.export('csv'); run.cache.verify(); "
        "print([m for m in ('tensorflow', 'keras', 'distributed') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "[]"
