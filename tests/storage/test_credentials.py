"""Without credentials an object store is refused: its client would ask the metadata service of the machine."""

import pytest

from actisketch.storage.connection import first_line
from actisketch.storage.errors import InputError, StorageError
from actisketch.storage.stores import open_store

CLOUDS = [
    ("s3://bucket/x", {}, "AWS_ACCESS_KEY_ID"),
    ("gs://bucket/x", {}, "GOOGLE_APPLICATION_CREDENTIALS"),
    ("az://container/x", {"account_name": "somebody"}, "AZURE_STORAGE_ACCOUNT_KEY"),
]
# As the builders of the client's three clouds read them (`from_env` of object_store).
WITHOUT_PREFIX = {"SERVICE_ACCOUNT": "gs", "GCE_METADATA_HOST": "gs", "IDENTITY_ENDPOINT": "az"}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch, tmp_path):
    import os

    for name in os.environ:
        if name.startswith(("AWS_", "GOOGLE_", "AZURE_", "GCE_")) or name in WITHOUT_PREFIX:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize(("url", "options", "variable"), CLOUDS, ids=lambda value: str(value)[:9])
def test_no_credentials_are_refused_at_once_and_the_message_says_how_to_give_them(url, options, variable):
    with pytest.raises(InputError) as caught:
        open_store(url, options)

    assert variable in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("url", "options", "variable"), CLOUDS, ids=lambda value: str(value)[:9])
def test_a_public_bucket_needs_none(url, options, variable):
    assert open_store(url, {**options, "skip_signature": True}).url == url


@pytest.mark.parametrize(
    "name", ["AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_METADATA_ENDPOINT"]
)
def test_the_environment_may_say_where_they_come_from(monkeypatch, name):
    monkeypatch.setenv(name, "http://127.0.0.1:9" if name.endswith("ENDPOINT") else "x")
    if name == "AWS_ACCESS_KEY_ID":
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")

    assert open_store("s3://bucket/x").url == "s3://bucket/x"


OF_OTHERS = [
    "TOKEN",
    "CLIENT_ID",
    "ACCESS_KEY_ID",
    "SERVICE_ACCOUNT_KEY",
    "OBJECT_ID",
    "AZURE_TOKEN",
    *WITHOUT_PREFIX,
]


@pytest.mark.parametrize(
    ("url", "options", "name"),
    [
        (url, options, name)
        for url, options, _ in CLOUDS
        for name in OF_OTHERS
        if not url.startswith(WITHOUT_PREFIX.get(name, "none"))
    ],
)
def test_a_variable_that_the_client_does_not_read_says_nothing(monkeypatch, url, options, name):
    monkeypatch.setenv(name, "x")

    with pytest.raises(InputError, match="there are no credentials"):
        open_store(url, options)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AZURE_STORAGE_TOKEN", "x"),
        ("AZURE_CLIENT_ID", "x"),
        ("AZURE_OBJECT_ID", "x"),
        ("AZURE_SKIP_SIGNATURE", "true"),
        ("AZURE_STORAGE_USE_EMULATOR", "true"),
        ("IDENTITY_ENDPOINT", "http://127.0.0.1:9"),
    ],
)
def test_the_environment_may_say_where_those_of_azure_come_from(monkeypatch, name, value):
    monkeypatch.setenv(name, value)

    assert open_store("az://container/x", {"account_name": "somebody"}).url == "az://container/x"


def test_the_metadata_service_of_google_may_be_asked_by_its_variable(monkeypatch):
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:9")

    assert open_store("gs://bucket/x").url == "gs://bucket/x"


def test_an_empty_variable_says_nothing(monkeypatch):
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "")

    with pytest.raises(InputError, match="there are no credentials"):
        open_store("s3://bucket/x")


def test_who_names_the_metadata_service_may_ask_it():
    options = {"metadata_endpoint": "http://127.0.0.1:9"}

    assert open_store("s3://bucket/x", options).url == "s3://bucket/x"


def test_a_server_that_is_not_reached_is_told_in_one_sentence(monkeypatch):
    monkeypatch.setattr("actisketch.storage.connection._WAITS_S", ())
    options = {
        "access_key_id": "x",
        "secret_access_key": "y",
        "region": "z",
        "endpoint": "http://127.0.0.1:9",
        "client_options": {"allow_http": True},
        "retry_config": {"max_retries": 0},
    }
    with pytest.raises(StorageError) as caught:
        open_store("s3://bucket/x", options).read("key")

    assert str(caught.value).startswith(
        "could not read 's3://bucket/x/key': GET http://127.0.0.1:9/bucket/x/key: error sending request; the server "
        "was not reached"
    )


def test_what_the_client_says_of_itself_is_left_out():
    text = (
        "Generic S3 error: Error performing PUT http://h/b/k in 1.2s, after 6 retries, max_retries: 6, retry_timeout: "
        "60s  - Server returned non-2xx status code: 500: full\n\nDebug source: ..."
    )

    assert first_line(ValueError(text)) == "PUT http://h/b/k: Server returned non-2xx status code: 500: full"
    assert first_line(ValueError("plain")) == "plain"
