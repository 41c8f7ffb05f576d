"""The notebook goes through the README's jobs; it is executed by a kernel of its own, as a user would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]


def test_there_is_a_notebook():
    assert "readme_jobs" in NAMES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_outputs_are_not_kept(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]

    assert cells
    assert {(len(cell["outputs"]), cell["execution_count"]) for cell in cells} == {(0, None)}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client.*")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_runs_and_shows_what_it_should(path, tmp_path):
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.read(path, as_version=4)
    NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()

    shown = {
        cell.source.splitlines()[-1]: [output for output in cell.outputs if "data" in output]
        for cell in book.cells
        if cell.cell_type == "code"
    }
    pages = {
        line: "".join(str(output["data"].get("text/html", "")) for output in outputs)
        for line, outputs in shown.items()
    }
    for line in ("found", "table", "again", "result", "result.factors()", "certificate"):
        assert pages[line].count("<svg") >= 3, line
    assert "certificate passed" in pages["result"]
    for line in ('axes.set_title("the first convolution")', "again.plot_factors();"):
        assert any("image/png" in output["data"] for output in shown[line]), line
    # A job is one display, which ends as its summary; nothing else is printed.
    bar, page = shown["table"]
    assert bar["data"]["text/plain"].startswith("record: computed")
    assert page["data"]["text/plain"].startswith("3 points, 500 samples")
    errors = [output for cell in book.cells for output in cell.get("outputs", []) if "name" in output]
    assert [output["text"] for output in errors if output["name"] == "stderr"] == []
