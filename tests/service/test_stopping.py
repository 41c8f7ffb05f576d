"""A question does what is asked and no more, and ends when nobody waits for its answer."""

from __future__ import annotations

import pytest

from actisketch.pipeline import open_run
from actisketch.pipeline.results.so_far import recorded_so_far
from actisketch.pipeline.service.open_runs import OpenRun
from actisketch.pipeline.service.questions import percentiles_of, points_of
from actisketch.pipeline.service.workers import Stop, Stopped
from actisketch.pipeline.sketch.channels import ChannelSketch

from .conftest import POINTS

API = "/api/v1/runs"


def test_one_channel_is_that_of_all_channels_and_is_computed_alone(client, made_once, monkeypatch):
    qs = [0, 12.5, 50, 99.9, 100]
    run = open_run(made_once / "vgg" / "channels")
    rows = run.percentiles(qs, points=["conv"], nonzero=True, per_channel=True)
    expected = [(row.q, row.value, row.lo, row.hi) for row in rows if row.channel == 1]
    monkeypatch.delattr(ChannelSketch, "percentile")
    asked = {"q": qs, "point": "conv", "channel": 1}
    answer = client.get(f"{API}/vgg~1channels/percentile", params=asked).json()

    assert [(row["q"], row["value"], row["lo"], row["hi"]) for row in answer["percentiles"]] == expected


@pytest.mark.parametrize("more", [{}, {"exact": True}, {"channel": 0}])
def test_what_is_asked_twice_is_answered_once(client, more):
    asked = {"q": [50, 1, 50], "point": ["conv", POINTS[1].name, "conv"], **more}
    rows = client.get(f"{API}/vgg~1channels/percentile", params=asked).json()["percentiles"]

    assert [(row["point"], row["q"]) for row in rows] == [(p.name, q) for p in POINTS for q in (50, 1)]


def test_a_question_about_sketches_ends_when_it_is_stopped(made_once):
    run = open_run(made_once / "vgg" / "channels")
    opened = OpenRun(
        id="x",
        folder=run.folder.path,
        so_far=recorded_so_far(run),
        manifest={},
        key="",
        nbytes=0,
        good_until_s=0.0,
    )
    asked = {"points": None, "qs": [5.0], "nonzero": None, "exact": False}
    stop = Stop()
    stop.set()

    for channel in (None, 0):
        with pytest.raises(Stopped):
            percentiles_of(opened, stop, channel=channel, **asked)
    with pytest.raises(Stopped):
        points_of(opened, stop, q=None, nonzero=None)
    assert len(percentiles_of(opened, Stop(), channel=None, **asked).percentiles) == len(POINTS)
