"""Factors for SNN toolbox itself: by the names that it gives, as exact as asked for."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from actisketch.pipeline import Run, run
from actisketch.pipeline.exporters import Exported
from actisketch.storage.errors import InputError

from .parsed_networks import NETWORKS

# Made by SNN toolbox 0.6.0 with Keras 2.15, from the same code.
GOLDEN = json.loads((Path(__file__).parent / "golden" / "parsed_names.json").read_text())
# Behind which layer of ours the toolbox's layers with weights end, in their order.
ENDS = {
    "chain": ["spike", "second", "hidden", "classes"],
    "normed": ["relu_a", "relu_b", "classes"],
    "residual": ["stem", "branch", "spike", "head", "classes"],
    "branches": ["stem", "left", "right", "head", "classes"],
}


def recorded(model: keras.Model, folder: Path, **settings: Any) -> tuple[Run, np.ndarray]:
    x = np.random.default_rng(3).random((64, *model.input_shape[1:]), dtype=np.float32)
    chosen = {"normalize": {"enabled": False}, "report": {"enabled": False}, **settings}
    return run(model, x, output=str(folder), settings=chosen, batch_size=16), x


def nonzero_percentile(model: keras.Model, layer: str, x: np.ndarray, q: float) -> float:
    values = np.asarray(keras.Model(model.inputs[0], model.get_layer(layer).output)(x))
    return float(np.percentile(values[values != 0], q))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_parsed_network_finds_a_factor_under_each_of_its_names(name: str, tmp_path: Path) -> None:
    model = NETWORKS[name](keras.layers, keras.models)
    finished, x = recorded(model, tmp_path / "r")
    found = json.loads(finished.export("toolbox-parsed", factors=finished.factors(exact=True)))

    assert list(found) == [GOLDEN[name]["input"], *GOLDEN[name]["weighted"]]
    for ours, theirs in zip(ENDS[name][:-1], GOLDEN[name]["weighted"], strict=False):
        assert found[theirs] == pytest.approx(nonzero_percentile(model, ours, x, 99.9), rel=1e-5)
    assert found[GOLDEN[name]["weighted"][-1]] == 1  # softmax


def test_the_input_keeps_its_name(tmp_path: Path) -> None:
    x = keras.Input((6,), name="input_1")
    model = keras.Model(x, keras.layers.Dense(3, activation="relu", name="dense")(x))
    finished, _ = recorded(model, tmp_path / "r")

    assert list(json.loads(finished.export("toolbox"))) == ["input_1", "dense"]


def test_a_neuron_that_was_not_recorded_is_named(tmp_path: Path) -> None:
    model = NETWORKS["residual"](keras.layers, keras.models)
    layers = ["stem", "branch", "head", "classes"]
    finished, _ = recorded(model, tmp_path / "r", record={"points": layers})

    with pytest.raises(InputError, match=r"asks for a factor of '3Conv2D_8x8x4'.*neurons"):
        finished.export("toolbox-parsed")


def test_layers_that_the_parser_leaves_out_are_named(tmp_path: Path) -> None:
    x = keras.Input((8, 2))
    y = keras.layers.Cropping1D(1, name="crop")(keras.layers.Conv1D(3, 3, activation="relu", name="conv")(x))
    inner = keras.Sequential([keras.layers.Dense(4, activation="relu")], name="inner")
    finished, _ = recorded(keras.Model(x, inner(y)), tmp_path / "r")

    with pytest.raises(InputError, match="leaves out 'crop', 'inner'"):
        finished.export("toolbox-parsed")


def test_a_network_that_is_normalised_already_is_warned_of(tmp_path: Path) -> None:
    model = NETWORKS["chain"](keras.layers, keras.models)
    first, x = recorded(model, tmp_path / "first", normalize={"enabled": True})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first.export("toolbox")
    normalised = keras.saving.load_model(first.folder.network_path)
    again = run(
        normalised,
        x,
        output=str(tmp_path / "again"),
        settings={"normalize": {"enabled": False}},
        batch_size=16,
    )

    with pytest.warns(RuntimeWarning, match="normalised before"):
        again.export("toolbox")


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(
    ("scale", "bias", "is_live"), [(1e-10, 0.0, False), (0.0, 0.0, False), (0.001, -1.0, True)]
)
def test_a_branch_that_meets_an_add_has_the_factor_that_it_has_without(
    tmp_path: Path, scale: float, bias: float, is_live: bool, exact: bool
) -> None:
    keras.utils.set_random_seed(7)
    model = NETWORKS["residual"](keras.layers, keras.models)
    stem, branch = model.get_layer("stem"), model.get_layer("branch")
    stem.kernel.assign(stem.kernel * 20)
    branch.kernel.assign(branch.kernel * scale)
    branch.bias.assign(branch.bias + bias)
    finished, x = recorded(model, tmp_path / "r")
    factors = finished.factors(exact=exact)
    found = json.loads(finished.export("toolbox-parsed", factors=factors))
    name = GOLDEN["residual"]["weighted"][ENDS["residual"].index("branch")]
    # Negative at the percentile: the larger of both tails counts.
    expected = -nonzero_percentile(model, "branch", x, 0.1) if is_live else 1.0

    assert {p.name: p.rule for p in factors.points}["branch"] == "tied"
    assert factors.by_point()["branch"] == factors.by_point()["stem"] != expected
    assert found[name] == pytest.approx(expected, rel=1e-5 if exact else 1e-2)


def test_a_factor_that_loses_in_its_group_is_told_and_the_parsed_network_has_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = NETWORKS["residual"](keras.layers, keras.models)
    overrides = {"branch": {"factor": 0.0625}}
    caplog.set_level(logging.WARNING)
    finished, _ = recorded(model, tmp_path / "r", factors={"overrides": overrides})
    name = GOLDEN["residual"]["weighted"][ENDS["residual"].index("branch")]
    told = "factors.overrides has for 'branch' is not used: it shares its scale"
    parsed = finished.exported("toolbox-parsed")

    assert told in caplog.text
    assert json.loads(str(parsed.content))[name] == 0.0625
    assert parsed.warnings == ()
    for kind in ("toolbox", "json", "csv"):
        (warning,) = finished.exported(kind).warnings
        assert told in warning
    # These factors come without the settings that fixed one.
    other = finished.factors(overrides={"stem": {"factor": 0.125}})
    (warning,) = finished.exported("toolbox-parsed", factors=other).warnings
    assert "'stem'" in warning


def test_the_factor_of_a_recorded_input_is_the_input_factor(tmp_path: Path) -> None:
    class Square(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
        def call(self, x: Any) -> Any:
            return x * x

    x = keras.Input((6,), name="image")
    model = keras.Model(x, keras.layers.Dense(3, name="dense")(Square(name="square")(x)))
    finished, _ = recorded(model, tmp_path / "r", record={"points": ["image", "dense"]})
    found = json.loads(finished.export("toolbox"))

    assert finished.factors().by_point()["image"] != 1.0
    assert list(found) == ["image", "dense"]
    assert found["image"] == 1.0


def test_ranges_that_are_no_percentile_are_found_by_the_toolbox_under_a_name_that_is_told(
    tmp_path: Path,
) -> None:
    finished, _ = recorded(NETWORKS["chain"](keras.layers, keras.models), tmp_path / "r")
    for kind in ("toolbox", "toolbox-parsed"):
        by_max = finished.exported(kind, method="max")
        by_percentile = finished.exported(kind, percentile=100.0)

        assert (by_max.file_name, by_max.content) == ("100.json", by_percentile.content)
        assert by_max.warnings == by_percentile.warnings == finished.exported(kind).warnings == ()
        for method in ("mse", "entropy"):
            made = finished.exported(kind, method=method)
            assert made.file_name == "99.9.json"
            assert len(made.warnings) == 1
            assert f"by {method} in 99.9.json where its settings have percentile = 99.9" in made.warnings[0]


def test_the_file_of_other_factors_is_named_by_what_chose_them(tmp_path: Path) -> None:
    finished, _ = recorded(NETWORKS["chain"](keras.layers, keras.models), tmp_path / "r")

    def exported(**changes: Any) -> Exported:
        return finished.exported("toolbox", factors=finished.factors(**changes))

    assert exported().file_name == "99.9.json"
    assert exported(percentile=99.0).file_name == "99.json"
    assert exported(percentile=99.0, schedule=0.5).file_name == "99.json"
    assert exported(method="max").file_name == "100.json"
    assert "by mse in 99.9.json" in exported(method="mse").warnings[0]
