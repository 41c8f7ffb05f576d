"""The list of runs: from small files, paged, sorted, filtered; it tells the truth while runs change."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from actisketch.pipeline.service.catalogue import Catalogue
from actisketch.pipeline.service.run_root import RunRoot
from actisketch.storage import Cache

from .conftest import MadeRun, make_run

API = "/api/v1/runs"


def names(client, **asked):
    return [run["name"] for run in client.get(API, params=asked).json()["runs"]]


def test_every_run_is_listed_with_its_state(client):
    rows = {run["name"]: run for run in client.get(API).json()["runs"]}

    assert rows.keys() == {"first", "other", "half", "old", "vgg/channels"}
    assert rows["vgg/channels"]["id"] == "vgg~1channels"
    assert rows["first"]["state"] == "complete"
    assert rows["half"]["state"] == "stopped"
    assert (rows["half"]["n_blocks_done"], rows["half"]["n_blocks"], rows["half"]["n_points"]) == (2, 3, 2)
    assert (rows["old"]["model"], rows["old"]["n_samples"], rows["old"]["percentile"]) == (
        "functional",
        53,
        99.9,
    )


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"name": "IR"}, ["first"]),
        ({"name": "/"}, ["vgg/channels"]),
        ({"model": "FUNC"}, ["old"]),
        ({"state": "stopped"}, ["half"]),
        ({"state": "running"}, []),
        ({"sort": "name"}, ["first", "half", "old", "other", "vgg/channels"]),
        ({"sort": "-name", "limit": 2}, ["vgg/channels", "other"]),
        ({"sort": "name", "offset": 3}, ["other", "vgg/channels"]),
        ({"sort": "-samples", "limit": 1}, ["old"]),
        ({"sort": "model", "limit": 1}, ["old"]),
        ({"name": "o", "state": "complete", "sort": "name"}, ["old", "other"]),
        ({"offset": 99}, []),
    ],
)
def test_filters_order_and_pages(client, asked, found):
    assert names(client, **asked) == found


def test_the_total_counts_all_pages(client):
    answer = client.get(API, params={"limit": 1, "name": "o"}).json()

    assert (answer["n_total"], len(answer["runs"])) == (2, 1)


def test_a_run_that_somebody_records_is_running(root, client_of):
    made = MadeRun(root / "half")
    client = client_of(root)
    with Cache.create_or_resume(made.run.cache_path, made.spec):
        assert names(client, state="running") == ["half"]
        assert str(os.getpid()) in client.get(f"{API}/half").json()["writer"]


def test_the_lock_of_a_process_that_was_killed_is_nobodys(root, client_of):
    lock = root / "half" / "cache" / ".actisketch" / "lock"
    made = MadeRun(root / "half")
    with Cache.create_or_resume(made.run.cache_path, made.spec):
        holder = json.loads(lock.read_text())
    lock.write_text(json.dumps({**holder, "started_s": holder["started_s"] - 100}))

    assert names(client_of(root), state="running") == []


def test_new_changed_and_deleted_runs_are_seen(root, monkeypatch):
    monkeypatch.setattr("actisketch.pipeline.service.catalogue.FRESH_S", 0.0)
    catalogue = Catalogue(RunRoot.of(root))

    def rows():
        return {row.name: row.state for row in catalogue.rows()[0]}

    before = rows()
    MadeRun(root / "a" / "new").begin()
    MadeRun(root / "half").record().finish()
    shutil.rmtree(root / "old")

    assert before.pop("old") == "complete"
    assert rows() == {**before, "a/new": "stopped", "half": "complete"}


def test_a_run_whose_commits_are_gone_is_not_complete(root, client_of, monkeypatch):
    monkeypatch.setattr("actisketch.pipeline.service.catalogue.FRESH_S", 0.0)
    client, commits = client_of(root), root / "first" / "cache" / ".actisketch" / "commits"

    def row():
        return client.get(API, params={"name": "first"}).json()["runs"][0]

    assert (row()["state"], row()["n_blocks_done"]) == ("complete", 3)
    last = max(commits.iterdir())
    content = last.read_bytes()
    last.unlink()

    assert (row()["state"], row()["n_blocks_done"]) == ("stopped", 2)
    assert "first" in names(client, state="stopped")
    last.write_bytes(content)
    assert row()["state"] == "complete"
    min(commits.iterdir()).unlink()
    assert row()["state"] == "stopped"
    shutil.rmtree(root / "first" / "cache")
    assert (row()["state"], row()["n_blocks"]) == ("stopped", None)
    assert "first" not in names(client, state="complete")


@pytest.fixture
def at_once(monkeypatch):
    """What is seen is seen now."""
    monkeypatch.setattr("actisketch.pipeline.service.catalogue.FRESH_S", 0.0)
    monkeypatch.setattr("actisketch.pipeline.service.live.SHARED_S", 0.0)


def killed_again(folder):
    """Run again with another percentile, in a process that is killed before it makes the factors."""
    code = f"""
        import os, signal
        from pathlib import Path
        from made_runs import MadeRun
        from actisketch.pipeline.events import StageStarted
        from actisketch.pipeline.folder.progress_file import progress_told
        made = MadeRun(Path({str(folder)!r}), changes={{"factors": {{"percentile": 50.0}}}}).begin()
        with progress_told(made.run, lambda event: None) as listen:
            listen(StageStarted(stage="factors"))
            os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False, cwd=Path(__file__).parent)


