"""Values that are handed over inside the pass are those of the network, once each, and errors are ours."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from actisketch.pipeline.graph import forward_function, read_graph, select_points
from actisketch.pipeline.record import taps
from actisketch.pipeline.record.producer import KerasProducer
from actisketch.pipeline.record.recorder import record_missing
from actisketch.pipeline.sketch import SketchSpec
from actisketch.pipeline.sources import as_source
from actisketch.storage import Cache, CacheSpec, LastingThreads
from actisketch.storage.errors import InputError, StorageError

layers = keras.layers
N_SAMPLES, BATCH = 11, 4
"""The last batch has 3 samples."""


class Kept:
    """A consumer that keeps copies."""

    def __init__(self) -> None:
        self.values: dict[str, list[Any]] = {}
        self.n_samples: list[int] = []
        self.threads: set[int] = set()

    def take(self, point: str, values: Any) -> None:
        self.values.setdefault(point, []).append(values.copy())
        self.threads.add(threading.get_ident())

    def end_batch(self, n_samples: int) -> None:
        self.n_samples.append(n_samples)

    def joined(self) -> dict[str, Any]:
        return {point: np.concatenate(arrays) for point, arrays in self.values.items()}


def vgg() -> Any:
    x = inputs = keras.Input((32, 32, 3))
    for n in (16, 32, 64):
        x = layers.Conv2D(n, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D()(layers.Conv2D(n, 3, padding="same", activation="relu")(x))
    x = layers.Dense(50, activation="relu")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(10, activation="softmax", dtype="float32")(x))


def residual() -> Any:
    x = inputs = keras.Input((24, 24, 8))
    for n in (8, 16, 16):
        y = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(n, 3, padding="same")(x)))
        y = layers.BatchNormalization()(layers.Conv2D(n, 3, padding="same")(y))
        x = layers.ReLU()(layers.Add()([y, layers.Conv2D(n, 1, use_bias=False)(x)]))
    return keras.Model(inputs, layers.Dense(7)(layers.GlobalAveragePooling2D()(x)))


def attention() -> Any:
    inputs = keras.Input((30, 32))
    x = layers.LayerNormalization()(layers.MultiHeadAttention(4, 16)(inputs, inputs) + inputs)
    x = layers.Dense(64, activation="gelu")(layers.Conv1D(64, 5, padding="same")(x))
    return keras.Model(inputs, layers.Dense(8)(layers.LSTM(24)(x)))


def masked() -> Any:
    """Steps of zeros are masked, and only layers that are told so leave them out."""
    inputs = keras.Input((13, 5))
    x = layers.LSTM(17, return_sequences=True)(layers.Masking()(layers.Masking()(inputs)))
    return keras.Model(inputs, layers.GRU(6)(layers.Dense(11)(x)))


def mobile() -> Any:
    return keras.applications.MobileNetV2(input_shape=(64, 64, 3), weights=None, classes=10)


def samples_of(model: Any) -> Any:
    samples = np.random.default_rng(3).standard_normal((N_SAMPLES, *model.input_shape[1:]), np.float32)
    samples[:, -1] = 0
    return samples


def producer_of(model: Any, samples: Any = None, *, points: str = "all") -> KerasProducer:
    graph = read_graph(model)
    source = as_source(samples_of(model) if samples is None else samples)
    return KerasProducer(graph, select_points(graph, points), source, batch_size=BATCH)


def as_outputs(model: Any, points: str) -> dict[str, Any]:
    """The same values the other way: every point an output of one function."""
    import tensorflow as tf

    graph = read_graph(model)
    chosen = select_points(graph, points)
    forward, samples = forward_function(graph, chosen), samples_of(model)
    spec = tf.TensorSpec((None, *samples.shape[1:]), tf.float32)
    function = tf.function(lambda x: forward([x])[0], input_signature=[spec], autograph=False)
    batches = [function(tf.constant(samples[i : i + BATCH])) for i in range(0, N_SAMPLES, BATCH)]
    return {
        point.name: np.concatenate([tensors[i].numpy() for tensors in batches])
        for i, point in enumerate(chosen)
    }


@pytest.mark.parametrize("points", ["all", pytest.param("parameters", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "policy",
    ["float32", *(pytest.param(f"mixed_{t}", marks=pytest.mark.slow) for t in ("float16", "bfloat16"))],
)
@pytest.mark.parametrize("make", [vgg, residual, attention, masked, mobile], ids=lambda make: make.__name__)
def test_the_values_have_the_bits_that_they_have_as_outputs(
    make: Callable[[], Any], policy: str, points: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the network waits for its taps or not: what it fuses is the same."""
    keras.utils.set_random_seed(5)
    keras.config.set_dtype_policy(policy)
    try:
        model = make()
    finally:
        keras.config.set_dtype_policy("float32")
    expected = as_outputs(model, points)
    for small_nbytes, ahead_nbytes in ((taps.SMALL_NBYTES, taps.AHEAD_NBYTES), (0, 0)):
        monkeypatch.setattr(taps, "SMALL_NBYTES", small_nbytes)
        monkeypatch.setattr(taps, "AHEAD_NBYTES", ahead_nbytes)
        kept, producer = Kept(), producer_of(model, points=points)
        producer.hand_over(0, N_SAMPLES, kept)
        found = kept.joined()

        assert {name: len(arrays) for name, arrays in kept.values.items()} == dict.fromkeys(expected, 3)
        assert kept.n_samples == [4, 4, 3]
        for name, values in expected.items():
            assert found[name].dtype == np.float32
            assert found[name].tobytes() == values.tobytes(), name


