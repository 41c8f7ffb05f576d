"""Two runs compared, against SciPy on the activations that they recorded."""

import json
import math

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from actisketch.pipeline import compare, open_run
from actisketch.storage import PointSpec
from actisketch.storage.errors import IncompleteError, InputError

from ..service.conftest import POINTS, MadeRun, make_run


def dense(name, n=5):
    return PointSpec(name=name, shape=(n,), meta={"layer_type": "Dense", "activation": "relu"})


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two finished runs of one network and other data, with channels."""
    folder = tmp_path_factory.mktemp("compared")
    changes = {"sketch": {"per_channel": True}}
    return [make_run(folder / name, seed=seed, changes=changes) for name, seed in (("a", 0.7), ("b", 0.9))]


def test_the_distances_contain_those_of_the_values(two):
    found = compare(*(run.folder for run in two), per_channel=True)

    assert {row.point for row in found.points} == {point.name for point in POINTS}
    for row in found.points:
        a, b = (run.all_values(row.point).astype(np.float64) for run in two)
        for part, x, y in ((row.every, a.ravel(), b.ravel()), (row.nonzero, a[a != 0], b[b != 0])):
            places = np.concatenate([x, y])
            shares = [np.searchsorted(np.sort(v), places, side="right") / v.size for v in (x, y)]

            assert part.wasserstein.lo <= wasserstein_distance(x, y) <= part.wasserstein.hi
            assert part.kolmogorov_smirnov.lo - 1e-12 <= np.abs(shares[0] - shares[1]).max()
            assert np.abs(shares[0] - shares[1]).max() <= part.kolmogorov_smirnov.hi + 1e-12
        assert row.zeros == (np.mean(a == 0), np.mean(b == 0))
        for channel in range(a.shape[-1]):
            moved = wasserstein_distance(a[..., channel].ravel(), b[..., channel].ravel())

            assert row.channels[0].wasserstein_lo[channel] <= moved <= row.channels[0].wasserstein_hi[channel]
        for each in row.percentiles:
            assert each.second.lo <= np.percentile(b[b != 0], each.q, method="higher")
            assert np.percentile(b[b != 0], each.q, method="lower") <= each.second.hi


def test_rows_are_ordered_by_the_distance_that_was_asked_for(two):
    for measure in ("ks", "wasserstein"):
        for nonzero in (False, True):
            found = compare(*(open_run(run.folder) for run in two), measure=measure, nonzero=nonzero)
            values = [found.distance(row).value for row in found.points]

            assert values == sorted(values, reverse=True)
            assert values[0] > 0
    row = found.points[0]
    values = two[0].all_values(row.point)

    assert found.distance(row).lo == pytest.approx(row.nonzero.wasserstein.lo / values[values != 0].mean())


def test_a_run_is_at_distance_zero_from_itself(two):
    found = compare(two[0].folder, two[0].folder, percentile=50, second_percentile=100)

    assert {found.distance(row).hi for row in found.points} == {0.0}
    assert all(row.ratio > 1 for row in found.points)


def test_equal_sketches_do_not_prove_equal_values(two, tmp_path):
    copy = make_run(tmp_path / "copy", seed=0.7, changes={"sketch": {"per_channel": True}})
    found = compare(two[0].folder, copy.folder)

    assert all(found.distance(row).lo == 0.0 for row in found.points)
    assert any(row.nonzero.wasserstein.hi > 0.0 for row in found.points)


def test_points_are_matched_by_name_and_then_by_place(tmp_path):
    names = {"a": ["dense", "mid", "dense_1", "gone"], "b": ["dense_7", "mid", "dense_8", "new", "newer"]}
    for run, points in names.items():
        make_run(tmp_path / run, points=[dense(name) for name in points])
    found = compare(tmp_path / "a", tmp_path / "b")

    # After `mid` the first run has two layers and the second three: no place is certain.
    assert {(row.point, row.other, row.matched_by) for row in found.points} == {
        ("dense", "dense_7", "place"),
        ("mid", "mid", "name"),
    }
    assert found.only_in_first == ("dense_1", "gone")
    assert found.only_in_second == ("dense_8", "new", "newer")


def test_names_that_keras_counted_on_are_matched_by_place(tmp_path):
    make_run(tmp_path / "a", points=[dense("dense", 3), dense("dense_1", 5), dense("dense_2", 7)])
    make_run(tmp_path / "b", points=[dense("dense_1", 3), dense("dense_2", 5), dense("dense_3", 7)])
    found = compare(tmp_path / "a", tmp_path / "b")

    assert {(row.point, row.other) for row in found.points} == {
        ("dense", "dense_1"),
        ("dense_1", "dense_2"),
        ("dense_2", "dense_3"),
    }


def test_a_run_that_goes_on_is_compared_as_far_as_it_is(two, tmp_path):
    half = MadeRun(tmp_path / "half", seed=0.9).begin().record(2)
    found = compare(two[0].folder, half.folder)
    row = next(row for row in found.points if row.point == "conv")
    a, b = two[0].all_values("conv").ravel(), half.all_values("conv", 12).ravel()

    assert found.remarks == ("the second run is not complete: 2 of 3 blocks are compared (12 of 17 samples)",)
    assert row.every.wasserstein.lo <= wasserstein_distance(a.astype(float), b.astype(float))
    assert row.n_values == (a.size, b.size)


def test_a_run_of_which_nothing_is_recorded_is_refused(two, tmp_path):
    MadeRun(tmp_path / "begun").begin()

    with pytest.raises(IncompleteError, match="nothing is recorded"):
        compare(two[0].folder, tmp_path / "begun")


def test_a_layer_that_died_is_infinitely_far(tmp_path):
    class Dead(MadeRun):
        def values(self, point, start, stop):
            return super().values(point, start, stop) * 0

    make_run(tmp_path / "a", points=[dense("d")])
    Dead(tmp_path / "b", points=[dense("d")]).begin().record().finish()
    found = compare(tmp_path / "a", tmp_path / "b", nonzero=True)

    assert found.distance(found.points[0]).lo == math.inf
    assert [row.point for row in found.above(1e9)] == ["d"]
    assert math.isnan(found.points[0].nonzero.kolmogorov_smirnov.lo)


@pytest.mark.parametrize("measure", ["ks", "wasserstein"])
@pytest.mark.parametrize("nonzero", [True, False])
@pytest.mark.parametrize("value", [0.0, np.nan])
def test_layers_without_values_in_both_runs_are_not_apart(tmp_path, measure, nonzero, value):
    class Dead(MadeRun):
        def values(self, point, start, stop):
            values = super().values(point, start, stop)
            return np.full_like(values, value) if point.name == "conv" else values

    changes = {"sketch": {"nonfinite": "exclude"}, "record": {"activations": False}}
    for name in ("a", "b"):
        Dead(tmp_path / name, changes=changes).begin().record().finish()
    Dead(tmp_path / "half", changes=changes, seed=0.9).begin().record(2)
    same, other = (
        compare(tmp_path / "a", tmp_path / name, measure=measure, nonzero=nonzero) for name in ("b", "half")
    )
    dead = other.points[-1]
    expected = 0.0 if value == 0 and not nonzero else math.nan

    assert same.above(0) == []
    assert [point["distance"]["is_infinite"] for point in same.to_dict()["points"]] == [False, False]
    assert dead.point == "conv"
    assert dead not in other.above(0)
    np.testing.assert_array_equal([other.distance(dead).lo, other.distance(dead).hi], expected)


def test_above_a_limit_is_what_certainly_is(tmp_path):
    wide = {"sketch": {"bits": 12}}
    found = compare(*(make_run(tmp_path / str(seed), seed=seed, changes=wide).folder for seed in (0.7, 0.9)))
    row = max(found.points, key=lambda row: found.distance(row).hi - found.distance(row).lo)
    distance = found.distance(row)
    between = (distance.lo + distance.hi) / 2

    assert distance.lo < between < distance.hi
    assert row not in found.above(between)
    assert row in found.above(math.nextafter(distance.lo, -1))


@pytest.mark.parametrize("limit", [math.nan, np.float32("nan"), -0.1, "0.1", None, True])
def test_a_limit_that_is_no_number_is_refused(two, limit):
    found = compare(*(run.folder for run in two))

    with pytest.raises(InputError, match=r"the limit .* is refused"):
        found.above(limit)
    assert found.above(np.float32(0)) == found.above(0) != []


def test_one_percentile_is_compared_too(two):
    found = compare(*(run.folder for run in two), qs=99.9, points="conv")

    assert [each.q for each in found.points[0].percentiles] == [99.9]


def test_the_result_is_plain_values(two):
    tree = compare(*(run.folder for run in two), per_channel=True).to_dict()

    assert json.loads(json.dumps(tree))["points"][0]["channels"]["every"]["wasserstein_lo"]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"points": "cnov"}, "no point 'cnov' was recorded"),
        ({"measure": "l2"}, "'ks' or 'wasserstein'"),
        ({"qs": [101]}, "101"),
        ({"qs": "99"}, "percentile '99' is refused"),
    ],
)
def test_what_cannot_be_compared_is_refused(two, asked, told):
    with pytest.raises(InputError, match=told):
        compare(*(run.folder for run in two), **asked)


def test_runs_without_a_common_point_are_refused(tmp_path):
    make_run(tmp_path / "a", points=[dense("x")])
    make_run(tmp_path / "b", points=[POINTS[0]])

    with pytest.raises(InputError, match="no point in common"):
        compare(tmp_path / "a", tmp_path / "b")
