"""The pictures show the counts of the sketches, legibly, whatever the layers are called."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from PIL import Image

from actisketch.pipeline.report import PointReport, ReportData, overview
from actisketch.pipeline.report.bars import Mark, paint_bars, paint_legend, paint_marks
from actisketch.pipeline.report.canvas import decade_ticks, draw_png, figure_style, legible
from actisketch.pipeline.report.histogram import Histogram, histogram
from actisketch.pipeline.report.overview import overview_png
from actisketch.pipeline.report.point_figures import PointFigure, point_figures
from actisketch.pipeline.sketch import PointSketch, Sketch, SketchSpec

HOSTILE_NAMES = ["$\\frac{x", "a\x1b[2Jb\nc", "層_活性化", "<script>", "x" * 500, " ", "%s{}"]


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    with figure_style():
        yield


def sketch_of(values: Any) -> Sketch:
    sketch = Sketch()
    sketch.update(np.asarray(values, np.float32))
    return sketch


def draw(point: PointReport) -> dict[str, PointFigure]:
    return {figure.kind: figure for figure in point_figures(point, nonzero=True)}


RELU = np.maximum(np.random.default_rng(1).normal(size=20_000), 0.0)


@pytest.mark.parametrize(
    "values",
    [RELU, np.random.default_rng(2).lognormal(0, 3, 5000), np.random.default_rng(3).standard_cauchy(5000)],
    ids=["linear", "log", "symlog"],
)
def test_the_bars_on_the_axes_are_the_counts_of_the_sketch(values: Any) -> None:
    sketch = sketch_of(values)
    bars, figure = histogram(sketch), Figure()
    axes = figure.add_subplot()

    paint_bars(axes, bars, colour="#123456", unit="activation")

    (patch,) = [patch for patch in axes.patches if isinstance(patch, StepPatch)]
    heights, edges, _ = patch.get_data()
    assert np.sum(heights) * sketch.n + bars.n_below == pytest.approx(sketch.n_nonzero)
    low, high = axes.get_xlim()
    assert low <= edges[0] < edges[-1] <= high
    assert max(heights) <= axes.get_ylim()[1]


def test_the_bar_of_the_zeros_is_as_high_as_their_share() -> None:
    sketch, figure = sketch_of(RELU), Figure()
    axes = figure.add_subplot()

    paint_bars(axes, histogram(sketch), colour="#123456", unit="activation")

    (zeros,) = axes.collections
    assert zeros.get_segments()[0][1] == pytest.approx([0.0, sketch.sparsity])  # type: ignore[attr-defined]  # a LineCollection
    assert str(zeros.get_label()).startswith("zeros 50.4")


def test_what_is_below_a_log_axis_is_told() -> None:
    axes = Figure().add_subplot()
    values = [1e-20] * 3 + [1e-3] * 486 + [1.0] * 11

    paint_bars(axes, histogram(sketch_of(values)), colour="#123456", unit="activation")

    assert axes.get_xlabel() == "activation (log axis; 0.6 % below it)"


def test_marks_outside_the_bars_widen_the_axis_and_stand_in_the_legend() -> None:
    figure = Figure()
    axes = figure.add_subplot()
    paint_bars(axes, histogram(sketch_of(RELU)), colour="#123456", unit="activation")

    paint_marks(axes, [Mark(value=17.0, label="factor 17", kind="factor", band=(11.0, 19.0))])
    paint_legend(axes, "original")

    assert axes.get_xlim()[1] > 17.0
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()][-1] == "factor 17"


def test_each_point_has_three_small_pictures_with_alternative_texts(
    point_of: Callable[..., PointReport],
) -> None:
    figures = draw(point_of())

    assert list(figures) == ["activations", "weights", "maxima"]
    for figure in figures.values():
        image = Image.open(io.BytesIO(figure.png))
        image.load()
        assert (image.format, image.size, image.mode) == ("PNG", (572, 572), "P")
        assert len(figure.png) < 25_000
        assert "conv1" in figure.alt


def test_nothing_is_drawn_of_what_was_not_given(point_of: Callable[..., PointReport]) -> None:
    assert list(draw(point_of(weights_before=None, weights_after=None))) == ["activations", "maxima"]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_any_name_can_be_drawn(point_of: Callable[..., PointReport], name: str) -> None:
    assert len(draw(point_of(name))) == 3


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
    point_of: Callable[..., PointReport], values: Any, is_channelwise: bool
) -> None:
    before = PointSketch.empty(SketchSpec())
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

    assert "activations" in draw(point)


def test_the_same_point_gives_the_same_bytes(point_of: Callable[..., PointReport]) -> None:
    assert draw(point_of()) == draw(point_of())


def test_the_users_matplotlib_settings_neither_matter_nor_change(
    point_of: Callable[..., PointReport],
) -> None:
    expected = draw(point_of())["activations"].png
    theirs: dict[Any, Any] = {
        "font.size": 23.0,
        "text.usetex": True,
        "axes.facecolor": "red",
        "savefig.dpi": 7.0,
    }

    with matplotlib.rc_context(theirs):
        with figure_style():
            png = draw(point_of())["activations"].png
        kept = {key: matplotlib.rcParams[key] for key in theirs}

    assert png == expected
    assert kept == theirs


def test_drawing_needs_neither_pyplot_nor_a_neural_network_library() -> None:
    code = (
        "import sys, actisketch.pipeline.report as report\n"
        "assert 'matplotlib' not in sys.modules and 'jinja2' not in sys.modules\n"
        "from actisketch.pipeline.report.canvas import draw_png, figure_style\n"
        "with figure_style():\n"
        "    draw_png(1, 1, lambda figure: figure.add_subplot())\n"
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


@pytest.mark.parametrize("n_points", [1, 16, 40, 41, 150, 1100])
@pytest.mark.parametrize("name", ["conv", "W" * 60])
def test_no_two_labels_of_the_overview_overlap(
    point_of: Callable[..., PointReport],
    report_of: Callable[..., ReportData],
    monkeypatch: pytest.MonkeyPatch,
    n_points: int,
    name: str,
) -> None:
    first, figures = point_of(), []
    points = tuple(
        PointReport(
            name=f"{name}{number}", shape=(3,), before=first.before, percentile=first.percentile, residual=0.0
        )
        for number in range(n_points)
    )

    def keep(width_in: float, height_in: float, paint: Callable[[Figure], None]) -> bytes:
        def paint_and_keep(figure: Figure) -> None:
            paint(figure)
            figures.append(figure)

        return draw_png(width_in, height_in, paint_and_keep)

    monkeypatch.setattr(overview, "draw_png", keep)
    png = overview_png(report_of(points))

    (figure,) = figures
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]  # matplotlib gives it no types
    for axes in figure.axes:
        boxes = [label.get_window_extent(renderer) for label in axes.get_xticklabels() if label.get_text()]
        boxes = sorted(boxes, key=lambda box: box.x0)
        assert all(left.x1 <= right.x0 for left, right in pairwise(boxes))
        # Nothing is cut off at the lower edge of the picture.
        assert all(box.y0 >= 0 for box in boxes)
        heights = sorted(
            (label.get_window_extent(renderer) for label in axes.get_yticklabels()), key=lambda box: box.y0
        )
        assert all(low.y1 <= high.y0 for low, high in pairwise(heights))
    assert len(png) < 120_000


def test_characters_that_the_font_lacks_become_question_marks() -> None:
    assert legible("層1\n") == r"?1\n"


def test_a_histogram_of_nothing_can_be_painted() -> None:
    empty = histogram(Sketch())

    assert isinstance(empty, Histogram)
    paint_bars(Figure().add_subplot(), empty, colour="#123456", unit="activation")
