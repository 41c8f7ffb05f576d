"""A run goes on with the TensorFlow and Keras that it was begun with, unless its user says otherwise."""

import importlib.metadata
import json

import pytest

from actisketch.pipeline import open_run
from actisketch.pipeline.folder.json_file import read_document
from actisketch.storage.errors import MismatchError

HERE = {name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "numpy")}
OLD = {"tensorflow": "2.18.0", "keras": "3.14.0", "numpy": "2.2.0"}


def made_with(folder, **versions):
    tree = read_document(folder / "run.json")
    tree["versions"] |= versions
    (folder / "run.json").write_text(json.dumps(tree))


def lose_a_block(folder):
    next((folder / "cache/.actisketch/commits").iterdir()).unlink()


def lose_the_network(folder):
    (folder / "normalized.keras").unlink()


def damage_a_chunk(folder):
    next((folder / "cache/first").glob("c.*")).write_bytes(b"damage")


CASES = {
    "a block is missing": (lose_a_block, ["run", "JOB"]),
    "more samples": (lambda folder: None, ["run", "JOB", "--data", "MORE"]),
    "the network is missing": (lose_the_network, ["run", "JOB"]),
    "repair": (damage_a_chunk, ["verify", "RUN", "--repair"]),
    "normalize": (lose_the_network, ["normalize", "RUN"]),
    "normalize beside": (lambda folder: None, ["normalize", "RUN", "--output", "BESIDE"]),
}


@pytest.fixture
def ask(call, finished, small_data):
    import numpy as np

    more = finished["folder"] / "more.npz"
    np.savez(more, x=np.concatenate([small_data, small_data[:20]]))
    places = {
        "JOB": finished["job"],
        "RUN": finished["run"],
        "MORE": more,
        "BESIDE": finished["folder"] / "b",
    }
    return lambda words, *flags: call(*[places.get(word, word) for word in words], *flags)


@pytest.mark.parametrize("name", ["tensorflow", "keras"])
@pytest.mark.parametrize("case", CASES)
def test_computing_more_of_it_with_another_version_is_refused_by_name(ask, finished, case, name):
    harm, words = CASES[case]
    made_with(finished["run"], **{name: OLD[name]})
    harm(finished["run"])
    before = {path: path.read_bytes() for path in finished["run"].rglob("*.json") if path.name != "run.json"}
    refused = ask(words)
    kept = all(path.read_bytes() == raw for path, raw in before.items())
    noted = read_document(finished["run"] / "run.json")["versions"][name]
    accepted = ask(words, "--accept-versions")
    tree = read_document(finished["run"] / "run.json")

    assert refused.code == 3, refused.err
    assert f"made with {name} {OLD[name]}, this is {name} {HERE[name]}" in refused.err
    assert "--accept-versions" in refused.err
    assert kept
    assert noted == OLD[name]
    assert accepted.code == 0, accepted.err
    if case != "normalize beside":
        assert [earlier[name] for earlier in tree["earlier_versions"]] == [OLD[name]]
        assert tree["versions"][name] == HERE[name]


def test_nothing_is_said_where_nothing_is_computed(call, finished):
    made_with(finished["run"], **OLD)
    again = call("run", finished["job"])
    asked = [
        call(verb, finished["run"]).code for verb in ("status", "percentiles", "factors", "verify", "report")
    ]

    assert again.code == 0, again.err
    assert "nothing was recomputed" in again.out
    assert asked == [0] * 5
    assert read_document(finished["run"] / "run.json")["versions"]["tensorflow"] == OLD["tensorflow"]


def test_a_mixture_that_was_accepted_once_is_not_asked_for_again(call, finished):
    made_with(finished["run"], tensorflow=OLD["tensorflow"])
    lose_a_block(finished["run"])
    assert call("run", finished["job"], "--accept-versions").code == 0
    lose_a_block(finished["run"])
    again = call("run", finished["job"])

    assert again.code == 0, again.err
    assert len(read_document(finished["run"] / "run.json")["earlier_versions"]) == 1


@pytest.mark.parametrize("harm", [lose_a_block, lose_the_network])
def test_other_packages_and_the_same_versions_are_no_reason(call, finished, harm):
    made_with(finished["run"], numpy=OLD["numpy"], zarr="3.1.3", python="3.11.1")
    harm(finished["run"])

    assert call("run", finished["job"]).code == 0


def test_a_manifest_without_versions_is_taken(call, finished):
    tree = read_document(finished["run"] / "run.json")
    del tree["versions"]
    (finished["run"] / "run.json").write_text(json.dumps(tree))
    lose_a_block(finished["run"])

    assert call("run", finished["job"]).code == 0


def test_python_and_the_job_file_have_the_same_setting(call, finished):
    from actisketch.pipeline.rerun import normalize_run, repair_run

    made_with(finished["run"], keras=OLD["keras"])
    for door in (normalize_run, repair_run):
        with pytest.raises(MismatchError, match=r"keras 3\.14\.0"):
            door(open_run(finished["run"]))
    normalize_run(open_run(finished["run"]), accept_versions=True)
    made_with(finished["run"], keras=OLD["keras"])
    lose_a_block(finished["run"])
    job = finished["job"]
    job.write_text(job.read_text().replace("[record]", "[record]\naccept_versions = true"))

    assert call("run", job).code == 0
