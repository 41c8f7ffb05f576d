"""Every folder is in the wheel, and asking never loads what only computing needs."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_folder_with_code_is_packaged_and_a_package():
    folders = {path.parent for half in ("pipeline", "storage") for path in (ROOT / half).rglob("*.py")}
    paths = {folder.relative_to(ROOT).as_posix() for folder in folders}
    # This one is installed as `actisketch` itself.
    around = PROJECT["tool"]["setuptools"]["package-dir"]["actisketch"]
    names = {"actisketch." + path.replace("/", ".") for path in paths - {around}} | {"actisketch"}

    assert around in paths
    assert names == set(PROJECT["tool"]["setuptools"]["packages"])
    assert all((folder / "__init__.py").exists() for folder in folders)


def test_the_top_level_holds_only_what_was_agreed():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    tops = {line.split("/")[0] for line in listed.stdout.splitlines()}
    agreed = {
        "pyproject.toml",
        "README.md",
        "pipeline",
        "storage",
        "tests",
        "deploy",
        "LICENSE",
        "CHANGELOG.md",
        "requirements.lock",
    }

    assert {top for top in tops if not top.startswith(".")} <= agreed


def test_the_lock_holds_every_dependency_that_ci_installs():
    wanted = [
        *PROJECT["project"]["dependencies"],
        *(
            name
            for extra in ("test", "lint", "deploy", "dashboard", "onnxruntime", "litert", "nir")
            for name in PROJECT["project"]["optional-dependencies"][extra]
        ),
    ]
    locked = re.findall(r"^([A-Za-z0-9._-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    names = {re.split(r"[\[<>=!~; ]", each)[0].lower() for each in wanted}

    assert names - {name.lower() for name in locked} == set()


def test_the_package_itself_has_the_public_names_and_the_version():
    import actisketch
    import actisketch.pipeline

    assert actisketch.__version__ == PROJECT["project"]["version"]
    assert set(actisketch.pipeline.__all__) < set(dir(actisketch))
    for name in actisketch.pipeline.__all__:
        assert getattr(actisketch, name) is getattr(actisketch.pipeline, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = actisketch.nothing


def test_python_m_actisketch_is_the_command():
    command = [sys.executable, "-m", "actisketch", "--version"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)

    assert answer.stdout == f"actisketch, version {PROJECT['project']['version']}\n"


def test_the_storage_does_not_load_the_pipeline():
    code = "import actisketch.storage, sys; print('actisketch.pipeline' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout == "False\n"


HEAVY = ("tensorflow", "keras", "distributed", "numba", "matplotlib", "pandas", "xarray", "IPython")


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("actisketch", HEAVY),
        ("actisketch.storage", HEAVY),
        ("actisketch.pipeline", HEAVY),
        ("actisketch.pipeline.results.run", HEAVY),
        ("actisketch.pipeline.sketch", ("tensorflow", "keras", "distributed", "matplotlib")),
        ("actisketch.pipeline.sources", ("tensorflow", "keras", "distributed", "matplotlib")),
        ("actisketch.pipeline.cli.verbs", (*HEAVY, "pydantic")),
        (
            "actisketch.pipeline.cli.ask",
            # A question takes as long as what it loads.
            (
                *HEAVY,
                "actisketch.pipeline.graph",
                "actisketch.pipeline.certifier",
                "actisketch.pipeline.record.recorder",
                "jinja2",
            ),
        ),
        ("actisketch.pipeline.cli.serving", (*HEAVY, "pydantic", "fastapi", "uvicorn")),
        ("actisketch.pipeline.service.application", HEAVY),
        ("actisketch.pipeline.cli.exporting", ("tensorflow", "keras", "distributed", "numba", "matplotlib")),
    ],
)
def test_importing_a_module_does_not_load_what_only_computing_needs(module, forbidden):
    code = f"import {module}, sys; print([m for m in {forbidden!r} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "[]"


def test_importing_the_package_takes_less_than_three_tenths_of_a_second():
    """Of the processor: how long it takes on a busy machine says nothing. The fastest of three."""
    code = (
        "import time; begun = time.process_time(); import actisketch.pipeline; "
        "print(time.process_time() - begun)"
    )
    took = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(3)
    ]

    assert min(took) < 0.3
