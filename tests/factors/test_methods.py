"""The method of choosing ranges as a setting of runs: factors, keys, ratios of signal to noise."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from actisketch.pipeline import open_run, run
from actisketch.pipeline.cli import commands
from actisketch.pipeline.factors.factors_file import Factors
from actisketch.pipeline.factors.ties import Ties
from actisketch.pipeline.folder.folder import content_key
from actisketch.pipeline.settings.job_settings import JobSettings
from actisketch.pipeline.stages.stage_keys import factors_key
from actisketch.storage.errors import FormatError, InputError


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_parts):
    """A run by the method "mse", and what it recorded."""
    import keras

    make_model, make_data = small_parts
    model, x = make_model(keras), make_data()
    settings = {"factors": {"method": "mse", "bits": 5}}
    found = run(
        model, x, output=str(tmp_path_factory.mktemp("methods") / "r"), settings=settings, batch_size=16
    )
    return found, {name: np.asarray(found.activations(name)[:]) for name in found.points}


def call(*arguments):
    return CliRunner().invoke(commands, [str(each) for each in arguments])


def noise(x, hi, bits):
    """The mean squared error of values that are not negative."""
    scale = hi / (2**bits - 1)
    x = x.astype(np.float64)
    return np.mean((x - np.clip(np.rint(x / scale), 0, 2**bits - 1) * scale) ** 2)


def test_a_run_is_normalised_by_the_clips_of_its_method(finished):
    result, recorded = finished
    factors = result.factors()

    for p in factors.points[:2]:
        x = recorded[p.name]
        brute = min(noise(x, x.max() * c, 5) for c in np.geomspace(0.1, 1, 400))
        assert p.rule == "mse"
        assert p.percentile is None
        assert p.lo <= p.factor == p.value <= p.hi
        assert noise(x, p.factor, 5) <= brute * 1.001
    assert factors.points[-1].factor == 1
    assert result.certificate()["passed"]
    assert Factors.from_dict(json.loads(json.dumps(factors.to_dict()))) == factors


def test_its_report_names_the_clip_and_draws_the_noise(finished):
    page = (finished[0].folder.report_path / "index.html").read_text()

    assert "mse clip" in page
    assert "rounding to 5 bits" in page


def test_a_finished_run_answers_by_every_method(finished):
    result, recorded = finished
    x = recorded["first"]

    assert result.factors(method="max").by_point()["first"] == float(x.max())
    assert result.factors(method="entropy").points[0].rule == "entropy"
    asked = result.factors(percentile=95.0).points[0]
    assert (asked.rule, asked.percentile) == ("percentile", 95.0)
    assert asked.lo <= np.percentile(x[x > 0], 95.0) <= asked.hi


def test_a_percentile_of_one_point_stays_a_percentile(finished):
    overrides = {"second": {"percentile": 90.0}}
    first, second, _ = finished[0].factors(method="mse", overrides=overrides).points

    assert (first.rule, second.rule, second.percentile) == ("mse", "percentile", 90.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "mean"}, "factors.method"),
        ({"method": "mse", "bits": 1}, "factors.bits"),
        ({"method": "mse", "exact": True}, "leave out exact"),
        ({"method": "entropy", "bits": 11}, "at most 10"),
        ({"method": "max", "schedule": 0.1}, "schedule is of percentiles"),
    ],
)
def test_what_a_method_cannot_do_is_refused(finished, changes, words):
    with pytest.raises(InputError, match=words):
        finished[0].factors(**changes)


def test_keys_of_percentiles_are_those_of_earlier_versions():
    settings = JobSettings()
    earlier = {
        "percentile": 99.9,
        "nonzero": True,
        "schedule": 0.0,
        "exact": False,
        "accept_rounding": False,
        "per_channel": False,
        "groups": "largest",
        "floor": 1e-6,
        "overrides": {},
    }

    assert factors_key("recorded", settings, Ties()) == content_key(
        "recorded", earlier, 1.0, Ties().to_dict()
    )


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        ({"bits": 4}, {"symmetric": True}, False),
        ({"method": "max"}, {}, True),
        ({"method": "max"}, {"method": "max", "bits": 4}, False),
        ({"method": "mse"}, {"method": "mse", "bits": 4}, True),
        ({"method": "mse"}, {"method": "mse", "symmetric": True}, True),
        ({"method": "entropy"}, {"method": "entropy", "symmetric": True}, False),
    ],
)
def test_keys_differ_where_factors_may(one, other, differ):
    first, second = (
        factors_key("recorded", JobSettings.model_validate({"factors": each}), Ties())
        for each in (one, other)
    )

    assert (first != second) == differ


def test_only_files_with_a_new_rule_need_a_new_program(finished):
    result, _ = finished

    assert result.factors(percentile=99.0).to_dict()["actisketch_factors"] == 1
    tree = result.factors(method="mse").to_dict()
    assert tree["actisketch_factors"] == 2
    with pytest.raises(FormatError, match="update actisketch"):
        Factors.from_dict({**tree, "actisketch_factors": 3})


def test_sensitivity_is_the_ratio_of_the_values_themselves_worst_first(finished):
    result, recorded = finished
    rows = result.sensitivity(bits=6)

    ratios = [row.methods["mse"].sqnr for row in rows]
    assert ratios == sorted(ratios)  # by the method of the run
    assert {row.point for row in rows} == set(recorded)
    for row in rows:
        assert list(row.methods) == ["percentile", "max", "mse", "entropy"]
        assert row.methods["mse"].sqnr >= max(each.sqnr_lo for each in row.methods.values()) - 0.01
        for each in row.methods.values():
            x = recorded[row.point].astype(np.float64)
            true = 10 * np.log10(np.mean(x**2) / noise(x, each.hi, 6))
            assert each.lo == 0
            assert each.sqnr_lo - 1e-6 <= true <= each.sqnr_hi + 1e-6


def test_the_verb_prints_the_ratios_of_every_layer_and_needs_no_model(finished):
    result, _ = finished
    done = call("sensitivity", result.folder.path, "--bits", "6", "--symmetric")
    rows = json.loads(call("sensitivity", result.folder.path, "--bits", "6", "--json").stdout)

    assert done.exit_code == 0, done.output
    assert all(word in done.stdout for word in ("first", "second", "classes", "entropy", "best"))
    assert [row["point"] for row in rows] == [
        row.point for row in open_run(result.folder.path).sensitivity(bits=6)
    ]
    assert isinstance(call("sensitivity", result.folder.path, "--bits", "17").exception, InputError)


def test_flags_choose_a_method(finished, tmp_path):
    result, _ = finished
    path = tmp_path / "clips.json"
    done = call(
        "factors", result.folder.path, "--method", "mse", "--bits", "4", "--symmetric", "--output", path
    )

    assert done.exit_code == 0, done.output
    assert Factors.load(path) == result.factors(method="mse", bits=4, symmetric=True)


@pytest.mark.parametrize("method", ["mse", "entropy", "max"])
def test_a_merged_group_has_the_range_of_all_its_values(method):
    from actisketch.pipeline.factors.compute import compute_factors
    from actisketch.pipeline.factors.ranges import chosen_range
    from actisketch.pipeline.settings.job_settings import FactorSettings
    from actisketch.pipeline.sketch import PointSketch, Sketch, SketchSpec
    from actisketch.storage import PointSpec

    rng = np.random.default_rng(29)
    arrays = {
        name: np.abs(rng.normal(size=(300, 4)) * s).astype(np.float32) for name, s in (("a", 1), ("b", 3))
    }
    sketches, together = {}, Sketch()
    for name, array in arrays.items():
        sketches[name] = PointSketch.empty(SketchSpec())
        sketches[name].update(array)
        together.update(array)
    settings = FactorSettings(method=method, groups="merged")
    points = [PointSpec(name=name, shape=(4,)) for name in arrays]
    found = compute_factors(points, sketches, settings, ties=Ties(layer={"a": -1, "b": -1})).by_point()

    assert found["a"] == found["b"] == chosen_range(together, settings).hi
