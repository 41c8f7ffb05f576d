"""Whatever is asked: no error of the service, and every answer is as the OpenAPI document says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from actisketch.pipeline.service import answers
from actisketch.pipeline.service.jobs import job_answers

from .conftest import POINTS

MODELS: dict[str, type[BaseModel]] = {
    name: getattr(module, name)
    for module in (answers, job_answers)
    for name in module.__all__
    if name[0].isupper()
}
RUNS = ("first", "vgg~1channels", "half", "old", "nope", "..", "a~1b")
# Of each kind of value: what is right, what is at its edge, and what is wrong.
VALUES = st.one_of(
    st.sampled_from(
        [
            "0",
            "1",
            "-1",
            "50",
            "99.9",
            "100",
            "101",
            "nan",
            "inf",
            "1e309",
            "1e-320",
            "true",
            "false",
            "",
            "null",
        ]
    ),
    st.sampled_from(
        [POINTS[0].name, POINTS[1].name, "first", "half", "json", "png", "svg", "csv", "tdigest", "mse"]
    ),
    st.sampled_from(
        ["-name", "samples", "complete", "weights", "normalised", "9" * 30, "x" * 1001, "\0", "%00"]
    ),
    st.text(max_size=8),
    st.floats().map(repr),
    st.integers().map(str),
)


@pytest.fixture(scope="module")
def operations(client) -> list[tuple[str, list[str], str | None]]:
    """Address, names of its parameters, and the model of its answer, of each that gives JSON."""
    document = client.get("/api/v1/openapi.json").json()
    found = []
    for path, methods in document["paths"].items():
        if path.startswith("/api/v1/jobs"):  # off here; test_job_refusals.py
            continue
        operation = methods["get"]
        names = [each["name"] for each in operation.get("parameters", []) if each["in"] == "query"]
        schema = (
            operation["responses"]["200"].get("content", {}).get("application/json", {}).get("schema", {})
        )
        model = schema.get("$ref", "").rpartition("/")[2] or None
        if not path.endswith(("/events", "/metrics")):
            found.append((path, names, model))
    assert len(found) > 12
    return found


@given(data=st.data())
@settings(max_examples=250)
def test_no_question_is_an_error_of_the_service(client, operations, data: Any):
    path, names, model = data.draw(st.sampled_from(operations))
    asked = data.draw(st.lists(st.tuples(st.sampled_from([*names, "other"]), VALUES), max_size=5))
    answer = client.get(path.replace("{run}", data.draw(st.sampled_from(RUNS))), params=asked)

    assert answer.status_code in (200, 404, 409, 422), answer.text
    is_file = "content-disposition" in answer.headers
    if answer.status_code != 200:
        assert answer.headers["content-type"] == "application/problem+json"
        answers.ProblemAnswer.model_validate_json(answer.content)
    elif model is not None and answer.headers["content-type"] == "application/json" and not is_file:
        MODELS[model].model_validate_json(answer.content, strict=True)
