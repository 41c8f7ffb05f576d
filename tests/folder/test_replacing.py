"""A result gets its name when its bytes are on the disk: the order of flushes and renames, call by call."""

import json
import os

import numpy as np
import pytest

from actisketch.pipeline.factors.merged_file import save_merged
from actisketch.pipeline.folder.folder import replacing, write_json
from actisketch.storage import partial
from actisketch.storage.errors import StorageError


@pytest.fixture
def calls(monkeypatch):
    """What is flushed and renamed, in order, and how many bytes the file has by then."""
    noted = []
    sync, put_in_place = partial.sync, partial.put_in_place

    def synced(path):
        noted.append(("flush", path.name, path.stat().st_size if path.is_file() else None))
        sync(path)

    def put(beside, target):
        noted.append(("rename", target.name, None))
        put_in_place(beside, target)

    monkeypatch.setattr(partial, "sync", synced)
    monkeypatch.setattr(partial, "put_in_place", put)
    return noted


def write_text(path):
    with replacing(path) as beside:
        beside.write_text("x" * 10)


WRITERS = {
    "text": write_text,
    "json": lambda path: write_json(path, {"a": 1}),
    "npz": lambda path: save_merged(path, "key", {}),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_the_file_is_flushed_whole_then_named_then_its_name_is_flushed(tmp_path, calls, writer):
    path = tmp_path / ("result.npz" if writer == "npz" else "result.json")
    WRITERS[writer](path)
    (flushed, renamed, named) = calls

    assert flushed == ("flush", flushed[1], path.stat().st_size)
    assert flushed[1] != path.name
    assert renamed == ("rename", path.name, None)
    assert named == ("flush", tmp_path.name, None)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_every_result_of_a_run_is_written_so(tmp_path, calls, small_model, small_data):
    from actisketch.pipeline import run

    run(small_model, small_data, output=tmp_path / "run", batch_size=16)
    named = {name for what, name, _ in calls if what == "rename"}

    results = {p.name for p in (tmp_path / "run").iterdir() if p.is_file()}
    assert results - {"run.log"} <= named
    assert json.loads((tmp_path / "run" / "run.json").read_text())


def test_a_refused_flush_leaves_the_old_bytes_and_nothing_beside(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    write_json(path, {"old": 1})
    before = path.read_bytes()

    def refuse(_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(partial, "sync", refuse)
    with pytest.raises(StorageError, match="No space left"):
        write_json(path, {"new": 2})

    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("inside", [False, True])
def test_a_folder_in_the_place_of_a_result_is_replaced_if_it_is_empty(tmp_path, inside):
    path = tmp_path / "sketches.npz"
    path.mkdir()
    if inside:
        (path / "mine").write_text("precious")
        with pytest.raises(StorageError, match=r"a folder stands where a file belongs.*move it elsewhere"):
            save_merged(path, "key", {})
        assert (path / "mine").read_text() == "precious"
    else:
        save_merged(path, "key", {})
        assert np.load(path).files == ["index"]
