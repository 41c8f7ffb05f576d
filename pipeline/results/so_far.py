"""A run as far as it is recorded: the same questions, answered from the blocks that are there.

Knows commits and sketches. Does not know who asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ...storage import Block, Cache
from ...storage.errors import FormatError, IncompleteError
from ..factors.merge import merge_records
from ..factors.merged_file import load_merged, merged_key
from ..folder.folder import content_key
from ..record.point_sketch import empty_sketch, sketch_spec
from ..sketch import PointSketch, merge_sketches
from .run import Run

__all__ = ["RunSoFar", "SoFar", "recorded_so_far"]


class RunSoFar(Run):
    """A run that answers from given sketches, and reads activations from a given cache.

    Parameters
    ----------
    run : Run
    cache : Cache
        That of the run.
    sketches : mapping of str to PointSketch
        Merged sketches of some of its blocks, or of all.
    """

    def __init__(self, run: Run, cache: Cache, sketches: Mapping[str, PointSketch]) -> None:
        super().__init__(run.folder, run.settings, cache)
        self.asked_model = run.asked_model
        # In the place of what the property would read.
        self.__dict__["sketches"] = dict(sketches)


@dataclass(frozen=True, slots=True, kw_only=True)
class SoFar:
    """What is recorded of a run at one moment."""

    run: Run
    """Answers from the blocks that are there; from all samples where `is_complete`."""
    key: str
    """Equal keys, equal answers: a hash of the records that the answers are from."""
    n_blocks: int
    n_blocks_done: int
    """Blocks that the answers are from."""
    n_samples: int
    n_samples_done: int
    damage: tuple[str, ...]
    """A sentence for each block that is there but cannot be read, with what to do. It is not part of the answers."""
    commits: Mapping[int, str] = field(repr=False)
    """`CommitRecord.head_hash` of each block that the answers are from."""

    @property
    def is_complete(self) -> bool:
        """Whether the answers are from all samples of the run."""
        return self.n_blocks_done == self.n_blocks


def recorded_so_far(run: Run, before: SoFar | None = None) -> SoFar:
    """Return what is recorded of a run by now, also while it goes on.

    Parameters
    ----------
    run : Run
        Just opened.
    before : SoFar, optional
        What was recorded of the same run earlier: only the blocks since then are read, and those that were left
        out then.

    Raises
    ------
    NotFoundError
        If there is no cache yet.
    """
    cache = run.cache
    headers, damaged = cache.survey()
    commits = {header.block.index: header.head_hash for header in headers}
    wrong = [block.index for block in damaged]
    if before is not None and before.key == _key(cache, commits, wrong):
        return _so_far(run, before.run.sketches, before.commits, before.damage, key=before.key)
    damage = [_damage(run, block, "its commit record is damaged") for block in damaged]
    kept: Mapping[str, PointSketch] | None = None
    if len(commits) == cache.spec.n_blocks:
        kept = load_merged(run.folder.merged_path, merged_key(cache), run.points)
    if kept is None:
        kept = _merged(run, commits, before, damage)
    return _so_far(run, kept, commits, tuple(damage), key=_key(cache, commits, wrong))


def _key(cache: Cache, commits: Mapping[int, str], wrong: list[int]) -> str:
    return content_key(cache.spec.content_hash, cache.spec.n_samples, sorted(commits.items()), wrong)


def _merged(
    run: Run, commits: dict[int, str], before: SoFar | None, damage: list[str]
) -> Mapping[str, PointSketch]:
    """Return the merged sketches of these blocks.

    Those that cannot be read are named and taken out of ``commits``, which holds the hashes of what was read then.
    """
    cache = run.cache
    known: Mapping[str, PointSketch] = {}
    grown = before is not None and before.commits.items() <= commits.items()
    if before is not None and grown and before.commits:
        known = {name: before.run.sketches[name] for name in run.points if name in before.run.sketches}
        if len(known) < len(run.points):
            known = {}
    new = [
        cache.spec.block(i) for i in sorted(commits) if not known or before is None or i not in before.commits
    ]

    def records() -> Iterator[Mapping[str, bytes]]:
        for block in new:
            try:
                record = cache.read_commit(block)
            except IncompleteError:  # removed meanwhile
                del commits[block.index]
            except FormatError as error:
                del commits[block.index]
                damage.append(_damage(run, block, f"its sketches cannot be read ({error})"))
            else:
                commits[block.index] = record.head_hash  # it may have been recorded again meanwhile
                yield record.sketches or {}

    fresh = merge_records(records(), run.points)
    if not fresh and not known:
        return {point.name: empty_sketch(sketch_spec(run.settings), point) for point in cache.spec.points}
    if not fresh or not known:
        return known or fresh
    return {name: merge_sketches([known[name], fresh[name]]) for name in run.points}


def _damage(run: Run, block: Block, what: str) -> str:
    return (
        f"block {block.index} (samples {block.start} to {block.stop - 1}) is left out: {what}; "
        f"`actisketch verify {run.folder.path} --repair` computes it again"
    )


def _so_far(
    run: Run,
    sketches: Mapping[str, PointSketch],
    commits: Mapping[int, str],
    damage: tuple[str, ...],
    *,
    key: str,
) -> SoFar:
    spec = run.cache.spec
    return SoFar(
        run=RunSoFar(run, run.cache, sketches),
        key=key,
        n_blocks=spec.n_blocks,
        n_blocks_done=len(commits),
        n_samples=spec.n_samples,
        n_samples_done=sum(spec.block(index).n_samples for index in commits),
        damage=damage,
        commits=commits,
    )
