"""The page in a real browser, from a file: narrow and wide, light and dark, with the keyboard, without a network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from actisketch.pipeline.report import write_report
from actisketch.pipeline.report.picture import INKS
from actisketch.pipeline.sketch import PointSketch, SketchSpec

from ..service.browser import IN_A_BROWSER, Browser
from .conftest import make_point, make_report

pytestmark = IN_A_BROWSER

HOSTILE = '"><script>document.title="owned"</script>'
SCALES = (3.0, 1.0, 100.0, 10.0)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page that lies alone, as one that was sent by mail."""
    before = PointSketch.empty(SketchSpec(per_channel=True), 7)
    before.update(np.random.default_rng(1).gamma(1.0, 1.0, (31, 5, 7)).astype(np.float32))
    points = [make_point(f"block/conv{i}", seed=i, scale=scale) for i, scale in enumerate(SCALES)]
    points += [
        make_point("channels", before=before),
        make_point("merge", layer_type="Add", weights_before=None, weights_after=None, is_tied=True),
        *(make_point(f"filling/a_long_name_{i}", factor=50.0) for i in range(20)),
        make_point(HOSTILE, residual=None),
    ]
    report = make_report(tuple(points), groups=(("merge", HOSTILE),), downloads={"job.toml": "a = 1\n"})
    folder = tmp_path_factory.mktemp("page")
    write_report(folder / "whole", report)
    (folder / "alone").mkdir()
    return shutil.copy(folder / "whole" / "index.html", folder / "alone" / "index.html")


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(started: Browser, page: Path) -> Iterator[Browser]:
    """A browser at the page, which must not complain, nor ask anybody for anything."""
    started.problems.clear()
    started.call("Emulation.clearDeviceMetricsOverride")
    started.open(f"file://{page}")
    yield started
    assert started.problems == []
    asked = started.run("performance.getEntriesByType('resource').map(each => each.name)")
    assert [each for each in asked if not each.startswith(("data:", "blob:"))] == []


def size(browser: Browser, width: int, *, dark: bool = False) -> None:
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
    )
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.call("Emulation.setEmulatedMedia", features=scheme)


def shown(browser: Browser, selector: str) -> list[str]:
    """The texts of the elements that take room."""
    found: list[str] = browser.run(
        f"[...document.querySelectorAll({json.dumps(selector)})].filter(e => e.getClientRects().length)"
        ".map(e => e.textContent.trim())"
    )
    return found


@pytest.mark.parametrize("width", [420, 1024, 1600])
def test_no_width_scrolls_sideways(browser: Browser, width: int) -> None:
    size(browser, width)

    assert browser.run("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    cut_off = (
        "[...document.querySelectorAll('.ladder, article')].filter(e => e.scrollWidth > e.clientWidth).length"
    )
    assert browser.run(cut_off) == 0


def test_a_phone_has_a_table_of_five_columns_and_an_overview_from_above_to_below(browser: Browser) -> None:
    size(browser, 420)

    assert shown(browser, "table.layers th[scope=col]") == [
        "layer",
        "p99.9",
        "factor",
        "residual",
        "saturation",
    ]
    over = "[...document.querySelectorAll('.tall, #merges .scroll')].map(e => e.scrollWidth - e.clientWidth)"
    assert browser.run(over) == [0, 0]
    width, height = browser.run(
        "(r => [r.width, r.height])([...document.querySelectorAll('#overview svg')]"
        ".filter(e => e.getClientRects().length)[0].getBoundingClientRect())"
    )
    assert 300 < width < 420
    assert height > 27 * 25

    size(browser, 1600)
    assert len(shown(browser, "table.layers th[scope=col]")) == 13


