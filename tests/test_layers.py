"""Imports go one way: a module imports only what stands before it in this list."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the bottom up. A folder stands for all its modules; inside a folder, order is its own affair.
ORDER = [
    "storage",
    "pipeline.sketch",
    "pipeline.sources",
    "pipeline.settings",
    "pipeline.events",
    "pipeline.graph",
    "pipeline.normalizer",
    "pipeline.report",
    "pipeline.folder",
    "pipeline.display",
    "pipeline.record",
    "pipeline.certifier",
    "pipeline.factors",
    "pipeline.planning",
    "pipeline.stages",
    "pipeline.cluster",
    "pipeline.engines",
    "pipeline.exporters",
    "pipeline.results",
    "pipeline.job",
    "pipeline.rerun",
    "pipeline.api",
    "pipeline.in_memory",
    "pipeline.conversion",
    "pipeline",
    "pipeline.service",
    "pipeline.demo",
    "pipeline.cli",
    "pipeline.__main__",
    "pipeline.distribution",
]


def place(module: str) -> int:
    """Index in ORDER of the entry that a module belongs to."""
    fits = [entry for entry in ORDER if module == entry or module.startswith(entry + ".")]
    exact = [entry for entry in fits if entry != "pipeline" or module == "pipeline"]
    if not exact:
        pytest.fail(f"{module} is not in ORDER: give it a place")
    return ORDER.index(max(exact, key=len))


def module_of(path: Path) -> str:
    """Dotted name within the checkout."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> set[str]:
    """Modules of the project that a file imports, wherever in it."""
    module, found = module_of(path), set()
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            # `..storage` from pipeline/x.py is ./storage: the folders are siblings.
            start = package[: len(package) - node.level + 1]
            base = [*start, *(node.module.split(".") if node.module else [])]
            names = (
                [".".join(base)] if node.module else [".".join([*base, alias.name]) for alias in node.names]
            )
            found.update(names)
        elif isinstance(node, ast.ImportFrom) and node.module == "actisketch":
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return {name.removeprefix("actisketch.") for name in found}


FILES = sorted([*ROOT.glob("storage/**/*.py"), *ROOT.glob("pipeline/**/*.py")])


@pytest.mark.parametrize(
    "line",
    [
        "import actisketch.pipeline.api",
        "import actisketch.pipeline.api as api",
        "from actisketch import pipeline",
        "from actisketch.pipeline import api",
        "from ..pipeline import api",
        "from ..pipeline.api import run",
        "from .. import pipeline",
        "if True:\n    import actisketch.pipeline",
    ],
)
def test_an_import_is_found_however_it_is_written(line, tmp_path, monkeypatch):
    path = tmp_path / "storage" / "any.py"
    path.parent.mkdir()
    path.write_text(line)
    monkeypatch.setitem(globals(), "ROOT", tmp_path)

    assert any(name.startswith("pipeline") for name in imported(path))


def test_the_files_are_found():
    assert len(FILES) > 40


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_stands_before_it(path):
    module = module_of(path)
    # The package's own __init__ hands out the public names lazily: it may name everything.
    if module == "pipeline":
        return
    wrong = [
        name
        for name in imported(path)
        if name.split(".")[0] in {"pipeline", "storage"} and place(name) > place(module)
    ]

    assert wrong == []


def test_storage_imports_nothing_of_pipeline():
    names = {name for path in ROOT.glob("storage/**/*.py") for name in imported(path)}

    assert not [name for name in names if name.startswith("pipeline")]


def circles(imports: dict[str, set[str]]) -> list[set[str]]:
    """Return the sets of modules each of which reaches all others of its set."""
    reached = {module: set(names) for module, names in imports.items()}
    for via in imports:
        for names in reached.values():
            if via in names:
                names |= reached[via]
    found = {frozenset(n for n in names if module in reached[n]) for module, names in reached.items()}
    return sorted((set(modules) for modules in found if modules), key=min)


def test_no_modules_import_each_other_in_a_circle():
    """Wherever the import stands: also under TYPE_CHECKING, or inside a function."""
    modules = {module_of(path): path for path in FILES}
    del modules["pipeline"]  # hands out the public names lazily: it names everything
    found = circles({module: imported(path) & modules.keys() for module, path in modules.items()})

    assert found == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d"}}) == [{"b", "c"}, {"d"}]


def test_keys_and_stores_of_a_cache_are_known_in_storage_only():
    private = {
        f"storage.{name}" for name in ("keys", "ledger", "commit_record", "layout", "unreadable", "local")
    }
    for path in ROOT.glob("pipeline/**/*.py"):
        assert imported(path) & private == set(), path
        assert "cache.store" not in path.read_text(), path


def test_no_module_stands_in_the_way_of_a_public_name():
    import actisketch.pipeline

    modules = {path.stem for path in (ROOT / "pipeline").iterdir() if path.suffix == ".py" or path.is_dir()}

    assert modules & set(actisketch.pipeline.__all__) == set()


def test_no_two_classes_or_functions_have_one_name():
    """Except a verb and the call that it translates: ``actisketch run`` and ``run``."""
    places = {}
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(module_of(path))
    several = {name: sorted(found) for name, found in places.items() if len(found) > 1}

    assert several == {
        "compare": ["pipeline.cli.two_runs", "pipeline.results.compared_runs"],
        "plan": ["pipeline.api", "pipeline.cli.work"],
        "run": ["pipeline.api", "pipeline.cli.work"],
        "sweep": ["pipeline.cli.ask", "pipeline.results.sweeping"],
        "verify": ["pipeline.cli.ask", "storage.verify"],
    }


def test_no_two_modules_have_one_name():
    places = {}
    for path in FILES:
        if not path.stem.startswith("__"):
            places.setdefault(path.stem, []).append(module_of(path))
    several = {name: found for name, found in places.items() if len(found) > 1}

    assert several == {}


def test_no_file_is_longer_than_400_lines():
    files = [*FILES, *ROOT.glob("tests/**/*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}

    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_few_files_stand_outside_the_folders():
    loose = {path.name for path in (ROOT / "pipeline").glob("*.py")}

    assert loose == {
        "__init__.py",
        "__main__.py",
        "api.py",
        "engines.py",
        "events.py",
        "job.py",
        "rerun.py",
    }


def test_the_folders_of_tests_are_those_of_the_code():
    folders = {path.name for path in (ROOT / "tests").iterdir() if any(path.glob("test_*.py"))}
    code = {path.name for path in (ROOT / "pipeline").iterdir() if path.is_dir()}

    assert folders - code == {"storage", "benchmarks", "deploy", "jobs"}
