"""What a cluster costs and gives: overhead of one worker, scaling to two, cost of a block on the scheduler.

``pytest tests/benchmarks/test_dask_speed.py --benchmark-enable -s`` prints the figures. Without the option each
is run once, small. What two processes can gain is up to the machine: two that run nothing but the network, at the same
time, are the measure beside which two workers stand.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from actisketch.pipeline.cluster import connected, record_missing_on
from actisketch.pipeline.cluster.rehearsal import RehearsalRecipe, rehearsal_spec
from actisketch.pipeline.record.recorder import record_missing
from actisketch.pipeline.sketch import SketchSpec
from actisketch.storage import Cache

# 0.9 GFLOP and 4 MB of activations a sample, about VGG16's proportion. With all points recorded, sketching and
# writing take as much of a second core as the pass takes of the first; with the last point only, the pass is all.
CODE = """
import json, sys, time
import keras, numpy as np
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
from actisketch.pipeline.cluster import KerasRecipe, NetworkRecipe, connected, record_missing_on
from actisketch.pipeline.graph import model_fingerprint, places_of
from actisketch.pipeline.stages.prepare import prepare
from actisketch.pipeline.record.recorder import record_missing
from actisketch.pipeline.settings.loading import validate_job
from actisketch.pipeline.sketch import SketchSpec
from actisketch.storage import Cache

class Nobody:
    take = staticmethod(lambda point, values: None)
    end_batch = staticmethod(lambda n_samples: None)

if __name__ == "__main__":
    folder, n_workers, points = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    points = points if points == "parameters" else [points]
    model = folder + "/model.keras"
    job = prepare(validate_job({
        "output": folder + "/run", "model": {"path": model}, "data": {"path": folder + "/x.npy"},
        "record": {"batch_size": 8, "block_samples": 16, "points": points}, "normalize": {"enabled": False},
    }))
    with Cache.create_or_resume(f"{folder}/cache-{sys.argv[3]}-{n_workers}", job.spec) as cache:
        sketch = SketchSpec()
        if n_workers == 0:
            job.producer.hand_over(0, 8, Nobody())
            started = time.perf_counter()
            record_missing(cache, job.producer, sketch=sketch)
            print(json.dumps(time.perf_counter() - started))
        else:
            network = NetworkRecipe(
                model_path=model, model_bytes=None, custom_objects=None, safe_mode=True,
                fingerprint=job.fingerprint, source=job.source, data=job.source.fingerprint(),
            )
            recipe = KerasRecipe(network=network, points=places_of(job.points), batch_size=8)
            first = []
            with connected(workers=n_workers) as client:
                record_missing_on(client, cache, recipe, sketch=sketch, n_threads=1,
                                  on_event=lambda event: first.append(time.perf_counter()))
            # Start-up apart: from the first block to the last, per block.
            print(json.dumps((first[-1] - first[0]) / (len(first) - 1) * len(first)))
"""


BARE = """
import json, sys, time
from pathlib import Path
import keras, numpy as np
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)

