"""A producer of activations without a model, so that most tests of the engine need no TensorFlow."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from actisketch.pipeline.record.producer import Consumer
from actisketch.storage import PointSpec


@dataclass
class StandInProducer:
    """ReLU-like activations that are a function of the sample's index and nothing else."""

    n_samples: int = 50
    batch_size: int = 4
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: {"conv": (3, 2, 5), "dense": (7,)})
    fail_at: int | None = None
    calls: list[tuple[int, int]] = field(default_factory=list)

    @property
    def points(self) -> tuple[PointSpec, ...]:
        return tuple(PointSpec(name=name, shape=shape) for name, shape in self.shapes.items())

    def content_hash(self, start: int, stop: int) -> str:
        return f"{start}-{stop}"

    def sample(self, name: str, index: int) -> np.ndarray:
        rng = np.random.default_rng([index, len(name)])
        return np.maximum(rng.normal(size=self.shapes[name]), 0).astype(np.float32)

    def all_values(self, name: str) -> np.ndarray:
        return np.stack([self.sample(name, i) for i in range(self.n_samples)])

    def hand_over(self, start: int, stop: int, consumer: Consumer) -> None:
        for first in range(start, stop, self.batch_size):
            last = min(first + self.batch_size, stop)
            self.calls.append((first, last))
            if self.fail_at is not None and first <= self.fail_at < last:
                raise RuntimeError(f"the producer fails at sample {self.fail_at}")
            for name in self.shapes:
                consumer.take(name, np.stack([self.sample(name, i) for i in range(first, last)]))
            consumer.end_batch(last - first)


@pytest.fixture
def producer():
    return StandInProducer()


@pytest.fixture
def make_producer():
    return StandInProducer
