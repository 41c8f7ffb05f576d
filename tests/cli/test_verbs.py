"""Every verb on a small network of one's own."""

import csv
import io
import json
import tomllib

import numpy as np
import pytest
import zarr

from actisketch.pipeline import open_run


def test_init_writes_a_job_file_that_plan_understands(call, tmp_path, small_files):
    path = tmp_path / "mine" / "job.toml"
    path.parent.mkdir()
    written = call("init", path)
    planned = call("plan", path, "--model", small_files["model"], "--data", small_files["data"])

    assert written.code == 0
    assert tomllib.loads(path.read_text())["model"]["path"] == "network.keras"
    assert planned.code == 0, planned.err


def test_init_does_not_replace_a_file_unless_told(call, small_files):
    before = small_files["job"].read_text()
    refused = call("init", small_files["job"])

    assert (refused.code, small_files["job"].read_text()) == (2, before)
    assert "--force" in refused.err
    assert call("init", small_files["job"], "--force").code == 0
    assert small_files["job"].read_text() != before


def test_plan_shows_layers_bytes_memory_and_blocks_and_writes_nothing(call, small_files):
    shown = call("plan", small_files["job"])
    plan = json.loads(call("plan", small_files["job"], "--json").out)

    assert [point["name"] for point in plan["points"]] == ["first", "second", "classes"]
    assert plan["disk_nbytes"] >= plan["activations_nbytes"] >= 53 * 4 * (8 + 7 + 3)
    assert plan["n_blocks"] == 4
    assert plan["memory"]["total"] == sum(v for k, v in plan["memory"].items() if k != "total")
    assert "53 samples in 4 blocks of 16" in shown.out
    assert not small_files["run"].exists()


def test_run_prints_json_for_a_script(call, small_files):
    answer = json.loads(call("--quiet", "run", small_files["job"], "--json").out)

    assert answer["n_blocks_computed"] == 4
    assert answer["certificate"]["passed"] is True
    assert set(answer["statistics"]) == {"first", "second", "classes"}


def test_flags_alone_are_enough_to_run(call, small_files, tmp_path):
    output = tmp_path / "elsewhere"
    files = ["--model", small_files["model"], "--data", small_files["data"]]
    answer = call("run", *files, "--output", output, "--percentile", 100)
    factors = json.loads((output / "factors.json").read_text())["points"]
    array = zarr.open_group(str(output / "cache"), mode="r")["first"][:]

    assert answer.code == 0, answer.err
    assert factors[0]["factor"] == float(array.max())


def test_quiet_may_stand_after_the_verb_too(call, small_files):
    assert call("run", small_files["job"], "--quiet").err == ""


def test_branches_that_meet_share_the_factor_that_is_exported(call, tmp_path):
    """The exported factors are those by which the network is really divided."""
    import keras

    keras.utils.set_random_seed(2)
    layers = keras.layers
    inputs = keras.Input((6,))
    a = layers.Dense(5, activation="relu", name="a")(inputs)
    b = layers.Dense(5, activation="relu", name="b")(a)
    outputs = layers.Dense(3, activation="softmax", name="classes")(layers.Add()([a, b]))
    model = keras.Model(inputs, outputs)
    model.get_layer("b").kernel.assign(model.get_layer("b").kernel * 7)
    data = np.random.default_rng(6).random((40, 6), dtype=np.float32)
    model.save(tmp_path / "add.keras")
    np.save(tmp_path / "x.npy", data)
    files = ["--model", tmp_path / "add.keras", "--data", tmp_path / "x.npy"]
    answer = call("run", *files, "--output", tmp_path / "r", "--no-report")
    saved = {p["name"]: p for p in json.loads((tmp_path / "r" / "factors.json").read_text())["points"]}
    later = open_run(tmp_path / "r").factors(percentile=90.0).by_point()
    used = {p["name"]: p["factor"] for p in open_run(tmp_path / "r").certificate()["points"]}
    normalised = keras.saving.load_model(tmp_path / "r" / "normalized.keras")
    before, after = (
        keras.Model(m.inputs, m.get_layer("a").output).predict(data, verbose=0) for m in (model, normalised)
    )

    assert answer.code == 0, answer.err
    assert saved["a"]["factor"] == saved["b"]["factor"] == used["a"] == used["b"]
    assert saved["a"]["rule"] == "tied"
    assert later["a"] == later["b"]
    assert np.allclose(after * saved["a"]["factor"], before, atol=1e-5)


