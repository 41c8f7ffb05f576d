"""What a request about jobs may not do: without the right, from a page of others, out of the root, with code."""

from __future__ import annotations

import json
import os
import sqlite3

import pytest
from starlette.testclient import TestClient

from actisketch.pipeline.service.access import Access
from actisketch.pipeline.service.application import make_application
from actisketch.pipeline.service.jobs.job_places import Permissions
from actisketch.pipeline.service.jobs.job_queue import JobQueue
from actisketch.pipeline.service.run_root import RunRoot
from actisketch.storage.errors import FormatError, InputError

from ..on_disk import contents
from .conftest import MadeRun, make_client
from .test_bad_questions import problem

JOBS = "/api/v1/jobs"
BASE = "http://127.0.0.1:8570"
READER, ACTOR = "a-token-that-only-reads", "a-token-that-may-act"
POSTS = (JOBS, f"{JOBS}/plan", f"{JOBS}/repair", f"{JOBS}/1/cancel", f"{JOBS}/1/resume")
GETS = (JOBS, f"{JOBS}/1", f"{JOBS}/1/log", f"{JOBS}/schema")


def asked(**changes):
    return {"output": "new", "model": {"path": "net.keras"}, "data": {"path": "x.npz"}, **changes}


def made_place(folder):
    """A folder that is served, with a network and samples in name, and one beside it, to which a link leads."""
    root = folder / "root"
    (root / "images").mkdir(parents=True)
    (folder / "outside").mkdir()
    for name in ("root/net.keras", "root/x.npz", "outside/x.npz", "root/.hidden"):
        (folder / name).write_bytes(b"-")
    (root / "link").symlink_to(folder / "outside")
    return root


@pytest.fixture
def place(tmp_path):
    """A folder that is served, to be changed at will."""
    return made_place(tmp_path)


@pytest.fixture(scope="module")
def kept_place(tmp_path_factory):
    """A folder that is served, in which nothing may change."""
    return made_place(tmp_path_factory.mktemp("refusals"))


@pytest.fixture(scope="module")
def refusing(kept_place):
    """A client of a service that refuses all that its tests ask."""
    with make_client(kept_place, jobs=JobQueue(RunRoot.of(kept_place), Permissions())) as client:
        yield client


@pytest.fixture
def queue_of(place):
    """A queue that nobody works off."""
    return lambda **allowed: JobQueue(RunRoot.of(place), Permissions(**allowed))


@pytest.fixture
def acting(place, queue_of):
    with make_client(place, jobs=queue_of()) as client:
        yield client


def refused(client, status, told, **changes):
    """A job that is refused, by its plan too, and leaves nothing behind."""
    for address in (JOBS, f"{JOBS}/plan"):
        content = json.dumps(asked(**changes))
        answer = client.post(address, content=content, headers={"content-type": "application/json"})
        said = problem(answer, status)["detail"]
        assert told in said
    assert client.get(JOBS).json()["n_total"] == 0


def test_a_service_that_only_reads_refuses_every_address_of_jobs(made_once):
    with make_client(made_once) as client:
        answers = [client.post(path, json=asked()) for path in POSTS] + [client.get(path) for path in GETS]

        assert {problem(answer, 403)["kind"] for answer in answers} == {"jobs-off"}
        assert all("--allow-jobs" in answer.json()["detail"] for answer in answers)
        assert client.get("/api/v1/access").json() == {"has_jobs": False, "may_act": False}
    assert not (made_once / ".actisketch-jobs").exists()


@pytest.fixture
def scopes(place, queue_of):
    """A service with a token of each scope, and the key of a browser."""
    access = Access([READER], jobs_tokens=[ACTOR], key_acts=True)
    application = make_application(RunRoot.of(place), access, jobs=queue_of(), cookie="c")
    with TestClient(application, base_url=BASE, follow_redirects=False) as client:
        yield client, access.new_key()


