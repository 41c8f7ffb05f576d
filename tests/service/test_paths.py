"""Nothing outside of the root is read, however it is named."""

from __future__ import annotations

import json
import os
import shutil
import sys
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from obstore.store import from_url

from actisketch.pipeline.service.run_root import RunRoot, id_of, is_below_url, path_in_id
from actisketch.storage.errors import InputError, NotFoundError

from .conftest import make_client, make_run

API = "/api/v1/runs"
QUESTIONS = ("", "/points", "/percentile?q=50", "/certificate", "/network", "/distribution?point=conv")

# `.` and `..` as they are: test_server.py, for a client takes them out of the address.
HOSTILE = [
    "~1",
    "..~1outside",
    "first~1..~1..~1outside",
    "first~1..~1first",
    "~1etc~1passwd",
    "first~1",
    "first~1cache",
    "first\x00",
    "\\..\\outside",
    "first/../../outside",
    "%2e%2e~1outside",
    ".actisketch",
    "link",
    "via~1outside",
    "a" * 5000,
    "~1".join("abcdefghijkl"),
    "\ud800",
    "~",
    "~0",
    "~2first",
]


class Opened:
    """The paths that this process opens or lists."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], str | os.PathLike):
            self.paths.append(os.fspath(arguments[0]))


@pytest.fixture(scope="module")
def opened():
    return Opened()


@pytest.fixture(scope="module")
def trap(tmp_path_factory, made_once):
    """A root with links to a run beside it."""
    folder = tmp_path_factory.mktemp("trap")
    root = folder / "root"
    make_run(folder / "outside")
    shutil.copytree(made_once / "first", root / "first")
    (root / "link").symlink_to(folder / "outside")
    (root / "via").symlink_to(folder)
    with make_client(root) as client:
        yield client, root, folder / "outside"


def change_manifest(path, *keys_and_value):
    """Change one entry of a manifest."""
    *keys, last, value = keys_and_value
    tree = json.loads(path.read_text())
    place = tree
    for key in keys:
        place = place.setdefault(key, {})
    place[last] = value
    del tree["content_hash"]
    path.write_text(json.dumps(tree))


@pytest.mark.parametrize("run_id", HOSTILE)
def test_a_hostile_id_is_not_found(trap, opened, run_id):
    client, _, outside = trap
    opened.paths.clear()
    for question in QUESTIONS:
        answer = client.get(f"{API}/{quote(run_id.encode('utf-8', 'surrogatepass'), safe='')}{question}")

        assert answer.status_code == 404, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert len(answer.text) < 3000
    assert [path for path in opened.paths if path.startswith(str(outside))] == []


@given(st.text(alphabet="~01./\\ab\0%", max_size=12))
@settings(max_examples=150)
@example("~01")
def test_an_id_leads_into_the_root_or_nowhere(made_once, run_id):
    try:
        path = path_in_id(run_id)
    except NotFoundError:
        return

    assert ".." not in path.split("/")
    assert not path.startswith("/")
    assert os.path.normpath(made_once / path).startswith(str(made_once) + "/")


@given(st.text(min_size=1, max_size=20).filter(lambda t: t not in (".", "..") and not set(t) & set("/\\\0")))
def test_an_id_and_its_path_are_one_to_one(name):
    path = f"a/{name}"

    assert path_in_id(id_of(path)) == path


def test_links_are_not_listed(trap):
    client, _, _ = trap

    assert [run["name"] for run in client.get(API).json()["runs"]] == ["first"]


@pytest.mark.parametrize(
    "name", ["cache", "statistics.json", "factors.json", "sketches.npz", "normalized.keras", "x"]
)
def test_a_run_with_a_link_out_of_the_root_is_refused(root, client_of, tmp_path, opened, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("do not read")
    at = root / "old" / name
    if at.exists():
        shutil.move(at, outside / name)
    else:
        (outside / name).write_text("do not read")
    at.symlink_to(outside / name)
    client = client_of(root)
    opened.paths.clear()
    for question in QUESTIONS:
        answer = client.get(f"{API}/old{question}")

        assert answer.status_code == 422
        assert "--allow" in answer.json()["detail"]
    assert client.get(API).status_code == 200
    assert [path for path in opened.paths if path.startswith(str(outside))] == []

    assert client_of(root, allowed=[str(outside)]).get(f"{API}/old/percentile?q=5").status_code == 200


def test_a_manifest_that_is_a_link_is_no_run(root, own, tmp_path):
    shutil.move(root / "first" / "run.json", tmp_path / "run.json")
    (root / "first" / "run.json").symlink_to(tmp_path / "run.json")

    assert own.get(f"{API}/first").status_code == 404
    assert "first" not in [run["name"] for run in own.get(API).json()["runs"]]


@pytest.mark.parametrize(
    "url", ["/etc", "../../outside", "file:///etc", "s3://bucket/x", "http://127.0.0.1:1/x", "memory://x"]
)
def test_a_manifest_that_names_a_cache_elsewhere_is_refused(root, own, url):
    path = root / "first" / "run.json"
    tree = json.loads(path.read_text())
    tree["settings"]["cache"]["url"] = url
    del tree["content_hash"]
    path.write_text(json.dumps(tree))
    answer = own.get(f"{API}/first/percentile?q=50")

    assert answer.status_code == 422
    assert "--allow" in answer.json()["detail"]


def test_an_allowed_url_covers_what_is_below_it_only(tmp_path):
    root = RunRoot.of(tmp_path, ["s3://bucket/runs", "http://127.0.0.1:5/a/"])
    for url in ("s3://bucket/runs", "s3://bucket/runs/x", "http://127.0.0.1:5/a/b"):
        root.check_inside(tmp_path, url)
    for url in ("s3://bucket/runs2", "s3://bucket/runs/../x", "s3://bucket", "http://127.0.0.1:50/a/b"):
        with pytest.raises(InputError, match="--allow"):
            root.check_inside(tmp_path, url)


@pytest.mark.parametrize("above", ["%2e%2e", ".%2E", ".\t.", "..%0a/..", "..%2f..", "..\\.."])
def test_however_the_folder_above_is_written_it_is_not_below_an_allowed_url(root, client_of, above):
    allowed = "https://host.invalid/runs"
    change_manifest(root / "first" / "run.json", "settings", "cache", "url", f"{allowed}/{above}/secret")
    answer = client_of(root, allowed=[allowed]).get(f"{API}/first/percentile?q=50")

    assert answer.status_code == 422
    assert "may not open" in answer.json()["detail"]


@pytest.mark.parametrize(
    "written", ["runs/%2e%2e/secret", "runs/.%2E/secret", "runs/.\t./secret", "runs/x/../.. "]
)
def test_a_store_opens_the_folder_above_that_was_refused(tmp_path, written):
    """Otherwise there would be nothing to refuse."""
    url = f"s3://bucket/{written}"

    assert "runs" not in (from_url(url, region="nowhere").prefix or "")
    assert not is_below_url(url, "s3://bucket/runs")


@pytest.mark.parametrize(
    "options",
    [
        {"endpoint": "https://host.invalid"},
        {"aws_endpoint_url": "https://host.invalid"},
        {"config": {"bucket": "secret"}},
        {"region": "x@host.invalid/"},
        {"client_options": {"proxy_url": "http://host.invalid"}},
        {"client_options": {"allow_invalid_certificates": True}},
        {"anything": "else"},
    ],
    ids=repr,
)
def test_a_manifest_sends_nobody_to_another_server_with_the_credentials_of_the_service(
    root, client_of, monkeypatch, options
):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-operator")
    url, manifest = "s3://bucket/runs", root / "first" / "run.json"
    change_manifest(manifest, "settings", "cache", {"url": f"{url}/first", "storage_options": options})
    client = client_of(root, allowed=[url])

    for question in ("", "/percentile?q=50", "/live"):
        answer = client.get(f"{API}/first{question}")
        assert (answer.status_code, "cache.storage_options" in answer.json()["detail"]) == (422, True)


def test_a_server_that_the_operator_names_is_asked(tmp_path, monkeypatch):
    url, at = "s3://bucket/runs", "http://store:9000"
    options = {
        "endpoint": at,
        "region": "eu-central-1",
        "client_options": {"allow_http": True, "timeout": "30s"},
    }

    RunRoot.of(tmp_path, [url, at]).check_inside(tmp_path, url, options=options)
    with pytest.raises(InputError, match="AWS_ENDPOINT in its environment, or with --allow"):
        RunRoot.of(tmp_path, [url]).check_inside(tmp_path, url, options=options)
    monkeypatch.setenv("AWS_ENDPOINT", at)
    RunRoot.of(tmp_path, [url]).check_inside(tmp_path, url, options=options)


def test_names_that_are_markup_or_control_characters_are_shown_as_text(root, own):
    name = "<img src=x onerror=alert(1)>"
    shutil.copytree(root / "first", root / name)
    shutil.copytree(root / "first", root / "a\x1b[2Jb")
    listed = own.get(API, headers={"accept": "text/html"})
    page = own.get(f"{API}/{quote(name)}x", headers={"accept": "text/html"})

    assert listed.headers["content-type"] == "application/json"
    assert own.get(f"{API}/{quote(name)}/points").status_code == 200
    assert "<img" not in page.text
    assert "&lt;img" in page.text
    assert own.get(f"{API}/{quote('a' + chr(27) + '[2Jb')}").status_code == 200


def test_a_pipe_in_place_of_a_file_does_not_hang(root, own):
    for name in ("statistics.json", "sketches.npz", "certificate.json", "normalized.keras"):
        path = root / "old" / name
        path.unlink()
        os.mkfifo(path)

    for question in QUESTIONS:
        assert own.get(f"{API}/old{question}").status_code in (200, 404, 409)


PLACES = {
    "a record": ".actisketch/commits/*",
    "the description": ".actisketch/cache.json",
    "a chunk": "conv/c.*",
    "the folder of records": ".actisketch/commits",
    "an array": "conv",
}


def asks_outside(client, run_id, opened, outside):
    """The statuses of all questions about a run; nothing outside is opened."""
    opened.paths.clear()
    questions = (*QUESTIONS, "/percentile?q=3&exact=true", "/live")
    answers = [client.get(f"{API}/{run_id}{question}") for question in questions]

    assert client.get(API).status_code == 200
    assert [path for path in opened.paths if os.path.realpath(path).startswith(str(outside))] == []
    assert all("--allow" in answer.json()["detail"] for answer in answers if answer.status_code == 422)
    return {answer.status_code for answer in answers[:-1]}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("is_named", [False, True])
def test_a_link_inside_a_cache_that_leads_out_is_refused(root, client_of, tmp_path, opened, place, is_named):
    cache, outside = root / "first" / "cache", tmp_path / "outside"
    outside.mkdir()
    if is_named:
        cache = cache.rename(root / "stash")
        change_manifest(root / "first" / "run.json", "settings", "cache", "url", str(cache))
    target = min(cache.glob(PLACES[place]))
    shutil.move(target, outside / target.name)
    target.symlink_to(outside / target.name)

    assert asks_outside(client_of(root), "first", opened, outside) == {422}

    allowed = client_of(root, allowed=[str(outside)])
    assert allowed.get(f"{API}/first/percentile?q=5").status_code == 200


def test_a_cache_of_links_to_folders_elsewhere_is_refused(root, own, tmp_path, opened):
    outside, stash = tmp_path / "outside", root / "stash"
    shutil.move(root / "first" / "cache", outside)
    stash.mkdir()
    for entry in outside.iterdir():
        (stash / entry.name).symlink_to(entry)
    change_manifest(root / "first" / "run.json", "settings", "cache", "url", str(stash))

    assert asks_outside(own, "first", opened, outside) == {422}


def test_a_link_that_stays_inside_the_root_is_followed_and_looked_through(root, own, tmp_path, opened):
    arrays, outside = root / "arrays", tmp_path / "outside"
    arrays.mkdir()
    outside.mkdir()
    array = root / "first" / "cache" / "conv"
    shutil.move(array, arrays / "conv")
    array.symlink_to(arrays / "conv")
    assert own.get(f"{API}/first/percentile?q=5&exact=true").status_code == 200

    chunk = min((arrays / "conv").glob("c.*"))
    shutil.move(chunk, outside / chunk.name)
    chunk.symlink_to(outside / chunk.name)

    assert asks_outside(own, "first", opened, outside) == {422}


@pytest.mark.parametrize("url", ["\0", "a\0b", "file:///a%00b", "\ud800", "file:///\ud800", "s3://b/\ud800"])
def test_a_manifest_that_names_a_cache_where_no_file_can_be_is_refused(root, own, url):
    change_manifest(root / "first" / "run.json", "settings", "cache", "url", url)

    for question in QUESTIONS:
        answer = own.get(f"{API}/first{question}")
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert own.get(API).status_code == 200


@pytest.mark.parametrize("keys", [("model", "name"), ("settings", "data", "path"), ("versions", "x")])
def test_half_a_pair_of_code_units_in_a_manifest_is_answered(root, own, keys):
    change_manifest(root / "first" / "run.json", *keys, "a\ud800b")

    for question in ("", "/points", "/percentile?q=50", "/live"):
        answer = own.get(f"{API}/first{question}")
        assert answer.status_code == 200, answer.text
        answer.content.decode()
    assert own.get(API).status_code == 200


@pytest.mark.parametrize(
    "name", ["run.json", "cache", "cache/.actisketch", "cache/conv", "sketches.npz", "normalized.keras", "."]
)
def test_a_link_that_is_made_after_the_look_is_refused_when_it_is_opened(
    root, client_of, tmp_path, monkeypatch, name
):
    monkeypatch.setattr("actisketch.pipeline.service.live.SHARED_S", 0.0)
    client, outside = client_of(root), tmp_path / "outside"
    at = root / "old" / name
    questions = ["/points", "/percentile?q=50&point=conv&exact=true", "/network", "/certificate", "/live"]
    before = {question: client.get(f"{API}/old{question}") for question in questions}
    assert {answer.status_code for answer in before.values()} == {200}
    shutil.move(at, outside)
    for other in root.glob("*/run.json"):
        other.touch()  # read again

    # As if nothing had been there when the service looked.
    monkeypatch.setattr(RunRoot, "check_inside", lambda *arguments, **more: None)
    monkeypatch.setattr(
        "actisketch.pipeline.service.run_root._is_kind", lambda path, is_kind: os.path.exists(path)
    )
    at.symlink_to(outside)
    answers = {question: client.get(f"{API}/old{question}") for question in questions}
    refused = {question for question, answer in answers.items() if answer.status_code != 200}

    assert {answer.status_code for answer in answers.values()} <= {200, 404, 409, 503}
    needs = {
        "sketches.npz": set(),
        "normalized.keras": {"/network", "/certificate"},
        "cache/conv": {questions[1]},
    }
    assert refused == needs.get(name, set(questions)), refused
    allowing = client_of(root, allowed=[str(outside)])
    followed = [question for question in questions if name != "normalized.keras" or question != "/network"]
    assert {allowing.get(f"{API}/old{question}").status_code for question in followed} == {200}
