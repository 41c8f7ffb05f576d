"""What a second job, or a normalisation, does with the files that it finds."""

import shutil

import numpy as np
import pytest

from actisketch.pipeline import plan, run
from actisketch.pipeline.events import StageStarted
from actisketch.pipeline.factors.factors_file import Factors
from actisketch.pipeline.rerun import normalize_run
from actisketch.storage.errors import InputError

QUICK = {"report": {"enabled": False}}


def test_the_first_pattern_wins_again_when_patterns_change_their_places(tmp_path, small_model, small_data):
    first, all_of_them = {"first": {"factor": 2.0}}, {"*": {"factor": 3.0}}
    found = []
    for patterns in ({**all_of_them, **first}, {**first, **all_of_them}):
        settings = {**QUICK, "factors": {"overrides": patterns}}
        result = run(small_model, small_data, output=tmp_path / "r", normalize=False, settings=settings)
        found.append(result.written_factors().by_point()["first"])

    assert found == [3.0, 2.0]


def test_a_plan_counts_the_activations_that_an_existing_cache_keeps(tmp_path, small_model, small_data):
    """A job that does not ask for them goes on with such a cache, and keeps those of the other samples too."""
    kept = {**QUICK, "record": {"block_samples": 32}, "cache": {"codec": "zstd"}}
    without = {**QUICK, "record": {"block_samples": 32, "activations": False}}
    run(small_model, small_data[:32], output=tmp_path / "r", normalize=False, settings=kept)
    planned = plan(small_model, small_data, output=tmp_path / "r", settings=without)
    expected = plan(small_model, small_data, output=tmp_path / "r", settings=kept)
    result = run(small_model, small_data, output=tmp_path / "r", normalize=False, settings=without)

    assert result.activations("first").shape == (53, 8)
    assert planned == expected
    assert planned.activations_nbytes >= 4 * 53 * (8 + 8 + 3)


@pytest.mark.parametrize("written", ["weights", "network"])
def test_the_network_that_is_normalised_is_never_written_over(tmp_path, small_model, small_data, written):
    given = tmp_path / {"weights": "own.h5", "network": "own/normalized.keras"}[written]
    given.parent.mkdir(exist_ok=True)
    small_model.save(given)
    np.save(tmp_path / "x.npy", small_data)
    before, settings = given.read_bytes(), {**QUICK, "record": {"activations": False}}
    result = run(given, tmp_path / "x.npy", output=tmp_path / "r", normalize=False, settings=settings)

    with pytest.raises(InputError, match=r"(is the network|is a file) that .* would be replaced"):
        normalize_run(result, **({"weights_h5": given} if written == "weights" else {"output": given.parent}))
    assert given.read_bytes() == before


def test_an_interrupted_normalisation_leaves_no_certificate_of_other_factors(
    tmp_path, small_model, small_data
):
    small_model.save(tmp_path / "net.keras")
    np.save(tmp_path / "x.npy", small_data)
    paths = {"model": tmp_path / "net.keras", "data": tmp_path / "x.npy"}
    result, side = run(**paths, output=tmp_path / "r", normalize=False, settings=QUICK), tmp_path / "side"
    normalize_run(result, factors=result.factors(percentile=50), output=side)
    assert (side / "certificate.json").exists()

    def stop(event):
        if isinstance(event, StageStarted) and event.stage == "certify":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        normalize_run(result, factors=result.factors(percentile=100), output=side, on_event=stop)

    assert Factors.load(side / "factors.json").by_point() == result.factors(percentile=100).by_point()
    assert not (side / "certificate.json").exists()


def test_a_job_does_not_replace_the_network_that_it_was_given(tmp_path, small_model, small_data):
    given = tmp_path / "r" / "normalized.keras"
    run(small_model, small_data, output=tmp_path / "r", settings=QUICK)
    shutil.rmtree(tmp_path / "r" / "cache")
    before = given.read_bytes()

    with pytest.raises(InputError, match="is the network that is to be normalised"):
        run(given, small_data, output=tmp_path / "r", settings=QUICK)
    assert given.read_bytes() == before
    assert not (tmp_path / "r" / "cache").exists()