def test_a_token_reads_only_or_reads_and_acts(scopes):
    client, _ = scopes
    reader, actor = ({"authorization": f"Bearer {token}"} for token in (READER, ACTOR))

    for path in POSTS:
        assert problem(client.post(path, json=asked(), headers=reader), 403)["kind"] == "forbidden"
        assert client.post(path, json=asked()).status_code == 401
    assert client.get(JOBS, headers=reader).json()["n_total"] == 0
    assert client.get("/api/v1/access", headers=reader).json() == {"has_jobs": True, "may_act": False}
    assert client.post(JOBS, json=asked(), headers=actor).status_code == 201
    assert client.get(f"{JOBS}/1", headers=reader).json()["state"] == "queued"
    assert client.head("/api/v1/access", headers=actor).status_code == 200
    assert client.get("/api/v1/access", headers=actor).json() == {"has_jobs": True, "may_act": True}


def test_a_browser_that_has_signed_in_acts_from_its_own_page_only(scopes):
    client, key = scopes
    client.get("/", params={"key": key})

    for headers in (
        {},
        {"origin": "http://evil.example.org"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
    ):
        assert problem(client.post(JOBS, json=asked(), headers=headers), 403)["kind"] == "origin"
    assert client.get(JOBS).json()["n_total"] == 0
    assert client.post(JOBS, json=asked(), headers={"origin": BASE}).status_code == 201


@pytest.mark.parametrize(("token", "status"), [(READER, 403), (ACTOR, 201)])
def test_a_browser_that_has_signed_in_with_a_token_may_do_what_the_token_may(scopes, token, status):
    client, _ = scopes
    signed_in = client.post("/sign-in", data={"secret": token, "then": ""}, headers={"origin": BASE})

    assert signed_in.status_code == 303
    assert client.get("/api/v1/access").json()["may_act"] == (status == 201)
    assert client.post(JOBS, json=asked(), headers={"origin": BASE}).status_code == status


@pytest.mark.parametrize(
    ("key", "path", "told"),
    [
        (key, path, told)
        for key in ("output", "model.path", "data.path", "data.labels_path", "cache.url")
        for path, told in [
            ("../outside/x.npz", "'..'"),
            ("images/../../outside", "'..'"),
            ("/etc/passwd", "absolute"),
            ("a\0b", "control"),
            ("", "refused"),
            (".hidden", "hidden"),
            (".actisketch-jobs/jobs.sqlite", "hidden"),
            ("a//b", "single slashes"),
            ("link/x.npz", "link" if key in ("output", "cache.url") else "leads out"),
            ("a\ud800", "half of a pair"),
            ("x" * 1001, "refused"),
            ("file:///etc/passwd", "refused"),
            ("s3://bucket/x.zarr", "refused"),
        ]
    ],
)
def test_places_outside_of_the_root_are_refused(kept_place, refusing, key, path, told):
    before = contents(kept_place.parent, without=(".actisketch-jobs",))
    table, _, name = key.rpartition(".")
    tree = {**asked().get(table, {}), name: path} if table else path
    content = json.dumps(asked(**{table or name: tree}))

    for address in (JOBS, f"{JOBS}/plan"):
        answer = refusing.post(address, content=content, headers={"content-type": "application/json"})
        assert told in problem(answer, 422)["detail"]
    assert contents(kept_place.parent, without=(".actisketch-jobs",)) == before
    assert refusing.get(JOBS).json()["n_total"] == 0


def test_links_inside_of_folders_and_behind_patterns_that_lead_out_are_refused(place, acting):
    (place / "images" / "cat").mkdir()
    (place / "images" / "cat" / "1.png").symlink_to(place.parent / "outside" / "x.npz")
    (place / "part-1.tfrecord").symlink_to(place.parent / "outside" / "x.npz")

    refused(acting, 422, "leads out", data={"path": "images"})
    refused(acting, 422, "leads out", data={"path": "part-*.tfrecord"})
    refused(acting, 422, "leads out", data={"path": "**/*.png"})


def test_a_run_whose_files_lead_out_is_not_worked_on(place, acting):
    made = MadeRun(place / "run").begin()
    made.run.cache_path.rename(place.parent / "outside" / "cache")
    made.run.cache_path.symlink_to(place.parent / "outside" / "cache")

    refused(acting, 422, "leads out", output="run")
    assert "leads out" in problem(acting.post(f"{JOBS}/repair", json={"run": "run"}), 422)["detail"]
    refused(acting, 422, "inside of another run", output="run/deeper")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": {"path": "net.keras", "custom_objects": "layers.py"}}, "--allow-code"),
        ({"model": {"path": "net.keras", "safe_mode": False}}, "--allow-code"),
        ({"record": {"scheduler": "tcp://head:8786"}}, "--allow-scheduler"),
        ({"record": {"scheduler": "cluster.json"}}, "--allow-scheduler"),
        ({"record": {"workers": 4096}}, "processors"),
        ({"cache": {"storage_options": {"endpoint": "http://evil"}}}, "environment"),
        ({"record": {"batch_size": "32"}}, "a whole number"),
        ({"record": {"batch_size": True}}, "a whole number"),
        ({"record": {"batch": 3}}, "did you mean"),
        ({"record": []}, "a table"),
        ({"factors": {"percentile": 101}}, "100"),
        ({"unknown": 1}, "unknown key"),
        ({"data": {"path": "x.npz", "scale": float("nan")}}, "finite"),
        ({"data": {"path": "x.npz", "offset": float("inf")}}, "finite"),
        ({"output": 3}, "text"),
        ({"output": None}, "text"),
        ({"model": {}}, "model.path is missing"),
        ({"data": {}}, "data.path is missing"),
        ({"output": "a/b/c/d/e/f/g/h/i"}, "too deep"),
    ],
)
def test_settings_that_are_wrong_or_not_allowed_are_refused(refusing, changes, told):
    refused(refusing, 422, told, **changes)


