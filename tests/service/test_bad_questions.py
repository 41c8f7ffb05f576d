"""Questions that cannot be answered: each is told what was asked, what was found, what to do."""

from __future__ import annotations

import json
import shutil

import pytest

from .conftest import TOKEN, MadeRun

API = "/api/v1/runs"


def problem(answer, status):
    """The problem in an answer, checked for its form."""
    body = answer.json()

    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert body["status"] == status
    assert body["request_id"] == answer.headers["x-request-id"]
    assert {"type", "title", "detail", "kind", "asked"} <= body.keys()
    assert "Traceback" not in answer.text
    return body


@pytest.mark.parametrize("q", ["nan", "inf", "-inf", "-1", "100.0001", "1e400", "", "x", "1e-400", "9" * 400])
def test_a_percentile_that_is_none(client, q):
    answer = client.get(f"{API}/first/percentile", params={"q": q})
    if q == "1e-400":  # is zero
        assert answer.status_code == 200
        return

    assert "q" in problem(answer, 422)["detail"]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/percentile", "q"),
        ("/percentile?q=5&point=nope", "'conv'"),
        ("/percentile?q=5&point=conv&channel=1", "sketch.per_channel = true"),
        ("/percentile?q=5&channel=-1", "channel"),
        ("/percentile?q=5&channel=99999999999", "channel"),
        ("/percentile?q=5&exact=perhaps", "exact"),
        ("/distribution", "point"),
        ("/distribution?point=conv&bins=0", "bins"),
        ("/distribution?point=conv&bins=1000000", "bins"),
        ("/distribution?point=conv&format=exe", "format"),
        ("/digest?point=conv&compression=1", "compression"),
        ("/factors?schedule=-1", "schedule"),
        ("/factors?format=pickle", "toolbox-parsed"),
        ("/factors?percentile=nan", "percentile"),
        ("/factors?per_channel=true", "sketch.per_channel"),
        ("/factors?percentile=10&schedule=50", "schedule"),
    ],
)
def test_a_question_that_is_wrong(client, path, told):
    assert told in problem(client.get(f"{API}/first{path}"), 422)["detail"]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/runs?stat=damaged", ["'stat'", "state", "limit"]),
        ("/runs/first?q=1", ["'q'", "takes none"]),
        ("/runs/first/points?Q=1", ["'Q'", "q, nonzero"]),
        ("/runs/first/percentile?q=5&exakt=true", ["'exakt'", "exact"]),
        ("/runs/first/factors?partial_run=true", ["'partial_run'", "format, partial"]),
        ("/runs/first/factors?=x", ["''"]),
        ("/runs/first/live?x", ["'x'"]),
        ("/compare?a=first&b=other&q=5", ["'q'", "second_percentile"]),
    ],
)
def test_a_parameter_that_is_not_known_is_refused(client, path, told):
    detail = problem(client.get(f"/api/v1{path}"), 422)["detail"]

    assert [word for word in told if word not in detail] == []


def test_a_channel_that_does_not_exist(client):
    answer = client.get(f"{API}/vgg~1channels/percentile?q=5&point=conv&channel=2")

    assert "channel 2 of 2" in problem(answer, 422)["detail"]


def test_a_name_of_many_characters_is_shown_in_part(client):
    answer = client.get(f"{API}/first/percentile", params={"q": 5, "point": "x" * 60_000})

    assert len(answer.content) < 4000
    problem(answer, 422)


def test_runs_and_addresses_that_are_not_there(client):
    assert "GET /api/v1/runs" in problem(client.get(f"{API}/nope"), 404)["detail"]
    assert problem(client.get("/nope"), 404)["kind"] == "not-found"
    assert problem(client.get(f"{API}/first/nope"), 404)["kind"] == "not-found"
    assert problem(client.post(f"{API}/first", headers={"origin": "http://127.0.0.1:8570"}), 405)
    assert "asked" in problem(client.get(f"{API}?sort=size"), 422)


# With buckets so wide that one has many values: these have to be read to tell a percentile exactly.
COARSE = {"sketch": {"bits": 12}}


