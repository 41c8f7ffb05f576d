"""The views of jobs in a real browser: from the form made of the settings, over the plan, to the end of the job."""

from __future__ import annotations

import json
import shutil
import time

import pytest

from actisketch.pipeline.service import live
from actisketch.pipeline.service.jobs import job_queue
from actisketch.pipeline.service.jobs.job_places import Permissions
from actisketch.pipeline.service.jobs.job_queue import JobQueue
from actisketch.pipeline.service.jobs.job_table import JobTable
from actisketch.pipeline.service.run_root import RunRoot
from actisketch.pipeline.settings.job_settings import JobSettings
from actisketch.storage.errors import StorageError

from .browser import IN_A_BROWSER
from .conftest import TOKEN, make_run, served_here
from .test_jobs import QUICK

pytestmark = IN_A_BROWSER


@pytest.fixture(scope="module")
def place(tmp_path_factory, demo_files):
    """A folder with the digits and their network, whose jobs are quick."""
    root = tmp_path_factory.mktemp("page-of-jobs")
    for path in demo_files.values():
        shutil.copy(path, root)
    record = make_run(root / "damaged").run.cache_path / ".actisketch" / "commits"
    min(record.iterdir()).write_bytes(b"not a record")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job_queue, "INTERVAL_S", 0.05)
        with (
            JobQueue(RunRoot.of(root), Permissions(), command=QUICK) as jobs,
            served_here(root, jobs=jobs) as (host, port),
        ):
            yield root, f"http://{host}:{port}/"


def fill(browser, **settings):
    """Type settings by their names, with ``__`` for the point."""
    for name, words in settings.items():
        place = f"document.getElementsByName({json.dumps(name.replace('__', '.'))})[0]"
        browser.run(f"{place}.value = {json.dumps(words)}")
        browser.run(f"{place}.dispatchEvent(new Event('input', {{bubbles: true}}))")


def press(browser, button):
    browser.run(f"[...document.querySelectorAll('button')].find(b => b.textContent === {button!r}).click()")


def words(browser):
    return browser.run("document.querySelector('main').innerText")


def test_the_form_has_every_setting_with_its_text(place, browser):
    browser.open(f"{place[1]}?view=new-job")
    names = browser.run("[...document.querySelectorAll('form [name]')].map(e => e.name)")
    tables = {name: field.annotation for name, field in JobSettings.model_fields.items() if name != "output"}
    expected = ["output", *(f"{name}.{key}" for name, table in tables.items() for key in table.model_fields)]
    texts = browser.run(
        "[...document.querySelectorAll('.setting')].map(e => e.querySelector('p').textContent)"
    )

    assert names == [name for name in expected if name != "cache.storage_options"]
    assert all(texts)
    told = "e => document.getElementById(e.getAttribute('aria-describedby'))"
    assert browser.run(f"[...document.querySelectorAll('form [name]')].every({told})")
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")


def test_a_job_is_planned_submitted_and_followed_to_its_end(place, browser):
    root, address = place
    (root / "new.hold").touch()
    browser.open(f"{address}?view=new-job")
    is_off = "[...document.querySelectorAll('button')].find(b => b.textContent === 'Submit').disabled"
    fill(browser, output="new", model__path="digits.keras", data__path="digits.npz", data__divide_by="16")
    fill(browser, data__labels="y", data__inputs="x", normalize__enabled="false", report__enabled="false")
    assert browser.run(is_off)
    press(browser, "Plan")
    browser.wait_for("document.querySelector('.told.good')", limit_s=120)
    plan = words(browser)
    for found in ("1,797", "conv1", "8x8x16", 'path = "digits.keras"', "divide_by = 16.0", "enabled = false"):
        assert found in plan
    assert not (root / "new").exists()

    fill(browser, data__divide_by="8")
    assert browser.run(is_off)
    press(browser, "Plan")
    browser.wait_for(f"!{is_off}", limit_s=120)
    press(browser, "Submit")
    browser.wait_for("document.querySelector('h1')?.textContent === 'Job 1: new'")
    browser.wait_for("document.querySelector('main')?.innerText.includes('1 of 3')")
    browser.run("window.was_here = true")
    (root / "new.hold").unlink()
    browser.wait_for("document.querySelector('.state')?.textContent === 'complete'")

    assert "working" in words(browser)
    assert browser.run("window.was_here")
    browser.run("[...document.querySelectorAll('main a')].find(a => a.textContent === 'new').click()")
    browser.wait_for("document.querySelector('h1')?.textContent === 'new' && document.querySelector('tbody')")