def test_what_the_operator_allows_is_accepted(place, queue_of):
    (place / "layers.py").write_text("")
    queue = queue_of(urls=["s3://bucket/data"], schedulers=["tcp://head:8786"], code=True)
    with make_client(place, jobs=queue) as client:
        answer = client.post(
            JOBS,
            json=asked(
                model={"path": "net.keras", "custom_objects": "layers.py", "safe_mode": False},
                data={"path": "s3://bucket/data/x.zarr"},
                cache={"url": "s3://bucket/data"},
                record={"scheduler": "tcp://head:8786"},
            ),
        )
        assert answer.status_code == 201, answer.text
        for url in (
            "s3://bucket/database",
            "s3://bucket/data/../secret",
            "s3://bucket/data/%2e%2e/secret",
            "s3://bucket/data/..%2fsecret",
            "s3://other/data",
            "s3://bucket/data/x?versionId=1",
        ):
            told = client.post(JOBS, json=asked(output="other", data={"path": url}))
            assert "refused" in problem(told, 422)["detail"], url


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("text/plain", b"{}", 415),
        ("", b"{}", 415),
        ("application/x-www-form-urlencoded", b"output=x", 415),
        ("multipart/form-data; boundary=x", b"--x--", 415),
        ("application/json", b"", 422),
        ("application/json", b"{", 422),
        ("application/json", b"[]", 422),
        ("application/json", b"3", 422),
        ("application/json", b"\xff", 422),
        ("application/json", b"[" * 50_000, 422),
        ("application/json", b'{"output": ' + b"9" * 5000 + b"}", 422),
        ("application/toml", b"output = ", 422),
        ("application/toml", b"x = " + b"[" * 5000 + b"]" * 5000, 422),
        ("application/toml", b"output = 2020-01-01", 422),
        ("application/json", b" " * 300_000, 413),
    ],
)
def test_bodies_that_are_not_read(refusing, kind, body, status):
    for address in (JOBS, f"{JOBS}/plan"):
        problem(refusing.post(address, content=body, headers={"content-type": kind}), status)


def test_a_body_of_unknown_length_is_read_up_to_the_limit(refusing):
    parts = (b" " * 10_000 for _ in range(1000))

    problem(refusing.post(JOBS, content=parts, headers={"content-type": "application/json"}), 413)


