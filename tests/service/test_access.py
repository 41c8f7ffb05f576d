"""Who may ask, under which name, from which page; what every response carries; what is logged."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import threading
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from actisketch.pipeline.service.access import Access, read_tokens
from actisketch.pipeline.service.application import ServiceSettings, make_application
from actisketch.pipeline.service.guard import is_allowed_host
from actisketch.pipeline.service.run_root import RunRoot
from actisketch.storage.errors import InputError

from .conftest import TOKEN

API = "/api/v1/runs"
BASE = "http://127.0.0.1:8570"


@pytest.fixture
def signing(made_once):
    """An application, its access, and the keys that it would print."""
    access, keys = Access([TOKEN, "another-long-token"]), []
    application = make_application(
        RunRoot.of(made_once), access, cookie="c", on_sign_in=lambda: keys.append(access.new_key())
    )
    keys.append(access.new_key())
    with TestClient(application, base_url=BASE, follow_redirects=False) as client:
        yield client, keys


def test_a_browser_signs_in_once_with_a_key(signing):
    client, keys = signing
    answer = client.get("/", params={"key": keys[0]})
    cookie = answer.headers["set-cookie"]

    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Path=/" in cookie
    assert keys[0] not in cookie
    assert client.get(API).status_code == 200
    assert client.get("/").status_code == 200

    client.cookies.clear()
    assert client.get("/", params={"key": keys[0]}).status_code == 401
    assert len(keys) == 2
    assert client.get("/", params={"key": keys[1]}).status_code == 303


@pytest.mark.parametrize(
    "other", ['settings={"size": 3}', "theme=dark mode", "a,b=1", "flag", 'half="open', "k[0]=1"]
)
def test_a_browser_stays_signed_in_whatever_cookies_others_of_this_host_have_set(signing, other):
    client, keys = signing
    own = client.get("/", params={"key": keys[0]}).headers["set-cookie"].partition(";")[0]
    client.cookies.clear()

    for cookies in (f"{other}; {own}", f"{own}; {other}"):
        assert client.get(API, headers={"cookie": cookies}).status_code == 200
    assert client.get(API, headers={"cookie": other}).status_code == 401


def test_a_key_that_was_used_leads_on_where_the_browser_is_signed_in(signing):
    client, keys = signing
    client.get("/", params={"key": keys[0]})
    again = client.get("/", params={"key": keys[0]}, headers={"accept": "text/html"})

    assert (again.status_code, again.headers["location"]) == (303, "/")
    assert "set-cookie" not in again.headers
    assert len(keys) == 2  # none was used up


def sign_in(client, secret, then="", **headers):
    headers = {"origin": BASE, "accept": "text/html", **headers}
    return client.post("/sign-in", data={"secret": secret, "then": then}, headers=headers)


@pytest.mark.parametrize("path", ["/", "/?run=a%26b&q=5", "/?key=guess", f"{API}/first"])
def test_a_browser_without_a_cookie_gets_a_form(signing, path):
    client, _ = signing
    answer = client.get(path, headers={"accept": "text/html,*/*"})

    assert answer.status_code == 401
    assert 'action="/sign-in"' in answer.text
    assert ('name="then" value="run=a%26b&amp;q=5"' in answer.text) == ("a%26b" in path)
    assert "form-action 'self'" in answer.headers["content-security-policy"]
    assert "guess" not in answer.text
    assert client.get("/service.css").status_code == 200


def test_a_token_or_the_key_signs_a_browser_in_through_the_form(signing):
    client, keys = signing
    answer = sign_in(client, f" {TOKEN} ", "run=a%26b&q=5")

    assert (answer.status_code, answer.headers["location"]) == (303, "/?run=a%26b&q=5")
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert client.get(API).status_code == 200
    assert TOKEN not in answer.headers["set-cookie"]

    client.cookies.clear()
    assert sign_in(client, keys[0]).headers["location"] == "/"
    assert client.get(API).status_code == 200
    client.cookies.clear()
    assert sign_in(client, keys[0]).status_code == 401


@pytest.mark.parametrize(
    "then", ["//evil.example.org", "http://evil.example.org/", "\r\nSet-Cookie: a=b", "x" * 99_999]
)
def test_the_form_leads_nowhere_else(signing, then):
    location = sign_in(signing[0], TOKEN, then).headers["location"]

    assert location == "/" or location.startswith("/?")
    assert "\n" not in location
    assert len(location) < 20_000


@pytest.mark.parametrize("secret", ["", "guess", TOKEN[:-1], "<script>alert(1)</script>", "\xff" * 100])
def test_a_wrong_secret_gets_the_form_again(signing, secret):
    client, _ = signing
    answer = sign_in(client, secret, '"><script>')

    assert answer.status_code == 401
    assert "none of its tokens" in answer.text
    assert "<script" not in answer.text
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("headers", [{"origin": "http://evil.example.org"}, {"origin": "null"}])
def test_a_page_of_others_signs_nobody_in(signing, headers):
    assert sign_in(signing[0], TOKEN, **headers).status_code == 403


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("http://127.0.0.1:8570/healthz", 200),
        ("HTTP://127.0.0.1:8570/api/v1/runs/first", 200),
        ("http://localhost", 200),
        ("http://evil.example.org/healthz", 421),
        ("http:///healthz", 421),
        ("http://127.0.0.1/healthz/../nope", 404),
        ("ftp://127.0.0.1/healthz", 404),
    ],
)
def test_an_address_may_be_asked_in_absolute_form(made_once, address, status):
    application, sent = make_application(RunRoot.of(made_once), Access([TOKEN])), []
    authorization = (b"authorization", f"Bearer {TOKEN}".encode())
    scope = {
        "type": "http",
        "asgi": {"spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": address,
        "raw_path": address.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), authorization],
        "client": None,
        "server": None,
    }

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(application(scope, receive, send))
    assert sent[0]["status"] == status


def test_a_cookie_is_for_https_where_the_browser_sees_https(made_once):
    access = Access()
    application = make_application(RunRoot.of(made_once), access)
    with TestClient(
        application, base_url="https://127.0.0.1", root_path="/stats", follow_redirects=False
    ) as client:
        answer = client.get("/stats/", params={"key": access.new_key()})

        assert answer.headers["location"] == "/stats/"
        assert "Secure" in answer.headers["set-cookie"]
        assert "Path=/stats" in answer.headers["set-cookie"]
        assert client.get("/stats/api/v1/runs").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer "},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": f"Bearer {TOKEN[:-1]}"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": TOKEN},
        {"authorization": "Bearer \xff\xfe".encode("latin-1")},
        {"cookie": "c=guess"},
        {"cookie": f"c={TOKEN}"},
        {"cookie": b"\xff=;;;c"},
    ],
)
@pytest.mark.parametrize(
    "path",
    [API, f"{API}/first", "/", "/?key=", "/?key=guess", "/api/v1/openapi.json", "/nope", "/healthz%0A"],
)
def test_without_the_right_secret_nothing_is_told(signing, headers, path):
    client, _ = signing
    answer = client.get(path, headers=headers)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "first" not in answer.json()["detail"].split()


@pytest.mark.parametrize("token", [TOKEN, "another-long-token"])
def test_a_script_sends_a_token(signing, token):
    client, _ = signing

    assert client.get(API, headers={"authorization": f"Bearer {token}"}).status_code == 200
    assert client.get(f"/?key={token}").status_code == 401


def test_health_needs_no_sign_in(signing):
    client, _ = signing

    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ok"}


def test_a_root_that_is_away_is_not_ready(root, own):
    root.rename(root.with_name("away"))

    assert own.get("/readyz").status_code == 503
    assert own.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("host", "is_allowed"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:8570", True),
        ("localhost:1", True),
        ("LOCALHOST.", True),
        ("[::1]:8570", True),
        ("[::1]", True),
        ("10.1.2.3:80", True),
        ("stats.example.org", True),
        ("evil.example.org", False),
        ("127.0.0.1.evil.org", False),
        ("stats.example.org.evil.org:80", False),
        ("", False),
        ("127.0.0.1:80:80", False),
        ("127.0.0.1:x", False),
        ("localhost@evil.org", False),
        ("2130706433", False),
    ],
)
def test_a_name_that_was_made_to_point_here_is_refused(made_once, host, is_allowed):
    assert is_allowed_host(host, ["stats.example.org"]) == is_allowed
    application = make_application(
        RunRoot.of(made_once), Access([TOKEN]), settings=ServiceSettings(hosts=["stats.example.org"])
    )
    headers = {"host": host, "authorization": f"Bearer {TOKEN}"}

    answer = TestClient(application, base_url=BASE).get("/healthz", headers=headers)

    assert answer.status_code == (200 if is_allowed else 421)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example.org"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": BASE}, 405),
        ({}, 405),
        ({"cookie": "c=x"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
    ],
)
@pytest.mark.parametrize("method", ["post", "put", "delete", "patch"])
def test_pages_of_others_change_nothing(client, headers, status, method):
    assert getattr(client, method)(API, headers=headers).status_code == status


def test_a_large_body_is_refused(client):
    answer = client.post(API, content=b"x" * 300_000)

    assert answer.status_code == 413
    assert client.post(API, content=b"", headers={"content-length": "-1"}).status_code == 413


@pytest.mark.parametrize(
    "path", [API, "/", "/nope", f"{API}/first/distribution?point=conv&format=svg", "/healthz"]
)
def test_every_response_says_what_browsers_may_do_with_it(client, path):
    headers = client.get(path).headers

    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert "server" not in headers
    assert re.fullmatch("[0-9a-f]{16}", headers["x-request-id"])


def test_requests_are_logged_as_json_without_secrets(signing, caplog):
    client, keys = signing
    with caplog.at_level(logging.INFO, logger="actisketch.access"):
        client.get("/", params={"key": keys[0]})
        asked = {"q": 1, "point": "1\n2"}
        client.get(f"{API}/a%0Ab/percentile", params=asked, headers={"authorization": f"Bearer {TOKEN}"})
    lines = [
        json.loads(record.getMessage()) for record in caplog.records if record.name == "actisketch.access"
    ]

    assert [line["status"] for line in lines] == [303, 404]
    assert lines[0]["query"] == "key=..."
    assert lines[1]["path"] == f"{API}/a\\nb/percentile"
    assert lines[1]["method"] == "GET"
    assert len({line["request_id"] for line in lines}) == 2
    assert not any(secret in caplog.text for secret in (keys[0], TOKEN))


def test_tokens_come_from_a_file_and_the_environment(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(f"# for the dashboard\n{TOKEN}\n\n  another-long-token  \n")
    path.chmod(0o600)

    assert read_tokens(path, {"ACTISKETCH_TOKEN": "a-third-long-token"}) == (
        (TOKEN, "another-long-token", "a-third-long-token"),
        [],
    )
    path.chmod(0o644)
    assert "chmod 600" in read_tokens(path, {})[1][0]
    assert read_tokens(None, {}) == ((), [])


@pytest.mark.parametrize(
    "content", [b"", b"# nothing\n", b"short\n", b"\xff" * 20, b"two words of a token\n", b"x" * 2000]
)
def test_a_token_file_that_is_of_no_use_is_refused(tmp_path, content):
    path = tmp_path / "tokens"
    path.write_bytes(content)
    with pytest.raises(InputError, match="token"):
        read_tokens(path, {})
    with pytest.raises(InputError, match="cannot be read"):
        read_tokens(tmp_path / "missing", {})


def test_a_token_file_may_be_a_pipe_but_is_not_waited_for_without_end(tmp_path, monkeypatch):
    path = tmp_path / "tokens"
    os.mkfifo(path)
    monkeypatch.setattr("actisketch.pipeline.service.access.PIPE_S", 0.2)
    with pytest.raises(InputError, match="cannot be read: nothing was written to this pipe"):
        read_tokens(path, {})

    monkeypatch.setattr("actisketch.pipeline.service.access.PIPE_S", 10.0)
    writer = threading.Thread(target=path.write_text, args=(f"{TOKEN}\n",))
    writer.start()
    found = read_tokens(path, {})
    writer.join()
    assert found == ((TOKEN,), [])
    for endless in ("/dev/zero", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_tokens(Path(endless), {})


def test_counts_for_a_monitor(made_once, client_of):
    client = client_of(made_once)
    for run in ("first", "other", "nope"):
        client.get(f"{API}/{run}/percentile?q=5")
    client.get("/made/up")
    client.request("BREW", "/healthz")
    counts = client.get("/metrics")

    assert counts.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert (
        'actisketch_requests_total{method="GET",route="/api/v1/runs/{run}/percentile",status="200"} 2.0'
        in counts.text
    )
    assert 'route="/api/v1/runs/{run}/percentile",status="404"} 1.0' in counts.text
    assert 'method="GET",route="other",status="404"} 1.0' in counts.text
    assert 'method="other"' in counts.text
    assert "nope" not in counts.text
    assert "actisketch_open_runs 2.0" in counts.text
    assert client.get("/metrics", headers={"authorization": ""}).status_code == 401
