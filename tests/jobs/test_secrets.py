"""Secrets that are given are used and kept nowhere: not in a file, not in a text, not in what is told on the way."""

import io
import json
import logging
import os
import pickle

import pytest

from actisketch.pipeline import open_run, run
from actisketch.pipeline.settings.loading import load_job, validate_job
from actisketch.storage.errors import InputError, StorageError
from actisketch.storage.options import StorageOptions
from actisketch.storage.stores import open_store

SECRETS = {
    "access_key_id": "ID-of-nobody-31",
    "secret_access_key": "KEY-of-nobody-37",
    "session_token": "TOKEN-of-nobody-41",
}
HEADER = "HEADER-of-nobody-43"
ALL = [*SECRETS.values(), HEADER]


@pytest.fixture
def options(s3):
    return {
        **s3.options,
        **SECRETS,
        "client_options": {"allow_http": True, "default_headers": {"x-private": HEADER}},
    }


@pytest.fixture
def made(small_model, small_data, tmp_path, options):
    """A run on an object store, what it logged and told, and where."""
    text, events = io.StringIO(), []
    handler = logging.StreamHandler(text)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    settings = {"cache": {"url": f"s3://activations/{tmp_path.name}", "storage_options": options}}
    try:
        done = run(small_model, small_data, output=tmp_path / "r", settings=settings, on_event=events.append)
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
    return {"run": done, "told": text.getvalue() + repr(events), "folder": tmp_path / "r"}


def shown_in(raw):
    return [secret for secret in ALL if secret.encode() in raw]


def test_no_byte_of_a_run_holds_a_secret(made, options):
    done = made["run"]
    done.percentile("first", 99.0, exact=True)
    files = [path for path in made["folder"].rglob("*") if path.is_file()]
    store = open_store(done.cache.url, options)
    objects = [key for key, _ in store.list("")]

    assert {"run.json", "index.html", "statistics.json", "certificate.json"} <= {path.name for path in files}
    assert len(objects) > 5
    assert [path for path in files if shown_in(path.read_bytes())] == []
    assert [key for key in objects if shown_in(store.read(key) or b"")] == []


def test_nothing_that_is_told_holds_one(made):
    done = made["run"]
    settings = done.settings
    tokens = repr(settings) + str(settings.cache.storage_options) + settings.model_dump_json()
    errors = repr(done.activations("first")._options) + repr(done)

    assert shown_in((made["told"] + tokens + errors).encode()) == []
    assert "endpoint" in tokens


def test_the_run_that_was_given_them_answers_and_a_later_one_needs_them_again(made, options, monkeypatch):
    folder, secrets = made["folder"], {name: SECRETS[name] for name in SECRETS}
    secrets["client_options"] = options["client_options"]
    want = made["run"].percentile("first", 99.0, exact=True)

    with pytest.raises(InputError, match=r"cache\.storage_options\.access_key_id.*AWS_SECRET_ACCESS_KEY"):
        open_run(folder).percentile("first", 99.0)
    assert open_run(folder, storage_options=secrets).percentile("first", 99.0, exact=True) == want
    assert pickle.loads(pickle.dumps(made["run"].activations("first"))).shape == (53, 8)
    for name, value in SECRETS.items():
        monkeypatch.setenv(f"AWS_{name.upper()}", value)
    with pytest.raises(InputError, match=r"client_options\.default_headers\.x-private"):
        open_run(folder).percentile("first", 99.0)
    headers = {"client_options": options["client_options"]}
    assert open_run(folder, storage_options=headers).percentile("first", 99.0, exact=True) == want


def test_the_same_call_again_resumes_and_without_them_it_names_what_is_missing(
    made, small_model, small_data, options
):
    cache = {"url": made["run"].cache.url, "storage_options": options}
    again = run(small_model, small_data, output=made["folder"], settings={"cache": cache})
    fewer = {**options, "secret_access_key": None}
    del fewer["secret_access_key"]

    assert again.status().is_complete
    with pytest.raises(InputError, match=r"cache\.storage_options\.secret_access_key is missing"):
        run(
            small_model,
            small_data,
            output=made["folder"],
            settings={"cache": {**cache, "storage_options": fewer}},
        )


