"""The pictures show the counts of the sketches, legibly, whatever the layers are called."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image

from actisketch.pipeline.report import PointReport, ReportData
from actisketch.pipeline.report.histogram import histogram
from actisketch.pipeline.report.overview import tall_overview, wide_overview
from actisketch.pipeline.report.panel import WIDTH, Axes, Mark, draw_histogram
from actisketch.pipeline.report.picture import Area, Picture, Stroke, Words
from actisketch.pipeline.report.point_figures import point_figures
from actisketch.pipeline.report.rendered import render_pdf, render_png, rendering
from actisketch.pipeline.report.scale import Scale, decade_ticks, round_ticks
from actisketch.pipeline.sketch import PointSketch, Sketch, SketchSpec

HOSTILE_NAMES = ["$\\frac{x", "a\x1b[2Jb\nc", "層_活性化", "<script>", "x" * 500, " ", "%s{}", "\ud800"]
SVG = "{http://www.w3.org/2000/svg}"


def sketch_of(values: Any) -> Sketch:
    sketch = Sketch()
    sketch.update(np.asarray(values, np.float32))
    return sketch


def draw(point: PointReport) -> dict[str, Picture]:
    return {figure.kind: figure.picture for figure in point_figures(point, nonzero=True)}


def panel_of(values: Any, marks: list[Mark] | None = None) -> Axes:
    picture = Picture(WIDTH, 200.0, label="")
    bars = histogram(sketch_of(values))
    return draw_histogram(picture, 0.0, bars, marks or [], title="t", ink="before", unit="activation")


def texts(picture: Picture) -> list[str]:
    return [item.text for item in picture.items if isinstance(item, Words)]


def unplaced(scale: Scale, places: Any) -> Any:
    """The values that are at these places of an axis that is not symmetric."""
    share = (np.asarray(places) - scale.start) / (scale.end - scale.start)
    if scale.kind == "linear":
        return scale.low + share * (scale.high - scale.low)
    return scale.low * (scale.high / scale.low) ** share


RELU = np.maximum(np.random.default_rng(1).normal(size=20_000), 0.0)


@pytest.mark.parametrize(
    "values", [RELU, np.random.default_rng(2).lognormal(0, 3, 5000)], ids=["linear", "log"]
)
def test_the_bars_are_the_counts_of_numpy(values: Any) -> None:
    axes = panel_of(values)

    (area,) = [item for item in axes.picture.items if isinstance(item, Area)]
    corners = np.array(area.lines[0])
    edges = unplaced(axes.x, corners[1::2, 0])
    is_empty = corners[1:-1:2, 1] > axes.y.start - 1e-6
    heights = np.where(is_empty, 0.0, unplaced(axes.y, corners[1:-1:2, 1]))
    kept = values.astype(np.float32).astype(np.float64)
    expected = np.histogram(kept[kept > 0], bins=edges)[0] / len(kept)
    # A bucket lies across an edge, and less than one value has no height on a log axis.
    assert heights == pytest.approx(expected, rel=0.05, abs=8 / len(kept))
    assert heights.sum() == pytest.approx(expected.sum(), rel=1e-3)


def test_a_symmetric_log_axis_has_the_same_places_as_its_bars() -> None:
    axes = panel_of(np.random.default_rng(3).standard_cauchy(5000))
    scale = axes.x

    assert scale.kind == "symlog"
    places = scale.place([-1e9, -scale.linear_width, 0.0, scale.linear_width, 1e9])
    assert (np.diff(places) > 0).all()
    assert places[3] - places[2] == pytest.approx(places[2] - places[1])
    # Every decade beyond the linear part is as wide as that part.
    assert scale.at(10 * scale.linear_width) - places[3] == pytest.approx(places[3] - places[2])


def test_the_bar_of_the_zeros_is_as_high_as_their_share() -> None:
    axes = panel_of(RELU)

    (bar,) = [item for item in axes.picture.items if isinstance(item, Stroke) and item.width == 3.0]
    (x, bottom), (_, top) = bar.lines[0]
    assert x == pytest.approx(axes.x.at(0.0))
    assert bottom == axes.y.start
    assert unplaced(axes.y, top) == pytest.approx((RELU.astype(np.float32) == 0).mean())
    assert "zeros 50.4 %" in texts(axes.picture)


def test_what_is_below_a_log_axis_is_told() -> None:
    values = [1e-20] * 3 + [1e-3] * 486 + [1.0] * 11

    assert "activation (log axis; 0.6 % below it)" in texts(panel_of(values).picture)


def test_marks_outside_the_bars_widen_the_axis_and_stand_in_the_legend() -> None:
    axes = panel_of(RELU, [Mark(value=17.0, label="factor 17", kind="factor", band=(11.0, 19.0))])

    assert axes.x.high > 17.0
    assert texts(axes.picture)[-1] == "factor 17"
    # The band of an interval is drawn, and cut off at the end of the axis.
    (band,) = [item for item in axes.picture.items if isinstance(item, Area) and item.opacity < 1]
    assert unplaced(axes.x, band.lines[0][0][0]) == pytest.approx(11.0)


def test_each_point_has_pictures_with_texts_for_those_who_cannot_see_them(
    point_of: Callable[..., PointReport],
) -> None:
    pictures = draw(point_of())

    assert list(pictures) == ["activations", "maxima", "weights"]
    for picture in pictures.values():
        assert "conv1" in picture.label
        assert len(picture.svg()) < 8_000
        root = ElementTree.fromstring(picture.svg_file())
        assert root.tag == f"{SVG}svg"
        assert root.get("aria-label") == picture.label


def test_counts_are_exact(point_of: Callable[..., PointReport]) -> None:
    pictures = draw(point_of())

    # 31 samples of 5 x 7 x 3 values.
    assert "Activations: 3,255 values" in texts(pictures["activations"])
    assert "the 3,255 activations of conv1" in pictures["activations"].label
    assert "Largest of each sample: 31 samples" in texts(pictures["maxima"])


def test_nothing_is_drawn_of_what_was_not_given(point_of: Callable[..., PointReport]) -> None:
    assert list(draw(point_of(weights_before=None, weights_after=None))) == ["activations", "maxima"]


@pytest.mark.parametrize(("n_channels", "step"), [(7, 1), (701, 3)])
def test_the_channels_are_those_of_numpy(
    point_of: Callable[..., PointReport], n_channels: int, step: int
) -> None:
    rng = np.random.default_rng(5)
    values = rng.gamma(2.0, 1.0, (13, 11, n_channels)).astype(np.float32)
    values[..., 2] = 0.0
    before = PointSketch.empty(SketchSpec(per_channel=True), n_channels)
    before.update(values)
    point = point_of(before=before, after=None, q=100.0, factor=1.0)

    picture = draw(point)["channels"]

    assert point.dead_channels == (2,)
    assert f"The {n_channels:,} channels of conv1, 1 of them dead" in picture.label
    (stems,) = [
        item
        for item in picture.items
        if isinstance(item, Stroke) and item.ink == "percentile" and item.width <= 6 and len(item.lines) > 1
    ]
    largest = np.array([values[..., i : i + step].max() for i in range(0, n_channels, step)])
    largest = largest[largest > 0]
    tops = np.array([line[1][1] for line in stems.lines])
    # The axis is logarithmic: places follow the logarithms.
    fit = np.polyfit(np.log(largest), tops, 1)
    assert len(tops) == len(largest)
    assert tops == pytest.approx(np.polyval(fit, np.log(largest)), abs=0.01)
    assert fit[0] < 0
    assert any("neighbours" in text for text in texts(picture)) == (step > 1)
    # The factor of the layer is 1, a line from side to side at the height of a channel of that percentile.
    (line,) = [item for item in picture.items if isinstance(item, Stroke) and item.width == 1.6]
    assert line.lines[0][0][1] == pytest.approx(fit[1], abs=0.01)


def test_channels_with_factors_of_their_own_have_them_drawn(point_of: Callable[..., PointReport]) -> None:
    before = PointSketch.empty(SketchSpec(per_channel=True), 3)
    before.update(np.random.default_rng(2).gamma(2.0, 1.0, (13, 11, 3)).astype(np.float32))

    picture = draw(point_of(before=before, after=None, factor=(1.0, 4.0, 2.0)))["channels"]

    # The first is drawn, the second is of the legend.
    dashes = next(item for item in picture.items if isinstance(item, Stroke) and item.ink == "factor")
    low, high, middle = (line[0][1] for line in dashes.lines)
    assert middle == pytest.approx((low + high) / 2)
    assert high < low


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_any_name_can_be_drawn(
    point_of: Callable[..., PointReport], report_of: Callable[..., ReportData], name: str
) -> None:
    report = report_of((point_of(name),))
    pictures = [*draw(point_of(name)).values(), wide_overview(report), tall_overview(report)]

    with rendering(), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert render_pdf(pictures).startswith(b"%PDF")
    for picture in pictures:
        root = ElementTree.fromstring(picture.svg_file())
        assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
            "svg",
            "path",
            "text",
            "g",
            "title",
        }


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((3, 5)),
        np.full((3, 5), 2.5),
        np.full((3, 5), -2.5),
        np.array([[1e-45, 3.4e38]]),
        np.array([[-3.4e38, 1e-45, 3.4e38]]),
        np.array([[1e-30]]),
        np.zeros((0, 5)),
    ],
    ids=["zeros", "constant", "negative", "widest", "widest-both", "one", "none"],
)
@pytest.mark.parametrize("is_channelwise", [False, True])
def test_any_distribution_can_be_drawn(
    point_of: Callable[..., PointReport],
    report_of: Callable[..., ReportData],
    values: Any,
    is_channelwise: bool,
) -> None:
    before = PointSketch.empty(SketchSpec(per_channel=is_channelwise), values.shape[1])
    before.update(np.asarray(values, np.float32))
    percentile = before.layer.percentile(99.9, nonzero=True)
    point = point_of(
        before=before,
        after=None,
        percentile=percentile,
        factor=(1.0, 2.0) if is_channelwise else percentile.value if percentile.value > 0 else 1.0,
        weights_before=sketch_of(values),
        weights_after=None,
    )
    pictures = draw(point)
    report = report_of((point,))

    assert "activations" in pictures
    for picture in [*pictures.values(), wide_overview(report), tall_overview(report)]:
        assert "nan" not in picture.svg().replace("nano", "")
        assert "inf" not in picture.svg()


def test_the_same_point_gives_the_same_bytes(point_of: Callable[..., PointReport]) -> None:
    first, second = draw(point_of()), draw(point_of())

    assert [picture.svg() for picture in first.values()] == [picture.svg() for picture in second.values()]
    with rendering():
        assert render_pdf(first.values()) == render_pdf(second.values())


def test_the_users_matplotlib_settings_neither_matter_nor_change(
    point_of: Callable[..., PointReport],
) -> None:
    picture = draw(point_of())["activations"]
    theirs: dict[Any, Any] = {
        "font.size": 23.0,
        "text.usetex": True,
        "axes.facecolor": "red",
        "savefig.dpi": 7.0,
    }
    with rendering():
        expected = render_pdf([picture]), render_png(picture)

    with matplotlib.rc_context(theirs):
        with rendering():
            found = render_pdf([picture]), render_png(picture)
        kept = {key: matplotlib.rcParams[key] for key in theirs}

    assert found == expected
    assert kept == theirs


def test_a_png_has_few_colours_and_the_size_of_the_picture(point_of: Callable[..., PointReport]) -> None:
    with rendering():
        png = render_png(draw(point_of())["activations"])

    image = Image.open(io.BytesIO(png))
    image.load()
    assert (image.format, image.mode) == ("PNG", "P")
    assert image.size == (758, 725)
    assert len(png) < 25_000


def test_drawing_needs_neither_matplotlib_nor_a_neural_network_library() -> None:
    code = (
        "import sys, actisketch.pipeline.report as report\n"
        "assert 'matplotlib' not in sys.modules and 'jinja2' not in sys.modules\n"
        "from actisketch.pipeline.report.picture import Picture\n"
        "from actisketch.pipeline.report.rendered import render_pdf, rendering\n"
        "picture = Picture(9, 9, label='')\n"
        "picture.rect(1, 1, 3, 3, ink='before')\n"
        "picture.svg()\n"
        "assert 'matplotlib' not in sys.modules\n"
        "with rendering():\n"
        "    render_pdf([picture])\n"
        "loaded = {'matplotlib.pyplot', 'tensorflow', 'keras', 'tkinter'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )

    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize(
    ("low", "high"), [(0.02, 300.0), (1.0, 1.0), (1.1, 1.2), (1e-30, 1e30), (3e-7, 2e-6)]
)
def test_decade_ticks_are_few_distinct_and_within(low: float, high: float) -> None:
    ticks = decade_ticks(low, high)

    assert 1 <= len(ticks) <= 6
    assert sorted(set(ticks)) == ticks
    assert all(low * 0.999 <= tick <= high * 1.001 for tick in ticks)


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.04), (-0.31, 2.7), (-3e38, 3e38), (0.0, 7e-12), (1.0, 1.0), (99.5, 100.5)]
)
def test_round_ticks_are_few_distinct_and_within(low: float, high: float) -> None:
    ticks = round_ticks(low, high, limit=5)

    assert 1 <= len(ticks) <= 5
    assert sorted(set(ticks)) == ticks
    assert all(low - 1e-9 * abs(low) <= tick <= high + 1e-9 * abs(high) for tick in ticks)


@pytest.mark.parametrize("n_points", [1, 16, 40, 41, 150, 1100])
@pytest.mark.parametrize("name", ["conv", "W" * 60])
def test_no_two_labels_of_the_overview_overlap(
    point_of: Callable[..., PointReport], report_of: Callable[..., ReportData], n_points: int, name: str
) -> None:
    first = point_of()
    points = tuple(
        PointReport(
            name=f"{name}{number}", shape=(3,), before=first.before, percentile=first.percentile, residual=0.0
        )
        for number in range(n_points)
    )
    wide, tall = wide_overview(report_of(points)), tall_overview(report_of(points))

    named = [
        item for item in wide.items if isinstance(item, Words) and item.turn == -90 and item.anchor == "end"
    ]
    numbered = [
        item for item in wide.items if isinstance(item, Words) and item.text.isdecimal() and item.y > 400
    ]
    assert (len(named), len(numbered) > 0) == ((n_points, False) if n_points <= 40 else (0, True))
    # Letters are about as high as their size says, and digits two thirds as wide.
    assert all(right.x - left.x >= left.size for left, right in pairwise(named))
    assert all(right.x - left.x >= 7 * len(right.text) for left, right in pairwise(numbered))
    # The widest name still fits: in a font without serifs an average letter is at most 0.6 of its size wide.
    assert all(item.y + 0.56 * item.size * len(item.text) <= wide.height for item in named)
    rows = [item for item in tall.items if isinstance(item, Words) and item.text.startswith(name[:1])]
    assert len(rows) == n_points
    assert all(below.y - above.y >= 2 * above.size for above, below in pairwise(rows))
    assert rows[-1].y < tall.height
    assert len(wide.svg()) / n_points < 3_000 or n_points == 1


def test_the_overview_shows_the_numbers_of_each_point(
    point_of: Callable[..., PointReport], report_of: Callable[..., ReportData]
) -> None:
    points = tuple(point_of(f"conv{i}", seed=i, scale=3.0**i, residual=1e-7 * 2**i) for i in range(5))

    picture = wide_overview(report_of(points))

    diamonds = [item for item in picture.items if isinstance(item, Area) and item.ink == "percentile"][1:]
    heights = np.array([np.mean([y for _, y in item.lines[0]]) for item in diamonds])
    logs = np.log([point.percentile.value for point in points])
    assert heights == pytest.approx(np.polyval(np.polyfit(logs, heights, 1), logs), abs=1e-6)
    dots = [item for item in picture.items if isinstance(item, Area) and item.ink == "after"]
    heights = np.array([np.mean([y for _, y in item.lines[0]]) for item in dots])
    assert np.diff(heights) == pytest.approx(np.diff(heights)[0])
    assert picture.svg().count("<a href=") == 5
    assert "tabindex" in picture.svg()
    assert "<a" not in picture.svg_file().decode()
