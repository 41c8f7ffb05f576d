"""An answer, and its ETag, are of what is recorded now: also where other values came under the same name."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import numpy as np
import pytest

from actisketch.pipeline.results.so_far import recorded_so_far
from actisketch.pipeline.service import open_runs

from .conftest import MadeRun, values_of

API = "/api/v1/runs"
ASKED = {"q": 100, "point": "conv"}
SKETCHES_ONLY = {"record": {"activations": False}}


@dataclass
class Scaled(MadeRun):
    """A run of the same identity with other values."""

    scale: float = 1.0

    def values(self, point, start, stop):
        return values_of(point, start, stop, seed=self.seed) * np.float32(self.scale)


def again(folder, n_blocks, scale):
    """Delete the run and record it with other values."""
    shutil.rmtree(folder, ignore_errors=True)
    return Scaled(folder, changes=SKETCHES_ONLY, scale=scale).begin().record(n_blocks)


@pytest.mark.parametrize(("n_blocks", "n_samples"), [(2, 12), (3, 17)])
def test_sketches_that_are_recorded_again_with_other_values_are_read_again(root, own, n_blocks, n_samples):
    again(root / "sk", n_blocks, 1.0)
    first = own.get(f"{API}/sk/percentile", params=ASKED)
    made = again(root / "sk", n_blocks, 1.5)
    second = own.get(f"{API}/sk/percentile", params=ASKED, headers={"if-none-match": first.headers["etag"]})

    assert second.status_code == 200
    assert second.json()["percentiles"][0]["value"] == made.all_values("conv", n_samples).max()


def test_old_blocks_are_not_merged_with_new_ones(root, own):
    again(root / "sk", 2, 4.0)
    assert own.get(f"{API}/sk/percentile", params=ASKED).status_code == 200
    made = again(root / "sk", 3, 1.0)
    (row,) = own.get(f"{API}/sk/percentile", params=ASKED).json()["percentiles"]

    assert row["value"] == made.all_values("conv").max()
    assert row["n_values"] == np.count_nonzero(made.all_values("conv"))


def test_a_block_whose_sketches_were_damaged_is_looked_at_again(root, own):
    first, *_ = sorted((root / "half" / "cache" / ".actisketch" / "commits").iterdir())
    stored = first.read_bytes()
    first.write_bytes(stored[:-1] + bytes([stored[-1] ^ 255]))  # its last sketch
    damaged = own.get(f"{API}/half/points")
    same = own.get(f"{API}/half/points", headers={"if-none-match": damaged.headers["etag"]})
    first.write_bytes(stored)
    mended = own.get(f"{API}/half/points", headers={"if-none-match": damaged.headers["etag"]})

    assert damaged.json()["recorded"]["n_blocks_done"] == 1
    assert same.status_code == 304
    assert mended.status_code == 200
    assert (mended.json()["recorded"]["n_blocks_done"], mended.json()["recorded"]["damage"]) == (2, [])


def test_settings_that_a_job_writes_while_a_run_is_opened_give_another_etag(root, own, monkeypatch):
    made, merge = MadeRun(root / "first", changes={"factors": {"percentile": 50.0}}), recorded_so_far

    def merge_meanwhile(*given):
        monkeypatch.setattr(open_runs, "recorded_so_far", merge)
        found = merge(*given)
        made.begin()
        return found

    monkeypatch.setattr(open_runs, "recorded_so_far", merge_meanwhile)
    first = own.get(f"{API}/first/factors")
    second = own.get(f"{API}/first/factors", headers={"if-none-match": first.headers["etag"]})

    assert {point["percentile"] for point in first.json()["points"]} == {99.9}
    assert second.status_code == 200
    values = made.all_values("conv")
    lo, hi = (np.percentile(values[values > 0], 50, method=method) for method in ("lower", "higher"))
    point = second.json()["points"][0]
    assert (point["name"], point["percentile"]) == ("conv", 50.0)
    assert point["lo"] <= lo <= hi <= point["hi"]


def test_the_order_of_the_values_of_one_name_is_part_of_the_question(client):
    for path in ("points", "percentile"):
        one, other = (client.get(f"{API}/first/{path}?{asked}") for asked in ("q=1&q=99", "q=99&q=1"))

        assert one.json() != other.json()
        assert one.headers["etag"] != other.headers["etag"]
    by_name = [
        client.get(f"{API}/first/percentile?{asked}") for asked in ("q=1&point=conv", "point=conv&q=1")
    ]

    assert by_name[0].headers["etag"] == by_name[1].headers["etag"]