def test_quiet_shows_results_and_no_progress(call, small_files):
    answer = call("--quiet", "run", small_files["job"])

    assert answer.err == ""
    assert "certificate: passed" in answer.out


def test_a_run_without_a_terminal_tells_its_progress_in_plain_lines(call, small_files):
    answer = call("run", small_files["job"])

    assert "recording activations: 53 of 53 samples to do" in answer.err
    assert "\x1b" not in answer.err + answer.out


def test_more_samples_extend_a_run_instead_of_restarting_it(call, small_files):
    first = call("run", small_files["job"], "--num-samples", 32)
    more = call("run", small_files["job"])
    array = zarr.open_group(str(small_files["run"] / "cache"), mode="r")["second"]

    assert first.code == more.code == 0, more.err
    assert "computed 2 blocks, reloaded 2 of 4 blocks" in more.err
    assert array.shape == (53, 7)


def test_status_of_a_finished_run(call, small_run):
    shown = call("status", small_run).out

    assert "4 of 4 (53 samples, 3 points)" in shown
    assert "certificate  passed" in shown


def test_percentiles_of_chosen_points_and_qs(call, small_run):
    rows = json.loads(call("percentiles", small_run, "-q", 25, "-q", 75, "--point", "second", "--json").out)
    values = zarr.open_group(str(small_run / "cache"), mode="r")["second"][:]
    values = values[values != 0]

    assert [(row["point"], row["q"]) for row in rows] == [("second", 25.0), ("second", 75.0)]
    for row in rows:
        assert row["lo"] <= np.percentile(values, row["q"]) <= row["hi"]


def test_factors_for_another_percentile_leave_the_run_as_it_was(call, small_run):
    before = (small_run / "factors.json").read_bytes()
    answer = json.loads(call("factors", small_run, "--percentile", 100, "--json").out)
    value = zarr.open_group(str(small_run / "cache"), mode="r")["first"][:].max()

    assert answer["points"][0]["factor"] == float(value)
    assert (small_run / "factors.json").read_bytes() == before


def test_normalize_with_other_factors_writes_beside_the_run_what_belongs_together(call, small_run, tmp_path):
    chosen = tmp_path / "f100.json"
    call("factors", small_run, "--percentile", 100, "--output", chosen)
    before = (small_run / "normalized.keras").read_bytes()
    answer = call("normalize", small_run, "--factors", chosen)
    again = call("normalize", small_run, "--factors", chosen)
    side = small_run / "with-f100"
    certificate = json.loads((side / "certificate.json").read_text())

    assert answer.code == again.code == 0, answer.err
    assert (small_run / "normalized.keras").read_bytes() == before
    assert (side / "normalized.keras").exists()
    assert json.loads((side / "factors.json").read_text()) == json.loads(chosen.read_text())
    assert certificate["passed"] is True
    assert max(point["saturation"] for point in certificate["points"]) == 0.0


def test_normalize_takes_factors_of_channels_as_they_were_made(call, small_files, tmp_path):
    run, chosen = small_files["run"], tmp_path / "channels.json"
    small_files["job"].write_text(small_files["job"].read_text() + "[sketch]\nper_channel = true\n")
    by_layer = call("run", small_files["job"], "--percentile", 100)
    made = call("factors", run, "--per-channel", "--output", chosen)
    answer = call("normalize", run, "--factors", chosen)
    array = zarr.open_group(str(run / "cache"), mode="r")["first"][:]
    certificate = json.loads((run / "with-channels" / "certificate.json").read_text())

    assert by_layer.code == made.code == answer.code == 0, answer.err
    assert json.loads((run / "certificate.json").read_text())["mode"] == "layer"
    assert (certificate["mode"], certificate["passed"]) == ("channel", True)
    assert certificate["points"][0]["factor"] == pytest.approx(float(array.max()), rel=2**-6)


def test_factors_for_another_input_factor_are_refused(call, small_run, tmp_path):
    tree = json.loads((small_run / "factors.json").read_text())
    del tree["content_hash"]
    chosen = tmp_path / "other.json"
    chosen.write_text(json.dumps({**tree, "input_factor": 2.0}))
    answer = call("normalize", small_run, "--factors", chosen)

    assert answer.code == 3
    assert "input factor 2.0" in answer.err
    assert "normalize.input_factor = 1.0" in answer.err
    assert not (small_run / "with-other").exists()


