"""Runs without a network, whose activations anybody can compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actisketch.pipeline.factors.merged_file import merged_key
from actisketch.pipeline.folder.folder import RunFolder
from actisketch.pipeline.record.point_sketch import empty_sketch, sketch_spec, with_channels
from actisketch.pipeline.settings.loading import validate_job
from actisketch.pipeline.stages.factors import FactorsStage
from actisketch.storage import Cache, CacheSpec, PointSpec

POINTS = (
    PointSpec(name="conv", shape=(3, 5, 2), meta={"layer_type": "Conv2D", "activation": "relu"}),
    PointSpec(name="<b>dense/1</b>", shape=(7,), meta={"layer_type": "Dense", "activation": "relu"}),
)
N_SAMPLES, BLOCK_SAMPLES, BATCH_SIZE = 17, 6, 3


def values_of(point: PointSpec, start: int, stop: int, *, seed: float = 0.7) -> NDArray[np.float32]:
    """The activations of some samples, half of them zero."""
    n = point.n_values
    rows = np.arange(start, stop)[:, None]
    values = np.maximum(np.sin(rows * seed + np.arange(n) * 1.3) * (1 + np.arange(n)), 0)
    return values.astype(np.float32).reshape(-1, *point.shape)


@dataclass
class MadeRun:
    """A run that is recorded block by block."""

    folder: Path
    changes: dict[str, Any] = field(default_factory=dict)
    points: Sequence[PointSpec] = POINTS
    seed: float = 0.7
    n_samples: int = N_SAMPLES

    def __post_init__(self) -> None:
        tree = {"output": str(self.folder), "normalize": {"enabled": False}, "report": {"enabled": False}}
        self.settings = validate_job({**tree, **self.changes})
        self.run = RunFolder(self.folder)
        self.spec = CacheSpec(
            points=tuple(self.points),
            n_samples=self.n_samples,
            batch_size=BATCH_SIZE,
            block_samples=BLOCK_SAMPLES,
            identity={"model": {"weights": str(self.seed)}, "data": {}, "settings": {}},
            keeps_activations=self.settings.record.activations,
        )

    def begin(self) -> MadeRun:
        """Make the cache, then the manifest, as a job does before its first block."""
        self.folder.mkdir(parents=True, exist_ok=True)
        Cache.create_or_resume(self.run.cache_path, self.spec).close()
        self.run.update_manifest(
            {
                "settings": self.settings.model_dump(mode="json"),
                "n_samples": self.n_samples,
                "model": {"name": f"net-{self.folder.name}"},
            }
        )
        return self

    def record(self, n_blocks: int | None = None) -> MadeRun:
        """Record the next blocks."""
        with Cache.create_or_resume(self.run.cache_path, self.spec) as cache:
            for block in cache.missing()[:n_blocks]:
                arrays = {p.name: self.values(p, block.start, block.stop) for p in self.points}
                sketches = {}
                for point in self.points:
                    sketch = empty_sketch(sketch_spec(self.settings), point)
                    sketch.update(with_channels(arrays[point.name]))
                    sketches[point.name] = sketch.to_bytes()
                with cache.write(block) as writer:
                    if self.spec.keeps_activations:
                        writer.append(arrays)
                    writer.commit(sketches)
        return self

    def finish(self) -> MadeRun:
        """Compute factors and statistics."""
        cache = Cache.open(self.run.cache_path)
        FactorsStage(
            folder=self.run, cache=cache, settings=self.settings, recorded=merged_key(cache)
        ).reload_or_compute()
        return self

    def values(self, point: PointSpec, start: int, stop: int) -> NDArray[np.float32]:
        return values_of(point, start, stop, seed=self.seed)

    def all_values(self, name: str, n_samples: int | None = None) -> NDArray[np.float32]:
        point = next(p for p in self.points if p.name == name)
        return self.values(point, 0, self.n_samples if n_samples is None else n_samples)


def make_run(folder: Path, **facts: Any) -> MadeRun:
    return MadeRun(folder, **facts).begin().record().finish()
