"""Against SNN toolbox 0.6.0 itself: its factors and its weights, for two networks and two percentiles."""

from __future__ import annotations

import json
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from actisketch.pipeline.conversion import normalize_parameters

CASES = [(kind, percentile) for kind in ("seq", "concat") for percentile in ("99.9", "100")]
Network = Callable[[str], keras.Model]


@pytest.mark.parametrize(("kind", "percentile"), CASES)
def test_factors_and_weights_are_those_of_the_toolbox(
    kind: str,
    percentile: str,
    golden: Path,
    parsed_network: Network,
    config: ConfigParser,
    x_norm: NDArray[np.float32],
) -> None:
    config.set("normalization", "percentile", percentile)
    model = parsed_network(kind)
    normalize_parameters(model, config, x_norm=x_norm)

    folder = Path(config.get("paths", "log_dir_of_current_run")) / "normalization"
    factors = json.loads((folder / f"{percentile}.json").read_text())
    expected = json.loads((golden / kind / f"{percentile}.json").read_text())
    assert list(factors) == list(expected)
    assert factors == pytest.approx(expected, rel=1e-5)
    with np.load(golden / kind / f"weights_after_{percentile}.npz") as after:
        for layer in model.layers:
            for index, variable in enumerate(layer.weights):
                wanted = after[f"{layer.name}/{index}"]
                np.testing.assert_allclose(variable, wanted, rtol=1e-5, atol=1e-6 * np.abs(wanted).max())
    with np.load(golden / kind / f"sparsity_{percentile}.npz") as sparsity:
        key = sparsity.files[0]
        np.testing.assert_allclose(
            np.load(folder / "activations" / "sparsity.npz")[key], sparsity[key], atol=1e-4
        )


def test_the_factors_of_the_toolbox_give_its_weights_without_any_samples(
    golden: Path, parsed_network: Network, config: ConfigParser
) -> None:
    model = parsed_network("concat")
    normalize_parameters(model, config, scale_facs=json.loads((golden / "concat" / "99.9.json").read_text()))

    with np.load(golden / "concat" / "weights_after_99.9.npz") as after:
        for layer in model.layers:
            for index, variable in enumerate(layer.weights):
                np.testing.assert_allclose(variable, after[f"{layer.name}/{index}"], rtol=2e-6, atol=1e-9)