@pytest.mark.parametrize("bad", ["abc", None, [1.0, "x"]])
def test_factors_that_are_no_numbers_are_refused_and_the_point_named(call, small_run, tmp_path, bad):
    tree = json.loads((small_run / "factors.json").read_text())
    tree["points"][1]["factor"] = bad
    del tree["content_hash"]
    chosen = tmp_path / "bad.json"
    chosen.write_text(json.dumps(tree))
    answer = call("normalize", small_run, "--factors", chosen)

    assert answer.code == 2
    assert "'second'" in answer.err


@pytest.mark.parametrize(
    ("percentile", "name"), [(99.9, "99.9.json"), (99.99999, "99.99999.json"), (100, "100.json")]
)
def test_the_toolbox_file_is_named_by_the_percentile(call, small_files, tmp_path, percentile, name):
    call("run", small_files["job"], "--percentile", percentile, "--no-normalize")
    call("export", small_files["run"], "--format", "toolbox", "--output", f"{tmp_path}/log/")

    assert [path.name for path in (tmp_path / "log").iterdir()] == [name]


def test_factors_of_channels_are_not_exported_for_the_toolbox(call, small_files, tmp_path):
    call("run", small_files["job"], "--per-channel")
    answer = call("export", small_files["run"], "--format", "toolbox", "--output", f"{tmp_path}/log/")

    assert answer.code == 2
    assert "factors.per_channel = false" in answer.err
    assert not (tmp_path / "log").exists()


def test_exports_agree_with_each_other(call, small_run, tmp_path):
    tree = json.loads(call("export", small_run, "--format", "json").out)
    rows = list(csv.DictReader(io.StringIO(call("export", small_run, "--format", "csv").out)))
    call("export", small_run, "--format", "toolbox", "--output", f"{tmp_path}/log/")
    toolbox = json.loads((tmp_path / "log" / "99.9.json").read_text())

    assert [row["point"] for row in rows] == list(tree["statistics"]) == list(toolbox)[1:]
    assert toolbox["input"] == 1
    for row, point in zip(rows, tree["factors"]["points"], strict=True):
        assert float(row["factor"]) == point["factor"] == toolbox[row["point"]]


def test_report_is_drawn_anew_without_model_and_data(call, small_run, finished, tmp_path):
    finished["model"].unlink()
    finished["data"].unlink()
    answer = call("report", small_run, "--output", tmp_path / "again")

    assert answer.code == 0, answer.err
    assert "second" in (tmp_path / "again" / "index.html").read_text()


def test_per_channel_factors_and_percentiles(call, small_files):
    answer = call("run", small_files["job"], "--per-channel", "--percentile", 100)
    rows = json.loads(
        call("percentiles", small_files["run"], "-q", 100, "--per-channel", "--point", "first", "--json").out
    )
    array = zarr.open_group(str(small_files["run"] / "cache"), mode="r")["first"][:]

    assert answer.code == 0, answer.err
    assert [row["value"] for row in rows if array[:, row["channel"]].any()] == [
        float(m) for m in array.max(axis=0) if m > 0
    ]
    assert json.loads((small_files["run"] / "certificate.json").read_text())["mode"] == "channel"


def test_exact_percentiles_of_each_channel_are_those_of_numpy(call, small_files):
    call("run", small_files["job"], "--per-channel")
    flags = "-q 71.3 --per-channel --exact --all-values --point first --json"
    answer = call("percentiles", small_files["run"], *flags.split())
    array = zarr.open_group(str(small_files["run"] / "cache"), mode="r")["first"][:]

    assert [row["value"] for row in json.loads(answer.out)] == [
        float(np.percentile(c, 71.3)) for c in array.T
    ]


def test_sketches_only_takes_no_disk_for_activations(call, small_files):
    answer = call("run", small_files["job"], "--sketch-only")
    exact = call("percentiles", small_files["run"], "--exact")

    assert answer.code == 0, answer.err
    assert not list((small_files["run"] / "cache").glob("first/c*"))
    assert exact.code == 2
    assert "record.activations = true" in exact.err


def test_without_normalising_no_network_is_written(call, small_files):
    answer = call("run", small_files["job"], "--no-normalize")

    assert answer.code == 0, answer.err
    assert not (small_files["run"] / "normalized.keras").exists()
    assert (small_files["run"] / "factors.json").exists()


