"""Samples that come as a data flow: of every kind, as often as the toolbox asks, refused where they are not clear."""

from __future__ import annotations

import json
import shutil
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from actisketch.pipeline.conversion import normalize_parameters
from actisketch.storage.errors import InputError

from .test_normalize_parameters import unchanged


class Dataflow:
    """Batches of its own size, once, as the toolbox's ImageDataGenerator gives them."""

    def __init__(self, samples: NDArray[np.float32], batch_size: int) -> None:
        self.samples, self.batch_size, self.n_calls = samples, batch_size, 0

    def __len__(self) -> int:
        return len(self.samples) // self.batch_size

    def next(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        start = self.n_calls * self.batch_size
        self.n_calls += 1
        return self.samples[start : start + self.batch_size], np.zeros(self.batch_size, np.int64)


def test_a_dataflow_is_asked_as_often_as_the_toolbox_asks(
    small_model: Any, small_data: Any, settings: ConfigParser, folder: Path
) -> None:
    # 40 samples asked, batches of 10 in the settings: 4 calls, which give 5 samples each.
    settings.set("normalization", "num_samples", "40")
    flow = Dataflow(small_data, 5)
    normalize_parameters(small_model, settings, dataflow=flow)

    assert flow.n_calls == 4
    assert json.loads((folder / "certificate.json").read_text())["n_samples"] == 20
    assert not list(folder.glob(".dataflow-*"))


def test_a_dataflow_that_ends_too_early_says_so(
    small_model: Any, small_data: Any, settings: ConfigParser
) -> None:
    settings.set("normalization", "num_samples", "40")
    with pytest.raises(InputError, match="ended after 20 samples"):
        normalize_parameters(small_model, settings, dataflow=iter([small_data[:10], small_data[10:20]]))


def test_a_dataflow_measures_what_is_beside_the_factor_of_the_input(
    small_model: Any, small_data: Any, settings: ConfigParser, folder: Path
) -> None:
    settings.set("normalization", "num_samples", "40")
    flow = Dataflow(small_data, 10)
    normalize_parameters(small_model, settings, dataflow=flow, scale_facs={"input": 1.0})

    assert flow.n_calls == 4
    assert len(json.loads((folder / "99.9.json").read_text())) == 4


class Numbered:
    """Batches by number, as a PyDataset gives them; asked beyond its end it begins anew."""

    def __init__(self, samples: NDArray[np.float32], batch_size: int) -> None:
        self.samples, self.batch_size = samples, batch_size

    def __len__(self) -> int:
        return len(self.samples) // self.batch_size

    def __getitem__(self, number: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        start = number % len(self) * self.batch_size
        return self.samples[start : start + self.batch_size], np.zeros(self.batch_size, np.int64)


def _as_dataset(samples: Any) -> Any:
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((samples, np.zeros(len(samples)))).batch(10)


def _parts(samples: Any) -> list[Any]:
    return [samples[start : start + 10] for start in range(0, 40, 10)]


FLOWS: dict[str, Any] = {
    "tf.data": _as_dataset,
    "tf.data of dicts": lambda x: _as_dataset(x).map(lambda part, _: {"x": part}),
    "by number": lambda x: Numbered(x, 10),
    "a list of arrays": _parts,
    "dicts of one": lambda x: iter([{"pixels": part} for part in _parts(x)]),
    "dicts of x and y": lambda x: iter([{"y": np.zeros(10), "x": part} for part in _parts(x)]),
    "lists of two": lambda x: iter([[part, np.zeros(10)] for part in _parts(x)]),
    "plain lists": lambda x: iter([part.tolist() for part in _parts(x)]),
    "generator": lambda x: ((part, None) for part in _parts(x)),
}


@pytest.mark.parametrize("kind", FLOWS)
def test_every_kind_of_dataflow_gives_the_factors_of_its_samples(
    small_model: Any, small_data: Any, settings: ConfigParser, folder: Path, kind: str
) -> None:
    settings.set("normalization", "num_samples", "40")
    before = small_model.get_weights()
    normalize_parameters(small_model, settings, x_norm=small_data[:40])
    (path,) = (path for path in folder.glob("*.json") if path.name[0].isdigit())
    factors, weights = json.loads(path.read_text()), small_model.get_weights()
    shutil.rmtree(folder)
    small_model.set_weights(before)
    normalize_parameters(small_model, settings, dataflow=FLOWS[kind](small_data))

    assert json.loads(path.read_text()) == pytest.approx(factors, rel=1e-6)
    assert all(np.allclose(a, b, rtol=1e-6) for a, b in zip(weights, small_model.get_weights(), strict=True))


@pytest.mark.parametrize(
    ("flow", "message"),
    [
        (lambda x: iter([{"a": x, "b": x}]), r"keys \['a', 'b'\]"),
        (lambda x: iter([[x, x]]), "lists of 2 arrays of one shape"),
        (lambda x: iter([np.array(["a", "b"])]), "dtype <U1"),
        (lambda x: iter([3.0]), r"shape \(\)"),
        (lambda x: 7, "a int, which gives no batches"),
    ],
)
def test_a_dataflow_without_clear_samples_is_refused(
    small_model: Any, small_data: Any, settings: ConfigParser, flow: Any, message: str
) -> None:
    settings.set("normalization", "num_samples", "40")
    before = small_model.get_weights()
    with pytest.raises(InputError, match=message):
        normalize_parameters(small_model, settings, dataflow=flow(small_data))

    assert unchanged(small_model, before)
