"""Tables and small pictures: whole, escaped, bounded, and in the colours of the page around them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from actisketch.pipeline.display.shown_table import ShownTable
from actisketch.pipeline.display.small_pictures import bar_svg, bars_svg, distribution_svg, factor_svg
from actisketch.pipeline.sketch import Sketch

HOSTILE = '<script>alert("1")</script>\x1b[2J & "quoted"'


def of_values(values) -> Sketch:
    sketch = Sketch(on_nonfinite="exclude")
    sketch.update(np.asarray(values, np.float32))
    return sketch


def test_text_aligns_numbers_to_the_right_and_names_to_the_left():
    table = ShownTable(title="two", lines=["a line"], columns={"point": ["conv", "b"], ">n": ["7", "1,231"]})

    assert table.text().splitlines() == [
        "two",
        "a line",
        "point      n",
        "conv       7",
        "b      1,231",
    ]


def test_names_are_escaped_in_html_and_made_visible_in_text():
    table = ShownTable(title=HOSTILE, lines=[HOSTILE], columns={"point": [HOSTILE]}, more=HOSTILE)

    for shown in (table.html(), table.text()):
        assert "\x1b" not in shown
        assert r"\x1b[2J" in shown
    assert "<script" not in table.html()
    assert table.html().count("&lt;script&gt;") == 3
    ET.fromstring(table.html())


@pytest.mark.parametrize("n_points", [300, 5000])
def test_a_table_of_many_points_stays_small_and_says_what_is_left_out(n_points):
    values = np.random.default_rng(3).exponential(size=10_000) * 1e3
    picture = distribution_svg(of_values(values), mark=900.0)
    names = [f"a/rather/long/name/of/a/layer_{i}" for i in range(n_points)]
    numbers = {f">number {i}": ["1.234e-05"] * n_points for i in range(7)}
    table = ShownTable(
        title="many", columns={"point": names, **numbers}, pictures=[picture] * n_points, more="ask()"
    )

    assert len(table.html()) < 400_000
    assert ("4,700 more rows: ask()" in table.html()) == (n_points == 5000)
    assert len(table.text().splitlines()) == 1 + 1 + 30 + 1 + 10
    assert names[-1] in table.text()


def test_colours_are_those_of_the_text_around():
    shown = distribution_svg(of_values([0, 1, 2, 2, 3]), mark=2.0) + bar_svg(0.5, alt="half")

    assert set(re.findall(r'(?:fill|stroke)="([^"]+)"', shown)) == {"currentColor"}
    assert not re.search(r"#[0-9a-f]{3}|rgb", shown)


@pytest.mark.parametrize(
    "values",
    [[], [0, 0], [5], [-3, -2, -2], [-1e30, 1e-30, 7], [np.nan, 1], np.geomspace(1e-8, 1e8, 999)],
    ids=repr,
)
def test_every_distribution_gives_a_whole_picture_inside_its_frame(values):
    picture = ET.fromstring(distribution_svg(of_values(values), mark=float("nan")))
    width, height = (float(picture.get(name)) for name in ("width", "height"))

    assert picture.find("title").text
    for path in picture.iter("path"):
        for kind, place in re.findall(r"([VH])([-\d.e]+)", path.get("d")):
            assert 0 <= float(place) <= (width if kind == "H" else height)


def test_few_values_beside_very_many_are_seen_and_none_are_not():
    picture = ET.fromstring(bars_svg(np.array([1.0, 0.0, 1e12]), alt="three"))
    tops = re.findall(r"V([\d.]+)H", picture.find("path").get("d"))

    assert [20 - float(top) for top in tops] == [1, 0, 19]


def test_a_factor_is_placed_by_its_logarithm_between_the_smallest_and_the_largest():
    def filled(factor):
        return float(re.findall(r"H([\d.]+)V", factor_svg([factor], (0.01, 100.0)))[0])

    assert [filled(factor) for factor in (0.01, 1.0, 100.0)] == pytest.approx([6, 63, 120], abs=0.1)
    assert "factors of 3 channels" in factor_svg([1.0, 2.0, 4.0], (0.01, 100.0))


def test_a_line_stands_where_its_value_is():
    counts = np.array([1.0, 2.0, 3.0, 4.0])

    (bars, line) = ET.fromstring(bars_svg(counts, alt="four", mark=0.25)).iter("path")

    assert line.get("d").startswith("M30 ") or line.get("d").startswith("M30.0 ")
    assert bars.get("d").endswith("Z")


def test_the_line_of_a_percentile_is_among_the_bars_of_the_values_around_it():
    """Half of the values are between 1 and 2, the others between 8 and 10: the axis goes from 0 to 10."""
    picture = ET.fromstring(distribution_svg(of_values([1, 1.5, 2, 8, 9, 10]), mark=5.0))
    line = list(picture.iter("path"))[-1]

    assert float(re.match(r"M([\d.]+)", line.get("d"))[1]) == pytest.approx(60, abs=0.1)
