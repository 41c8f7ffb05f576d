"""The page as it is written, read by a parser of HTML: its numbers are those of NumPy on the raw values."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actisketch.pipeline.report import PointReport, ReportData, WorkRow, write_report
from actisketch.pipeline.sketch import PointSketch, Sketch, SketchSpec

N_CHANNELS, DEAD = 11, (3, 7, 8)


class Node:
    """An element: its attributes, its text, and the elements inside."""

    def __init__(self, tag: str, attributes: dict[str, str | None]) -> None:
        self.tag, self.attributes = tag, attributes
        self.inside: list[Node] = []
        self.pieces: list[str] = []

    def all(self, tag: str, css: str = "") -> list[Node]:
        found = [each for node in self.inside for each in node.all(tag, css)]
        is_it = self.tag == tag and css in ["", *(self.attributes.get("class") or "").split()]
        return [self, *found] if is_it else found

    def by_id(self, name: str) -> Node:
        (found,) = [each for each in self.every() if each.attributes.get("id") == name]
        return found

    def every(self) -> list[Node]:
        return [self, *(each for node in self.inside for each in node.every())]

    @property
    def text(self) -> str:
        return " ".join("".join(self.pieces).split())


class _Reader(HTMLParser):
    VOID = ("meta", "link", "input", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.path = [Node("", {})]
        self.feed(html)
        assert len(self.path) == 1

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, dict(attrs))
        self.path[-1].inside.append(node)
        if tag not in self.VOID:
            self.path.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.path[-1].inside.append(Node(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.path.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for node in self.path:
            node.pieces.append(data)


def read(path: Path) -> Node:
    return _Reader(path.read_text(encoding="utf-8")).path[0]


def sketch_of(values: Any) -> Sketch:
    sketch = Sketch()
    sketch.update(np.asarray(values, np.float32))
    return sketch


VALUES = np.maximum(np.random.default_rng(17).normal(0, 1, (53, 13, 9, N_CHANNELS)), 0).astype(np.float32)
VALUES[..., list(DEAD)] = 0.0


@pytest.fixture
def data(point_of: Callable[..., PointReport], report_of: Callable[..., ReportData]) -> ReportData:
    before = PointSketch.empty(SketchSpec(per_channel=True), N_CHANNELS)
    before.update(VALUES)
    percentile = before.layer.percentile(99.9, nonzero=True)
    known = point_of(
        "conv<1>",
        before=before,
        percentile=percentile,
        factor=percentile.value,
        biases_before=sketch_of([]),
        biases_after=sketch_of([-0.5, 0.25]),
    )
    merge = point_of(
        "add", layer_type="Add", factor=percentile.value, weights_before=None, weights_after=None
    )
    return report_of(
        (known, merge, point_of("conv2", seed=11, scale=7.0)),
        groups=(("add", "conv<1>"),),
        about={"data": "x.npz, 53 samples", "date": "2026-11-26 12:00:00 UTC"},
        work=(WorkRow(stage="record", began="then", wall="3.5 s", cpu="7.0 s", memory="1.2 GiB"),),
        links={"factors.json": "../factors.json"},
        downloads={"job.toml": "output = 'x'\n", "factors.csv": "a,b\n1,2\n"},
        command="actisketch run job.toml --output again",
    )


@pytest.fixture
def page(data: ReportData, tmp_path: Path) -> Node:
    return read(write_report(tmp_path, data)[0])


def test_the_ladder_of_a_layer_is_that_of_numpy(page: Node) -> None:
    nonzero = VALUES[VALUES > 0].astype(np.float64)
    rows = [[cell.text for cell in row.all("th") + row.all("td")] for row in page.by_id("layer-1").all("tr")]

    assert rows[0] == ["percentile", "factor", "[lo, hi]", "saturation"]
    assert [row[0] for row in rows[1:]] == ["99", "99.9", "99.99", "100"]
    for q, value, interval, saturation in rows[1:]:
        exact = np.percentile(nonzero, float(q))
        lo, hi = float(interval.strip("[]").split(",")[0]), float(interval.strip("[]").split(",")[-1])
        assert float(value) == pytest.approx(exact, rel=1e-3)
        assert lo - 1e-5 <= exact <= hi + 1e-5
        share = np.greater(VALUES, exact).mean()
        assert float(saturation.removesuffix(" %")) == pytest.approx(100 * share, rel=0.06)
    (asked,) = page.by_id("layer-1").all("tr", "asked")
    assert asked.all("th")[0].text == "99.9"


def test_counts_are_exact_and_dead_channels_are_named(page: Node) -> None:
    facts = {
        each.all("dt")[0].text: each.all("dd")[0].text
        for each in page.by_id("layer-1").all("dl", "facts")[0].inside
    }

    assert facts["values"] == f"{VALUES.size:,}"
    assert facts["dead channels"] == "3: 3, 7-8"
    assert facts["biases"] == "none; normalised: 2 from -0.5 to 0.25, folded in"
    assert f"Activations: {VALUES.size:,} values" in page.by_id("layer-1").text
    assert not re.search(r"\d+(\.\d+)?[kMG]\b", page.by_id("main").text)


def test_the_bars_in_the_page_are_those_of_numpy(page: Node) -> None:
    picture = page.by_id("layer-1").all("svg")[0]
    (area,) = picture.all("path", "before")
    corners = _corners(str(area.attributes["d"]))
    across, up = _axis(picture, "x"), _axis(picture, "y")
    edges = across(corners[1::2, 0])
    shares = np.exp(up(corners[1:-1:2, 1]))

    expected = np.histogram(VALUES[VALUES > 0], bins=edges)[0] / VALUES.size
    is_tall = expected * VALUES.size > 100
    assert is_tall.sum() > 40
    # Places are given to a tenth of a unit.
    assert shares[is_tall] == pytest.approx(expected[is_tall], rel=0.05)


def _corners(path: str) -> np.ndarray[Any, Any]:
    corners: list[tuple[float, float]] = []
    for kind, numbers in re.findall(r"([MLHV])([-0-9. ]+)", path):
        given = [float(each) for each in numbers.split()]
        x, y = corners[-1] if corners else (0.0, 0.0)
        corners.append({"M": tuple(given), "L": tuple(given), "H": (given[0], y), "V": (x, given[0])}[kind])
    return np.array(corners)


def _axis(picture: Node, which: str) -> Callable[[Any], Any]:
    """The values at places, by the labels of the upper panel: the logarithms on the vertical axis."""
    side = "x" if which == "x" else "y"
    is_label = {"x": ("middle", (160.0, 180.0), "y"), "y": ("end", (50.0, 170.0), "y")}[which]
    found = [
        (float(str(text.attributes[side])), float(text.text))
        for text in picture.all("text")
        if text.attributes.get("text-anchor") == is_label[0]
        and re.fullmatch(r"[-0-9.e]+", text.text)
        and is_label[1][0] <= float(str(text.attributes["y"])) <= is_label[1][1]
    ]
    places, values = np.array(found).T
    shift = 3.5 if which == "y" else 0.0  # of a label below the middle of its line
    fit = np.polyfit(places - shift, np.log(values) if which == "y" else values, 1)
    return lambda at: np.polyval(fit, at)


def test_layers_that_share_a_factor_stand_together_with_the_neuron_behind_the_merge(page: Node) -> None:
    rows = [
        [cell.text for cell in row.all("th") + row.all("td")] for row in page.by_id("merges").all("tr")[1:]
    ]

    assert [row[0] for row in rows] == ["conv<1>", "add behind the merge"]
    assert [row[1] for row in rows] == ["Conv2D, relu", "Add, relu"]
    assert rows[0][4] == "100 %"
    # What the merge's own percentile is of the factor that it shares.
    own, factor = float(rows[1][2]), float(rows[1][3])
    assert rows[1][4] == f"{100 * own / factor:.0f} %"
    assert rows[0][3] == rows[1][3]


def test_the_page_begins_with_what_it_is_of_and_ends_with_the_settings(page: Node, data: ReportData) -> None:
    sections = [each.attributes.get("id") for each in page.by_id("main").all("section")]

    assert page.all("title")[0].text == page.all("h1")[0].text == data.title
    about = [[part.text for part in each.inside] for each in page.all("dl", "about")[0].inside]
    assert about == [["data", "x.npz, 53 samples"], ["date", "2026-11-26 12:00:00 UTC"]]
    assert sections == [None, "overview", "table", "merges", "layers", "made", "settings"]


def test_how_it_was_made_and_the_files_can_be_had_from_the_page_alone(page: Node) -> None:
    made = page.by_id("made").text
    files = {each.attributes.get("download"): str(each.attributes["href"]) for each in page.all("a")}

    assert "actisketch run job.toml --output again" in made
    (row,) = page.by_id("made").all("table", "work")[0].all("tbody")[0].all("tr")
    assert [cell.text for cell in row.inside] == ["record", "then", "3.5 s", "7.0 s", "1.2 GiB"]
    assert any(each.attributes["href"] == "../factors.json" for each in page.all("a"))
    kind, _, content = files["factors.csv"].partition(",")
    assert kind == "data:text/plain;base64"
    assert base64.b64decode(content) == b"a,b\n1,2\n"
    assert base64.b64decode(files["001-conv_1_.pdf"].partition(",")[2]).startswith(b"%PDF-")


def test_the_table_is_sorted_by_the_numbers_behind_its_cells(page: Node) -> None:
    (table,) = page.all("table", "layers")
    heads = [each.text for each in table.all("thead")[0].all("th")]
    (row,) = [row for row in table.all("tr") if row.attributes.get("data-layer") == "1"]
    cells = dict(zip(heads, [each for each in row.inside if each.tag in ("th", "td")], strict=True))

    def number(head: str) -> float:
        return float(str(cells[head].attributes["data-v"]))

    assert number("values") == VALUES.size
    assert number("zeros") == (VALUES == 0).mean()
    assert number("max") == VALUES.max()
    assert number("shape") == 5 * 7 * 3
    assert number("p99.9") == pytest.approx(np.percentile(VALUES[VALUES > 0], 99.9), rel=1e-3)
    assert number("residual") == 3e-7
