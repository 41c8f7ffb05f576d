"""The page in a real browser: every view, the slider, a run that goes on, errors, names that are markup."""

from __future__ import annotations

import itertools
import json
import shutil

import numpy as np
import pytest

from actisketch.pipeline.events import SamplesDone, StageStarted
from actisketch.pipeline.folder.progress_file import progress_told
from actisketch.pipeline.service import live
from actisketch.storage import PointSpec

from .browser import IN_A_BROWSER
from .conftest import TOKEN, MadeRun, make_run, served_here

pytestmark = IN_A_BROWSER

DENSE = "%3Cb%3Edense%2F1%3C%2Fb%3E"
MANY = tuple(PointSpec(name=f"block{i // 3}/conv{i}", shape=(2, 3)) for i in range(300))


@pytest.fixture(scope="module")
def place(made_once, tmp_path_factory):
    """The runs that others read too, and one with 300 points, in a root of their own."""
    root = tmp_path_factory.mktemp("page") / "root"
    shutil.copytree(made_once, root)
    make_run(root / "many", points=MANY)
    with served_here(root) as (host, port):
        yield root, f"http://{host}:{port}/"


def texts(browser, selector):
    return browser.run(f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent)")


def test_the_list_of_runs(place, browser):
    browser.open(place[1])

    assert texts(browser, "h1") == ["Runs"]
    assert set(texts(browser, "tbody td:first-child")) == {
        "first",
        "other",
        "half",
        "old",
        "vgg/channels",
        "many",
    }
    assert "2 of 3" in " ".join(texts(browser, "tbody td:nth-child(3)"))

    browser.run(
        "document.querySelector('input[name=name]').value = 'vgg'; document.querySelector('form').submit()"
    )
    browser.wait_for("document.querySelectorAll('tbody tr').length === 1")
    assert texts(browser, "tbody td:first-child") == ["vgg/channels"]


def test_a_table_is_sorted_by_its_heads_with_the_keyboard(place, browser):
    browser.open(f"{place[1]}?run=many")
    browser.wait_for("document.querySelectorAll('tbody tr').length === 300")
    browser.run("[...document.querySelectorAll('th button')].find(b => b.textContent === 'Layer').focus()")
    for _ in range(2):
        browser.press("Enter", 13, text="\r")

    assert browser.run("document.querySelector('th').getAttribute('aria-sort')") == "descending"
    assert texts(browser, "tbody tr:first-child td:first-child") == ["block99/conv299"]


def test_a_run_with_its_layers_over_depth(place, browser):
    browser.open(f"{place[1]}?run=many&q=50")
    browser.wait_for("document.querySelectorAll('svg g').length === 300")

    assert browser.run("document.querySelector('svg').getAttribute('aria-label')").startswith(
        "300 layers over depth"
    )
    assert "p50 [lo, hi]" in texts(browser, "th")
    assert "actisketch factors many --percentile 50" in texts(browser, "pre")[0]
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")


def test_the_slider_moves_the_percentile_without_asking_again(place, browser):
    root, address = place
    browser.open(f"{address}?run=first&point={DENSE}")
    browser.wait_for("document.querySelector('output')?.textContent.includes('p99.9 ')")
    browser.run("new Promise(resolve => setTimeout(resolve, 500))")
    n_requests = browser.run("performance.getEntriesByType('resource').length")
    before = browser.run("document.querySelector('line.percentile').getAttribute('x1')")
    browser.run("document.querySelector('#q').focus()")
    for _ in range(25):
        browser.press("ArrowLeft", 37)
    said = texts(browser, "output")[0]
    q = float(said.split(" ")[0][1:])
    lo, hi = map(float, said.partition("[")[2].partition("]")[0].split(", "))
    values = MadeRun(root / "first").all_values("<b>dense/1</b>")

    assert q < 99
    assert lo - 1e-4 <= np.percentile(values[values != 0], q) <= hi + 1e-4
    assert browser.run("document.querySelector('line.percentile').getAttribute('x1')") != before
    assert f"q={q:g}" in browser.run("location.search")
    assert f"-q {q:g} --point" in texts(browser, "pre")[0]
    assert browser.run("performance.getEntriesByType('resource').length") == n_requests


def test_names_that_are_markup_stay_text(place, browser):
    browser.open(f"{place[1]}?run=first&point={DENSE}")
    browser.wait_for("document.querySelector('output')?.textContent")

    assert texts(browser, "h1") == ["<b>dense/1</b>"]
    assert browser.run("document.querySelectorAll('b').length") == 0


def test_channels_and_the_normalised_network(place, browser):
    browser.open(f"{place[1]}?run=vgg~1channels&point=conv")
    browser.wait_for("document.body.innerText.includes('2 channels, 0 dead')")
    browser.open(f"{place[1]}?run=old&point=conv")
    browser.wait_for(
        "[...document.images].length === 4 && [...document.images].every(i => i.naturalWidth > 0)"
    )