def test_the_model_is_as_it_was() -> None:
    def state(model: Any) -> tuple[Any, ...]:
        weights = hashlib.sha256(b"".join(np.asarray(weight).tobytes() for weight in model.weights))
        attributes = {id(layer): sorted(vars(layer)) for layer in model._flatten_layers()}
        return json.dumps(model.get_config(), default=str), weights.hexdigest(), attributes

    model = residual()
    model(samples_of(model))
    before = state(model)
    producer = producer_of(model)
    producer.hand_over(0, N_SAMPLES, Kept())

    class Refusing(Kept):
        def take(self, point: str, values: Any) -> None:
            raise InputError("no")

    with pytest.raises(InputError, match=r"^no$"):
        producer.hand_over(0, N_SAMPLES, Refusing())

    assert state(model) == before


def new_cache(
    folder: Path, producer: Any, n_samples: int = N_SAMPLES, *, block_samples: int = BATCH
) -> Cache:
    return Cache.create_or_resume(
        folder,
        CacheSpec(
            points=producer.points,
            n_samples=n_samples,
            batch_size=BATCH,
            block_samples=block_samples,
            identity={"model": {}, "data": {}, "settings": {}},
        ),
    )


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


class Shuffled:
    """A producer whose points come in any order, from several threads."""

    def __init__(self, producer: Any, seed: int) -> None:
        self._producer, self._rng = producer, np.random.default_rng(seed)
        self.points, self.content_hash = producer.points, producer.content_hash

    def hand_over(self, start: int, stop: int, consumer: Any) -> None:
        for first in range(start, stop, self._producer.batch_size):
            kept = Kept()
            self._producer.hand_over(first, min(first + self._producer.batch_size, stop), kept)
            with ThreadPoolExecutor(3) as pool:
                for point in self._rng.permutation(list(kept.values)):
                    pool.submit(consumer.take, str(point), kept.values[str(point)][0])
            consumer.end_batch(kept.n_samples[0])


@pytest.mark.parametrize("block_samples", [4, 24])
def test_the_order_in_which_taps_fire_does_not_affect_the_bytes(
    tmp_path: Path, make_producer: Any, block_samples: int
) -> None:
    producer = make_producer(shapes={f"layer{i}": (5, i + 1) for i in range(11)})
    for name, each in {"plain": producer, "one": Shuffled(producer, 1), "two": Shuffled(producer, 2)}.items():
        with new_cache(tmp_path / name, producer, 50, block_samples=block_samples) as cache:
            record_missing(cache, each, sketch=SketchSpec(per_channel=True))

    assert contents(tmp_path / "plain") == contents(tmp_path / "one") == contents(tmp_path / "two")


def deep(n_layers: int = 12) -> Any:
    keras.utils.set_random_seed(2)
    x = inputs = keras.Input((6,))
    for i in range(n_layers):
        x = layers.Dense(16, activation="relu", name=f"dense{i}")(x)
    return keras.Model(inputs, x)


def check_resumes(folder: Path, samples: Any, *, among: Sequence[list[int]] = ([0],)) -> None:
    """A run that ended in block 1 goes on there, to the bytes of one that did not end."""
    assert [record.block.index for record in Cache.open(folder / "ended").committed()] in among
    for name in ("ended", "whole"):
        producer = producer_of(deep(), samples)
        with new_cache(folder / name, producer) as cache:
            record_missing(cache, producer, sketch=SketchSpec())
    assert contents(folder / "ended") == contents(folder / "whole")


