"""Writes the accuracy table of the sketch and its peers into ``pipeline/sketch/README.md``.

``python tests/benchmarks/bench_sketch_accuracy.py`` takes a minute or two and needs the peers (group ``bench``).
Values and order are fixed; only crick, KLL and pytdigest may differ from version to version.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import crick
import datasketches
import fastdigest
import numpy as np
import pytdigest
from numpy.typing import NDArray

from actisketch.pipeline.sketch import Percentile, Sketch

Values = NDArray[np.float32]
Answer = Callable[[float], float]

N = 1_000_000
QS = (50.0, 99.0, 99.9)
README = Path(__file__).parents[2] / "pipeline" / "sketch" / "README.md"
BEGIN, END = "<!-- accuracy: begin -->", "<!-- accuracy: end -->"


def distributions() -> dict[str, Values]:
    """Return the values by name, float32 of shape (N,)."""
    rng = np.random.default_rng(0)
    normal = rng.standard_normal(N)
    made: dict[str, NDArray[Any]] = {
        "rectified normal": np.maximum(normal, 0),
        "bimodal, gap 1e5": np.where(rng.random(N) < 0.9905, np.abs(normal), 1e5 + normal),
        "sorted": np.sort(np.abs(normal)),
        "outlier 1e4 first": np.concatenate(([1e4], np.abs(normal[1:]))),
        "zeros first": np.concatenate((np.zeros(N // 3), np.abs(normal[N // 3 :]))),
        "1e-5 first": np.concatenate((np.full(N // 3, 1e-5), np.abs(normal[N // 3 :]))),
        "constant": np.full(N, 0.3),
        "quantised": np.abs(np.round(normal * 40)) * 0.0235,
        "heavy tail (log-normal, sigma 3)": rng.lognormal(0, 3, N),
    }
    return {name: values.astype(np.float32) for name, values in made.items()}


def sketch(values: Values) -> Callable[[float], Percentile]:
    """Return the percentiles of our sketch, fed in blocks."""
    made = Sketch()
    for block in np.array_split(values, 10):
        made.update(block)
    return made.percentile


def peers(values: Values) -> dict[str, Answer]:
    """Return the percentiles of each peer, merged from ten blocks as ours are updated from ten."""
    blocks = np.array_split(values, 10)
    cricks = crick.TDigest(1000)
    kll = datasketches.kll_floats_sketch(800)
    theirs = datasketches.tdigest_double(1000)
    fast = fastdigest.TDigest.from_values(blocks[0].tolist(), max_centroids=1000)
    for i, block in enumerate(blocks):
        part = crick.TDigest(1000)
        part.update(block)
        cricks.merge(part)
        kll.update(block)
        theirs.update(block.astype(np.float64))
        if i:
            fast.merge_inplace(fastdigest.TDigest.from_values(block.tolist(), max_centroids=1000))
    py = pytdigest.TDigest.combine(
        [pytdigest.TDigest.compute(block.astype(np.float64), compression=1000) for block in blocks]
    )
    return {
        "crick 1000": lambda q: float(cricks.quantile(q / 100)),
        "fastdigest 1000": lambda q: float(fast.percentile(q)),
        "pytdigest 1000": lambda q: float(py.inverse_cdf(np.array([q / 100, 1.0]))[0]),
        "datasketches t-digest 1000": lambda q: float(theirs.get_quantile(q / 100)),
        "datasketches KLL 800": lambda q: float(kll.get_quantile(q / 100)),
    }


def relative(value: float, exact: float) -> str:
    """Return the relative error as text, "0" if there is none."""
    if value == exact:
        return "0"
    return f"{abs(value - exact) / abs(exact):.0e}" if exact else f"{value:.0e} for 0"


def table() -> str:
    """Return the table as Markdown; raises if an interval does not contain the truth."""
    names = ["actisketch", *peers(np.ones(100, np.float32))]
    lines = [
        f"| {N:,} values, error at p50 / p99 / p99.9 | interval width | " + " | ".join(names) + " |",
        "|" + "---|" * (len(names) + 2),
    ]
    for name, values in distributions().items():
        exact = {q: float(np.percentile(values, q)) for q in QS}
        found = {q: sketch(values)(q) for q in QS}
        for q in QS:
            if not found[q].lo <= exact[q] <= found[q].hi:
                raise AssertionError(f"{name}, q={q}: {exact[q]} is not in {found[q]}")
        widths = " / ".join(relative(found[q].hi, found[q].lo) for q in QS)
        answers: dict[str, Answer] = {"actisketch": lambda q, found=found: found[q].value, **peers(values)}  # type: ignore[misc]  # a default argument binds the loop variable
        cells = [" / ".join(relative(answer(q), exact[q]) for q in QS) for answer in answers.values()]
        lines.append(f"| {name} | {widths} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Replace what stands between the markers in the README."""
    logging.basicConfig(level=logging.INFO)
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    README.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    logging.info("wrote the accuracy table into %s", README)


if __name__ == "__main__":
    main()
