"""Where an export may be written: no file is replaced that its user did not name, or that the export was made from."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from actisketch.pipeline import run
from actisketch.pipeline.cli import commands
from actisketch.pipeline.exporters import Exported, matching
from actisketch.storage.errors import InputError

from ..on_disk import contents
from .conftest import QUIET

ENDINGS = {"onnxruntime": ".onnx", "litert": ".tflite"}
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def libraries(request: pytest.FixtureRequest) -> None:
    """Leave out a format without its libraries."""
    needed = {"onnxruntime": ("onnx", "onnxruntime", "tf2onnx"), "litert": ("ai_edge_litert",)}
    kind = getattr(request.node, "callspec", None) and request.node.callspec.params.get("kind")
    for package in needed.get(kind, ()):
        pytest.importorskip(package)


@dataclass
class Counted:
    n_passes: int = 0


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """Count how often samples pass through a target."""
    counted, kept = Counted(), matching.inputs_of

    def inputs_of(*arguments: Any) -> Any:
        counted.n_passes += 1
        return kept(*arguments)

    monkeypatch.setattr(matching, "inputs_of", inputs_of)
    return counted


def call(small_run: dict[str, Any], kind: str, *flags: object) -> Any:
    command = ["export", small_run["run"].folder.path, "--format", kind, *flags]
    return CliRunner().invoke(commands, [str(each) for each in command])


def check_refused(
    small_run: dict[str, Any], passes: Counted, folder: Path, *call_of: object, words: str
) -> None:
    """Check that this is refused before samples pass, and changes nothing."""
    before = contents(folder, without=())
    done = call(small_run, *call_of)

    assert isinstance(done.exception, InputError), done.output
    assert words in str(done.exception)
    assert passes.n_passes == 0
    assert contents(folder, without=()) == before


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("kind", ENDINGS)
def test_the_output_is_not_the_network_beside_it(kind, is_there, small_run, passes, tmp_path):
    path = tmp_path / f"vgg{ENDINGS[kind]}"
    if is_there:
        path.write_bytes(b"a network of the user")

    check_refused(small_run, passes, tmp_path, kind, "--output", path, words="choose another ending")
    with pytest.raises(InputError, match="choose another ending"):
        Exported(content="{}", file_name="c.json", beside={ENDINGS[kind]: b"ours"}).write(path)
    assert path.exists() == is_there
    if is_there:
        assert path.read_bytes() == b"a network of the user"


@pytest.mark.parametrize("through_link", [False, True])
@pytest.mark.parametrize("kind", ENDINGS)
def test_a_network_that_was_given_is_not_replaced(kind, through_link, small_run, passes, tmp_path):
    given = path = tmp_path / f"vgg{ENDINGS[kind]}"
    path.write_bytes(b"a network of the user")
    if through_link:
        given = tmp_path / "link"
        given.symlink_to(path)
    flags = (f"--{ENDINGS[kind][1:]}", given, "--output", path)

    check_refused(small_run, passes, tmp_path, kind, *flags, words="is made from")


def test_samples_that_were_given_are_not_replaced_from_python_either(small_run, tmp_path):
    pytest.importorskip("tf2onnx")
    samples = tmp_path / "x.npy"
    np.save(samples, small_run["samples"])
    made = small_run["run"].exported("onnxruntime", options={"data": str(samples)})
    before = samples.read_bytes()

    with pytest.raises(InputError, match="is made from"):
        made.write(samples)
    assert samples.read_bytes() == before
    assert list(tmp_path.iterdir()) == [samples]


@pytest.mark.parametrize("into_folder", [False, True])
@pytest.mark.parametrize("with_output", [False, True])
@pytest.mark.parametrize("kind", ENDINGS)
def test_a_file_of_the_user_beside_the_output_is_kept(
    kind, with_output, into_folder, small_run, passes, tmp_path
):
    path = tmp_path / "calibration.json"
    path.with_suffix(ENDINGS[kind]).write_bytes(b"a network of the user")
    if with_output:
        path.write_text("{}")
    output = tmp_path if into_folder else path

    check_refused(small_run, passes, tmp_path, kind, "--output", output, words="is there already")


@pytest.mark.parametrize("kind", ENDINGS)
def test_an_export_is_replaced_by_the_next_one_with_the_network_beside_it(kind, small_run, tmp_path):
    path = tmp_path / "vgg.json"
    for method in ("max", "percentile"):
        done = call(small_run, kind, "--method", method, "--output", path)
        assert done.exit_code == 0, (done.output, done.exception)
    # Another network: that of the last export is ours all the same.
    model, samples = small_run["model"], small_run["samples"] * 2
    other = run(model, samples, output=str(tmp_path / "run"), settings=QUIET)
    made = other.exported(kind, options={"model": model, "data": samples})
    made.write(path)

    assert path.read_text() == made.content
    assert path.with_suffix(ENDINGS[kind]).read_bytes() == made.beside[ENDINGS[kind]]


@pytest.mark.parametrize("kind", ENDINGS)
def test_a_network_that_was_given_for_the_output_is_kept_when_it_is_forgotten(
    kind, small_run, passes, tmp_path
):
    made = small_run["run"].exported(kind)
    path, network = tmp_path / "vgg.json", tmp_path / f"vgg{ENDINGS[kind]}"
    network.write_bytes(made.beside[ENDINGS[kind]])
    done = call(small_run, kind, f"--{ENDINGS[kind][1:]}", network, "--output", path)
    passes.n_passes = 0

    assert done.exit_code == 0, (done.output, done.exception)
    assert network.read_bytes() == made.beside[ENDINGS[kind]]
    check_refused(small_run, passes, tmp_path, kind, "--output", path, words="is there already")


def test_a_network_that_was_changed_after_the_export_is_kept(small_run, tmp_path):
    pytest.importorskip("tf2onnx")
    made = small_run["run"].exported("onnxruntime")
    made.write(tmp_path / "c.json")
    (tmp_path / "c.onnx").write_bytes(b"simplified")

    with pytest.raises(InputError, match="is there already"):
        made.write(tmp_path / "c.json")
    assert (tmp_path / "c.onnx").read_bytes() == b"simplified"


def test_a_folder_in_the_way_of_the_network_leaves_the_output_as_it_was(small_run, tmp_path):
    made = replace(small_run["run"].exported("json"), beside={".onnx": b"a network"})
    (tmp_path / "c.onnx").mkdir()
    (tmp_path / "c.json").write_text("before")

    with pytest.raises(InputError, match="is there already"):
        made.write(tmp_path / "c.json")
    assert (tmp_path / "c.json").read_text() == "before"


@pytest.mark.parametrize("kind", ENDINGS)
def test_an_export_into_a_new_folder_makes_it(kind, small_run, tmp_path):
    done = call(small_run, kind, "--output", tmp_path / "new" / "folder")

    assert done.exit_code == 0, (done.output, done.exception)
    written = {path.name: path for path in (tmp_path / "new" / "folder").iterdir()}
    assert set(written) == {"calibration.json", f"calibration{ENDINGS[kind]}"}
    assert set(json.loads(written["calibration.json"].read_text())["written_beside"]) == {ENDINGS[kind]}
