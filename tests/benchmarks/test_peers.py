"""Whole normalisations beside SNN toolbox's method, and percentiles beside onnxruntime's calibrater.

``pytest tests/benchmarks/test_peers.py --benchmark-enable -s`` prints seconds, memory and ratios, medians of
alternating turns; without the option every way runs once, small. Each way runs in a process of its own: one_way.py.
The toolbox's method is one `predict` a layer, ``np.savez_compressed``, ``np.percentile``, and weights divided layer by
layer; the calibrater is that of percentiles, held to the outputs of activation functions as we are.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .one_way import BATCH_SIZE, N_BINS, PERCENTILE, SHAPES, network, samples

N_ROUNDS = 3
WORDS = {
    "toolbox": "SNN toolbox's method",
    "drop-in": "normalize_parameters",
    "run": "record with cache, factors, normalise, certify",
    "calibrater": "onnxruntime's Percentile calibrater",
    "sketches": "record without cache, percentiles",
    "all tensors": "onnxruntime's Percentile calibrater, all tensors",
    "ranges": "record without cache, export onnxruntime",
}

Figures = dict[str, dict[str, Any]]
"""By turn, ``one batch`` or ``all``: elapsed_s, cpu_s, added_nbytes, percentiles."""


def in_process(way: str, name: str, n_samples: int, folder: Path) -> str:
    command = [
        sys.executable,
        str(Path(__file__).with_name("one_way.py")),
        way,
        name,
        str(n_samples),
        str(folder),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def in_turn(
    ways: Sequence[str], name: str, n_samples: int, folder: Path, n_rounds: int
) -> dict[str, list[Figures]]:
    found: dict[str, list[Figures]] = {way: [] for way in ways}
    for i in range(n_rounds):
        for way in ways:
            place = folder / f"{way}-{i}"
            place.mkdir()
            found[way].append(json.loads(in_process(way, name, n_samples, place).splitlines()[-1]))
    return found


def show(title: str, found: dict[str, list[Figures]]) -> None:
    """Print medians, and ratios to the first way, which is the peer."""
    peer, *_ = found
    print(
        f"\n{title}, medians of {len(found[peer])} (first call, of one batch and with what it imports: in brackets)"
    )
    for way, rounds in found.items():
        all_s, first_s, cpu_s, added = (
            statistics.median(each[turn][key] for each in rounds)
            for turn, key in [
                ("all", "elapsed_s"),
                ("one batch", "elapsed_s"),
                ("all", "cpu_s"),
                ("all", "added_nbytes"),
            ]
        )
        ratios = {
            key: statistics.median(
                theirs["all"][key] / max(ours["all"][key], 1e-9)
                for theirs, ours in zip(found[peer], rounds, strict=True)
            )
            for key in ("elapsed_s", "cpu_s")
        }
        print(
            f"  {WORDS[way]:48s} {all_s:7.2f} s ({first_s:5.2f} s) {cpu_s:7.2f} s CPU {added / 1e6:7.0f} MB more   "
            f"{ratios['elapsed_s']:6.2f} x as fast, {ratios['cpu_s']:6.2f} x by CPU"
        )


@pytest.fixture(params=SHAPES)
def name(request: pytest.FixtureRequest, *, is_measured: bool) -> str:
    if not is_measured and request.param != "lenet":
        pytest.skip("measured with --benchmark-enable")
    return str(request.param)


def test_normalising_beside_the_toolbox(name: str, tmp_path: Path, *, is_measured: bool) -> None:
    n_samples, n_rounds = (1024, N_ROUNDS) if is_measured else (2 * BATCH_SIZE, 1)
    found = in_turn(("toolbox", "drop-in", "run"), name, n_samples, tmp_path, n_rounds)
    show(f"{name}, {n_samples} samples", found)

    (want, *_), *ours = ([each["all"]["percentiles"] for each in rounds] for rounds in found.values())
    for got in ours:
        np.testing.assert_allclose(got[0], want, rtol=1e-3)


def test_percentiles_beside_the_calibrater_of_onnxruntime(
    name: str, tmp_path: Path, *, is_measured: bool
) -> None:
    for needed in ("onnx", "onnxruntime", "tf2onnx"):
        pytest.importorskip(needed, reason="pip install '.[bench]'")
    import keras

    n_samples, n_rounds = (1024, N_ROUNDS) if is_measured else (2 * BATCH_SIZE, 1)
    in_process("export", name, n_samples, tmp_path)
    found = in_turn(("calibrater", "sketches"), name, n_samples, tmp_path, n_rounds)
    show(f"{name}, {n_samples} samples", found)
    model, x = network(name), samples(name, n_samples)
    outputs = [layer.output for layer in model.layers if layer.weights]
    activations = keras.Model(model.inputs, outputs).predict(x, verbose=0)
    want = np.asarray([np.percentile(each, PERCENTILE) for each in activations])
    theirs, ours = (rounds[0]["all"]["percentiles"] for rounds in found.values())

    np.testing.assert_allclose(ours, want, rtol=1e-3)
    for value, each in zip(theirs, activations, strict=True):
        # It gives the lower edge of a bin of its histogram; an edge may be off by the last bit.
        share = PERCENTILE / 100
        assert (
            np.mean(each < value * (1 - 1e-6)) <= share <= np.mean(each <= value + 1.01 * each.max() / N_BINS)
        )


def test_calibration_at_8_times_the_samples(name: str, tmp_path: Path, *, is_measured: bool) -> None:
    """Ours keeps its memory; the calibrater holds all activations of all samples."""
    for needed in ("onnx", "onnxruntime", "tf2onnx"):
        pytest.importorskip(needed, reason="pip install '.[bench]'")
    # The calibrater takes 2 MB for each sample of the larger network.
    n_samples = 512 if is_measured and name == "lenet" else BATCH_SIZE
    in_process("export", name, n_samples, tmp_path)
    added: dict[tuple[str, int], float] = {}
    for times in (1, 8) if is_measured else (1,):
        folder = tmp_path / f"{times}x"
        folder.mkdir()
        (folder / f"{name}.onnx").symlink_to(tmp_path / f"{name}.onnx")
        found = in_turn(("all tensors", "ranges"), name, times * n_samples, folder, 1)
        show(f"{name}, ranges of all tensors from {times * n_samples} samples", found)
        added |= {(way, times): rounds[0]["all"]["added_nbytes"] for way, rounds in found.items()}
        assert all(0 < value < float("inf") for value in found["ranges"][0]["all"]["percentiles"])
    if is_measured:
        growth = {way: (added[way, 8] - added[way, 1]) / 2**20 for way in ("all tensors", "ranges")}
        print(
            f"  8 times the samples: {growth['all tensors']:,.0f} MiB more, ours {growth['ranges']:,.0f} MiB more"
        )
        assert growth["ranges"] < 48
