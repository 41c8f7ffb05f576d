"""A job opens its cache once and hands it on; a percentile question reads the heads of the records once."""

from __future__ import annotations

import numpy as np
import pytest

from actisketch.pipeline import open_run, run
from actisketch.storage import Cache

SETTINGS = {"record": {"block_samples": 8}, "normalize": {"input_factor": "measured"}}


@pytest.fixture
def opened(monkeypatch):
    """The caches that were opened."""
    found = []
    make = Cache.__init__

    def counted(self, *arguments, **more):
        found.append(self)
        make(self, *arguments, **more)

    monkeypatch.setattr(Cache, "__init__", counted)
    return found


def test_a_job_opens_its_cache_once_whether_it_is_new_resumed_or_reloaded(
    tmp_path, small_model, small_data, opened
):
    def openings():
        opened.clear()
        run(small_model, small_data, output=tmp_path / "r", batch_size=8, settings=SETTINGS)
        return len(opened)

    new, reloaded = openings(), openings()
    records = sorted((tmp_path / "r" / "cache" / ".actisketch" / "commits").iterdir())
    records[0].unlink()
    resumed = openings()

    assert (new, reloaded, resumed) == (1, 1, 1)


def test_a_percentile_question_reads_the_head_of_each_record_once(
    tmp_path, small_model, small_data, monkeypatch
):
    run(small_model, small_data, output=tmp_path / "r", batch_size=8, settings=SETTINGS)
    asked = open_run(tmp_path / "r")
    heads = []
    read_start = type(asked.cache.store).read_start

    def counted(self, key, nbytes):
        heads.append(key)
        return read_start(self, key, nbytes)

    monkeypatch.setattr(type(asked.cache.store), "read_start", counted)
    values = [row.value for row in asked.percentiles([50.0, 99.0])]

    assert np.isfinite(values).all()
    assert sorted(heads) == sorted({*heads})
    assert len(heads) == len(asked.cache.blocks)
