"""What is imported when, compiled once, and shared between threads."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from actisketch.pipeline.sketch import ChannelSketch, Sketch, counting, open_tally
from actisketch.pipeline.sketch.compiled import NO_NUMBA

from .distributions import make

COUNT = """
import sys
import numpy as np
from actisketch.pipeline.sketch import Sketch
print("imported", "numba" in sys.modules, "tensorflow" in sys.modules)
Sketch().update(np.ones(100_000, np.float32))
print("counted", "numba" in sys.modules)
if "numba" in sys.modules:
    from actisketch.pipeline.sketch import kernels
    stats = kernels.count.stats
    print("hits", len(stats.cache_hits), "misses", len(stats.cache_misses))
"""


def in_a_process(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_numba_is_imported_when_values_are_counted_and_not_before() -> None:
    assert "imported False False\ncounted True\n" in in_a_process(COUNT)


def test_numba_is_not_imported_at_all_where_numpy_counts() -> None:
    assert in_a_process(COUNT, **{NO_NUMBA: "1"}) == "imported False False\ncounted False\n"


def test_a_second_process_compiles_nothing() -> None:
    in_a_process(COUNT)

    assert "hits 1 misses 0" in in_a_process(COUNT)


def test_threads_count_side_by_side_without_disturbing_each_other() -> None:
    values = make("rectified")
    expected = Sketch()
    expected.update(values)
    made = [Sketch() for _ in range(6)]
    threads = [threading.Thread(target=sketch.update, args=(values,)) for sketch in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(sketch == expected for sketch in made)


class TestOutOfMemory:
    """Where the arrays for the result are made; what the counters hold is then neither lost nor lent to others."""

    def fails(self, *_: object, **__: object) -> None:
        raise MemoryError

    def test_counters_of_an_interrupted_update_are_never_lent_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        values = make("rectified").reshape(-1, 20)
        expected, made = ChannelSketch(20), ChannelSketch(20)
        expected.update(values)
        with monkeypatch.context() as patch:
            patch.setattr(counting, "take_tally", self.fails)
            with pytest.raises(MemoryError):
                made.update(values)
        made.update(values)

        assert made == expected

    def test_a_sketch_that_is_asked_keeps_its_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        values = make("rectified")
        expected, made = Sketch(), Sketch()
        for sketch in (expected, made):
            sketch.update(values)
        for name in ("take_tally", "merge_tallies"):
            made.update(values)
            with monkeypatch.context() as patch:
                patch.setattr(open_tally, name, self.fails)
                with pytest.raises(MemoryError):
                    _ = made.tally
        made.update(values)
        for _ in range(3):
            expected.update(values)

        assert made == expected


def test_the_example_of_the_readme_runs() -> None:
    # Of the checkout: the installed package has no documents.
    text = (Path(__file__).parents[2] / "pipeline" / "sketch" / "README.md").read_text(encoding="utf-8")
    example = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    checks = """
assert exact_percentiles(lambda: [values], [99.9], sketch) == [np.percentile(values, 99.9)]
print(sketch.n)
"""

    assert in_a_process(example + checks) == "1000000\n"
