"""What the service answers, against NumPy on the plain activations and against the calls of the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tdigest import TDigest

from actisketch.pipeline import compare, open_run

from .conftest import N_SAMPLES, POINTS, MadeRun

DENSE = POINTS[1].name
API = "/api/v1/runs"


def test_a_percentile_comes_with_its_interval_and_its_number_of_samples(client, made_once):
    made = MadeRun(made_once / "first")
    asked = {"q": [50, 99.9, 100], "point": DENSE}
    answer = client.get(f"{API}/first/percentile", params=asked).json()
    values = made.all_values(DENSE)

    assert answer["recorded"] == {
        "n_blocks": 3,
        "n_blocks_done": 3,
        "n_samples": N_SAMPLES,
        "n_samples_done": N_SAMPLES,
        "is_complete": True,
        "damage": [],
    }
    for row, q in zip(answer["percentiles"], asked["q"], strict=True):
        exact = np.percentile(values[values != 0], q)

        assert row["lo"] <= exact <= row["hi"]
        assert row["value"] == pytest.approx(exact, rel=2e-2)
        assert row["n_values"] == np.count_nonzero(values)


def test_all_values_and_exact_percentiles(client, made_once):
    made = MadeRun(made_once / "first")
    asked = {"q": 73, "point": "conv", "nonzero": False, "exact": True}
    (row,) = client.get(f"{API}/first/percentile", params=asked).json()["percentiles"]
    values = made.all_values("conv")

    assert row["value"] == row["lo"] == row["hi"] == np.percentile(values.astype(np.float32), 73)
    assert row["exact"]
    assert row["n_values"] == values.size


def test_without_a_point_all_are_answered(client):
    answer = client.get(f"{API}/first/percentile", params={"q": 99}).json()

    assert [row["point"] for row in answer["percentiles"]] == [p.name for p in POINTS]


@pytest.mark.parametrize("exact", [False, True])
def test_one_channel(client, made_once, exact):
    made = MadeRun(made_once / "vgg" / "channels")
    asked = {"q": 90, "point": "conv", "channel": 1, "exact": exact}
    (row,) = client.get(f"{API}/vgg~1channels/percentile", params=asked).json()["percentiles"]
    values = made.all_values("conv")[..., 1]

    assert row["lo"] <= np.percentile(values[values != 0], 90) <= row["hi"]
    assert (row["channel"], row["n_values"]) == (1, np.count_nonzero(values))


def test_while_a_run_goes_on_the_answers_are_of_the_blocks_that_are_there(own, root):
    made = MadeRun(root / "half")
    ask = lambda: own.get(f"{API}/half/percentile", params={"q": 100, "point": DENSE})  # noqa: E731
    first = ask()

    assert first.json()["recorded"]["n_blocks_done"] == 2
    assert first.json()["recorded"]["n_samples_done"] == 12
    assert not first.json()["recorded"]["is_complete"]
    assert first.headers["actisketch-blocks"] == "2 of 3"
    assert first.json()["percentiles"][0]["value"] == made.all_values(DENSE, 12).max()

    made.record()
    second = ask()

    assert second.json()["recorded"]["is_complete"]
    assert second.json()["percentiles"][0]["value"] == made.all_values(DENSE).max()
    assert second.headers["etag"] != first.headers["etag"]


def test_answers_of_blocks_one_by_one_are_those_of_all_at_once(root, own, client_of):
    made = MadeRun(root / "slowly", changes={"sketch": {"per_channel": True}}).begin()
    for _ in range(3):
        made.record(1)
        grown = own.get(f"{API}/slowly/points").json()
    asked = {"q": [1, 50, 99.9], "channel": 1, "point": "conv"}
    by_blocks = own.get(f"{API}/slowly/percentile", params=asked).json()
    at_once = client_of(root)

    assert at_once.get(f"{API}/slowly/points").json() == grown
    assert at_once.get(f"{API}/slowly/percentile", params=asked).json() == by_blocks


def test_a_run_without_any_block_has_no_values(own, root):
    MadeRun(root / "begun").begin()
    answer = own.get(f"{API}/begun/percentile", params={"q": 50}).json()

    assert answer["recorded"]["n_samples_done"] == 0
    assert {row["value"] for row in answer["percentiles"]} == {None}
    assert own.get(f"{API}/begun/points").status_code == 200
    assert own.get(f"{API}/begun/distribution", params={"point": "conv"}).status_code == 200


def test_points_have_the_statistics_of_the_command_line(client, made_once):
    run, answer = open_run(made_once / "first"), client.get(f"{API}/first/points").json()

    for row in answer["points"]:
        assert {key: row[key] for key in run.statistics()[row["name"]]} == run.statistics()[row["name"]]
        assert row["percentile"]["value"] == run.percentile(row["name"], 99.9).value
    assert [row["layer_type"] for row in answer["points"]] == ["Conv2D", "Dense"]


def test_factors_are_those_of_the_command_line(client, made_once):
    run = open_run(made_once / "first")
    answer = client.get(f"{API}/first/factors", params={"percentile": 90, "schedule": 1.5}).json()
    expected = run.factors(percentile=90.0, schedule=1.5)

    assert [row["factor"] for row in answer["points"]] == [p.factor for p in expected.points]
    assert [(row["lo"], row["hi"]) for row in answer["points"]] == [(p.lo, p.hi) for p in expected.points]
    assert answer["remarks"] == []
    assert "0.9 is in percent" in client.get(f"{API}/first/factors?percentile=0.9").json()["remarks"][0]


def test_factors_of_channels(client, made_once):
    answer = client.get(f"{API}/vgg~1channels/factors", params={"per_channel": True}).json()
    expected = open_run(made_once / "vgg" / "channels").factors(per_channel=True)

    assert answer["points"][0]["factor"] == list(expected.points[0].factor)


def test_ranges_for_low_precision_are_those_of_the_command_line(client, made_once):
    asked = {"method": "mse", "bits": 4, "symmetric": True}
    answer = client.get(f"{API}/first/factors", params=asked).json()
    expected = open_run(made_once / "first").factors(**asked)

    assert [row["factor"] for row in answer["points"]] == [p.factor for p in expected.points]


@pytest.mark.parametrize("kind", ["csv", "toolbox", "tdigest"])
def test_files_for_other_programs_are_those_of_export(client, made_once, kind):
    run = open_run(made_once / "first")
    answer = client.get(f"{API}/first/factors", params={"format": kind})

    assert answer.text == run.export(kind)
    assert answer.headers["content-disposition"].startswith(f'attachment; filename="first-{kind}.')


def test_a_file_of_a_part_of_a_run_is_given_only_if_it_is_asked_for(client):
    refused = client.get(f"{API}/half/factors", params={"format": "csv"})
    given = client.get(f"{API}/half/factors", params={"format": "csv", "partial": True})

    assert refused.status_code == 409
    assert "2 of 3 blocks" in refused.json()["detail"]
    assert "2-of-3-blocks" in given.headers["content-disposition"]


def test_the_bars_of_a_distribution_hold_every_value(client, made_once):
    values = MadeRun(made_once / "first").all_values("conv")
    answer = client.get(f"{API}/first/distribution", params={"point": "conv", "bins": 31}).json()

    assert len(answer["counts"]) == 31
    assert len(answer["edges"]) == 32
    assert answer["n_zeros"] == np.count_nonzero(values == 0)
    assert sum(answer["counts"]) + answer["n_zeros"] + answer["n_below"] == pytest.approx(values.size)
    assert answer["percentile"]["lo"] <= answer["percentile"]["value"] <= answer["percentile"]["hi"]


def test_the_distribution_as_a_picture(client):
    asked = {"point": DENSE, "format": "png"}
    png = client.get(f"{API}/half/distribution", params=asked)
    svg = client.get(f"{API}/half/distribution", params={**asked, "format": "svg"})
    again = client.get(f"{API}/half/distribution", params={**asked, "format": "svg"})

    assert png.content.startswith(b"\x89PNG")
    assert png.headers["content-type"] == "image/png"
    assert svg.headers["content-type"] == "image/svg+xml"
    assert b"<b>" not in svg.content
    assert "sandbox" in svg.headers["content-security-policy"]
    assert svg.content == again.content


def test_every_channel_with_its_counts(client, made_once):
    values = MadeRun(made_once / "vgg" / "channels").all_values("conv").reshape(-1, 2)
    answer = client.get(f"{API}/vgg~1channels/channels", params={"point": "conv", "q": 90}).json()

    for row in answer["channels"]:
        own = values[:, row["channel"]]

        assert row["lo"] <= np.percentile(own[own != 0], 90) <= row["hi"]
        assert (row["n_zeros"], row["maximum"]) == (np.count_nonzero(own == 0), own.max())
        assert not row["is_dead"]
    assert client.get(f"{API}/first/channels?point=conv").status_code == 422


def test_the_weights_and_the_normalised_network_have_distributions(client):
    ask = lambda **asked: client.get(f"{API}/old/distribution", params={"point": "conv", **asked})  # noqa: E731
    before, after = ask(log=True).json(), ask(of="normalised").json()

    assert before["scale"] == "log"
    assert after["n_values"] == before["n_values"]
    factor = client.get(f"{API}/old/factors").json()["points"][0]["factor"]
    assert after["edges"][-1] == pytest.approx(before["edges"][-1] / factor, rel=1e-3)
    assert ask(of="weights").json()["n_values"] == ask(of="normalised-weights").json()["n_values"] > 0
    assert ask(of="weights", format="svg").headers["content-type"] == "image/svg+xml"
    assert client.get(f"{API}/first/distribution?point=conv&of=weights").status_code == 404
    assert client.get(f"{API}/first/distribution?point=conv&of=gradients").status_code == 422


def test_a_digest_is_read_by_the_tdigest_package(client, made_once):
    values = MadeRun(made_once / "first").all_values("conv")
    answer = client.get(f"{API}/first/digest", params={"point": "conv", "nonzero": False}).json()
    digest = TDigest().update_from_dict(answer["digest"])

    assert digest.n == values.size
    assert digest.percentile(95) == pytest.approx(np.percentile(values, 95), rel=0.05)


def test_certificate_and_network_of_a_finished_run(client, made_once):
    certificate = client.get(f"{API}/old/certificate")
    network = client.get(f"{API}/old/network")

    assert certificate.json()["passed"] is True
    assert network.content == (made_once / "old" / "normalized.keras").read_bytes()
    assert network.headers["content-disposition"] == 'attachment; filename="old-normalized.keras"'
    assert client.get(f"{API}/first/network").status_code == 404
    assert client.get(f"{API}/first/certificate").json()["kind"] == "not-found"


def test_a_run_tells_what_it_has(client):
    answer = client.get(f"{API}/old").json()

    assert (answer["name"], answer["state"], answer["certificate_passed"]) == ("old", "complete", True)
    assert answer["has_factors"]
    assert answer["has_network"]
    assert answer["settings"]["factors"]["percentile"] == 99.9
    assert answer["versions"]["keras"] == "3.15.1"


def test_two_runs_are_compared_point_by_point(client, made_once):
    answer = client.get("/api/v1/compare", params={"a": "first", "b": "other"}).json()
    first, other = open_run(made_once / "first").factors(), open_run(made_once / "other").factors()
    rows = {row["point"]: row for row in answer["points"]}

    assert rows.keys() == {p.name for p in POINTS}
    for a, b in zip(first.points, other.points, strict=True):
        assert rows[a.name]["ratio"] == b.factor / a.factor
        assert 0 < rows[a.name]["distance_lo"] <= rows[a.name]["distance_hi"] <= 1
    distances = [row["distance"] for row in answer["points"]]
    for row in compare(made_once / "first", made_once / "other").points:
        assert rows[row.point]["nonzero"]["wasserstein"]["hi"] == row.nonzero.wasserstein.hi
        assert rows[row.point]["every"]["kolmogorov_smirnov"]["lo"] == row.every.kolmogorov_smirnov.lo
        assert rows[row.point]["distance_lo"] == row.nonzero.kolmogorov_smirnov.lo

    assert distances == sorted(distances, reverse=True)


def test_two_percentiles_of_one_run_are_compared(client):
    asked = {"a": "first", "b": "first", "percentile": 50, "second_percentile": 100}
    answer = client.get("/api/v1/compare", params=asked).json()

    assert {row["distance"] for row in answer["points"]} == {0.0}
    assert all(row["ratio"] > 1 for row in answer["points"])


def test_an_answer_that_the_client_has_is_not_sent_again(client):
    for path in (
        "/first",
        "/first/points",
        "/first/percentile?q=9",
        "/old/network",
        "",
        "/first/factors?format=csv",
    ):
        first = client.get(f"{API}{path}")
        again = client.get(f"{API}{path}", headers={"if-none-match": first.headers["etag"]})

        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
        assert first.headers["cache-control"] == "private, no-cache"


def test_another_question_or_other_results_have_another_etag(own, root):
    etag = lambda path: own.get(f"{API}/first/{path}").headers["etag"]  # noqa: E731
    first = etag("percentile?q=50")

    assert first != etag("percentile?q=51")
    assert first != etag("points?q=50")
    (root / "first" / "factors.json").write_text("{}")
    assert first != etag("percentile?q=50")


def test_the_openapi_document_names_every_address(client):
    document = client.get("/api/v1/openapi.json").json()
    names = {"percentile", "factors", "distribution", "digest", "certificate", "network", "points"}

    assert {f"{API}/{{run}}/{name}" for name in names} <= document["paths"].keys()
    assert {API, f"{API}/{{run}}", "/api/v1/compare"} <= document["paths"].keys()
    assert "application/problem+json" in json.dumps(document["paths"][API]["get"]["responses"]["4XX"])
