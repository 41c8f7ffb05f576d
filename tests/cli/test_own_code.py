"""A network with layers and functions of its own: what they do is part of what the cache was made from."""

import json

import keras
import pytest

LAYERS = """
import keras


@keras.saving.register_keras_serializable()
def myact(x):
    return keras.ops.relu(x) * {act}


@keras.saving.register_keras_serializable()
class Scaled(keras.layers.Layer):
    def call(self, x):
        return x * {call}
"""
AS_RECORDED = {"act": "1.0", "call": "1.0"}


@pytest.fixture
def own(small_files):
    """A job whose network uses a function and a layer of layers.py."""
    path = small_files["folder"] / "layers.py"
    path.write_text(LAYERS.format(**AS_RECORDED))
    space = {"__name__": "actisketch_custom_objects"}
    exec(compile(path.read_text(), str(path), "exec"), space)
    keras.utils.set_random_seed(5)
    keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(4, activation=space["myact"], name="d"),
            space["Scaled"](name="s"),
        ]
    ).save(small_files["model"])
    job = small_files["job"]
    job.write_text(job.read_text().replace("[data]", 'custom_objects = "layers.py"\n[data]'))
    yield {**small_files, "layers": path}
    keras.saving.get_custom_objects().clear()


def run(call, own, *more):
    return call("run", own["job"], "--no-normalize", "--points", "all", *more)


def test_it_is_reloaded_while_nothing_changes(call, own):
    first, again = run(call, own), run(call, own)

    assert first.code == again.code == 0, again.err
    assert "nothing was recomputed" in again.out


@pytest.mark.parametrize(("what", "name"), [("act", "myact"), ("call", "Scaled")])
def test_after_its_code_was_edited_the_cache_is_refused_by_name(call, own, what, name):
    assert run(call, own).code == 0
    before = (own["run"] / "statistics.json").read_bytes()
    own["layers"].write_text(LAYERS.format(**{**AS_RECORDED, what: "3.0"}))
    refused = run(call, own)
    fresh = run(call, own, "--output", own["folder"] / "fresh")
    largest = {
        folder: json.loads((own["folder"] / folder / "statistics.json").read_text())["points"]["s"]["maximum"]
        for folder in ("run", "fresh")
    }

    assert refused.code == 3
    assert f"code of {name}" in refused.err
    assert (own["run"] / "statistics.json").read_bytes() == before
    assert fresh.code == 0, fresh.err
    assert largest["fresh"] == pytest.approx(3 * largest["run"], rel=1e-6)


def test_what_only_the_file_tells_counts_too(call, own):
    """Code may reach other code in ways that nobody can follow: through a registry, or by name."""
    assert run(call, own).code == 0
    own["layers"].write_text(own["layers"].read_text() + "\nHELPERS = {'scale': 3.0}\n")
    refused = run(call, own)

    assert refused.code == 3
    assert "model.custom_objects" in refused.err


def test_where_the_file_lies_does_not_matter(call, own):
    assert run(call, own).code == 0
    elsewhere = own["folder"] / "elsewhere.py"
    elsewhere.write_bytes(own["layers"].read_bytes())
    again = run(call, own, "--custom-objects", elsewhere)

    assert again.code == 0, again.err
    assert "nothing was recomputed" in again.out


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        ("# one\n# two\n# three\n", ""),
        ("\n\n\n", "\n# the end\n"),
        ("#!/usr/bin/env python3\n", "    # more\n"),
    ],
)
def test_lines_without_code_do_not_matter(call, own, before, behind):
    assert run(call, own).code == 0
    own["layers"].write_text(before + own["layers"].read_text() + behind)
    again = run(call, own)

    assert again.code == 0, again.err
    assert "nothing was recomputed" in again.out
