"""What the documents claim is so: every link, every verb, every example."""

import importlib
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *ROOT.glob("pipeline/**/README.md"),
    *ROOT.glob("storage/README.md"),
    *ROOT.glob("deploy/**/*.md"),
    *ROOT.glob(".github/*.md"),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    dead = [link for link in links if "://" not in link and not (page.parent / link).exists()]

    assert dead == []


def test_the_walks_through_the_pipeline_name_files_that_exist():
    text = (ROOT / "pipeline" / "README.md").read_text(encoding="utf-8")
    files = re.findall(r"`([\w/]+\.py)`", text)
    folders = re.findall(r"\b([a-z]+)/(?=[ ,`])", text)
    places = [ROOT, ROOT / "pipeline"]

    assert len(files) > 20
    assert [name for name in files if not any((place / name).is_file() for place in places)] == []
    assert [name for name in folders if not any((place / name).is_dir() for place in places)] == []


def test_the_readme_names_every_verb():
    from actisketch.pipeline.cli import commands

    table = re.findall(r"^\| `([a-z]+)` \|", README, re.MULTILINE)

    assert table == commands.list_commands(None)


def test_the_readme_names_every_exit_code_that_an_error_has():
    from actisketch.storage import errors

    codes = {getattr(errors, name).exit_code for name in errors.__all__} - {1}

    assert all(re.search(rf"\b{code} ", README) for code in codes)


def test_the_help_of_every_verb_stands_in_the_documents():
    """After a change `.ci/help_page.py` writes the page again. Versions of click fold lines in other places."""
    written = runpy.run_path(str(ROOT / ".ci" / "help_page.py"))
    shown = written["PAGE"].read_text(encoding="utf-8")

    assert shown.split() == written["page"]().split()


def words(line):
    """The words of a row, without the last: residuals differ in the last digits from processor to processor."""
    return line.split()[:-1]


def test_the_output_in_the_readme_is_what_the_demo_prints(demo_run):
    folder, printed = demo_run
    shown = re.search(r"<!-- output: demo -->\s*```\n(.*?)```", README, re.DOTALL)[1]
    shown_rows, rows = shown.splitlines(), printed.splitlines()

    assert [words(line) for line in shown_rows[:6]] == [words(line) for line in rows[:6]]
    assert shown_rows[7] == rows[7]
    assert shown_rows[8].split(":")[:2] == rows[8].split(":")[:2]
    assert [line.replace(".../actisketch-demo", str(folder)) for line in shown_rows[9:]] == rows[9:]


PRINTED = [
    ["True", "PercentileRow(point='hidden', q=99.9"],
    ["(8, 32)", "2 points, 500 samples", "p99.9 [lo, hi]", "Percentile(value="],
]
EXAMPLES = list(zip(re.findall(r"```python\n(.*?)```", README, re.DOTALL), PRINTED, strict=True))


@pytest.mark.parametrize(("example", "printed"), EXAMPLES)
def test_the_python_example_of_the_readme_runs(tmp_path, example, printed, warm_python):
    done = warm_python.start("-c", example, cwd=tmp_path)
    out, err = done.communicate()

    assert done.returncode == 0, err[-2000:]
    assert [words for words in printed if words not in out] == []


def test_every_flag_in_the_readme_exists():
    from actisketch.pipeline.cli import commands

    known = {
        flag
        for name in commands.list_commands(None)
        for parameter in commands.get_command(None, name).params
        for flag in (*parameter.opts, *parameter.secondary_opts)
    }
    blocks = "".join(re.findall(r"```console\n(.*?)```", README, re.DOTALL))
    used = {
        flag
        for line in blocks.splitlines()
        if line.startswith("$ actisketch")
        for flag in re.findall(r"(?<= )(--[a-z-]+)", line)
    }

    assert used <= known | {"--help", "--quiet"}


@pytest.mark.parametrize(
    "name",
    ["api", "in_memory.activation_values", "in_memory.quick_statistics", "results.statistics_table"],
)
def test_docstring_examples_of_the_public_calls_run(tmp_path, monkeypatch, name):
    import doctest

    module = importlib.import_module(f"actisketch.pipeline.{name}")
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testmod(module, optionflags=doctest.ELLIPSIS)

    assert tried > 0
    assert failed == 0