def test_a_run_that_was_killed_on_its_way_to_other_factors_is_not_complete(root, own, at_once):
    def states():
        return [
            own.get(API, params={"name": "first"}).json()["runs"][0]["state"],
            *(own.get(f"{API}/first{path}").json()["state"] for path in ("", "/live")),
        ]

    assert states() == ["complete"] * 3
    killed_again(root / "first")

    assert states() == ["stopped"] * 3
    assert own.get(f"{API}/first").json()["out_of_date"] == ["factors"]
    MadeRun(root / "first", changes={"factors": {"percentile": 50.0}}).finish()
    assert states() == ["complete"] * 3


def test_a_run_with_factors_of_other_settings_is_not_shown_as_complete(root, own, at_once):
    MadeRun(root / "first", changes={"factors": {"percentile": 50.0}}).begin()
    shown, live = own.get(f"{API}/first").json(), own.get(f"{API}/first/live").json()

    assert (shown["out_of_date"], shown["state"], live["state"]) == (["factors"], "stopped", "stopped")
    MadeRun(root / "first").begin()
    assert [own.get(f"{API}/first{path}").json()["state"] for path in ("", "/live")] == ["complete"] * 2


def states_of(client, name):
    """In the list, of the run, and now."""
    (row,) = (run for run in client.get(API).json()["runs"] if run["name"] == name)
    return [row["state"], *(client.get(f"{API}/{name}{path}").json()["state"] for path in ("", "/live"))]


@pytest.mark.parametrize("noted", ["0123456789abcdef", {"key": "0123456789abcdef"}])
def test_results_without_hashes_as_early_versions_noted_them_are_still_to_be_made(root, own, at_once, noted):
    manifest = root / "old" / "run.json"
    tree = json.loads(manifest.read_text())
    assert states_of(own, "old") == ["complete"] * 3
    manifest.write_text(json.dumps({**tree, "stages": dict.fromkeys(tree["stages"], noted)}))

    assert states_of(own, "old") == ["stopped"] * 3
    assert own.get(f"{API}/old").json()["out_of_date"] == ["factors", "certificate", "network"]


def test_a_report_of_another_version_is_out_of_date_and_the_run_complete(root, own, at_once):
    made = make_run(root / "told", changes={"report": {"enabled": True}})
    page = made.run.report_path / "index.html"
    page.parent.mkdir()
    page.write_text("as version 0.1 has drawn it")
    made.run.mark_made("report", "0123456789abcdef", page)

    assert own.get(f"{API}/told").json()["out_of_date"] == ["report"]
    assert states_of(own, "told") == ["complete"] * 3
    page.unlink()
    assert states_of(own, "told")[1:] == ["stopped"] * 2


def test_a_cache_elsewhere_that_lacks_blocks_is_not_shown_as_complete(root, own, at_once):
    made = (
        MadeRun(root / "far", changes={"cache": {"url": str(root / "elsewhere")}}).begin().record().finish()
    )
    shutil.move(made.run.cache_path, root / "elsewhere")

    def states():
        return [own.get(f"{API}/far{path}").json()["state"] for path in ("", "/live")]

    assert states() == ["complete"] * 2
    min((root / "elsewhere" / ".actisketch" / "commits").iterdir()).unlink()

    assert states() == ["stopped"] * 2
    assert own.get(f"{API}/far/live").json()["n_blocks_done"] == 2