@pytest.mark.parametrize("small_nbytes", [0, 2**20])
def test_a_value_that_is_refused_in_one_of_many_taps_ends_the_pass_with_our_error(
    tmp_path: Path, small_nbytes: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """NaN behind the seventh layer, for samples of the second block."""
    monkeypatch.setattr(taps, "SMALL_NBYTES", small_nbytes)
    samples, model = np.ones((N_SAMPLES, 6), np.float32), deep()
    overflowing = samples.copy()
    overflowing[5] = 3e38
    producer = producer_of(model, overflowing)
    with new_cache(tmp_path / "ended", producer) as cache, pytest.raises(InputError) as caught:
        record_missing(cache, producer, sketch=SketchSpec())

    assert "point 'dense" in str(caught.value)
    assert "block 1" in str(caught.value)
    assert "sample 1 of this block" in str(caught.value)
    assert "tensorflow" not in str(caught.value).lower()
    assert "PyFunc" not in capfd.readouterr().err
    check_resumes(tmp_path, samples)


def test_a_disk_that_is_full_ends_the_pass_with_our_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = np.ones((N_SAMPLES, 6), np.float32)
    producer = producer_of(deep(), samples)
    with new_cache(tmp_path / "ended", producer) as cache:
        write = cache.store.write

        def full(key: str, parts: Any) -> None:
            if "dense7" in key and "c.1" in key.replace("/", "."):
                raise StorageError("no space left", path=key)
            write(key, parts)

        monkeypatch.setattr(cache.store, "write", full)
        with pytest.raises(StorageError, match="no space left"):
            record_missing(cache, producer, sketch=SketchSpec())
    # The next block may be computed by then, and is committed.
    check_resumes(tmp_path, samples, among=([0], [0, 2]))


INTERRUPTED = """
import os, signal, sys
import numpy as np
sys.path.insert(0, sys.argv[2])
import test_taps
from actisketch.pipeline.record.recorder import record_missing
from actisketch.pipeline.sketch import SketchSpec

producer = test_taps.producer_of(test_taps.deep(), np.ones((11, 6), np.float32))
hand_over, n_taken = producer.hand_over, [0]

def counted(start, stop, consumer):
    take = consumer.take
    def interrupting(point, values):
        if start == 4 and point == "dense7":
            os.kill(os.getpid(), signal.SIGINT)  # from a thread of TensorFlow, in the middle of a pass
        take(point, values)
    consumer.take = interrupting
    hand_over(start, stop, consumer)

producer.hand_over = counted
with test_taps.new_cache(sys.argv[1], producer) as cache:
    try:
        record_missing(cache, producer, sketch=SketchSpec())
    except KeyboardInterrupt:
        sys.exit(130)
"""


def test_ctrl_c_in_the_middle_of_a_pass_leaves_what_a_later_run_goes_on_from(tmp_path: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "ended"), str(Path(__file__).parent)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ}, timeout=300
    )

    assert done.returncode == 130, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    check_resumes(tmp_path, np.ones((N_SAMPLES, 6), np.float32))


def test_values_come_from_other_threads_and_one_pass_at_a_time() -> None:
    """Two threads that ask one network at once get what each asked for."""
    model = vgg()
    samples = samples_of(model)
    producer = producer_of(model, samples, points="parameters")
    kept = [Kept(), Kept()]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda i: producer.hand_over(4 * i, 4 * i + 4, kept[i]), range(2)))
    whole = Kept()
    producer.hand_over(0, 8, whole)

    for point, values in whole.joined().items():
        np.testing.assert_array_equal(np.concatenate([k.joined()[point] for k in kept]), values)


def test_an_error_of_one_tap_while_others_are_at_work_is_raised_as_it_was_and_no_thread_stays(
    tmp_path: Path,
) -> None:
    samples = np.ones((N_SAMPLES, 6), np.float32)
    producer, error = producer_of(deep(), samples), ZeroDivisionError("mine")
    taken: list[str] = []

    class Failing(Kept):
        def take(self, point: str, values: Any) -> None:
            taken.append(point)
            if point == "dense7":
                raise error

    for _ in range(2):  # what failed can be asked again
        with pytest.raises(ZeroDivisionError) as caught:
            producer.hand_over(0, N_SAMPLES, Failing())
        assert caught.value is error
    with new_cache(tmp_path / "c", producer) as cache:
        record_missing(cache, producer, sketch=SketchSpec())

    assert len(taken) <= 2 * 12  # the error ended the pass at its first batch
    ours = ("actisketch-chunk", "actisketch-committer")
    assert not [each.name for each in threading.enumerate() if each.name.startswith(ours)]


def test_a_second_ctrl_c_where_the_pass_is_being_ended_leaves_no_batch_at_work() -> None:
    begun, ended, n_exits = threading.Event(), threading.Event(), 0

    class Slow(Kept):
        def take(self, point: str, values: Any) -> None:
            begun.set()
            time.sleep(0.3)
            super().take(point, values)

        def end_batch(self, n_samples: int) -> None:
            super().end_batch(n_samples)
            ended.set()

    def batches() -> Iterator[Any]:
        yield np.ones((BATCH, 6), np.float32)
        if tracing:
            assert begun.wait(60)
            raise KeyboardInterrupt("first")
        yield np.ones((BATCH, 6), np.float32)

    def trace(frame: Any, event: str, _: Any) -> None:
        nonlocal n_exits
        if frame.f_code is LastingThreads.__exit__.__code__:
            n_exits += 1
            if n_exits == 1:
                raise KeyboardInterrupt("second")

    tracing: list[bool] = []
    producer = producer_of(deep(1), as_source(batches, num_samples=2 * BATCH))
    producer.check()
    tracing.append(True)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with pytest.raises(KeyboardInterrupt, match="second"):
            producer.hand_over(0, 2 * BATCH, Slow())
    finally:
        sys.settrace(before)

    assert ended.is_set()
