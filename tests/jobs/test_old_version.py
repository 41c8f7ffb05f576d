"""A run that version 0.1.0 wrote is opened, resumed, verified and asked by this one: the bytes are the same."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from actisketch.pipeline import Run, open_run, run
from actisketch.storage import Cache

OLD = Path(__file__).parent / "version_0_1"
POINTS = {"conv": "conv", "second": "relu", "classes": "classes"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the finished run, as if it had been made with the packages that are installed."""
    folder = tmp_path / "run"
    shutil.copytree(OLD / "finished", folder)
    manifest = json.loads((folder / "run.json").read_text())
    manifest["versions"] = {
        name: version if name == "python" else importlib.metadata.version(name)
        for name, version in manifest["versions"].items()
    }
    (folder / "run.json").write_text(json.dumps(manifest))
    return folder


def again(folder: Path) -> Run:
    model = keras.saving.load_model(OLD / "network.keras")
    settings = {"record": {"block_samples": 16}, "report": {"enabled": False}}
    with np.load(OLD / "samples.npz") as archive:
        return run(model, archive["x"], output=str(folder), batch_size=8, settings=settings)


def cache_files(folder: Path) -> dict[str, bytes]:
    cache = folder / "cache"
    return {
        str(path.relative_to(cache)): path.read_bytes()
        for path in cache.rglob("*")
        if path.is_file() and path.name != "lock"
    }


def test_it_answers_as_numpy_does(folder: Path) -> None:
    old, model = open_run(folder), keras.saving.load_model(OLD / "network.keras")
    with np.load(OLD / "samples.npz") as archive:
        samples = archive["x"]
    for point, layer in POINTS.items():
        oracle = keras.Model(model.inputs[0], model.get_layer(layer).output)(samples)

        np.testing.assert_allclose(old.activations(point)[:], oracle, rtol=1e-5, atol=1e-6)
        exact = old.percentile(point, 99.0, exact=True, nonzero=False).value
        assert exact == pytest.approx(np.percentile(oracle, 99.0), rel=1e-5)


def test_its_cache_is_sound_and_reloaded(folder: Path) -> None:
    before = cache_files(folder)
    assert Cache.open(str(folder / "cache")).verify().is_sound

    result = again(folder)

    assert cache_files(folder) == before
    assert result.certificate()["passed"]
    assert result.written_factors().by_point() == json.loads((OLD / "factors.json").read_text())


@pytest.mark.parametrize("missing", [[3], [0, 2], [0, 1, 2, 3]])
def test_blocks_that_it_had_not_come_to_are_recorded_to_the_same_bytes(
    missing: list[int], folder: Path
) -> None:
    before = cache_files(folder)
    for index in missing:
        (record,) = (folder / "cache" / ".actisketch" / "commits").glob(f"{index:08}.*")
        record.unlink()
        for chunk in (folder / "cache").glob(f"*/c.{index}.*"):
            chunk.unlink()

    again(folder)

    assert cache_files(folder) == before
