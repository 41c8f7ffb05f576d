"""``actisketch sweep``, patterns of points, and ``normalize --percentile``: from one percentile to another."""

import json

import numpy as np
import pytest

from actisketch.pipeline import open_run, sweep
from actisketch.storage.errors import InputError

from ..service.conftest import POINTS, make_run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("sweep") / "run")


def test_the_saturation_contains_the_share_of_the_values_above_the_factor(made):
    for row in sweep(made.folder, (50, 99, 99.9, 100)):
        values = made.all_values(row.point)

        assert row.factor == pytest.approx(np.percentile(values[values != 0], row.q), rel=2e-2)
        assert row.saturation.lo <= np.mean(values > row.factor) <= row.saturation.hi
        assert row.saturation.hi - row.saturation.lo < 0.01


def test_factors_of_channels_have_the_saturation_of_their_channels(tmp_path):
    changes = {"sketch": {"per_channel": True}, "factors": {"per_channel": True}}
    made = make_run(tmp_path / "run", changes=changes)
    for row in sweep(made.folder, [75]):
        values = made.all_values(row.point)

        assert len(row.factor) == values.shape[-1]
        assert row.saturation.lo <= np.mean(values > np.asarray(row.factor)) <= row.saturation.hi


def test_a_line_for_each_percentile_or_for_each_point(call, made):
    lines = call("sweep", made.folder).out.splitlines()
    of_points = call("sweep", made.folder, "--point", "co*", "-q", 99, "-q", 100).out.splitlines()
    tree = json.loads(call("sweep", made.folder, "--json").out)

    assert [line.split()[0] for line in lines] == ["q", "99", "99.9", "99.99", "100"]
    assert lines[-1].split()[2:4] == ["0", "%"]
    assert [line.split()[:2] for line in of_points[1:]] == [["conv", "99"], ["conv", "100"]]
    assert len(tree) == 4 * len(POINTS)


def test_patterns_choose_points(call, made):
    rows = json.loads(call("percentiles", made.folder, "--quantile", 9, "--point", "c*v", "--json").out)
    nothing = call("percentiles", made.folder, "--point", "d*")

    assert [row["point"] for row in rows] == ["conv"]
    assert nothing.code == 2
    assert "no point 'd*' was recorded" in nothing.err


def test_what_is_asked_twice_is_answered_once(call, made):
    flags = ("-q", 99.9, "-q", 99.9, "-q", 99.99999, "--point", "co*", "--point", "conv")
    asked = {verb: call(verb, made.folder, *flags).out.splitlines() for verb in ("percentiles", "sweep")}

    for lines in asked.values():
        assert [line.split()[:2] for line in lines[1:]] == [["conv", "99.9"], ["conv", "99.99999"]]


@pytest.mark.parametrize("points", ["co*", ["co*"], ("conv", "co*"), iter(["conv"])])
def test_one_pattern_or_several_are_asked_in_python(made, points):
    rows = open_run(made.folder).percentiles(50, points=points)

    assert [row.point for row in rows] == ["conv"]
    assert [row.point for row in sweep(made.folder, 50, points="co*")] == ["conv"]


def test_the_text_of_a_number_is_no_percentile(made):
    for ask in (open_run(made.folder).percentiles, lambda qs: sweep(made.folder, qs)):
        with pytest.raises(InputError, match="percentile '99' is refused"):
            ask("99")
    with pytest.raises(InputError, match="points = 3 is refused"):
        open_run(made.folder).percentiles(50, points=3)


def test_one_percentile_or_those_that_are_usual_are_asked_in_python(made):
    run = open_run(made.folder)

    assert [row.q for row in run.percentiles(99.9, points=["conv"])] == [99.9]
    assert [row.q for row in run.percentiles(points=["c*"])] == [50.0, 99.0, 99.9, 100.0]
    with pytest.raises(InputError, match=r"no point 'c\*'"):
        run.percentile("c*", 50)


def test_the_old_name_of_the_factors_is_deprecated(made):
    run = open_run(made.folder)

    with pytest.warns(DeprecationWarning, match="factors"):
        old = run.saved_factors()
    assert old == run.factors()


def test_a_network_is_normalised_by_another_percentile_in_one_call(call, small_run):
    before = (small_run / "normalized.keras").read_bytes()
    answer = call("normalize", small_run, "--percentile", 99)
    side = small_run / "with-p99"
    factors = {p["name"]: p for p in json.loads((side / "factors.json").read_text())["points"]}
    expected = open_run(small_run).factors(percentile=99).by_point()

    assert answer.code == 0, answer.err
    assert {name: p["factor"] for name, p in factors.items()} == expected
    assert json.loads((side / "certificate.json").read_text())["passed"] is True
    assert (small_run / "normalized.keras").read_bytes() == before
    assert [line.split()[0] for line in answer.out.splitlines()[:4]] == ["point", *expected]
    assert "accuracy: " in answer.out
    assert "certificate: passed" in answer.out


def test_normalize_tells_of_damage_that_it_met(call, small_run):
    chunk = small_run / "cache" / "first" / "c.2.0"
    chunk.write_bytes(b"\xff" + chunk.read_bytes()[1:])
    answer = call("normalize", small_run, "--percentile", 98)

    assert answer.code == 0, answer.err
    assert "recorded activations cannot be read, so the original ran for 16 of 53 samples" in answer.out
    assert "c.2.0" in answer.out


def test_two_choices_of_factors_are_refused(call, small_run):
    answer = call("normalize", small_run, "--percentile", 99, "--factors", small_run / "factors.json")

    assert answer.code == 2
    assert "two choices" in answer.err


def test_init_warns_of_what_is_not_there(call, small_files, tmp_path):
    lacking = call("init", tmp_path / "a.toml", "--model", "nothere.keras", "--data", tmp_path / "no*.npz")
    whole = call("init", tmp_path / "b.toml", "--model", small_files["model"], "--data", small_files["data"])
    listed = call("init", tmp_path / "c.toml", "--data", small_files["folder"] / "*.npz")

    assert lacking.code == whole.code == listed.code == 0
    assert "warning: model.path = 'nothere.keras' is not there yet" in lacking.err
    assert "warning: data.path = " in lacking.err
    assert "warning" not in whole.err + listed.err


def test_init_fills_in_what_is_named(call, small_files):
    path = small_files["folder"] / "new.toml"
    written = call("init", path, "--model", small_files["model"], "--data", small_files["data"])
    planned = call("plan", path)

    assert "set " not in written.out
    assert 'path = "small.keras"' in path.read_text()
    assert planned.code == 0, planned.err
    assert "53 samples" in planned.out


def test_init_keeps_the_url_of_samples(call, tmp_path):
    answer = call("init", tmp_path / "new.toml", "--data", "s3://bucket/x.zarr")

    assert 'path = "s3://bucket/x.zarr"' in (tmp_path / "new.toml").read_text()
    assert "warning" not in answer.err
