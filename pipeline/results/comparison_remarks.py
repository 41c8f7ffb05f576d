"""What a reader of a comparison has to know of its two runs, as sentences and as plain values.

Knows what is recorded of a run. Does not know distances.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .so_far import SoFar

__all__ = ["recorded_tree", "remarks_on", "remarks_on_channels"]

_NAMED_POINTS = 5


def remarks_on(which: str, so_far: SoFar) -> Iterator[str]:
    """Yield that a run is not finished, which blocks are damaged, and how many values are left out."""
    if not so_far.is_complete:
        yield (
            f"{which} is not complete: {so_far.n_blocks_done:,} of {so_far.n_blocks:,} blocks are compared "
            f"({so_far.n_samples_done:,} of {so_far.n_samples:,} samples)"
        )
    yield from (f"{which} is damaged: {damage}" for damage in so_far.damage)
    sketches = so_far.run.sketches
    for name, sketch in sketches.items():
        n_left_out = sketch.layer.n_nan + sketch.layer.n_inf
        if n_left_out:
            yield f"{which}: {n_left_out:,} values of {name!r} are NaN or infinite, and left out"


def remarks_on_channels(lacking: Sequence[str], first: SoFar, second: SoFar) -> Iterator[str]:
    """Yield why these points have no distances of their channels."""
    if not lacking:
        return
    without = [
        which
        for which, so_far in (("the first run", first), ("the second run", second))
        if all(sketch.channels is None for sketch in so_far.run.sketches.values())
    ]
    if without:
        has = "has" if len(without) == 1 else "have"
        yield (
            f"no channels are compared: {' and '.join(without)} {has} no sketches of them; record with "
            "sketch.per_channel = true"
        )
    else:
        named = ", ".join(map(repr, lacking[:_NAMED_POINTS])) + (
            ", ..." if len(lacking) > _NAMED_POINTS else ""
        )
        yield f"no channels are compared of {named}: the runs do not have as many of them"


def recorded_tree(so_far: SoFar) -> dict[str, Any]:
    """Return how much of a run is recorded, as plain values."""
    return {
        "run": str(so_far.run.folder.path),
        "n_blocks": so_far.n_blocks,
        "n_blocks_done": so_far.n_blocks_done,
        "n_samples": so_far.n_samples,
        "n_samples_done": so_far.n_samples_done,
        "is_complete": so_far.is_complete,
        "damage": list(so_far.damage),
    }
