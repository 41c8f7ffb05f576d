"""What the OpenAPI document allows to be asked is answered as it says; what it forbids is refused (schemathesis)."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from actisketch.pipeline.service.answers import LiveAnswer

from .conftest import AUTHORIZED, POINTS, served_here

schemathesis = pytest.importorskip("schemathesis", reason="pip install '.[test]'")

RUNS = ("first", "vgg~1channels", "half", "old", "nope")
# Whether a run has a channel or a point cannot be said in a document.
UNKNOWABLE = schemathesis.checks.positive_data_acceptance
# Ends only with the run, so it is asked by hand.
STREAM = "/api/v1/runs/{run}/events"


@pytest.fixture(scope="module")
def schema(made_once):
    with served_here(made_once) as (host, port):
        address = f"http://{host}:{port}/api/v1/openapi.json"
        yield schemathesis.openapi.from_url(address, headers=AUTHORIZED)


def is_real(case: Any, draw: Any, mode: str) -> None:
    """Ask of a run and a point that exist, every other time: most of what is made up is not found."""
    if "run" in (case.path_parameters or {}) and draw(st.booleans()):
        case.path_parameters["run"] = draw(st.sampled_from(RUNS))
    # What is wrong in a wrong question has to stay wrong.
    known = {"point": [p.name for p in POINTS], "a": RUNS, "b": RUNS} if mode == "positive" else {}
    for name, values in known.items():
        if name in (case.query or {}) and draw(st.booleans()):
            case.query[name] = draw(st.sampled_from(values))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_every_answer_is_as_the_document_says(schema, mode):
    asked = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path == STREAM:
            continue
        strategy = operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode))

        @given(data=st.data(), strategy=st.just(strategy))
        @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
        def ask(data: Any, strategy: Any) -> None:
            nonlocal asked
            case = data.draw(strategy)
            is_real(case, data.draw, mode)
            case.call_and_validate(headers=AUTHORIZED, excluded_checks=[UNKNOWABLE])
            asked += 1

        # Of an address without parameters, or one that takes any text, nothing can be wrong.
        with suppress(Unsatisfiable) if mode == "negative" else nullcontext():
            ask()
    assert asked > 200


@pytest.mark.parametrize(("run", "event"), [("first", "complete"), ("old", "complete"), ("nope", None)])
def test_the_stream_of_events_is_as_the_document_says(client, run, event):
    document = client.get("/api/v1/openapi.json").json()["paths"][STREAM]["get"]["responses"]
    answer = client.get(STREAM.format(run=run))
    media_type = answer.headers["content-type"].partition(";")[0]
    if event is None:
        assert (answer.status_code, media_type) == (404, "application/problem+json")
        return
    lines = dict(line.split(": ", 1) for line in answer.text.splitlines() if line)

    assert media_type in document["200"]["content"]
    assert lines["event"] == event
    assert LiveAnswer.model_validate_json(lines["data"], strict=True).run == run
    again = client.get(STREAM.format(run=run), headers={"Last-Event-ID": lines["id"]})
    assert again.status_code == 204
    assert "204" in document


@pytest.mark.parametrize(
    ("path", "question"),
    [
        ("distribution", "point=conv&format=svg"),
        ("distribution", "point=conv&format=png"),
        ("distribution", "point=conv"),
        ("factors", "format=csv"),
        ("factors", ""),
    ],
)
def test_the_type_of_each_file_is_in_the_document(client, path, question):
    paths = client.get("/api/v1/openapi.json").json()["paths"]
    answer = client.get(f"/api/v1/runs/first/{path}?{question}")

    assert answer.status_code == 200, answer.text
    documented = paths[f"/api/v1/runs/{{run}}/{path}"]["get"]["responses"]["200"]["content"]
    assert answer.headers["content-type"].partition(";")[0] in documented
