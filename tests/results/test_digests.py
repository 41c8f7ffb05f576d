"""The t-digests of a run, as the tdigest package reads them, against NumPy on the plain activations."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from tdigest import TDigest

from actisketch.pipeline import Run, run
from actisketch.pipeline.cli import commands
from actisketch.pipeline.sketch import to_tdigest, to_tdigest_dict
from actisketch.storage.errors import InputError

N_CHANNELS = 7
QS = (0, 1, 13, 50, 87, 99, 99.9, 100)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, np.ndarray]:
    """A run with sketches of channels, and what Keras itself computes behind the layer."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((11, 5))
    values = keras.layers.Dense(N_CHANNELS, activation="relu", name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="classes")(values))
    data = np.random.default_rng(5).standard_normal((211, 11, 5), dtype=np.float32)
    settings = {
        "sketch": {"per_channel": True},
        "normalize": {"enabled": False},
        "report": {"enabled": False},
    }
    output = tmp_path_factory.mktemp("digests") / "run"
    result = run(model, data, output=output, batch_size=16, settings=settings)
    return result, keras.Model(inputs, values).predict(data, batch_size=16, verbose=0)


def check(facts: dict[str, Any], values: np.ndarray) -> None:
    """Whether what tdigest says lies among the values of the centroids that it interpolates between."""
    theirs = TDigest().update_from_dict(facts)
    counts = [centroid["c"] for centroid in facts["centroids"]]
    ends = np.concatenate(([0], np.cumsum(counts)))

    assert theirs.n == facts["n"] == sum(counts) == values.size
    ordered = np.sort(values, axis=None)
    # Below the middle of its first centroid the package extrapolates, beyond the smallest value too.
    begin = 50 * counts[0] / values.size
    for q in QS:
        if 0 < q < begin:
            continue
        holder = np.searchsorted(ends[1:], q / 100 * values.size, side="right")
        first, last = ends[max(holder - 1, 0)], ends[min(holder + 2, len(counts))] - 1
        slack = 1e-4 * np.abs(ordered).max()  # of Keras' own rounding from batch to batch, and of a bucket

        assert ordered[int(first)] - slack <= theirs.percentile(q) <= ordered[int(last)] + slack
    # Over all percentiles the middle of the distribution is followed closely, not only bracketed.
    middle = np.arange(max(5, math.ceil(begin)), 96)
    found = np.array([theirs.percentile(int(q)) for q in middle])
    np.testing.assert_allclose(found, np.percentile(ordered, middle), atol=0.03 * ordered[-1])


@pytest.mark.parametrize("nonzero", [True, False])
def test_the_digest_of_a_point_answers_as_numpy_does(finished: tuple[Run, np.ndarray], nonzero: bool) -> None:
    result, values = finished

    check(
        to_tdigest_dict(result.digest("hidden", nonzero=nonzero)), values[values > 0] if nonzero else values
    )


@pytest.mark.parametrize("channel", [0, 3, N_CHANNELS - 1])
def test_each_channel_has_a_digest_of_its_own(finished: tuple[Run, np.ndarray], channel: int) -> None:
    result, values = finished
    digest = result.digest("hidden", channel=channel, nonzero=False)

    check(to_tdigest_dict(digest), values[..., channel])
    assert to_tdigest(digest).to_dict() == to_tdigest_dict(digest)


def test_the_export_holds_the_digest_of_every_point(finished: tuple[Run, np.ndarray], tmp_path: Path) -> None:
    result, values = finished
    command = ["export", str(result.folder.path), "--format", "tdigest", "--output", str(tmp_path / "d")]
    done = CliRunner().invoke(commands, command)
    exported = json.loads((tmp_path / "d" / "tdigest.json").read_text())

    assert done.exit_code == 0, done.output
    assert list(exported) == ["hidden", "classes"]
    assert exported == json.loads(result.export("tdigest"))
    check(exported["hidden"], values[values > 0])


def test_more_centroids_follow_from_a_larger_compression(finished: tuple[Run, np.ndarray]) -> None:
    result, _ = finished

    assert len(result.digest("hidden", compression=1000)) > 2 * len(result.digest("hidden"))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"point": "hiden"}, "no point 'hiden' was recorded"),
        ({"point": "hidden", "channel": N_CHANNELS}, "channel 7 of 7: count from 0"),
        ({"point": "hidden", "channel": -1}, "channel -1 of 7: count from 0"),
        ({"point": "hidden", "channel": 1.0}, "channel 1.0 of 7: count from 0"),
        ({"point": "hidden", "channel": "1"}, "channel '1' of 7: count from 0"),
        ({"point": "hidden", "compression": 3}, "compression must be from 10"),
        ({"point": "hidden", "compression": float("nan")}, "compression must be from 10 to 100000, got nan"),
        ({"point": "hidden", "compression": "200"}, "compression must be from 10 to 100000, got '200'"),
    ],
)
def test_what_has_no_digest_is_refused(
    finished: tuple[Run, np.ndarray], asked: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        finished[0].digest(**asked)


@pytest.mark.parametrize("flags", [["--exact"], ["--percentile", "99"]])
def test_flags_of_factors_do_not_go_with_a_digest(finished: tuple[Run, np.ndarray], flags: list[str]) -> None:
    command = ["export", str(finished[0].folder.path), "--format", "tdigest", *flags]
    done = CliRunner().invoke(commands, command)

    assert isinstance(done.exception, InputError)
    assert f"leave {flags[0]} out" in str(done.exception)


def test_the_help_teaches_it() -> None:
    text = " ".join(CliRunner().invoke(commands, ["export", "--help"]).output.split())

    assert "tdigest: the t-digest of each point" in text
    assert "update_from_dict" in text
