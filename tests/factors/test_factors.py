"""Scale factors: percentiles of what was recorded, with the exceptions that keep them usable."""

import json

import numpy as np
import pytest

from actisketch.pipeline.exporters.as_toolbox import toolbox_factors
from actisketch.pipeline.factors.compute import compute_factors, scheduled_percentile
from actisketch.pipeline.factors.factors_file import Factors, PointFactor
from actisketch.pipeline.factors.ties import Ties
from actisketch.pipeline.settings.job_settings import FactorSettings, OverrideSettings
from actisketch.pipeline.sketch import PointSketch, Sketch, SketchSpec
from actisketch.storage import PointSpec
from actisketch.storage.errors import FormatError, InputError


def sketched(values, *, per_channel=False):
    values = np.asarray(values, np.float32)
    sketch = PointSketch.empty(
        SketchSpec(per_channel=per_channel), n_channels=values.shape[-1] if per_channel else None
    )
    sketch.update(values)
    return sketch


def factors_of(arrays, settings=None, *, pinned=(), per_channel=False):
    points = [PointSpec(name=n, shape=a.shape[1:], meta={"pinned": n in pinned}) for n, a in arrays.items()]
    sketches = {name: sketched(array, per_channel=per_channel) for name, array in arrays.items()}
    return compute_factors(points, sketches, settings or FactorSettings())


RNG = np.random.default_rng(11)
RELU = np.maximum(RNG.normal(size=(400, 5)), 0).astype(np.float32)


def test_the_factor_is_the_percentile_of_the_values_that_are_not_zero():
    (point,) = factors_of({"a": RELU}, FactorSettings(percentile=95.0)).points
    exact = np.percentile(RELU[RELU > 0], 95.0)

    assert point.lo <= exact <= point.hi
    assert point.factor == pytest.approx(exact, rel=2**-10)
    assert point.rule == "percentile"


def test_percentile_100_is_the_maximum_exactly():
    (point,) = factors_of({"a": RELU}, FactorSettings(percentile=100.0)).points

    assert point.factor == float(RELU.max())


def test_all_values_counts_the_zeros_in():
    (nonzero,) = factors_of({"a": RELU}, FactorSettings(percentile=60.0)).points
    (both,) = factors_of({"a": RELU}, FactorSettings(percentile=60.0, nonzero=False)).points

    assert both.factor == pytest.approx(np.percentile(RELU, 60.0), rel=2**-10)
    assert both.factor < nonzero.factor


def test_a_pinned_point_keeps_factor_one_and_still_tells_its_percentile():
    (point,) = factors_of({"classes": RELU}, pinned=["classes"]).points

    assert (point.factor, point.rule) == (1.0, "pinned")
    assert point.value > 1


@pytest.mark.parametrize("array", [np.zeros((3, 2), np.float32), np.full((3, 2), 1e-9, np.float32)])
def test_a_dead_point_keeps_factor_one(array):
    (point,) = factors_of({"a": array}).points

    assert (point.factor, point.rule) == (1.0, "dead")


def test_a_linear_point_whose_percentile_is_negative_gets_the_size_of_its_values():
    array = -np.abs(RNG.normal(10, 1, size=(100, 3))).astype(np.float32)
    (point,) = factors_of({"a": array}, FactorSettings(percentile=99.0)).points

    assert point.rule == "magnitude"
    assert point.factor == pytest.approx(-np.percentile(array, 1.0), rel=2**-10)


def test_each_channel_has_its_own_factor_and_a_dead_one_gets_the_layers():
    array = RELU * np.array([1, 2, 0, 8, 16], np.float32)
    settings = FactorSettings(percentile=100.0, per_channel=True)
    (point,) = factors_of({"a": array}, settings, per_channel=True).points
    expected = array.max(axis=0)
    expected[2] = array.max()

    assert point.factor == pytest.approx(expected.tolist(), rel=2**-6)
    assert point.n_dead_channels == 1


def test_the_schedule_takes_percent_points_off_with_depth_and_does_not_truncate():
    settings = FactorSettings(percentile=99.9, schedule=0.02)
    factors = factors_of({"a": RELU, "b": RELU, "c": RELU}, settings)

    assert [point.percentile for point in factors.points] == [99.9, 99.88, 99.86]


def test_a_schedule_that_leaves_nothing_is_refused():
    with pytest.raises(InputError, match="smaller schedule"):
        scheduled_percentile(50.0, 3, schedule=20.0)


TIES = Ties(layer={"a": 4, "b": 4, "c": 7, "classes": 0}, fixed={0: 1.0})


def tied_factors(arrays, settings):
    points = [
        PointSpec(name=n, shape=a.shape[1:], meta={"pinned": n == "classes"}) for n, a in arrays.items()
    ]
    sketches = {name: sketched(array) for name, array in arrays.items()}
    return compute_factors(points, sketches, settings, ties=TIES)