def test_the_list_tells_how_large_the_activations_are(client):
    rows = {run["name"]: run for run in client.get(API).json()["runs"]}

    assert rows["first"]["activations_nbytes"] == 17 * (3 * 5 * 2 + 7) * 4
    assert rows["half"]["activations_nbytes"] == 12 * (3 * 5 * 2 + 7) * 4


def test_a_folder_that_has_not_changed_is_not_listed_again(root, monkeypatch):
    monkeypatch.setattr("actisketch.pipeline.service.catalogue.FRESH_S", 0.0)
    monkeypatch.setattr("actisketch.pipeline.service.run_root.SETTLED_NS", -1)
    (root / "images").mkdir()
    for i in range(50):
        (root / "images" / f"{i}.png").touch()
    listed, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (listed.append(os.fspath(path)), scandir(path))[1])
    catalogue = Catalogue(RunRoot.of(root))
    found = {row.name for row in catalogue.rows()[0]}
    images = str(root / "images")
    assert images in listed

    listed.clear()
    assert {row.name for row in catalogue.rows()[0]} == found
    assert images not in listed
    shutil.copytree(root / "first", root / "images" / "late")
    assert {row.name for row in catalogue.rows()[0]} == found | {"images/late"}


def test_a_manifest_that_cannot_be_read_is_listed_as_damaged(root, client_of):
    (root / "first" / "run.json").write_bytes(b"{")
    (root / "other" / "run.json").write_text(
        '{"actisketch_run": 1, "settings": [], "model": 5, "n_samples": "x"}'
    )
    (root / "old" / "run.json").write_text(
        '{"actisketch_run": 1, "settings": {"factors": {"percentile": NaN}}}'
    )

    assert sorted(names(client_of(root), state="damaged")) == ["first", "other"]
    assert client_of(root).get(API, params={"name": "old"}).json()["runs"][0]["percentile"] is None


def test_folders_without_runs_are_passed_over(root, client_of):
    (root / ".hidden").mkdir()
    shutil.copytree(root / "first", root / ".hidden" / "run")
    shutil.copytree(root / "first", root / "first" / "inner")
    shutil.copytree(root / "first" / "cache", root / "cache-alone")
    (root / "cache-alone" / "conv" / "run.json").write_text("{}")
    (root / "deep" / "/".join("abcdefghi")).mkdir(parents=True)
    (root / b"\xff".decode("utf-8", "surrogateescape")).mkdir()

    assert len(names(client_of(root))) == 5


def test_a_listing_of_too_many_files_ends_and_says_so(root, client_of, monkeypatch):
    monkeypatch.setattr("actisketch.pipeline.service.run_root.MOST_ENTRIES", 3)

    assert client_of(root).get(API).json()["is_cut"] is True


def test_a_manifest_that_could_not_be_read_once_is_read_again(root, client_of, monkeypatch):
    monkeypatch.setattr("actisketch.pipeline.service.catalogue.FRESH_S", 0.0)
    client, open_file = client_of(root), os.open

    def refuse(path, *rest, **more):
        if str(path).endswith("first/run.json"):
            raise OSError(errno.EIO, "Input/output error")
        return open_file(path, *rest, **more)

    with monkeypatch.context() as broken:
        broken.setattr(os, "open", refuse)
        assert names(client, state="damaged") == ["first"]
    assert names(client, state="damaged") == []
    assert "first" in names(client, state="complete")


def test_a_root_that_is_away_is_not_an_empty_one(root, client_of, monkeypatch):
    monkeypatch.setattr("actisketch.pipeline.service.catalogue.FRESH_S", 0.0)
    client = client_of(root)
    assert client.get(API).json()["n_total"] == 5
    root.rename(root.with_name("away"))
    for path in (API, f"{API}/first", f"{API}/first/points", f"{API}/first/live"):
        answer = client.get(path)

        assert (answer.status_code, answer.json()["kind"]) == (503, "storage")
        assert "retry-after" in answer.headers
    root.with_name("away").rename(root)

    assert client.get(API).json()["n_total"] == 5
    assert client.get(f"{API}/first/points").status_code == 200
