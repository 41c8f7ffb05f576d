"""Bad input: one clear sentence, an exit code that is not 0, no traceback, nothing written, nothing touched."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest


@pytest.mark.parametrize(
    ("flags", "code", "told"),
    [
        (["--model", "none.keras"], 2, ["no model file", "none.keras"]),
        (["--data", "none.npz"], 2, ["none.npz"]),
        (["--num-samples", 1000], 2, ["53"]),
        (["--inputs", "images"], 2, ["data.inputs = 'images'", "x"]),
        (["--inputs", "x,y"], 2, ["the network has 1 input ("]),
        (["--percentile", 0], 2, ["factors.percentile = 0.0"]),
        (["--percentile", 101], 2, ["factors.percentile = 101.0"]),
        (["--points", "frist", "--no-normalize"], 2, ["'frist'", "first"]),
        (["--points", "second"], 2, ["'first'", "--no-normalize"]),
        (["--memory-limit", "1 MiB"], 5, ["1.0 MiB", "raise record.memory_limit to"]),
        (["--disk-limit", "1 KB"], 5, ["record.disk_limit allows"]),
        (["--points", ""], 2, ["--points is empty"]),
        (["--output", ""], 2, ["--output is empty"]),
        (["--model", ""], 2, ["--model is empty"]),
    ],
    ids=str,
)
def test_a_flag_that_cannot_be_followed(refused, small_files, flags, code, told):
    message = refused(small_files["job"], *flags, code=code)

    assert [text for text in told if text not in message] == []


@pytest.mark.parametrize(
    ("flag", "name", "content", "told"),
    [
        ("--model", "fake.keras", b"this is no model", ["not a Keras model file"]),
        ("--model", "model.onnx", b"\0", [".keras or .h5"]),
        ("--data", "wrong.npy", np.zeros((5, 4), np.float32), ["(6,)", "(4,)"]),
        ("--data", "text.npy", np.array([["a"] * 6] * 5), ["takes numbers (float32), the data holds texts"]),
        ("--data", "objects.npy", np.array([{"a": 1}] * 5, dtype=object), []),
        ("--data", "empty.npy", np.zeros((0, 6), np.float32), []),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_file_that_is_not_what_it_should_be(refused, small_files, flag, name, content, told):
    path = small_files["folder"] / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    message = refused(small_files["job"], flag, path)

    assert [text for text in told if text not in message] == []


def test_a_missing_job_file(refused):
    assert "actisketch init" in refused("none.toml")


def test_no_job_and_no_flags(refused):
    assert "--model and --data" in refused()


def test_an_output_folder_with_other_things_in_it(refused, small_files):
    (small_files["run"]).mkdir()
    (small_files["run"] / "thesis.tex").write_text("precious")

    assert "thesis.tex" in refused(small_files["job"])


def test_an_output_that_is_a_file(refused, small_files):
    small_files["run"].write_text("precious")

    assert "is a file" in refused(small_files["job"])


def test_an_output_where_no_folder_can_be_made(refused, small_files):
    message = refused(small_files["job"], "--output", "/proc/foo", code=7)

    assert "choose another" in message
    assert "what is committed" not in message


@pytest.mark.parametrize(
    ("written", "instead", "told"),
    [
        ("block_samples = 16", "block_samples = 7", "block_samples = 7 is below batch_size = 8"),
        ("block_samples = 16", "points = []", "points is empty"),
        ('path = "small.npz"', 'path = "small.npz"\nimage_size = [3, 4]', "image_size is for images"),
        ("[record]", '[cache]\ncodec = "foo"\n[record]', "cache.codec = 'foo'"),
        ('output = "run"', 'output = ""', "output = ''"),
        ("[record]", '[factors.overrides]\n"zz*" = { factor = 2.0 }\n[record]', "'zz*'"),
        ("batch_size", "batchsize", "batch_size"),
    ],
)
def test_a_setting_that_would_be_ignored_or_fail_later(refused, small_files, written, instead, told):
    small_files["job"].write_text(small_files["job"].read_text().replace(written, instead))

    assert told in refused(small_files["job"], verb="plan")


def test_an_array_that_is_the_labels_can_be_named_to_settle_which_is_the_input(refused, call, small_files):
    data = np.load(small_files["data"])
    np.savez(small_files["data"], images=data["x"], classes=data["y"])
    message = refused(small_files["job"])
    settled = call("plan", small_files["job"], "--labels", "classes")

    assert "or which the labels with data.labels" in message
    assert settled.code == 0, settled.err


def test_init_and_factors_make_no_folders(refused, finished):
    missing = finished["folder"] / "missing"

    assert "create it first" in refused(missing / "job.toml", verb="init")
    assert "create it first" in refused(finished["run"], "--output", missing / "f.json", verb="factors")
    assert not missing.exists()


def test_a_toolbox_export_replaces_no_file(refused, finished):
    path = finished["folder"] / "mine.json"
    path.write_text("precious")

    assert "give a folder" in refused(finished["run"], "--format", "toolbox", "--output", path, verb="export")


def test_a_report_replaces_no_page_of_others_and_no_report_of_another_run(refused, call, finished):
    site, other = finished["folder"] / "site", finished["folder"] / "other"
    site.mkdir()
    (site / "index.html").write_text("<h1>precious</h1>")
    shutil.copytree(finished["run"], other)

    assert "not a report of actisketch" in refused_report(call, finished["run"], site)
    assert "another run" in refused(finished["run"], "--output", other / "report", verb="report")


def refused_report(call, run, folder):
    """The log of a report is begun before it is refused: with a log there, nothing else may change."""
    before = (folder / "index.html").read_bytes()
    answer = call("report", run, "--output", folder)

    assert answer.code == 2, answer.err
    assert (folder / "index.html").read_bytes() == before
    assert [path.name for path in folder.iterdir()] == ["index.html"]
    return answer.err


def test_a_model_without_parameters(refused, small_files):
    import keras

    path = small_files["folder"] / "plain.keras"
    keras.Sequential([keras.Input((6,)), keras.layers.ReLU()]).save(path)

    assert "parameters" in refused(small_files["job"], "--model", path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_named_before_anything_is_recorded(
    refused, small_files, small_model, value
):
    second = small_model.get_layer("second")
    bias = np.asarray(second.bias)
    bias[3] = value
    second.bias.assign(bias)
    small_model.save(small_files["model"])
    message = refused(small_files["job"])

    assert "1 of 7 values of the weight 'bias' of layer 'second' are NaN or infinite" in message


def test_a_model_with_code_in_it_is_not_run_unless_asked(refused, call, small_files):
    import keras

    path = small_files["folder"] / "code.keras"
    keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(4, name="d"),
            keras.layers.Lambda(lambda x: x * 2, output_shape=(4,)),
        ]
    ).save(path)
    message = refused(small_files["job"], "--model", path)
    trusted = call("run", small_files["job"], "--model", path, "--unsafe-model", "--no-normalize")

    assert "--unsafe-model" in message
    assert trusted.code == 0, trusted.err


def test_a_model_with_layers_of_its_own_needs_the_file_that_defines_them(refused, call, small_files):
    import keras

    layers = small_files["folder"] / "layers.py"
    layers.write_text(
        "import keras\n\n\n@keras.saving.register_keras_serializable('mine')\n"
        "class Doubling(keras.layers.Dense):\n    def call(self, x):\n        return 2 * super().call(x)\n"
    )
    scope = {}
    exec(compile(layers.read_text(), "layers.py", "exec"), scope)
    path = small_files["folder"] / "own.keras"
    keras.Sequential([keras.Input((6,)), scope["Doubling"](4, name="d")]).save(path)
    keras.saving.get_custom_objects().clear()
    message = refused(small_files["job"], "--model", path)
    trusted = call("run", small_files["job"], "--model", path, "--custom-objects", layers, "--no-normalize")
    keras.saving.get_custom_objects().clear()
    layers.write_text("raise SystemExit(3)")
    leaving = refused(small_files["job"], "--model", path, "--custom-objects", layers)

    assert "--custom-objects" in message
    assert "class 'Doubling'" in message
    assert "layers.py' failed to run: SystemExit: 3" in leaving
    assert trusted.code == 0, trusted.err


def test_nan_in_the_data_names_the_sample_and_keeps_what_was_recorded(call, small_files, small_data):
    small_data[20, 3] = np.nan
    np.savez(small_files["data"], x=small_data)
    answer = call("run", small_files["job"])
    first = call("status", small_files["run"])

    assert answer.code == 2
    assert "sample 20" in answer.err
    assert "Traceback" not in answer.err
    assert "1 of 4" in first.out  # the block before the NaN is kept


def test_other_data_in_the_folder_of_a_run(refused, finished, small_data):
    np.savez(finished["data"], x=small_data[::-1])

    refused(finished["job"], code=3)


def test_samples_changed_in_the_middle(refused, finished, small_data):
    small_data[40, 0] += 1
    np.savez(finished["data"], x=small_data)

    assert "samples 32 to 47" in refused(finished["job"], code=3)


def test_another_model_in_the_folder_of_a_run(refused, finished, small_model):
    weights = small_model.get_weights()
    weights[0] = weights[0] + 1
    small_model.set_weights(weights)
    small_model.save(finished["model"])

    assert "model.weights" in refused(finished["job"], code=3)


def test_a_network_of_other_layers_is_told_in_one_line_of_their_names(refused, finished):
    import keras

    layers = [keras.layers.Dense(4, name=name) for name in ("first", "new_one", "new_two")]
    keras.Sequential([keras.Input((6,)), *layers]).save(finished["model"])
    message = refused(finished["job"], code=3)

    assert (
        "points: only the cache has 'classes', 'second', only this run has 'new_one', 'new_two'\n" in message
    )
    assert "  points.first.shape: the cache has [8], this run has [4]" in message
    assert len(message.splitlines()) == 5


def test_other_preparation_of_the_samples_names_the_value_that_differs(refused, finished):
    message = refused(finished["job"], "--divide-by", 255, code=3)

    assert "preprocessing.divide_by: the cache has 1.0, this run has 255.0" in message or (
        "divide_by: the cache has None, this run has 255.0" in message
    )


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--batch-size", 4], "  record.batch_size: the cache has 8"),
        (["--per-channel"], ""),
    ],
)
def test_other_settings_in_the_folder_of_a_run(refused, finished, flags, told):
    assert told in refused(finished["job"], *flags, code=3)


def test_asking_for_a_point_that_is_not_there(refused, finished):
    assert "'second'" in refused(finished["run"], "--point", "secnd", verb="percentiles")


@pytest.mark.parametrize("q", [-1, 100.5, "nan"])
def test_asking_for_an_impossible_percentile(refused, finished, q):
    refused(finished["run"], "-q", q, verb="percentiles")


@pytest.mark.parametrize(
    "verb", ["status", "percentiles", "factors", "sensitivity", "normalize", "report", "verify", "export"]
)
def test_asking_a_folder_without_a_run(refused, tmp_path, verb):
    assert "no run in" in refused(tmp_path, verb=verb)


def test_factors_of_another_network(refused, finished, tmp_path):
    tree = json.loads((finished["run"] / "factors.json").read_text())
    tree["model"]["weights"] = "0" * 64
    del tree["content_hash"]
    path = finished["folder"] / "other.json"
    path.write_text(json.dumps(tree))

    assert "another network" in refused(finished["run"], "--factors", path, verb="normalize", code=3)


def test_a_damaged_manifest_is_named_and_the_cache_kept(refused, finished):
    (finished["run"] / "run.json").write_text("{")

    assert "run.json" in refused(finished["job"], code=4)


def test_a_run_of_a_newer_program(refused, finished):
    tree = json.loads((finished["run"] / "run.json").read_text())
    del tree["content_hash"]
    (finished["run"] / "run.json").write_text(json.dumps({**tree, "actisketch_run": 99}))

    assert "update actisketch" in refused(finished["run"], verb="status", code=4)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(refused, small_files):
    locked = small_files["folder"] / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    refused(small_files["job"], "--output", locked / "run", code=7)


def test_a_pipe_that_nobody_reads_ends_quietly(finished):
    ask = f"{sys.executable} -m actisketch.pipeline percentiles {finished['run']} | true"
    answer = subprocess.run(ask, shell=True, capture_output=True, text=True, check=False)

    assert "Traceback" not in answer.stderr
    assert "Exception ignored" not in answer.stderr


def test_a_wrong_claim_fails_the_certificate_and_the_command_and_leaves_no_network(call, small_files):
    """The user says that scales may pass a tanh: the rewritten network is another function."""
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(1)
    first = layers.Dense(4, activation="relu", name="first")
    model = keras.Sequential(
        [keras.Input((6,)), first, layers.Activation("tanh"), layers.Dense(3, name="second")]
    )
    model.save(small_files["model"])
    small_files["job"].write_text(
        small_files["job"].read_text() + '[normalize]\ntreat_as_identity = ["Activation"]\n'
    )
    answer = call("run", small_files["job"])
    certificate = json.loads((small_files["run"] / "certificate.json").read_text())

    assert answer.code == 8
    assert "does not compute what the original does" in answer.err
    assert "Traceback" not in answer.err
    assert certificate["passed"] is False
    assert not (small_files["run"] / "normalized.keras").exists()
    assert call("run", small_files["job"]).code == 8
    assert "certificate  FAILED" in call("status", small_files["run"]).out


def save_words(files, words):
    """A network that looks 20 words up, and the words as its data."""
    import keras

    inputs = keras.Input((4,), dtype="int32")
    embedded = keras.layers.Flatten()(keras.layers.Embedding(20, 3, name="words")(inputs))
    keras.Model(inputs, keras.layers.Dense(2, name="out")(embedded)).save(files["model"])
    np.savez(files["data"], x=words)


def test_words_beyond_the_table_of_an_embedding_name_the_samples_and_the_word(call, small_files):
    words = np.arange(53 * 4, dtype=np.int32).reshape(53, 4) % 20
    words[20, 1] = 37
    save_words(small_files, words)
    answer = call("run", small_files["job"])

    assert answer.code == 2, answer.err
    assert "samples 16 to 23" in answer.err
    assert "= 37 is not in [0, 20)" in answer.err
    assert "Traceback" not in answer.err