def test_tied_points_share_the_largest_factor_and_others_keep_theirs():
    arrays = {"a": RELU, "b": RELU * 3, "c": RELU * 2, "classes": RELU}
    a, b, c, classes = tied_factors(arrays, FactorSettings(percentile=100.0)).points

    assert a.factor == b.factor == float((RELU * 3).max())
    assert (a.rule, b.rule, c.rule, classes.rule) == ("tied", "percentile", "percentile", "pinned")
    assert c.factor == float((RELU * 2).max())
    assert classes.factor == 1.0


def test_a_dead_point_of_a_group_claims_nothing_and_takes_the_scale_of_the_others():
    arrays = {"a": np.zeros_like(RELU), "b": RELU * 0.01, "c": RELU}
    a, b, _ = tied_factors(arrays, FactorSettings(percentile=100.0)).points

    assert a.factor == b.factor == pytest.approx(float(RELU.max()) * 0.01)


def test_tied_points_may_share_the_percentile_of_all_their_values():
    arrays = {"a": RELU, "b": RELU * 3, "c": RELU * 2}
    a, b, c = tied_factors(arrays, FactorSettings(percentile=90.0, groups="merged")).points
    together = np.concatenate([RELU, RELU * 3])

    assert a.factor == b.factor == pytest.approx(np.percentile(together[together > 0], 90.0), rel=2**-10)
    assert c.factor == pytest.approx(np.percentile((RELU * 2)[RELU > 0], 90.0), rel=2**-10)


@pytest.mark.parametrize("widths", [(5, 5), (5, 4), (1, 7), (5, 4, 3)])
def test_points_of_other_numbers_of_channels_may_share_the_percentile_of_all_their_values(widths):
    arrays = {
        name: np.maximum(RNG.normal(size=(300, n)), 0).astype(np.float32) * (i + 1)
        for i, (name, n) in enumerate(zip("abc", widths, strict=False))
    }
    points = [PointSpec(name=n, shape=a.shape[1:]) for n, a in arrays.items()]
    sketches = {name: sketched(array, per_channel=True) for name, array in arrays.items()}
    settings = FactorSettings(percentile=90.0, groups="merged")
    ties = Ties(layer=dict.fromkeys(arrays, 4))
    found = compute_factors(points, sketches, settings, ties=ties).by_point()
    together = np.concatenate([array.reshape(-1) for array in arrays.values()])

    (factor,) = set(found.values())
    assert factor == pytest.approx(np.percentile(together[together > 0], 90.0), rel=2**-10)


def test_a_group_with_a_fixed_scale_is_not_merged(monkeypatch):
    merged = []
    merge = Sketch.merge
    monkeypatch.setattr(Sketch, "merge", lambda self, other: merged.append(1) or merge(self, other))
    points = [PointSpec(name=name, shape=(5,)) for name in "ab"]
    sketches = {name: sketched(RELU) for name in "ab"}
    ties = Ties(layer={"a": 0, "b": 0}, fixed={0: 1.0})
    found = compute_factors(points, sketches, FactorSettings(groups="merged"), ties=ties).by_point()

    assert found == {"a": 1.0, "b": 1.0}
    assert merged == []


def test_a_factor_that_the_user_fixed_holds_for_its_group():
    settings = FactorSettings(percentile=90.0, groups="merged", overrides={"b": OverrideSettings(factor=9.0)})
    a, b, _ = tied_factors({"a": RELU, "b": RELU, "c": RELU}, settings).points

    assert (a.factor, b.factor) == (9.0, 9.0)


def test_overrides_go_by_name_or_pattern_and_the_first_that_matches_wins():
    overrides = {"fc1": OverrideSettings(factor=3.5), "fc*": OverrideSettings(percentile=50.0)}
    factors = factors_of({"conv": RELU, "fc1": RELU, "fc2": RELU}, FactorSettings(overrides=overrides))
    conv, fc1, fc2 = factors.points

    assert (conv.percentile, fc1.factor, fc1.rule, fc2.percentile) == (99.9, 3.5, "override", 50.0)


def test_an_override_of_no_point_is_refused_with_the_names_there_are():
    settings = FactorSettings(overrides={"cnv": OverrideSettings(factor=1.0)})

    with pytest.raises(InputError, match=r"'cnv'.*'conv'"):
        factors_of({"conv": RELU}, settings)


def test_factors_come_back_from_their_file_as_they_were(tmp_path):
    factors = factors_of({"a": RELU, "b": RELU * 2}, FactorSettings(per_channel=True), per_channel=True)
    path = tmp_path / "factors.json"
    path.write_text(json.dumps(factors.to_dict()))

    assert Factors.load(path) == factors