def test_a_channel_has_its_own_distribution(place, browser):
    browser.open(f"{place[1]}?run=vgg~1channels&point=conv")
    browser.wait_for("document.querySelectorAll('svg g').length === 2")
    browser.run("document.querySelectorAll('svg g')[1].dispatchEvent(new MouseEvent('click'))")
    browser.wait_for("document.querySelector('h1')?.textContent === 'conv, channel 1'")
    browser.wait_for("document.querySelector('output')?.textContent.includes('p99.9 ')")
    lo, hi = map(float, texts(browser, "output")[0].partition("[")[2].partition("]")[0].split(", "))
    values = MadeRun(place[0] / "vgg" / "channels").all_values("conv")[..., 1]

    assert lo - 1e-4 <= np.percentile(values[values != 0], 99.9) <= hi + 1e-4
    assert "channel=1" in browser.run("location.search")
    assert '.sketch("conv", channel=1).percentile(99.9, nonzero=True)' in texts(browser, "pre")[1]
    browser.wait_for("document.querySelector('input[name=channel]')?.value === '1'")


def test_a_run_that_is_deleted_while_it_is_shown_is_told(place, browser, monkeypatch):
    monkeypatch.setattr(live, "INTERVAL_S", 0.1)
    MadeRun(place[0] / "short").begin().record(1)
    browser.open(f"{place[1]}?run=short")
    browser.wait_for("document.querySelector('progress')?.value === 1")
    shutil.rmtree(place[0] / "short")
    browser.wait_for("document.body.innerText.includes(\"there is no run 'short'\")")

    assert texts(browser, "h1") == ["short"]  # what was shown stays
    assert all("404" in str(problem) for problem in browser.problems)  # the browser itself notes such answers
    browser.problems.clear()


def test_what_makes_the_same_elsewhere_has_the_percentiles_that_are_shown(place, browser):
    make_run(place[0] / "mse", changes={"factors": {"method": "mse"}})
    for asked, flag, argument in (
        ("run=mse", "", ""),
        ("run=mse&q=99.9999", " --percentile 99.9999", "percentile=99.9999"),
        ("run=first&q=50.50", " --percentile 50.5", "percentile=50.5"),
    ):
        browser.open(f"{place[1]}?{asked}")
        browser.wait_for("document.querySelector('pre')")
        command, python = texts(browser, "pre")
        assert (
            command.splitlines()[1].removeprefix("actisketch factors ")[5 if "first" in asked else 3 :]
            == flag
        )
        assert python.endswith(f".factors({argument}).by_point()")

    browser.open(f"{place[1]}?view=compare&a=first&b=other&percentile=50")
    browser.wait_for("document.querySelectorAll('tbody tr').length === 2")
    # The command line takes no percentile of the factors.
    assert texts(browser, "pre") == ['compare("first", "other", percentile=50)']


def test_a_run_beyond_the_list_is_chosen_where_it_is_compared(place, browser):
    for n in range(501):
        (place[0] / "a" / f"{n}").mkdir(parents=True)
        shutil.copy(place[0] / "first" / "run.json", place[0] / "a" / f"{n}" / "run.json")
    try:
        browser.open(f"{place[1]}?view=compare&a=other&b=first")
        browser.wait_for("document.querySelectorAll('tbody tr').length === 2")
        chosen = browser.run("[...document.querySelectorAll('select')].map(e => e.value)")
    finally:
        shutil.rmtree(place[0] / "a")

    assert chosen == ["other", "first"]


def test_where_no_news_come_any_more_the_page_says_so(place, browser, monkeypatch):
    monkeypatch.setattr(live, "MOST_STREAMS", 0)
    browser.open(f"{place[1]}?run=half")
    browser.wait_for("document.body.innerText.includes('No more news of this run come')")

    assert all("503" in str(problem) for problem in browser.problems)  # the browser itself notes such answers
    browser.problems.clear()


def test_two_runs_are_compared(place, browser):
    browser.open(f"{place[1]}?view=compare&a=first&b=other")
    browser.wait_for("document.querySelectorAll('tbody tr').length === 2")

    command, python = texts(browser, "pre")
    assert command == "actisketch compare first other"
    assert python == 'compare("first", "other")'


def test_a_run_goes_on_from_nothing_to_its_end(place, browser, monkeypatch):
    monkeypatch.setattr(live, "INTERVAL_S", 0.1)
    monkeypatch.setattr("actisketch.pipeline.folder.progress_file.INTERVAL_S", 0.0)
    made = MadeRun(place[0] / "going").begin()
    with progress_told(made.run, lambda event: None) as listen:
        listen(StageStarted(stage="record", n_total=17, unit="samples"))
        browser.open(f"{place[1]}?run=going")
        for n in range(3):
            browser.wait_for(f"document.querySelector('progress')?.value === {n}")
            made.record(1)
            listen(SamplesDone(n_done=min(17, 6 * n + 6)))
        browser.wait_for("document.querySelector('progress')?.value === 3")
        browser.wait_for("document.body.innerText.includes('17 of 17 samples')")
        made.finish()
    browser.wait_for("document.querySelector('.told.good')?.textContent.includes('complete')")
    browser.wait_for("!document.body.innerText.includes('of 3 blocks')")
    browser.wait_for("document.querySelector('.facts').innerText.includes('State\\ncomplete')")