@pytest.mark.parametrize("width", [420, 1024, 1600, 2200])
def test_no_picture_stands_alone_in_its_row(browser: Browser, width: int) -> None:
    size(browser, width)

    rows: list[list[int]] = browser.run(
        """[...document.querySelectorAll('.cells')].map(cells => {
            const rows = {};
            for (const part of cells.children) {
                const box = part.getBoundingClientRect();
                (rows[Math.round(box.top)] ??= []).push(part.tagName === 'FIGURE' ? 1 : 0);
            }
            return Object.values(rows).map(row => row.length * 10 + row.reduce((a, b) => a + b, 0));
        })"""
    )
    for cells in rows:
        columns = max(row // 10 for row in cells)
        alone = [row for row in cells if row == 11]
        # One below the other is one column, in which all stand alone.
        assert columns == 1 or alone == [], (columns, cells)


def test_pictures_take_the_colours_of_the_page(browser: Browser) -> None:
    size(browser, 1024)
    ask = "getComputedStyle(document.querySelector('article svg text')).fill"
    light, paper = (
        browser.run(ask),
        browser.run("getComputedStyle(document.querySelector('article')).backgroundColor"),
    )
    size(browser, 1024, dark=True)
    dark, ground = (
        browser.run(ask),
        browser.run("getComputedStyle(document.querySelector('article')).backgroundColor"),
    )

    def brightness(colour: str) -> float:
        return sum(float(each) for each in colour.strip("rgb()").split(",")[:3]) / 3

    assert brightness(light) < 80 < 200 < brightness(paper)
    assert brightness(ground) < 80 < 200 < brightness(dark)
    assert browser.run("document.querySelectorAll('img, canvas').length") == 0


def test_the_table_is_sorted_with_the_keyboard(browser: Browser) -> None:
    size(browser, 1600)

    def names() -> list[str]:
        return shown(browser, "table.layers tbody th")[:4]

    browser.run("[...document.querySelectorAll('th button')].find(e => e.textContent === 'factor').focus()")
    browser.press("Enter", 13, text="\r")
    first = [name for name in names() if "conv" in name]
    sort = (
        "[...document.querySelectorAll('table.layers th[aria-sort]')].map(e => [e.textContent, e.ariaSort])"
    )
    assert browser.run(sort) == [["factor", "ascending"]]
    browser.press(" ", 32, text=" ")
    assert browser.run(sort) == [["factor", "descending"]]
    assert names()[0] == "block/conv2"
    assert "block/conv1" in first
    assert "largest first" in browser.run("document.getElementById('sorted').textContent")

    # What has no residual stays at the end, upwards and downwards.
    for _ in range(2):
        browser.run(
            "[...document.querySelectorAll('th button')].find(e => e.textContent === 'residual').click()"
        )
        assert shown(browser, "table.layers tbody th")[-1] == HOSTILE
    browser.run("[...document.querySelectorAll('th button')].find(e => e.textContent === '#').click()")
    assert names() == [f"block/conv{i}" for i in range(4)]


def test_a_layer_is_found_and_markup_in_its_name_is_text(browser: Browser) -> None:
    size(browser, 1600)

    assert HOSTILE in shown(browser, "h3")[-1]
    assert browser.run("document.title") == "Digits, normalised"
    browser.run(
        "(e => { e.value = 'add'; e.dispatchEvent(new Event('input')); })(document.getElementById('filter'))"
    )
    assert shown(browser, "table.layers tbody th") == ["merge"]


def test_a_page_that_lies_alone_hands_out_its_pictures(browser: Browser, tmp_path: Path) -> None:
    size(browser, 1024, dark=True)
    folder = tmp_path / "downloads"
    folder.mkdir()
    browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    for selector in ("article a.svg", "article a[download$='.pdf']", "a[download='job.toml']"):
        browser.run(f"document.querySelector({json.dumps(selector)}).click()")
        browser.run("new Promise(done => setTimeout(done, 700))")

    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(files) == {"001-block_conv0-activations.svg", "001-block_conv0.pdf", "job.toml"}
    assert files["job.toml"] == b"a = 1\n"
    assert files["001-block_conv0.pdf"].startswith(b"%PDF-")
    root = ElementTree.fromstring(files["001-block_conv0-activations.svg"])
    colours: set[Any] = {each.get(name) for each in root.iter() for name in ("fill", "stroke")}
    assert colours - {None, "none"} <= set(INKS.values())
    assert not any(each.get("class") for each in root.iter())
