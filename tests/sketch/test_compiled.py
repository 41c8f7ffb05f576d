"""What is imported when, compiled once, and shared between threads."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from actisketch.pipeline.sketch import Sketch, counters
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
    stats = kernels.count_patterns.stats
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


def test_counters_of_an_interrupted_use_are_never_lent_again() -> None:
    taken: list[counters.Scratch] = []

    def interrupted() -> None:
        with counters.scratch(1 << 20, 12) as dirty:
            taken.append(dirty)
            dirty.words[7] = 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with counters.scratch(1 << 20, 12) as lent:
        assert lent is not taken[0]
        assert not lent.words.any()


def test_the_example_of_the_readme_runs() -> None:
    # Of the checkout: the installed package has no documents.
    text = (Path(__file__).parents[2] / "pipeline" / "sketch" / "README.md").read_text(encoding="utf-8")
    example = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    checks = """
assert exact_percentiles(lambda: [values], [99.9], sketch) == [np.percentile(values, 99.9)]
print(sketch.n)
"""

    assert in_a_process(example + checks) == "1000000\n"
