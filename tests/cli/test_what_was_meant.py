"""A path of another kind, or a verb with a typing error: the command that was meant is named."""

import numpy as np
import pytest

from ..service.conftest import make_run


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A finished run, its job file, and other things that people have."""
    folder = tmp_path_factory.mktemp("place")
    make_run(folder / "run")
    (folder / "job.toml").write_text('output = "run"\n', encoding="utf-8-sig")
    for name in ("net.keras", "net.onnx", "x.npz"):
        (folder / name).touch()
    (folder / "saved").mkdir()
    (folder / "saved" / "saved_model.pb").touch()
    (folder / "pictures").mkdir()
    return folder


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("normalise", "normalize"),
        ("percentile", "percentiles"),
        ("stat", "status"),
        ("factor", "factors"),
        ("comapre", "compare"),
    ],
)
def test_a_verb_with_a_typing_error_is_suggested(call, written, meant):
    answer = call(written, "run")

    assert answer.code == 2
    assert f"No such command '{written}'. Did you mean {meant}?" in answer.err


def test_a_path_in_the_place_of_the_verb(call, place):
    assert "actisketch run" in call(place / "job.toml").err


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("run", "is the folder of a run, not a job file: `actisketch status "),
        ("net.keras", "is a network, not a job file: `actisketch run --model "),
        ("net.onnx", "is a network, not a job file"),
        ("x.npz", "x.npz` are samples".replace("`", "'")),
        ("saved", "is a SavedModel of TensorFlow, not a job file: save the model with"),
        ("pictures", "is a folder, not a job file"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "plan"])
def test_something_else_than_a_job_file(call, place, given, told, verb):
    answer = call(verb, place / given)

    assert answer.code == 2
    assert told.replace("actisketch run --model", f"actisketch {verb} --model") in answer.err
    assert len(answer.err.splitlines()) == 1


@pytest.mark.parametrize("verb", ["status", "percentiles", "factors", "verify", "export"])
@pytest.mark.parametrize("given", ["job.toml", "run/cache", "run/run.json"])
def test_something_else_than_the_folder_of_a_run(call, place, given, verb):
    answer = call(verb, place / given)

    assert answer.code == 2
    assert f"`actisketch {verb} {place / 'run'}`" in answer.err
    assert call(verb, place / "run").code == 0


@pytest.mark.parametrize("verb", ["status", "percentiles", "compare", "export"])
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("net.keras", "is a network, not a run: `actisketch run --model {} --data SAMPLES` makes one"),
        ("x.npz", "are samples, not a run: `actisketch run --model NETWORK --data {}` makes one"),
    ],
)
def test_a_network_or_samples_in_the_place_of_a_run(call, place, verb, given, told):
    path = place / given
    answer = call(verb, *([place / "run"] if verb == "compare" else []), path)

    assert answer.code == 2
    assert f"{str(path)!r} {told.format(path)}" in answer.err


def test_a_job_file_that_begins_with_a_byte_order_mark_is_read(call, small_files):
    text = small_files["job"].read_text()
    small_files["job"].write_text(text, encoding="utf-8-sig")

    assert call("plan", small_files["job"]).code == 0


def test_a_file_of_weights_alone_is_told_from_a_network(refused, small_files, small_model):
    path = small_files["folder"] / "only.weights.h5"
    small_model.save_weights(path)

    assert "holds weights only" in refused(small_files["job"], "--model", path)


def test_the_folder_of_a_saved_model_gets_the_remedy_of_other_formats(refused, small_files):
    folder = small_files["folder"] / "saved"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(np.zeros(7, np.uint8).tobytes())

    assert "model.save('name.keras')" in refused(small_files["job"], "--model", folder)
