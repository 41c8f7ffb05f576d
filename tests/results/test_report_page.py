"""The report of a whole run: where it came from, its files, its weights and merges, the job that makes it again."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import keras
import numpy as np
import pytest

from actisketch.pipeline import Run, open_run, run
from actisketch.pipeline.folder.folder import RunFolder
from actisketch.pipeline.results.report import draw_report, report_data
from actisketch.pipeline.results.report_origin import with_origin
from actisketch.pipeline.settings.loading import load_job
from actisketch.pipeline.sketch import Sketch
from actisketch.pipeline.stages.after_sketches import AfterSketches

N_SAMPLES = 67


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, keras.Model]:
    """A residual network with BatchNormalization, from files, and its run."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input((9, 9, 2), name="in")
    folded = keras.layers.Conv2D(5, 3, padding="same", use_bias=False, name="folded")(inputs)
    normed = keras.layers.BatchNormalization(name="bn")(folded)
    first = keras.layers.ReLU(name="relu1")(normed)
    second = keras.layers.Conv2D(5, 3, padding="same", activation="relu", name="biased")(first)
    added = keras.layers.ReLU(name="relu2")(keras.layers.Add(name="add")([first, second]))
    flat = keras.layers.GlobalAveragePooling2D(name="pool")(added)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="classes")(flat))
    rng = np.random.default_rng(3)
    model.get_layer("bn").set_weights(
        [rng.uniform(0.5, 2, 5), rng.normal(size=5), rng.normal(0, 0.1, 5), rng.uniform(0.5, 2, 5)]
    )
    folder = tmp_path_factory.mktemp("page")
    model.save(folder / "näm.keras")
    np.savez(folder / "x.npz", x=rng.normal(size=(N_SAMPLES, 9, 9, 2)).astype(np.float32))
    settings = {"sketch": {"per_channel": True}}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SOURCE_DATE_EPOCH", raising=False)
        result = run(
            folder / "näm.keras", folder / "x.npz", output=folder / "run", batch_size=16, settings=settings
        )
    return result, model


def sketch_of(values: Any) -> Sketch:
    sketch = Sketch()
    sketch.update(np.asarray(values, np.float32))
    return sketch


def page_of(result: Run) -> str:
    return (result.folder.report_path / "index.html").read_text(encoding="utf-8")


def test_weights_are_compared_with_weights_and_folded_biases_are_apart(
    finished: tuple[Run, keras.Model],
) -> None:
    result, model = finished
    after = AfterSketches.load(result.folder.sketches_path)
    point = next(name for name in after.weights_before if "folded" in name or "relu1" in name)
    gamma, beta, mean, variance = (
        np.asarray(each, np.float64) for each in model.get_layer("bn").get_weights()
    )
    (kernel,) = model.get_layer("folded").get_weights()
    factor = result.written_factors().by_point()[point]
    slope = gamma / np.sqrt(variance + model.get_layer("bn").epsilon)

    assert after.weights_before[point] == sketch_of(kernel)
    assert after.biases_before[point].n == 0
    assert after.weights_after[point].n == kernel.size
    folded = kernel * slope / factor
    assert after.weights_after[point].maximum == pytest.approx(folded.max(), rel=1e-5)
    assert after.weights_after[point].minimum == pytest.approx(folded.min(), rel=1e-5)
    bias = (beta - mean * slope) / factor
    assert after.biases_after[point].n == 5
    assert after.biases_after[point].maximum == pytest.approx(bias.max(), rel=1e-5)
    kernel, bias = model.get_layer("biased").get_weights()
    assert after.weights_before["biased"] == sketch_of(kernel)
    assert after.biases_before["biased"] == sketch_of(bias)


def test_weights_of_an_earlier_version_are_shown_as_they_were_counted(
    finished: tuple[Run, keras.Model], tmp_path: Path
) -> None:
    result, _ = finished
    after = AfterSketches.load(result.folder.sketches_path)
    tree = json.loads(result.folder.sketches_path.read_text())
    old = {
        name: part for name, part in tree.items() if not name.startswith("biases") and name != "content_hash"
    }
    (tmp_path / "old.json").write_text(json.dumps(old))

    found = AfterSketches.load(tmp_path / "old.json")

    assert (found.weights_before, found.weights_after) == (after.weights_before, after.weights_after)
    assert (found.biases_before, found.biases_after) == ({}, {})


def test_layers_before_and_behind_an_add_are_one_group(finished: tuple[Run, keras.Model]) -> None:
    result, _ = finished
    data = report_data(result)
    factors = result.written_factors().by_point()
    html = page_of(result)

    (group,) = data.groups
    assert len(group) == 3
    assert len({factors[name] for name in group}) == 1
    assert "behind the merge" in html
    assert 'id="merges"' in html


