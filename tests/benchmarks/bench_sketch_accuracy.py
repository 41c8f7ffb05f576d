"""Writes the accuracy table of the sketch and its peers into ``pipeline/sketch/README.md``.

``python tests/benchmarks/bench_sketch_accuracy.py`` takes a few minutes and needs the peers (group ``bench``).
Values and order are fixed; only crick, KLL and pytdigest may differ from version to version. The ``tdigest`` package
adds value by value in Python and gets every tenth value, in order; its errors are those for these.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actisketch.pipeline.sketch import Percentile, Sketch

Values = NDArray[np.float32]
Answer = Callable[[float], float]

N = 1_000_000
N_BLOCKS = 10
TDIGEST_STEP = 10
"""Of so many values the ``tdigest`` package gets one."""
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
    for block in np.array_split(values, N_BLOCKS):
        made.update(block)
    return made.percentile


# Each peer is merged from ten blocks as ours is updated from ten, and imported where it is used: the names alone
# need none of them.


def of_crick(values: Values) -> Answer:
    """Return the percentiles of crick's t-digest."""
    import crick

    digest = crick.TDigest(1000)
    for block in np.array_split(values, N_BLOCKS):
        part = crick.TDigest(1000)
        part.update(block)
        digest.merge(part)
    return lambda q: float(digest.quantile(q / 100))


def of_fastdigest(values: Values) -> Answer:
    """Return the percentiles of fastdigest."""
    import fastdigest

    first, *others = (
        fastdigest.TDigest.from_values(block.tolist(), max_centroids=1000)
        for block in np.array_split(values, N_BLOCKS)
    )
    for other in others:
        first.merge_inplace(other)
    return lambda q: float(first.percentile(q))


def of_pytdigest(values: Values) -> Answer:
    """Return the percentiles of pytdigest."""
    import pytdigest

    blocks = np.array_split(values.astype(np.float64), N_BLOCKS)
    digest = pytdigest.TDigest.combine(
        [pytdigest.TDigest.compute(block, compression=1000) for block in blocks]
    )
    return lambda q: float(digest.inverse_cdf(np.array([q / 100, 1.0]))[0])


def of_tdigest(values: Values) -> Answer:
    """Return the percentiles of the tdigest package."""
    from tdigest import TDigest

    random.seed(0)  # it compresses in random order
    digest = TDigest(delta=1 / 1000)
    for block in np.array_split(values.astype(np.float64), N_BLOCKS):
        part = TDigest(delta=1 / 1000)
        part.batch_update(block)
        digest += part
    return lambda q: float(digest.percentile(q))


def of_datasketches_tdigest(values: Values) -> Answer:
    """Return the percentiles of the t-digest of datasketches."""
    import datasketches

    digest = datasketches.tdigest_double(1000)
    for block in np.array_split(values.astype(np.float64), N_BLOCKS):
        digest.update(block)
    return lambda q: float(digest.get_quantile(q / 100))


def of_kll(values: Values) -> Answer:
    """Return the percentiles of the KLL sketch of datasketches."""
    import datasketches

    kll = datasketches.kll_floats_sketch(800)
    for block in np.array_split(values, N_BLOCKS):
        kll.update(block)
    return lambda q: float(kll.get_quantile(q / 100))


PEERS: Mapping[str, tuple[Callable[[Values], Answer], int]] = {
    f"tdigest, delta 0.001, {N // TDIGEST_STEP:,} of the values": (of_tdigest, TDIGEST_STEP),
    "crick 1000": (of_crick, 1),
    "fastdigest 1000": (of_fastdigest, 1),
    "pytdigest 1000": (of_pytdigest, 1),
    "datasketches t-digest 1000": (of_datasketches_tdigest, 1),
    "datasketches KLL 800": (of_kll, 1),
}
"""By the name of the column: what gives the percentiles, and of how many values it gets one."""
COLUMNS = (f"{N:,} values, error at p50 / p99 / p99.9", "interval width", "actisketch", *PEERS)


def relative(value: float, exact: float) -> str:
    """Return the relative error as text, "0" if there is none."""
    if value == exact:
        return "0"
    return f"{abs(value - exact) / abs(exact):.0e}" if exact else f"{value:.0e} for 0"


def percentiles(values: Values) -> list[float]:
    """Return what the errors refer to."""
    return [float(np.percentile(values, q)) for q in QS]


def own_cells(name: str, values: Values) -> list[str]:
    """Return the width of our intervals and our errors; raises if an interval does not contain the truth."""
    ours, exact = sketch(values), percentiles(values)
    found = [ours(q) for q in QS]
    for q, one, truth in zip(QS, found, exact, strict=True):
        if not one.lo <= truth <= one.hi:
            raise AssertionError(f"{name}, q={q}: {truth} is not in {one}")
    widths = [relative(one.hi, one.lo) for one in found]
    errors = [relative(one.value, truth) for one, truth in zip(found, exact, strict=True)]
    return [" / ".join(widths), " / ".join(errors)]


def peer_cell(peer: Callable[[Values], Answer], values: Values) -> str:
    """Return the errors of a peer."""
    answer = peer(values)
    return " / ".join(relative(answer(q), truth) for q, truth in zip(QS, percentiles(values), strict=True))


def line(cells: list[str]) -> str:
    """Return a line of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def table() -> str:
    """Return the table as Markdown."""
    lines = [line(list(COLUMNS)), "|" + "---|" * len(COLUMNS)]
    for name, values in distributions().items():
        theirs = [peer_cell(peer, values[::step]) for peer, step in PEERS.values()]
        lines.append(line([name, *own_cells(name, values), *theirs]))
        logging.info("%s", lines[-1])
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
