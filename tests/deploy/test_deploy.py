"""Every file of deploy/ is checked: by its own linter or schema, and against what actisketch really takes."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from actisketch.pipeline.settings.loading import validate_job

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CHECKED = {
    "Dockerfile",
    "Dockerfile.dockerignore",
    "README.md",
    "compose.yaml",
    "job.toml",
    "kubernetes/cluster.yaml",
    "kubernetes/job.yaml",
    "kubernetes/service.yaml",
    "service.Dockerfile",
    "service.Dockerfile.dockerignore",
    "service_needs.py",
    "slurm/actisketch.sbatch",
    "slurm/jobqueue_run.py",
    "systemd/actisketch.service",
    "systemd/jobs.conf",
}


def tool(name: str) -> str:
    """The path of a checker, beside this Python or on the PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: pip install '.[deploy]'")
    return found


def check(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def documents(name: str) -> list[Any]:
    return [each for each in yaml.safe_load_all((DEPLOY / name).read_text()) if each]


def test_no_file_is_left_unchecked() -> None:
    found = {str(path.relative_to(DEPLOY)) for path in DEPLOY.rglob("*") if path.is_file()}

    assert {name for name in found if "__pycache__" not in name} == CHECKED


@pytest.mark.parametrize("name", ["Dockerfile", "service.Dockerfile"])
def test_the_dockerfile_passes_its_linter(name: str) -> None:
    check(tool("hadolint"), str(DEPLOY / name))


def test_the_image_of_the_service_has_all_that_answering_needs_and_no_tensorflow(tmp_path: Path) -> None:
    """It is asked in a Python that lacks every package that is left out."""
    listed = subprocess.run(
        [sys.executable, str(DEPLOY / "service_needs.py")], capture_output=True, text=True, check=True
    )
    names = {re.split(r"[\[<>=!~; ]", line)[0] for line in listed.stdout.splitlines()}
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    left_out = {re.split(r"[\[<>=!~; ]", each)[0] for each in wanted} - names
    assert {"fastapi", "uvicorn", "numpy", "zarr"} <= names
    assert {"tensorflow", "keras", "distributed"} <= left_out

    script = f"""
import sys
for name in {sorted(left_out)!r}:
    sys.modules[name] = None
from starlette.testclient import TestClient
from actisketch.pipeline.service.access import Access
from actisketch.pipeline.service.application import make_application
from actisketch.pipeline.service.run_root import RunRoot
root = {str(ROOT / "tests" / "jobs" / "version_0_1")!r}
headers = {{"authorization": "Bearer a-token-for-the-tests"}}
application = make_application(RunRoot.of(root), Access(["a-token-for-the-tests"]))
with TestClient(application, base_url="http://127.0.0.1", headers=headers) as client:
    run = "/api/v1/runs/finished"
    for path in ("", "/points", "/percentile?q=60&exact=true", "/factors", "/factors?format=csv", "/certificate",
                 "/network", "/digest?point=conv", "/distribution?point=conv&format=png", "/live"):
        answer = client.get(run + path)
        assert answer.status_code == 200, (path, answer.text)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_unit_of_the_service_is_one_of_systemd() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    names = {"actisketch.service": "actisketch.service", "jobs.conf": "actisketch.service.d/jobs.conf"}
    texts = {name: (DEPLOY / "systemd" / name).read_text() for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for name, text in texts.items():
            unit = Path(folder) / names[name]
            unit.parent.mkdir(exist_ok=True)
            # The program lies where the unit says on the machine that it is for, not here.
            unit.write_text(text.replace("/opt/actisketch/bin/actisketch", "/bin/true"))
            check("systemd-analyze", "verify", "--man=no", str(Path(folder) / "actisketch.service"))
    for text in texts.values():
        (line,) = re.findall(r"^ExecStart=\S+ (.*)$", text, re.MULTILINE)
        assert {word for word in line.split() if word.startswith("--")} <= serve_flags()


def serve_flags() -> set[str]:
    from actisketch.pipeline.cli import commands as group

    command = group.get_command(click.Context(group), "serve")
    assert command is not None
    return {flag for parameter in command.params for flag in parameter.opts}


def test_the_dockerfile_copies_what_is_there() -> None:
    text = (DEPLOY / "Dockerfile").read_text()

    for path in re.findall(r"pipeline/\S+", text):
        assert (ROOT / path).exists(), path
    assert set(re.findall(r"'\.\[(\w+)\]'", text)) <= set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    )


def test_the_compose_file_fits_the_schema() -> None:
    check(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml"))


def test_scripts_are_bash() -> None:
    check("bash", "-n", str(DEPLOY / "slurm/actisketch.sbatch"))
    check(tool("shellcheck"), str(DEPLOY / "slurm/actisketch.sbatch"))


def test_job_files_are_valid_jobs() -> None:
    (config,) = [each for each in documents("kubernetes/job.yaml") if each["kind"] == "ConfigMap"]
    jobs = [(DEPLOY / "job.toml").read_text(), config["data"]["job.toml"]]

    first, second = (validate_job(tomllib.loads(text)) for text in jobs)

    assert first == second


def commands(tree: Any) -> Iterator[list[str]]:
    """Every argument list of actisketch or dask in a YAML tree."""
    if isinstance(tree, dict):
        for value in tree.values():
            yield from commands(value)
    elif isinstance(tree, list):
        words = [word for word in tree if isinstance(word, str)]
        if len(words) == len(tree) and words[:1] and words[0] in ("actisketch", "dask"):
            yield words
        else:
            for value in tree:
                yield from commands(value)


@pytest.mark.parametrize(
    "name", ["compose.yaml", "kubernetes/cluster.yaml", "kubernetes/job.yaml", "kubernetes/service.yaml"]
)
def test_commands_have_flags_that_exist(name: str) -> None:
    from distributed.cli.dask_scheduler import main as dask_scheduler
    from distributed.cli.dask_worker import main as dask_worker

    from actisketch.pipeline.cli import commands as group

    found = list(commands(documents(name)))

    assert found
    for words in found:
        if words[0] == "dask":
            known = {"worker": dask_worker, "scheduler": dask_scheduler}[words[1]]
        else:
            known = group.get_command(click.Context(group), words[1])
        flags = {flag for parameter in known.params for flag in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= flags, words


SCHEMAS = {"DaskCluster": "daskcluster.yaml", "DaskJob": "daskjob.yaml"}


def schema_of(kind: str) -> Any:
    spec = importlib.util.find_spec("dask_kubernetes")
    if spec is None or spec.origin is None:
        pytest.skip("dask-kubernetes is not installed: pip install '.[deploy]'")
    crds = Path(spec.origin).parent / "operator/deployment/helm/dask-kubernetes-operator/crds"
    tree = yaml.safe_load((crds / SCHEMAS[kind]).read_text())
    (version,) = [each for each in tree["spec"]["versions"] if each["name"] == "v1"]
    return version["schema"]["openAPIV3Schema"]


def unknown_fields(value: Any, schema: Any, path: str = "") -> Iterator[str]:
    """What a server-side strict validation would refuse and a JSON schema lets pass."""
    if isinstance(value, dict) and "properties" in schema:
        for key, item in value.items():
            if key in schema["properties"]:
                yield from unknown_fields(item, schema["properties"][key], f"{path}.{key}")
            elif not schema.get("x-kubernetes-preserve-unknown-fields") and path:
                yield f"{path}.{key}"
    elif isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from unknown_fields(item, schema["items"], f"{path}[{index}]")


@pytest.mark.parametrize("name", ["kubernetes/cluster.yaml", "kubernetes/job.yaml"])
def test_manifests_fit_the_operators_schemas(name: str) -> None:
    import jsonschema

    custom = [each for each in documents(name) if each["apiVersion"] == "kubernetes.dask.org/v1"]

    assert custom
    for manifest in custom:
        schema = schema_of(manifest["kind"])
        jsonschema.Draft7Validator(schema).validate(manifest)
        assert list(unknown_fields(manifest["spec"], schema["properties"]["spec"], "spec")) == []


@pytest.mark.parametrize("name", ["kubernetes/job.yaml", "kubernetes/service.yaml"])
def test_manifests_are_what_kubernetes_takes(name: str) -> None:
    checker = pytest.importorskip("kubernetes_validate", reason="pip install '.[deploy]'")
    version, own = checker.latest_version(), [d for d in documents(name) if "dask" not in d["apiVersion"]]

    assert own
    for manifest in own:
        checker.validate(manifest, version, strict=True)
        broken = {**manifest, "spce": {}}
        with pytest.raises(checker.ValidationError):
            checker.validate(broken, version, strict=True)


def test_the_service_of_kubernetes_fits_its_image_and_the_volume_of_the_job() -> None:
    deployment, service = documents("kubernetes/service.yaml")
    (claim,) = [d for d in documents("kubernetes/job.yaml") if d["kind"] == "PersistentVolumeClaim"]
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    image = (DEPLOY / "service.Dockerfile").read_text()
    claims = [
        v["persistentVolumeClaim"]["claimName"]
        for v in pod["spec"]["volumes"]
        if "persistentVolumeClaim" in v
    ]

    assert claims == [claim["metadata"]["name"]]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    (port,) = container["ports"]
    assert f"EXPOSE {port['containerPort']}" in image
    assert f"USER {pod['spec']['securityContext']['runAsUser']}" in image
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        v["name"] for v in pod["spec"]["volumes"]
    }


def test_both_images_ignore_the_same_files() -> None:
    first, second = (DEPLOY / f"{name}.dockerignore" for name in ("Dockerfile", "service.Dockerfile"))

    assert first.read_text() == second.read_text()


def test_the_cluster_of_the_job_is_the_cluster_file() -> None:
    (cluster,) = documents("kubernetes/cluster.yaml")
    (job,) = [each for each in documents("kubernetes/job.yaml") if each["kind"] == "DaskJob"]
    inner = job["spec"]["cluster"]["spec"]

    assert inner["worker"] == cluster["spec"]["worker"]
    assert inner["scheduler"]["spec"] == cluster["spec"]["scheduler"]["spec"]
    for name, spec in [("actisketch", cluster["spec"]), ("actisketch-digits", inner)]:
        assert spec["scheduler"]["service"]["selector"]["dask.org/cluster-name"] == name


def jobqueue_module() -> Any:
    spec = importlib.util.spec_from_file_location("jobqueue_run", DEPLOY / "slurm/jobqueue_run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")
def test_the_jobqueue_example_writes_the_job_that_it_promises(tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue", reason="pip install '.[deploy]'")
    module = jobqueue_module()
    options: argparse.Namespace = module.parse(
        ["job.toml", "--cores", "3", "--memory", "5GB", "--logs", str(tmp_path)]
    )

    with module.make_cluster(options) as cluster:
        script = cluster.job_script()

    assert "--cpus-per-task=3" in script
    assert "--nthreads 3" in script
    assert "--memory-limit 0" in script


def test_what_the_script_for_dask_jobqueue_imports_exists() -> None:
    """It imports when it runs, which needs SLURM."""
    tree = ast.parse((DEPLOY / "slurm/jobqueue_run.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in imports if (node.module or "").startswith("actisketch.")]

    assert len(ours) == 2
    for node in ours:
        module = importlib.import_module(node.module or "")
        assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


def test_the_readme_names_files_flags_and_settings_that_exist() -> None:
    from actisketch.pipeline.cli import commands as group

    text = (DEPLOY / "README.md").read_text()
    names = set(re.findall(r"deploy/([\w./-]+\w)", text))
    helps = "".join(
        CliRunner().invoke(group, [verb, "--help"]).output for verb in ("run", "plan", "status", "verify")
    )

    assert names <= CHECKED | {"kubernetes", "slurm"}
    assert {name for name in CHECKED if "/" in name or name.endswith("yaml")} <= names
    for flag in set(re.findall(r"actisketch (?:run|plan|status|verify)[^`\n]*?(--[\w-]+)", text)):
        assert flag in helps, flag
    from actisketch.pipeline.settings.job_settings import RecordSettings

    for setting in set(re.findall(r"`record\.(\w+)`", text)):
        assert setting in RecordSettings.model_fields, setting