def test_exact_percentiles_need_every_block_and_the_activations(root, own):
    MadeRun(root / "part", changes=COARSE).begin().record(2)
    MadeRun(root / "sketches", changes={"record": {"activations": False}}).begin().record()
    asked = {"q": 60, "exact": True}

    assert "not committed" in problem(own.get(f"{API}/part/percentile", params=asked), 409)["detail"]
    answer = own.get(f"{API}/sketches/percentile", params=asked)
    assert "record.activations = true" in problem(answer, 422)["detail"]


def test_damaged_blocks_are_left_out_and_told_beside_every_number(root, own):
    made = MadeRun(root / "first")
    (root / "first" / "sketches.npz").unlink()
    first, second, third = sorted((root / "first" / "cache" / ".actisketch" / "commits").iterdir())
    first.write_bytes(first.read_bytes()[:-1] + b"x")  # its last sketch
    second.write_bytes(b"not a record")
    answer = own.get(f"{API}/first/percentile", params={"q": 100, "point": "conv"})
    recorded = answer.json()["recorded"]
    values = made.values(made.points[0], 12, 17)

    assert (recorded["n_blocks_done"], recorded["n_samples_done"], recorded["is_complete"]) == (1, 5, False)
    assert ["block 0" in told or "block 1" in told for told in recorded["damage"]] == [True, True]
    assert all("--repair" in told for told in recorded["damage"])
    assert answer.headers["actisketch-damaged"] == "2"
    assert answer.json()["percentiles"][0]["value"] == values.max()
    assert own.get(f"{API}/first/points").json()["recorded"]["damage"] == recorded["damage"]

    third.write_bytes(third.read_bytes()[:40])
    assert len(own.get(f"{API}/first/points").json()["recorded"]["damage"]) == 3


def test_damaged_activations_are_named_when_they_are_read(root, own):
    MadeRun(root / "coarse", changes=COARSE).begin().record()
    chunk = min((root / "coarse" / "cache" / "conv").glob("c*"))
    chunk.write_bytes(bytes(chunk.stat().st_size))

    assert own.get(f"{API}/coarse/percentile?q=60").status_code == 200
    told = problem(own.get(f"{API}/coarse/percentile?q=60&point=conv&exact=true"), 409)

    assert told["kind"] == "damaged"
    assert "block 0" in told["detail"]


@pytest.mark.parametrize(
    "name", ["run.json", "cache/.actisketch/cache.json", "certificate.json", "factors.json"]
)
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"actisketch_run": 99}'])
def test_damaged_documents_are_told(root, own, name, content):
    assert own.get(f"{API}/old/certificate").status_code == 200
    (root / "old" / name).write_bytes(content)
    for question in ("", "/points", "/certificate", "/network", "/factors"):
        answer = own.get(f"{API}/old{question}")

        assert answer.status_code in (200, 404, 409), answer.text
        if name.endswith(("run.json", "cache.json")):
            problem(answer, 409)
    assert own.get(API).status_code == 200
    assert own.get(f"{API}/old/network").status_code != 200


def test_a_run_of_a_newer_program_says_so(root, own):
    path = root / "first" / "run.json"
    tree = json.loads(path.read_text())
    tree["actisketch_run"] = 2
    del tree["content_hash"]
    path.write_text(json.dumps(tree))

    assert "update actisketch" in problem(own.get(f"{API}/first/points"), 409)["detail"]


def test_a_run_that_is_deleted_while_it_is_shown(root, own):
    assert own.get(f"{API}/first/points").status_code == 200
    shutil.rmtree(root / "first" / "cache")
    problem(own.get(f"{API}/first/points"), 404)
    shutil.rmtree(root / "first")
    problem(own.get(f"{API}/first/points"), 404)
    assert "first" not in {run["name"] for run in own.get(API).json()["runs"]}


def test_half_a_copy_of_a_run(root, own):
    for path in sorted((root / "first" / "cache" / ".actisketch" / "commits").iterdir())[1:]:
        path.unlink()
    recorded = own.get(f"{API}/first/points").json()["recorded"]

    assert (recorded["n_blocks_done"], recorded["n_blocks"]) == (1, 3)
    assert own.get(f"{API}/first").json()["out_of_date"] == ["factors"]


def test_a_form_of_too_many_fields_signs_nobody_in(client):
    fields = {**{f"field{n}": "1" for n in range(12)}, "secret": TOKEN}
    answer = client.post("/sign-in", data=fields, headers={"origin": "http://127.0.0.1:8570"})

    assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