@pytest.mark.parametrize(
    "bad", [0.0, -1.0, float("nan"), float("inf"), [1.0, -2.0], "abc", "2.0", None, True, {}, [], [1.0, "x"]]
)
def test_a_file_with_an_impossible_factor_is_refused_and_the_point_named(tmp_path, bad):
    tree = Factors(points=(PointFactor(name="conv9", factor=1.0, rule="override"),), nonzero=True).to_dict()
    tree["points"][0]["factor"] = bad
    path = tmp_path / "f.json"
    path.write_text(json.dumps(tree))

    with pytest.raises(InputError, match="'conv9'"):
        Factors.load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "not a factors file"),
        ("{}", "not a factors file"),
        ('{"actisketch_factors": 99}', "update actisketch"),
        ('{"actisketch_factors": 1}', "damaged"),
        (
            '{"actisketch_factors": 1, "points": [], "nonzero": true, "input_factor": 1, "model": "abc"}',
            "damaged",
        ),
    ],
)
def test_something_else_is_refused_as_a_factors_file(tmp_path, text, message):
    path = tmp_path / "f.json"
    path.write_text(text)

    with pytest.raises(FormatError, match=message):
        Factors.load(path)


def toolbox(factors):
    return toolbox_factors(factors)


def test_the_toolbox_form_has_the_input_and_each_layer_by_name():
    factors = factors_of({"a": RELU, "classes": RELU}, FactorSettings(percentile=100.0), pinned=["classes"])

    assert toolbox(factors) == {"input": 1.0, "a": float(RELU.max()), "classes": 1.0}


def tied_by_channel(arrays, channel, *, settings=None, **ties):
    points = [PointSpec(name=n, shape=a.shape[1:]) for n, a in arrays.items()]
    sketches = {name: sketched(array, per_channel=True) for name, array in arrays.items()}
    settings = settings or FactorSettings(percentile=100.0, per_channel=True)
    return compute_factors(points, sketches, settings, ties=Ties(channel=channel, **ties)).by_point()


def test_a_dead_channel_claims_no_factor_in_its_group():
    a = np.array([[114, 0, 249], [3, 0, 5]], np.float32)
    b = np.array([[1.6, 2.0, 1.6], [0.5, 1.0, 0.25]], np.float32)
    found = tied_by_channel({"a": a, "b": b}, {"a": [-1, -2, -3], "b": [-1, -2, -3]})

    expected = np.maximum(a, b).max(axis=0)  # 114, 2, 249
    assert found["a"] == pytest.approx(expected, rel=2**-6)
    assert found["b"] == pytest.approx(expected, rel=2**-6)


def test_a_channel_that_is_dead_in_its_whole_group_gets_one_safe_factor_for_all_of_it():
    a = np.array([[4, 0], [3, 0]], np.float32)
    b = np.array([[1, 0], [2, 0]], np.float32)
    found = tied_by_channel({"a": a, "b": b}, {"a": [-1, -2], "b": [-1, -2]})

    assert found["a"].tolist() == found["b"].tolist() == [4.0, 4.0]


def test_channels_that_share_one_scale_get_the_largest_factor_of_them():
    a = np.array([[4, 1, 0], [3, 2, 0]], np.float32)

    assert tied_by_channel({"a": a}, {"a": [-1]})["a"].tolist() == [4.0, 4.0, 4.0]


def test_a_point_of_several_scales_claims_nothing_and_has_the_scales_of_its_parts():
    a, b = RELU, RELU * 70
    both = np.concatenate([a, b], axis=1)
    points = [PointSpec(name=n, shape=x.shape[1:]) for n, x in {"a": a, "b": b, "ab": both}.items()]
    sketches = {name: sketched(x) for name, x in {"a": a, "b": b, "ab": both}.items()}
    ties = Ties(layer={"a": 3, "b": 5}, joined={"ab": [[3]] * 5 + [[5]] * 5})
    found = compute_factors(points, sketches, FactorSettings(percentile=100.0), ties=ties)

    peaks = float(a.max()), float(b.max())
    assert [p.factor for p in found.points] == [*peaks, (peaks[0],) * 5 + (peaks[1],) * 5]
    assert [p.rule for p in found.points] == ["percentile", "percentile", "joined"]


@pytest.mark.parametrize("bad", ["abc", -1.0, None, float("nan")])
def test_a_file_with_an_impossible_factor_of_the_input_is_refused(bad):
    tree = {**Factors(points=(), nonzero=True).to_dict(), "input_factor": bad}

    with pytest.raises(InputError, match="factor of the input"):
        Factors.from_dict(tree)


def test_a_file_with_two_factors_for_one_point_is_refused_and_the_point_named():
    points = tuple(PointFactor(name=name, factor=1.0, rule="override") for name in ("a", "b", "a"))
    tree = Factors(points=points, nonzero=True).to_dict()

    with pytest.raises(InputError, match="'a' more than once") as caught:
        Factors.from_dict(tree)
    assert caught.value.points == ("a",)


def test_the_toolbox_form_of_factors_of_channels_is_refused():
    factors = factors_of({"a": RELU}, FactorSettings(per_channel=True), per_channel=True)

    with pytest.raises(InputError, match=r"'a' .* 5 channels: set factors.per_channel = false"):
        toolbox(factors)


def test_the_toolbox_form_has_no_points_of_several_scales():
    points = (
        PointFactor(name="a", factor=2.0, rule="percentile"),
        PointFactor(name="ab", factor=(2.0, 3.0), rule="joined"),
    )

    assert toolbox(Factors(points=points, nonzero=True)) == {"input": 1.0, "a": 2.0}
