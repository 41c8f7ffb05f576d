"""A result file that was changed by as little as a digit gives the same answer or none, never another."""

import json
import re

import numpy as np
import pytest

from actisketch.pipeline import open_run
from actisketch.pipeline.factors.factors_file import Factors
from actisketch.pipeline.folder.json_file import read_document
from actisketch.storage.errors import FormatError

DOCUMENTS = ["run.json", "factors.json", "statistics.json", "certificate.json", "normalized-sketches.json"]
N_DIGITS = 150


def damaged_in_turn(path, pattern=rb"[0-9]"):
    """Exchange one character of a file after the other, evenly spaced over it."""
    whole = path.read_bytes()
    places = [found.start() for found in re.finditer(pattern, whole)]
    for at in np.array(places)[
        np.linspace(0, len(places) - 1, min(N_DIGITS, len(places))).astype(int)
    ].tolist():
        other = b"7" if whole[at : at + 1] != b"7" else b"3"
        path.write_bytes(whole[:at] + other + whole[at + 1 :])
        yield at
    path.write_bytes(whole)


def answers(folder):
    """What a run says, without what says where it lies; an answer of None says nothing."""
    run = open_run(folder)
    certificate = run.certificate()
    return {
        "other factors": run.factors(percentile=50.0).to_dict(),
        "saved factors": run.written_factors().to_dict(),
        "percentiles": run.percentiles([99.0]),
        "certificate": certificate,
    }


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_exchanged_digit_gives_another_answer(finished, name):
    right, wrong, n_refused = answers(finished["run"]), [], 0
    for at in damaged_in_turn(finished["run"] / name):
        try:
            found = answers(finished["run"])
        except FormatError:
            n_refused += 1
            continue
        wrong += [(at, what) for what, said in found.items() if said is not None and said != right[what]]

    assert wrong == []
    assert n_refused > 0.9 * N_DIGITS or name in ("certificate.json", "normalized-sketches.json")


@pytest.mark.parametrize("key", ["ties", "settings", "n_samples", "stages"])
def test_the_manifest_is_refused_with_what_to_do(call, finished, key):
    path = finished["run"] / "run.json"
    tree = json.loads(path.read_text())
    at = json.dumps(tree[key])
    tree[key] = json.loads(re.sub(r"\d", lambda digit: "3" if digit[0] == "7" else "7", at, count=1))
    path.write_text(json.dumps(tree))
    answer = call("factors", finished["run"])

    assert answer.code == 4
    assert "its content is not what was written" in answer.err
    assert "run.json" in answer.err


def test_a_factors_file_that_was_changed_by_hand_is_taken_when_its_user_says_so(call, finished):
    chosen = finished["folder"] / "f.json"
    assert call("factors", finished["run"], "--percentile", 100, "--output", chosen).code == 0
    tree = json.loads(chosen.read_text())
    tree["points"][0]["factor"] = 2.5
    chosen.write_text(json.dumps(tree))
    refused = call("normalize", finished["run"], "--factors", chosen)
    del tree["content_hash"]
    chosen.write_text(json.dumps(tree))

    assert refused.code == 4
    assert "'content_hash'" in refused.err
    assert Factors.load(chosen).points[0].factor == 2.5
    assert call("normalize", finished["run"], "--factors", chosen).code == 0


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_without_a_hash_are_of_an_earlier_program_and_read(finished, name):
    path = finished["run"] / name
    tree = read_document(path)
    assert json.loads(path.read_text()).keys() == {*tree, "content_hash"}
    path.write_text(json.dumps(tree))

    assert read_document(path) == tree


def test_the_run_of_an_earlier_program_opens_whole(call, finished):
    """None of its files has a hash; its manifest knows the digests of the others."""
    path = finished["run"] / "run.json"
    path.write_text(json.dumps(read_document(path)))
    again = call("run", finished["job"])

    assert again.code == 0, again.err
    assert "nothing was recomputed" in again.out
    assert "content_hash" in json.loads(path.read_text())