def test_an_earlier_programs_secrets_go_at_the_next_write(made, options):
    path = made["folder"] / "run.json"
    tree = json.loads(path.read_text())
    tree["settings"]["cache"]["storage_options"] = options
    tree = {name: value for name, value in tree.items() if name not in ("withheld", "content_hash")}
    path.write_text(json.dumps(tree))
    old = open_run(made["folder"])
    answered = old.percentile("first", 99.0)
    old.folder.update_manifest({"labels": None})

    assert answered.value > 0
    assert shown_in(path.read_bytes()) == []
    with pytest.raises(InputError, match="folder keeps no secrets"):
        open_run(made["folder"]).percentile("first", 99.0)


@pytest.mark.parametrize(
    "options",
    [
        {"AWS_SECRET_ACCESS_KEY": ALL[1]},
        {"sas_token": ALL[1]},
        {"service_account_key": ALL[1]},
        {"unheard_of": ALL[1]},
        {"endpoint": f"https://me:{ALL[1]}@host"},
        {"endpoint": f"https://host/?sig={ALL[1]}"},
        {"client_options": {"proxy_url": f"http://me:{ALL[1]}@proxy"}},
        {"client_options": {"default_headers": {"region": ALL[1]}}},
        {"config": {"secret_access_key": ALL[1]}},
        {"region": {"secret": ALL[1]}},
    ],
)
def test_what_is_not_known_to_be_harmless_is_a_secret(options):
    given = StorageOptions(options)
    job = validate_job({"cache": {"storage_options": options}})

    assert ALL[1] in "".join(given.secrets().values())
    assert shown_in((repr(given) + str(given.public()) + job.model_dump_json() + repr(job)).encode()) == []
    assert job.cache.storage_options == options
    assert pickle.loads(pickle.dumps(given)) == options


@pytest.mark.parametrize("key", ["cache.url", "data.path", "data.labels_path"])
@pytest.mark.parametrize(
    "url",
    ["s3://me:KEY-of-nobody-37@bucket/x", "https://host/x?sig=KEY-of-nobody-37", "gs://KEY-of-nobody-37@b/x"],
)
def test_a_url_with_credentials_is_refused_without_showing_them(key, url, tmp_path):
    table, name = key.split(".")
    with pytest.raises(InputError, match=rf"{key} .* is refused: a user, a password") as refused:
        validate_job({table: {name: url}})
    job = tmp_path / "job.toml"
    job.write_text(f'[{table}]\n{name} = "{url}"\n')
    with pytest.raises(InputError) as in_file:
        load_job(job)

    assert shown_in((str(refused.value) + str(in_file.value)).encode()) == []


@pytest.mark.parametrize(
    "wrong", ["KEY-of-nobody-37", ["KEY-of-nobody-37"], {"region": 5, 3: "KEY-of-nobody-37"}]
)
def test_options_of_the_wrong_type_are_refused_without_showing_them(wrong):
    with pytest.raises(InputError, match=r"cache\.storage_options") as refused:
        validate_job({"cache": {"storage_options": wrong}})

    assert shown_in(str(refused.value).encode()) == []


def test_what_a_server_says_of_a_secret_is_not_repeated(monkeypatch, options):
    import obstore

    def refuse(*_, **__):
        raise PermissionError(
            f"the key {SECRETS['access_key_id']} with {SECRETS['secret_access_key']} is unknown"
        )

    store = open_store("s3://bucket/x", options)
    monkeypatch.setattr(obstore, "get", refuse)
    with pytest.raises(StorageError, match=r"the key \*\*\* with \*\*\* is unknown") as refused:
        store.read("key")

    assert shown_in(repr(refused.value.facts).encode()) == []


def test_those_in_the_environment_are_not_written_either(small_model, small_data, tmp_path, s3, monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(f"AWS_{name.upper()}", value)
    plain = {name: value for name, value in s3.options.items() if "access_key" not in name}
    cache = {"url": f"s3://activations/{tmp_path.name}", "storage_options": plain}
    run(small_model, small_data, output=tmp_path / "r", settings={"cache": cache})
    written = b"".join(path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file())

    assert shown_in(written) == []
    assert json.loads((tmp_path / "r/run.json").read_text())["withheld"] == []
    assert open_run(tmp_path / "r").percentile("first", 99.0, exact=True).value > 0
    assert os.environ["AWS_SESSION_TOKEN"] == SECRETS["session_token"]