def test_a_job_is_cancelled_and_resumed_and_listed(place, browser):
    root, address = place
    (root / "again.hold").touch()
    browser.open(address)
    tree = {"output": "again", "model": {"path": "digits.keras"}, "data": {"path": "digits.npz"}}
    tree |= {part: {"enabled": False} for part in ("normalize", "report")}
    script = f"act('api/v1/jobs', {json.dumps(tree)}).then(j => j.id)"
    job = browser.run(script)
    browser.open(f"{address}?view=job&job={job}")
    browser.wait_for("document.querySelector('main')?.innerText.includes('1 of 3')")
    press(browser, "Cancel")
    browser.wait_for("document.querySelector('.state')?.textContent === 'cancelled'")
    browser.open(f"{address}?view=jobs")
    browser.wait_for("document.querySelectorAll('tbody tr').length >= 1")
    assert "cancelled: finished blocks are kept" in words(browser)
    assert browser.run("document.querySelector('#jobs').hidden") is False

    (root / "again.hold").unlink()
    browser.open(f"{address}?view=job&job={job}")
    press(browser, "Resume")
    browser.wait_for("document.querySelector('.state')?.textContent === 'complete'")
    browser.run(
        "[...document.querySelectorAll('main a')].find(a => a.textContent.startsWith('New job')).click()"
    )
    browser.wait_for("document.getElementsByName('output')[0]?.value === 'again'")
    assert browser.run("document.getElementsByName('normalize.enabled')[0].value") == "false"


def submitted(browser, name):
    tree = {"output": name, "model": {"path": "digits.keras"}, "data": {"path": "digits.npz"}}
    tree |= {part: {"enabled": False} for part in ("normalize", "report")}
    return browser.run(f"act('api/v1/jobs', {json.dumps(tree)}).then(j => j.id)")


def test_progress_of_an_earlier_attempt_is_not_shown_as_that_of_this_one(place, browser):
    root, address = place
    (root / "twice.hold").touch()
    browser.open(address)
    job = submitted(browser, "twice")
    browser.open(f"{address}?view=job&job={job}")
    browser.wait_for("document.querySelector('main')?.innerText.includes('Running, stage record')")
    press(browser, "Cancel")
    browser.wait_for("document.querySelector('.state')?.textContent === 'cancelled'")

    # The next attempt waits behind another job, and its folder tells of the first one.
    (root / "before.hold").touch()
    before = submitted(browser, "before")
    browser.open(f"{address}?view=job&job={job}")
    press(browser, "Resume")
    browser.wait_for("document.querySelector('main')?.innerText.includes('Starting')")
    assert "interrupted" not in words(browser).partition("Settings")[0]
    (root / "before.hold").unlink()
    browser.wait_for("document.querySelector('main')?.innerText.includes('Running, stage record')")
    (root / "twice.hold").unlink()
    browser.wait_for("document.querySelector('.state')?.textContent === 'complete'")
    assert before > job


@pytest.mark.parametrize("view", ["job", "jobs"])
def test_a_page_goes_on_after_the_service_did_not_answer(place, started, view):
    root, address = place
    name = f"silent-{view}"
    (root / f"{name}.hold").touch()
    started.open(address)
    job = submitted(started, name)
    started.open(f"{address}?view={view}&job={job}")
    started.wait_for("document.querySelector('.state')?.textContent === 'running'")
    started.call("Network.setBlockedURLs", urls=["*/api/*"])
    started.wait_for("document.querySelector('main').innerText.includes('The service does not answer')")
    assert "Failed to fetch" not in words(started)

    started.call("Network.setBlockedURLs", urls=[])
    (root / f"{name}.hold").unlink()
    started.wait_for("document.querySelector('.state')?.textContent === 'complete'")
    started.wait_for("!document.querySelector('main').innerText.includes('does not answer')")

    started.call("Network.setExtraHTTPHeaders", headers={})
    started.wait_for("document.querySelector('main').innerText.includes('You are signed out')")
    assert started.run(
        "[...document.querySelectorAll('main a')].some(a => a.textContent === 'Sign in again')"
    )
    started.call("Network.setExtraHTTPHeaders", headers={"Authorization": f"Bearer {TOKEN}"})
    started.wait_for("!document.querySelector('main').innerText.includes('signed out')")
    started.problems.clear()  # the browser itself notes what did not reach the service, and the answers 401


