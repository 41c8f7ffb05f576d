"""Exact percentiles of a cache that rounds: refused before work starts, or accepted and exact of what is stored."""

import numpy as np
import pytest

from actisketch.pipeline import run
from actisketch.storage.errors import InputError

ROUNDED = {"cache": {"dtype": "float16"}, "report": {"enabled": False}}


def test_exact_factors_of_a_rounding_cache_are_refused_before_anything_is_recorded(
    tmp_path, small_model, small_data
):
    settings = {**ROUNDED, "factors": {"exact": True}}

    with pytest.raises(InputError, match=r"factors\.accept_rounding = true"):
        run(small_model, small_data, output=tmp_path / "r", settings=settings)
    assert not (tmp_path / "r").exists()


def test_accepted_in_the_job_the_factors_are_exact_percentiles_of_what_is_stored(
    tmp_path, small_model, small_data
):
    settings = {**ROUNDED, "factors": {"exact": True, "accept_rounding": True, "percentile": 90.0}}
    result = run(small_model, small_data, output=tmp_path / "r", settings=settings)
    stored = result.activations("first")[:].astype(np.float32)

    factor = result.written_factors().points[0]
    assert (factor.exact, factor.value) == (True, np.percentile(stored[stored != 0], 90.0))
    assert result.factors() == result.written_factors()


def test_a_finished_run_is_asked_for_exact_factors_with_the_flag_alone(tmp_path, small_model, small_data):
    result = run(small_model, small_data, output=tmp_path / "r", settings=ROUNDED)

    with pytest.raises(InputError, match="--accept-rounding"):
        result.factors(exact=True)
    assert all(p.exact for p in result.factors(exact=True, accept_rounding=True).points)
