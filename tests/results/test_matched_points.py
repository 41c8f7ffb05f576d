"""Which points of two runs belong together, for any two lists of names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actisketch.pipeline import compare
from actisketch.pipeline.results.matched_points import match_points
from actisketch.storage import PointSpec

from ..service.conftest import make_run

# Few names and hardly ever another type: layers in another order, with as many beside them, come up often.
TYPES = st.sampled_from(["Dense", "Dense", "Dense", "Conv2D"])
LETTERS = st.sampled_from("abcd")
COUNTED = st.sampled_from(["dense", "dense_1", "dense_2"])


def point(name, layer_type="Dense", n=5):
    return PointSpec(name=name, shape=(n,), meta={"layer_type": layer_type})


def points_of(names):
    return st.lists(st.builds(point, names, TYPES), unique_by=lambda each: each.name, max_size=7)


def gaps(points, named):
    """The points without a namesake, by the namesakes that stand around them."""
    found, left, waiting = {}, None, []
    for each in [*points, None]:
        if each is None or each.name in named:
            found[left, each and each.name], left, waiting = waiting, each and each.name, []
        else:
            waiting.append(each)
    return found


@given(points_of(LETTERS | COUNTED), points_of(LETTERS | COUNTED))
def test_each_point_is_in_one_pair_or_in_one_run_only(first, second):
    found = match_points(first, second)

    assert sorted([*(pair.first for pair in found.pairs), *found.only_in_first]) == sorted(
        p.name for p in first
    )
    assert sorted([*(pair.second for pair in found.pairs), *found.only_in_second]) == sorted(
        p.name for p in second
    )
    for pair in found.pairs:
        assert (pair.first == pair.second) == (pair.by == "name")
        # Only names that Keras counted may stand for other layers than their namesakes.
        if pair.by == "place" and pair.first[0] != "d":
            assert pair.first not in {p.name for p in second}
            assert pair.second not in {p.name for p in first}


@given(points_of(LETTERS), points_of(LETTERS))
def test_names_come_first_and_places_count_between_the_same_two_of_them(first, second):
    named = {p.name for p in first} & {p.name for p in second}
    ours, theirs = gaps(first, named), gaps(second, named)
    expected = {(name, name, "name") for name in named}
    for around in ours.keys() & theirs.keys():
        types = [[p.meta["layer_type"] for p in gap[around]] for gap in (ours, theirs)]
        if types[0] == types[1]:
            pairs = zip(ours[around], theirs[around], strict=True)
            expected |= {(a.name, b.name, "place") for a, b in pairs}
    found = match_points(first, second)

    assert {(pair.first, pair.second, pair.by) for pair in found.pairs} == expected
    assert [pair.first for pair in found.pairs] == [
        p.name for p in first if p.name not in found.only_in_first
    ]


@pytest.mark.parametrize("last", ["yw", "y"])
def test_layers_in_another_order_are_compared_with_their_namesakes(tmp_path, last):
    """Also if one architecture has them in another order, and another name is new."""
    for run, names in (("a", "ABxz"), ("b", "BA" + last)):
        make_run(tmp_path / run, points=[point(name) for name in names])
    found = compare(tmp_path / "a", tmp_path / "b")

    assert {(row.point, row.other, row.matched_by) for row in found.points} == {
        ("A", "A", "name"),
        ("B", "B", "name"),
    }
    assert (found.only_in_first, found.only_in_second) == (("x", "z"), tuple(last))