def test_bars_of_the_list_move_and_what_has_the_focus_keeps_it(place, browser, monkeypatch):
    monkeypatch.setattr("actisketch.pipeline.service.catalogue.FRESH_S", 0.0)
    made = MadeRun(place[0] / "moving").begin()
    link = "document.querySelector('a[href$=\"run=moving\"]')"
    bar = f"{link}.closest('tr').querySelector('progress')?.value"
    with progress_told(made.run, lambda event: None) as listen:
        listen(StageStarted(stage="record", n_total=17, unit="samples"))
        browser.open(f"{place[1]}?sort=name")
        browser.wait_for(f"{bar} === 0")
        browser.run(f"{link}.focus()")
        for n in (1, 2):
            made.record(1)
            browser.wait_for(f"{bar} === {n}")
            assert browser.run(f"document.activeElement === {link}")
        made.record().finish()
    browser.wait_for(f"{link}.closest('tr').innerText.includes('complete')", limit_s=40)
    shutil.rmtree(place[0] / "moving")


def test_the_list_is_sorted_by_the_service(place, browser):
    browser.open(place[1])
    browser.run("[...document.querySelectorAll('th button')].find(b => b.textContent === 'Samples').click()")
    browser.wait_for("document.querySelector('th[aria-sort]')?.textContent === 'Samples'")

    assert "sort=-samples" in browser.run("location.search")
    assert texts(browser, "tbody tr:first-child td:first-child") == ["old"]
    assert browser.run("document.querySelector('th[aria-sort]').getAttribute('aria-sort')") == "descending"


def test_a_browser_signs_in_with_a_token(place, started):
    started.call("Network.setExtraHTTPHeaders", headers={})
    try:
        started.open(f"{place[1]}?run=many&q=50")
        assert texts(started, "h1") == ["Sign in"]
        assert started.run("document.activeElement.name") == "secret"
        for secret, heading in (("guess", "Sign in"), (TOKEN, "many")):
            started.run(f"document.querySelector('[name=secret]').value = {json.dumps(secret)}")
            started.run(
                "document.querySelector('form').dataset.old = 1; document.querySelector('button').click()"
            )
            started.wait_for("document.querySelector('h1') && !document.querySelector('form[data-old]')")
            assert texts(started, "h1") == [heading]
        assert started.run("location.search") == "?run=many&q=50"
        assert started.run("document.cookie") == ""  # no script can read it
    finally:
        started.call("Network.setExtraHTTPHeaders", headers={"Authorization": f"Bearer {TOKEN}"})
        started.problems.clear()  # the browser notes the answers 401 itself


@pytest.mark.parametrize(("run", "n_points"), [("first", 2), ("fifty", 53), ("many", 300)])
def test_all_layers_over_depth_fit_in_one_view_and_are_apart(place, browser, run, n_points):
    if not (place[0] / run).exists():
        make_run(place[0] / run, points=MANY[:n_points])
    browser.open(f"{place[1]}?run={run}")
    browser.wait_for(f"document.querySelectorAll('svg g').length === {n_points}")
    found = browser.run(
        "[...document.querySelectorAll('svg circle')].map(c => [+c.getAttribute('cx'), +c.getAttribute('r')])"
    )

    assert len(found) == n_points
    assert all(b[0] - a[0] > a[1] + b[1] - 1e-6 for a, b in itertools.pairwise(found))
    assert found[-1][0] <= 64 + 1200
    assert len(texts(browser, "svg .grid + text")) >= 2


def test_an_error_is_shown(place, started):
    started.open(f"{place[1]}?run=nope")

    assert texts(started, "h1") == ["This cannot be shown"]
    assert "there is no run 'nope'" in texts(started, ".bad")[0]
    started.problems.clear()  # the browser notes the answer 404 itself


def test_a_folder_without_runs_says_how_to_make_one(tmp_path, browser):
    with served_here(tmp_path) as (host, port):
        browser.open(f"http://{host}:{port}/")

        assert "actisketch demo --output first" in texts(browser, "pre")[0]


def test_the_page_has_a_light_and_a_dark_side(place, browser, tmp_path):
    browser.open(place[1])
    light = browser.screenshot(tmp_path / "light.png").read_bytes()
    ground = "getComputedStyle(document.body).backgroundColor"
    before = browser.run(ground)
    dark = browser.screenshot(tmp_path / "dark.png", dark=True).read_bytes()

    assert (before, browser.run(ground)) == ("rgb(244, 246, 248)", "rgb(13, 17, 23)")
    assert light != dark