def test_the_page_says_what_it_is_of_and_links_to_files_that_are_there(
    finished: tuple[Run, keras.Model],
) -> None:
    result, _ = finished
    html = page_of(result)
    versions = result.folder.manifest()["versions"]
    links = re.findall(r'href="(\.\./[^"]+)"', html)

    assert re.search(r"<title>[^<]* on x\.npz</title>", html)
    assert f"<dd>x.npz, {N_SAMPLES} samples</dd>" in html
    assert f"TensorFlow {versions['tensorflow']}, Keras {versions['keras']}" in html
    assert {Path(link).name for link in links} >= {"factors.json", "certificate.json", "statistics.json"}
    assert all((result.folder.report_path / unquote(link)).is_file() for link in links)
    for stage in ("record", "factors", "normalize", "certify"):
        assert f">{stage}</th>" in html
    assert re.search(r"<dt>date</dt><dd>20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC</dd>", html)


def test_the_job_file_of_the_page_makes_the_run_again(
    finished: tuple[Run, keras.Model], tmp_path: Path
) -> None:
    result, _ = finished
    data = with_origin(report_data(result), result, tmp_path)
    (tmp_path / "job.toml").write_text(data.downloads["job.toml"], encoding="utf-8")
    settings = load_job(tmp_path / "job.toml", overrides={"output": str(result.folder.path)})

    assert data.command == "actisketch run job.toml --output again"
    assert settings == result.settings
    assert "output" not in tomllib.loads(data.downloads["job.toml"])
    assert data.downloads["factors.csv"] == result.export("csv")


def test_what_came_from_python_has_a_call_instead_of_a_command(
    finished: tuple[Run, keras.Model], tmp_path: Path
) -> None:
    result, _ = finished
    settings = result.settings
    result = open_run(result.folder.path)
    result.settings = settings.model_copy(update={"data": settings.data.model_copy(update={"path": None})})

    assert "run(model, samples" in with_origin(report_data(result), result, tmp_path).command


def test_drawn_again_from_the_same_run_the_page_is_the_same(
    finished: tuple[Run, keras.Model], tmp_path: Path
) -> None:
    result, _ = finished
    for name in ("a", "b"):
        draw_report(open_run(result.folder.path), tmp_path / name)

    pages = [(tmp_path / name / "index.html").read_bytes() for name in ("a", "b")]
    assert pages[0] == pages[1]
    # From elsewhere, the links lead back to the run.
    link = re.findall(r'href="([^"]+factors\.json)"', pages[0].decode())[0]
    assert (tmp_path / "a" / unquote(link)).resolve() == result.folder.factors_path.resolve()


def test_the_page_is_drawn_again_with_settings_that_change_no_number(
    finished: tuple[Run, keras.Model], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(finished[0].folder.path, tmp_path / "run"))
    settings = finished[0].settings.model_dump(exclude={"output"})
    settings["record"] |= {"memory_limit": "7 GB"}
    settings["model"] |= {"safe_mode": False}
    again = run(settings["model"]["path"], settings["data"]["path"], output=folder, settings=settings)

    table = dict(re.findall(r'<tr><th scope="row">([a-z_.]+)</th><td>([^<]*)</td>', page_of(again)))
    assert (table["record.memory_limit"], table["model.safe_mode"]) == ("7000000000", "false")
    assert "output" not in table
    assert again.status().has_report
    shutil.move(folder, tmp_path / "moved")
    assert open_run(tmp_path / "moved").status().has_report


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_noise_of_the_page_is_that_of_the_levels_which_the_settings_ask_for(
    finished: tuple[Run, keras.Model], tmp_path: Path, *, symmetric: bool
) -> None:
    folder = Path(shutil.copytree(finished[0].folder.path, tmp_path / "run"))
    settings = finished[0].settings.model_dump(mode="json")
    settings["factors"] |= {"symmetric": symmetric, "bits": 7}
    RunFolder(folder).update_manifest({"settings": settings})
    result = open_run(folder)
    noise = {row.point: row for row in result.sensitivity(bits=7, symmetric=symmetric)}

    for point in report_data(result, with_noise=True).points:
        assert point.noise == {name: each.sqnr for name, each in noise[point.name].methods.items()}


def test_a_file_that_is_gone_is_not_linked(finished: tuple[Run, keras.Model], tmp_path: Path) -> None:
    result, _ = finished
    data = report_data(result)

    linked = with_origin(replace(data, certificate=None), result, tmp_path).links

    assert "run.log" not in linked
    assert "factors.json" in linked