@pytest.mark.parametrize("job", ["0", "-1", "x", "99", str(2**63), "1.5", "%00"])
def test_a_job_that_is_not_there(refusing, job):
    for answer in (
        refusing.get(f"{JOBS}/{job}"),
        refusing.get(f"{JOBS}/{job}/log"),
        refusing.post(f"{JOBS}/{job}/cancel"),
    ):
        problem(answer, 404 if job == "99" else 422)


def test_questions_about_jobs_that_are_wrong(refusing):
    problem(refusing.get(JOBS, params={"state": "done"}), 422)
    problem(refusing.get(JOBS, params={"limit": 0}), 422)
    problem(refusing.get(f"{JOBS}/1/log", params={"nbytes": 10**9}), 422)
    problem(refusing.get(JOBS, params={"q": 1}), 422)
    for body in ({}, {"run": 3}, {"run": ["x"]}, []):
        problem(refusing.post(f"{JOBS}/repair", json=body), 422)
    for run in ("nope", "..", "a~1..~1b", "a\0b"):
        problem(refusing.post(f"{JOBS}/repair", json={"run": run}), 404)


def test_a_run_of_files_elsewhere_is_not_repaired(place, acting):
    made = MadeRun(place / "run", changes={"model": {"path": "/etc/net.keras"}, "data": {"path": "/x.npz"}})
    made.begin().record()

    assert (
        "model.path leads out" in problem(acting.post(f"{JOBS}/repair", json={"run": "run"}), 422)["detail"]
    )


def test_a_folder_of_jobs_of_somebody_else_is_refused(place, queue_of):
    (place / ".actisketch-jobs").symlink_to(place.parent / "outside")

    with pytest.raises(InputError, match="link"):
        queue_of()
    assert os.listdir(place.parent / "outside") == ["x.npz"]


def test_a_damaged_table_and_one_of_a_newer_program_say_so(place, queue_of):
    path = queue_of().table.path
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(FormatError, match="update actisketch"):
        queue_of()

    for name in ("jobs.sqlite-wal", "jobs.sqlite-shm"):
        path.with_name(name).unlink(missing_ok=True)
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(FormatError, match="damaged"):
        queue_of()


def test_a_full_disk_is_named(acting, monkeypatch):
    connect = sqlite3.connect

    def full(*arguments, **options):
        connection = connect(*arguments, **options)
        connection.execute("PRAGMA max_page_count = 1")  # as many as it has
        return connection

    monkeypatch.setattr(sqlite3, "connect", full)
    answers = (acting.post(JOBS, json=asked(output=f"{i}/{'x' * 200}")) for i in range(99))
    refused = next(answer for answer in answers if answer.status_code != 201)

    assert "(database or disk is full)" in problem(refused, 503)["detail"]


def test_a_job_is_submitted_as_toml_too(acting):
    text = 'output = "toml"\n[model]\npath = "net.keras"\n[data]\npath = "x.npz"\ndivide_by = 255.0\n'
    answer = acting.post(JOBS, content=text, headers={"content-type": "application/toml; charset=utf-8"})

    assert answer.status_code == 201, answer.text
    assert answer.json()["settings"] == asked(output="toml", data={"path": "x.npz", "divide_by": 255.0})
    assert answer.json()["job_file"] == text.replace("[", "\n[")


def test_the_description_of_the_service_covers_jobs_and_their_settings(acting):
    document = acting.get("/api/v1/openapi.json").json()
    schemas, body = document["components"]["schemas"], document["paths"][JOBS]["post"]["requestBody"]
    percentile = schemas["FactorSettings"]["properties"]["percentile"]

    assert body["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/JobSettings"}
    assert schemas["JobSettings"]["properties"]["factors"] == {"$ref": "#/components/schemas/FactorSettings"}
    assert "percentile" in percentile["description"]
    assert percentile["default"] == 99.9
    assert acting.get(f"{JOBS}/schema").json()["FactorSettings"] == schemas["FactorSettings"]
    named = {ref for ref in json.dumps(document).split('"') if ref.startswith("#/components/schemas/")}
    assert {ref.rpartition("/")[2] for ref in named} <= schemas.keys()