def test_a_run_moved_elsewhere_can_still_be_asked(call, small_run, tmp_path):
    small_run.rename(tmp_path / "moved")

    assert call("factors", tmp_path / "moved").code == 0
    assert call("verify", tmp_path / "moved").code == 0


VERBS = (
    "demo init plan run status percentiles factors sweep sensitivity compare normalize report verify export"
)


@pytest.mark.parametrize("verb", VERBS.split())
def test_every_verb_explains_itself(call, verb):
    answer = call(verb, "--help")

    assert answer.code == 0
    assert len(answer.out) > 200


def test_the_command_explains_where_to_start_and_its_exit_codes(call):
    answer = call("--help")

    assert "actisketch demo" in answer.out
    assert "130 interrupted" in answer.out


def test_records_are_read_by_the_features_that_the_job_file_names(call, small_files, small_data):
    import tensorflow as tf

    for part, rows in enumerate(np.array_split(small_data, 2)):
        with tf.io.TFRecordWriter(str(small_files["folder"] / f"part-{part}.tfrecord")) as writer:
            for i, row in enumerate(rows):
                feature = {
                    "vector": tf.train.Feature(float_list=tf.train.FloatList(value=row)),
                    "kind": tf.train.Feature(int64_list=tf.train.Int64List(value=[i % 3])),
                }
                example = tf.train.Example(features=tf.train.Features(feature=feature))
                writer.write(example.SerializeToString())
    small_files["job"].write_text(
        'output = "records"\n[model]\npath = "small.keras"\n[record]\nbatch_size = 8\n[report]\nenabled = false\n'
        '[data]\npath = "part-*.tfrecord"\ninputs = "vector"\nlabels = "kind"\n'
        '[data.features]\nvector = { dtype = "float32", shape = [6] }\nkind = { dtype = "int64", shape = [] }\n'
    )
    answer = call("run", small_files["job"])
    plain = call(
        "run", "--model", small_files["model"], "--data", small_files["data"], "--batch-size", 8,
        "--output", small_files["folder"] / "plain", "--no-report",
    )  # fmt: skip
    records, arrays = (open_run(small_files["folder"] / name) for name in ("records", "plain"))

    assert answer.code == plain.code == 0, answer.err
    assert [s.to_bytes() for s in records.sketches.values()] == [
        s.to_bytes() for s in arrays.sketches.values()
    ]
    assert "accuracy:" in answer.out


def test_a_keras_preprocessing_function_is_applied_by_its_name(call, tmp_path):
    import keras

    pixels = np.random.default_rng(4).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, activation="relu", name="conv")]
    )
    model.save(tmp_path / "conv.keras")
    answer = call(
        "run", "--model", tmp_path / "conv.keras", "--data", tmp_path / "pixels.npy", "--preprocessing", "vgg16",
        "--output", tmp_path / "r", "--no-report",
    )  # fmt: skip
    expected = model.predict(keras.applications.vgg16.preprocess_input(pixels.astype(np.float32)), verbose=0)

    assert answer.code == 0, answer.err
    assert np.allclose(open_run(tmp_path / "r").activations("conv")[:], expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("more", [(), ("--exact",)], ids=["sketches", "exact"])
def test_percentiles_of_a_layer_without_values_are_a_dash_and_null(call, small_files, small_model, more):
    small_model.layers[1].set_weights([np.zeros((8, 7)), -np.ones(7)])
    small_model.save(small_files["model"])
    assert call("run", small_files["job"], "--no-normalize").code == 0
    ask = ("percentiles", small_files["run"], "-q", 99, "--point", "second", *more)
    shown, rows = call(*ask), json.loads(call(*ask, "--json").out)

    assert shown.out.splitlines()[1].split() == ["second", "99", "-", "-", "-"]
    assert [(row["value"], row["lo"], row["hi"]) for row in rows] == [(None, None, None)]


def test_a_row_of_the_result_table_is_one_line_where_the_output_is_wide_enough(
    call, small_files, monkeypatch
):
    import keras

    monkeypatch.delenv("COLUMNS", raising=False)
    names = [f"a_layer_with_a_long_name{i}" for i in range(3)]
    keras.Sequential(
        [keras.Input((6,)), *(keras.layers.Dense(5, activation="relu", name=name) for name in names)]
    ).save(small_files["model"])
    answer = call("--quiet", "run", small_files["job"])
    table = answer.out.split("\n\n")[0].splitlines()

    assert answer.code == 0, answer.err
    assert [line.split()[0] for line in table] == ["layer", *names]
