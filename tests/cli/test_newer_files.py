"""Results that a newer program wrote are called newer, not damaged: running the job again does not help."""

import base64
import json

import pytest

from actisketch.pipeline.folder.folder import RunFolder
from actisketch.pipeline.folder.json_file import read_document


def rewrite(folder, name, change):
    """Change a result file as a newer program would write it: the manifest knows its hash."""
    tree = read_document(folder / name)
    change(tree)
    (folder / name).write_text(json.dumps(tree))
    made = read_document(folder / "run.json")["stages"]["normalize"]
    RunFolder(folder).mark_made("normalize", made["key"], *(folder / each for each in made["results"]))


def newer_sketch(tree):
    """The fifth byte of a sketch is its version."""
    sketch = bytearray(base64.b64decode(tree["activations"]["first"]))
    sketch[4] += 1
    tree["activations"]["first"] = base64.b64encode(sketch).decode()


NEWER = {
    "sketches": ("normalized-sketches.json", lambda tree: tree.update(actisketch_sketches=2), "format 2"),
    "one sketch": ("normalized-sketches.json", newer_sketch, "newer than this program"),
    "certificate": ("certificate.json", lambda tree: tree.update(actisketch_certificate=97), "found 97"),
}
DAMAGED = {
    "sketches": ("normalized-sketches.json", lambda tree: tree.update(weights_after=[]), "run the job again"),
    "version": ("normalized-sketches.json", lambda tree: tree.update(actisketch_sketches="2"), "damaged"),
    "one sketch": (
        "normalized-sketches.json",
        lambda tree: tree["activations"].update(first="AAAA"),
        "again",
    ),
    "certificate": ("certificate.json", lambda tree: tree.update(points=[{}]), "normalise again"),
}


@pytest.mark.parametrize("what", NEWER)
def test_a_newer_result_asks_for_an_update(call, finished, what):
    name, change, says = NEWER[what]
    rewrite(finished["run"], name, change)
    answer = call("report", finished["run"])

    assert answer.code == 4
    assert name in answer.err
    assert says in answer.err
    assert "update actisketch" in answer.err or "install a newer actisketch" in answer.err
    assert "damaged" not in answer.err
    assert "run the job again" not in answer.err


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_result_is_called_damaged_once(call, finished, what):
    name, change, says = DAMAGED[what]
    rewrite(finished["run"], name, change)
    answer = call("report", finished["run"])

    assert answer.code == 4
    assert name in answer.err
    assert says in answer.err
    assert answer.err.count(" is damaged") == 1
    assert "update" not in answer.err


def test_what_a_newer_program_made_keeps_its_bytes(call, finished):
    name, change, _ = NEWER["certificate"]
    rewrite(finished["run"], name, change)
    before = (finished["run"] / name).read_bytes()
    codes = [call("status", finished["run"]).code, call("run", finished["job"]).code]

    assert codes == [4, 4]
    assert (finished["run"] / name).read_bytes() == before