folder, number, n_processes = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
model = keras.saving.load_model(folder / "model.keras")
run = tf.function(lambda x: model(x, training=False), autograph=False)
x = np.load(folder / "x.npy", mmap_mode="r")
x = x[: len(x) // n_processes]
batches = [tf.constant(x[i : i + 8]) for i in range(0, len(x), 8)]
memoryview(run(batches[0]))
(folder / f"ready-{n_processes}-{number}").touch()
while len(list(folder.glob(f"ready-{n_processes}-*"))) < n_processes:
    time.sleep(0.001)
started = time.perf_counter()
for batch in batches:
    memoryview(run(batch))
print(json.dumps(time.perf_counter() - started))
"""


def test_two_workers_record_nearly_twice_as_fast_and_one_costs_little(
    tmp_path: Path, *, is_measured: bool
) -> None:
    import keras
    import numpy as np

    n_samples = 512 if is_measured else 32
    layers: list[Any] = [keras.Input((64, 64, 3))]
    layers += [
        keras.layers.Conv2D(64, 3, padding="same", activation="relu", name=f"conv{i}") for i in range(4)
    ]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10, name="classes")]
    keras.Sequential([*layers[:5], keras.layers.MaxPooling2D(16), *layers[5:]]).save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", np.random.default_rng(7).random((n_samples, 64, 64, 3), np.float32))
    (tmp_path / "bench.py").write_text(CODE)

    (tmp_path / "bare.py").write_text(BARE)

    bare = [_bare(tmp_path, n) for n in (1, 2)]
    print(
        f"\nthe network alone: 1 process {bare[0]:.2f} s, 2 with half of the samples each {bare[1]:.2f} s: ",
        end="",
    )
    print(f"this machine can gain {bare[0] / bare[1]:.2f}x")
    for points in ("parameters", "classes"):
        seconds = {n: _run(tmp_path, n, points) for n in (0, 1, 2)}
        print(
            f"{points}: in process {seconds[0]:.2f} s, 1 worker {seconds[1]:.2f} s "
            f"({seconds[1] / seconds[0]:.2f}x, wanted: at most 1.1x), 2 workers {seconds[2]:.2f} s (1 to 2: "
            f"{seconds[1] / seconds[2]:.2f}x, wanted: 1.8x where the machine can)"
        )


def _bare(folder: Path, n_processes: int) -> float:
    """Return the seconds of the slowest of so many processes that share out the samples at the same time."""
    for old in folder.glob("ready-*"):
        old.unlink()
    running = [
        subprocess.Popen(
            [sys.executable, str(folder / "bare.py"), str(folder), str(number), str(n_processes)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for number in range(n_processes)
    ]
    printed = [process.communicate()[0] for process in running]
    assert all(process.returncode == 0 for process in running)
    return max(float(json.loads(out.splitlines()[-1])) for out in printed)


def _run(folder: Path, n_workers: int, points: str) -> float:
    done = subprocess.run(
        [sys.executable, str(folder / "bench.py"), str(folder), str(n_workers), points],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return float(json.loads(done.stdout.splitlines()[-1]))


def test_the_scheduler_costs_milliseconds_a_block_and_its_memory_stays_flat(
    tmp_path: Path, *, is_measured: bool
) -> None:
    """Blocks of next to nothing, sketches only: what is left is the cost of handing out and committing."""
    n_blocks = 10_000 if is_measured else 300
    recipe = RehearsalRecipe(shapes=((4,),), batch_size=4)
    spec = rehearsal_spec(recipe, n_blocks=n_blocks, block_samples=4, record=False)
    with Cache.create_or_resume(tmp_path / "here", spec) as cache:
        started = time.perf_counter()
        record_missing(cache, recipe, sketch=SketchSpec())
        here_s = time.perf_counter() - started
    sizes: list[tuple[int, int]] = []

    def look(event: object) -> None:
        if len(sizes) * n_blocks // 10 <= look.seen:  # type: ignore[attr-defined] # a counter on the function
            sizes.append(client.run_on_scheduler(_size))
        look.seen += 1  # type: ignore[attr-defined] # as above

    look.seen = 0  # type: ignore[attr-defined] # as above
    with connected(workers=2) as client, Cache.create_or_resume(tmp_path / "dask", spec) as cache:
        started = time.perf_counter()
        record_missing_on(client, cache, recipe, sketch=SketchSpec(), on_event=look)
        dask_s = time.perf_counter() - started

    growth = (sizes[-1][1] - sizes[len(sizes) // 2][1]) / 2**20
    print(
        f"\n{n_blocks} blocks: in process {here_s / n_blocks * 1e3:.2f} ms each, on 2 workers "
        f"{dask_s / n_blocks * 1e3:.2f} ms each; keys {[keys for keys, _ in sizes]}, scheduler's process "
        f"{sizes[0][1] / 2**20:.0f} to {sizes[-1][1] / 2**20:.0f} MiB ({growth:+.1f} in the second half)"
    )
    assert max(keys for keys, _ in sizes) <= 8


def _size(dask_scheduler: Any) -> tuple[int, int]:
    import psutil

    return len(dask_scheduler.tasks), psutil.Process().memory_info().rss
