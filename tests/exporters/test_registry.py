"""Exporters by name: ours, those of other packages, and what is refused before anything is written."""

import dataclasses
import importlib.metadata
import json
import os
import subprocess
import sys
import types
import zipfile

import pytest
from click.testing import CliRunner

from actisketch.pipeline import run
from actisketch.pipeline.cli import commands
from actisketch.pipeline.exporters import Exporter, exporter_names, load_exporter
from actisketch.pipeline.exporters.extra import import_extra
from actisketch.pipeline.exporters.registry import BUILT_IN, GROUP
from actisketch.storage.errors import InputError


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_parts):
    import keras

    make_model, make_data = small_parts
    output = str(tmp_path_factory.mktemp("registry") / "r")
    settings = {"normalize": {"enabled": False}, "report": {"enabled": False}}
    return run(make_model(keras), make_data(), output=output, settings=settings, batch_size=16)


PACKAGE = """
from actisketch.pipeline.exporters import Exported, Exporter, RangeRow

def make(request):
    largest = max(p.factor for p in request.factors_of().points)
    rows = [RangeRow(tensor=f"t/{name}", point=name, lo=0.0, hi=1.0, source="theirs") for name in request.run.points]
    text = repr(largest * float(request.options.get("width", 1)))
    return Exported(content=text, rows=tuple(rows), file_name="largest.txt")

THEIRS = Exporter(about="the largest factor, times the width", make=make, options=("width",))
OTHER = 3
"""


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Another package that has an exporter, with the metadata that pip leaves; sys.path stays as it is."""
    folder = tmp_path / "theirs-1.0.dist-info"

    class Finder(importlib.metadata.DistributionFinder):
        def find_spec(self, *_):
            return None

        def find_distributions(self, context):
            if context.name in (None, "theirs"):
                yield importlib.metadata.PathDistribution(folder)

    def install(value, name="largest"):
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {value}\n")
        module = types.ModuleType("their_package")
        exec(PACKAGE, module.__dict__)
        monkeypatch.setitem(sys.modules, "their_package", module)
        monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])

    return install


def call(*arguments):
    return CliRunner().invoke(commands, [str(each) for each in arguments])


def test_the_exporter_of_another_package_is_used_by_its_name(installed, finished, tmp_path):
    installed("their_package:THEIRS")
    path = tmp_path / "out.txt"
    done = call("export", finished.folder.path, "--format", "largest", "--output", path)
    expected = max(finished.factors().by_point().values())

    assert done.exit_code == 0, done.output
    assert float(path.read_text()) == expected == float(finished.export("largest"))
    assert float(finished.exported("largest", options={"width": 8}).content) == 8 * expected
    assert "largest" in exporter_names()
    for word in ("t/first", "first", "theirs", "tensor", f"wrote {path}"):
        assert word in done.stdout


def test_an_exporter_of_an_installed_distribution_is_used_from_the_command_line(finished, tmp_path):
    pytest.importorskip("pip")
    facts = {
        "METADATA": "Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "entry_points.txt": f"[{GROUP}]\nlargest = their_package:THEIRS\n",
        "RECORD": "",
    }
    wheel, place, output = (tmp_path / name for name in ("theirs-1.0-py3-none-any.whl", "place", "out.txt"))
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("their_package.py", PACKAGE)
        for name, text in facts.items():
            archive.writestr(f"theirs-1.0.dist-info/{name}", text)
    python = [sys.executable, "-m"]
    subprocess.run(
        [*python, "pip", "install", "-q", "--no-index", "--no-deps", "--target", place, wheel], check=True
    )
    path = os.pathsep.join(filter(None, (str(place), os.environ.get("PYTHONPATH"))))
    command = [*python, "actisketch.pipeline", "export", finished.folder.path, "--format", "largest"]
    done = subprocess.run(
        [*command, "--output", output],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert float(output.read_text()) == max(finished.factors().by_point().values())
    assert "t/first" in done.stdout


def test_an_entry_point_replaces_none_of_ours(installed, finished):
    before = finished.export("json")
    installed("their_package:THEIRS", name="json")

    assert finished.export("json") == before
    assert exporter_names().count("json") == 1


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("their_package:OTHER", "of theirs is a int"),
        ("not_there:THEIRS", "of theirs cannot be loaded .ModuleNotFoundError"),
    ],
)
def test_what_is_no_exporter_is_named_with_its_package(installed, value, words):
    installed(value)

    with pytest.raises(InputError, match=words):
        load_exporter("largest")


def test_every_exporter_of_ours_loads_without_the_library_of_its_target():
    for name in BUILT_IN:
        assert isinstance(load_exporter(name), Exporter)


def test_an_unknown_format_is_refused_with_those_that_there_are(finished, tmp_path):
    done = call("export", finished.folder.path, "--format", "jsn", "--output", tmp_path / "new")

    assert isinstance(done.exception, InputError)
    assert all(name in str(done.exception) for name in BUILT_IN)
    assert not (tmp_path / "new").exists()


def test_an_option_of_another_target_is_refused(finished):
    with pytest.raises(InputError, match="--width is no option of 'csv'"):
        finished.exported("csv", options={"width": 8})


def test_none_counts_as_not_given(finished):
    assert finished.exported("csv", options={"width": None}).content == finished.export("csv")


def test_a_library_that_is_missing_or_too_old_is_named_with_its_extra():
    with pytest.raises(InputError, match=r"'not_there'.*pip install 'actisketch\[spiking\]'"):
        import_extra("not_there.inner", extra="spiking")
    with pytest.raises(
        InputError, match=r"needs numpy 999.1 or newer, [0-9.]+ is installed.*actisketch\[x\]"
    ):
        import_extra("numpy.linalg", extra="x", at_least="999.1")
    assert import_extra("numpy.linalg", extra="x", at_least="1.2").__name__ == "numpy.linalg"


def test_an_export_that_fails_leaves_no_file(finished, tmp_path):
    def fail(path):
        path.write_text("half")
        raise OSError("disk full")

    beside = {".onnx": b"a network"}
    made = dataclasses.replace(finished.exported("json"), content=fail, beside=beside)
    with pytest.raises(OSError, match="disk full"):
        made.write(tmp_path / "new.json")

    assert list(tmp_path.iterdir()) == []


def test_the_table_of_the_toolbox_has_each_of_its_names(finished):
    made = finished.exported("toolbox")
    factors = json.loads(made.content)

    assert {row.tensor: row.hi for row in made.rows} == factors
    assert [row.point for row in made.rows] == [None, *finished.points]
    assert [row.source for row in made.rows] == ["input factor", "percentile", "percentile", "pinned"]
