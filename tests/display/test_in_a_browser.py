"""Tables as a browser shows them: in the colours of a light and of a dark notebook, and inside its width."""

from __future__ import annotations

import numpy as np
import pytest

from actisketch.pipeline.display.shown_table import ShownTable
from actisketch.pipeline.display.small_pictures import distribution_svg
from actisketch.pipeline.sketch import Sketch

from ..service.browser import IN_A_BROWSER, Browser

pytestmark = IN_A_BROWSER
# What the style sheet of JupyterLab says of tables in an output.
NOTEBOOK = (
    "td,th,tr{text-align:right;vertical-align:middle;padding:.5em;line-height:normal;white-space:normal;"
    "max-width:none;border:none} table{table-layout:fixed;font-size:12px;border-spacing:0}"
)
SCHEMES = {"light": ("#ffffff", "rgb(33, 33, 33)"), "dark": ("#111111", "rgb(224, 224, 224)")}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


def page(n_points: int) -> str:
    sketch = Sketch()
    sketch.update(np.random.default_rng(3).exponential(size=10_000).astype(np.float32))
    names = [f"block_{i}/a_long_name_of_a_layer/conv" for i in range(n_points)]
    return ShownTable(
        title="run",
        lines=["a sentence " * 30],
        columns={"point": names, **{f">number {i}": ["1.234e-5"] * n_points for i in range(9)}},
        pictures=[distribution_svg(sketch, mark=2.0)] * n_points,
    ).html()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [1100, 420])
def test_it_has_the_colours_of_the_notebook_and_stays_in_its_width(browser, tmp_path, scheme, width):
    background, text = SCHEMES[scheme]
    file = tmp_path / "page.html"
    file.write_text(
        f"<!doctype html><meta charset=utf-8><style>{NOTEBOOK}</style><h1>notebook</h1>"
        f'<body style="background:{background};color:{text}">{page(300)}',
        encoding="utf-8",
    )
    browser.open(file.as_uri())
    browser.screenshot(tmp_path / "page.png", width=width)

    assert browser.run("getComputedStyle(document.querySelector('path')).fill") == text
    assert browser.run("getComputedStyle(document.querySelectorAll('path')[1]).stroke") == text
    assert browser.run("getComputedStyle(document.querySelector('td')).color") == text
    # The table scrolls in its frame; the page around it does not become wider, nor 300 rows long.
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("document.querySelector('.actisketch').offsetHeight") < 1000
    heights = browser.run("[...new Set([...document.querySelectorAll('tr')].map(r => r.offsetHeight))]")
    assert max(heights) < 40
    assert browser.run("getComputedStyle(document.querySelector('td')).textAlign") == "left"
    assert browser.problems == []