def test_what_is_refused_is_shown_as_text(place, started):
    _, address = place
    started.open(f"{address}?view=new-job")
    fill(
        started,
        output="<img src=x onerror=alert(1)>/../..",
        model__path="digits.keras",
        data__path="digits.npz",
    )
    press(started, "Plan")
    started.wait_for("document.querySelector('.told.bad')")

    assert "<img src=x" in words(started)
    assert "'..'" in words(started)
    assert started.run("document.querySelector('main img')") is None
    # The browser itself notes the answer 422.
    assert all("422" in str(problem) for problem in started.problems)


def test_two_numbers_are_typed_as_they_are_read_and_what_is_no_json_is_told(place, started):
    _, address = place
    started.problems.clear()
    started.open(f"{address}?view=new-job")
    fill(started, output="x", model__path="digits.keras", data__path="digits.npz", data__inputs="x")
    fill(started, data__image_size="[8, 8")
    press(started, "Plan")
    started.wait_for("document.querySelector('.told.bad')")
    assert "[8, 8 is not JSON" in words(started)

    fill(started, data__image_size="8, 8")
    press(started, "Plan")
    # Not as two texts, which would not be whole numbers.
    started.wait_for("document.querySelector('main').innerText.includes('image_size is for images in files')")
    assert len(started.problems) == 1  # what is no JSON is not sent
    started.problems.clear()


def test_a_reason_of_the_service_is_told_and_not_that_it_is_away(place, started, monkeypatch):
    def full(*_, **__):
        raise StorageError("the table of jobs cannot be used: see whether its disk is full")

    started.open(f"{place[1]}?view=jobs")
    started.wait_for("document.querySelector('h1').textContent === 'Jobs'")
    monkeypatch.setattr(JobTable, "jobs", full)
    started.wait_for("document.querySelector('main').innerText.includes('its disk is full')")
    assert "does not answer" not in words(started)
    monkeypatch.undo()
    started.wait_for("!document.querySelector('main').innerText.includes('its disk is full')")
    assert all("503" in str(problem) for problem in started.problems)
    started.problems.clear()


def test_a_job_is_followed_also_where_its_run_was_complete_before_it_began(place, browser, monkeypatch):
    root, address = place
    monkeypatch.setattr(live, "RETRY_MS", 50)
    browser.open(address)
    job = submitted(browser, "done")
    browser.open(f"{address}?view=job&job={job}")
    browser.wait_for("document.querySelector('.state')?.textContent === 'complete'")

    # The next attempt waits behind another job, for longer than the browser asks for news of a complete run.
    for name in ("before", "done"):
        (root / f"{name}.hold").touch()
    submitted(browser, "before")
    press(browser, "Resume")
    browser.wait_for("document.querySelector('main')?.innerText.includes('Starting')")
    time.sleep(1.5)
    (root / "before.hold").unlink()
    browser.wait_for("document.querySelector('main')?.innerText.includes('Running, stage record')")
    (root / "done.hold").unlink()
    browser.wait_for("document.querySelector('.state')?.textContent === 'complete'")


def test_a_setting_that_a_request_left_out_by_null_is_left_out_in_the_form(place, browser):
    browser.open(place[1])
    tree = {
        "output": "left-out",
        "model": {"path": "digits.keras"},
        "data": {"path": "x.npz", "labels": None},
    }
    job = browser.run(f"act('api/v1/jobs', {json.dumps(tree)}).then(j => j.id)")
    browser.open(f"{place[1]}?view=new-job&from={job}")

    assert browser.run("document.getElementsByName('data.path')[0].value") == "x.npz"
    assert browser.run("document.getElementsByName('data.labels')[0].value") == ""


def test_a_job_of_a_repair_shows_its_command(place, browser):
    _, address = place
    browser.open(address)
    job = browser.run("act('api/v1/jobs/repair', {run: 'damaged'}).then(j => j.id)")
    browser.open(f"{address}?view=job&job={job}")

    assert browser.run("document.querySelector('pre').textContent") == "actisketch verify damaged --repair"


def test_a_damaged_run_has_a_button_for_its_repair(place, browser):
    browser.open(f"{place[1]}?run=damaged")
    browser.wait_for("[...document.querySelectorAll('button')].some(b => b.textContent === 'Repair')")


def test_where_jobs_are_not_allowed_nothing_of_them_is_shown(made_once, browser):
    with served_here(made_once) as (host, port):
        browser.open(f"http://{host}:{port}/")
        browser.wait_for("document.querySelector('tbody')")

        assert browser.run("document.querySelector('#jobs').hidden")
        assert "Jobs" not in browser.run("document.body.innerText")
