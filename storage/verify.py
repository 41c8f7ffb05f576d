"""Read a whole cache and name everything that is not as it was committed.

Changes nothing: `Cache.repair` takes the report.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from .commit_record import ChunkSum
from .documents import zarr_documents, zarr_is_current
from .errors import FormatError, IncompleteError, StorageError
from .keys import (
    DOCUMENT,
    LOCK,
    TEMPORARY,
    is_probe_key,
    parse_chunk_key,
    parse_record_key,
    parse_temporary_key,
    record_key,
)
from .layout import Layout
from .ledger import Ledger
from .local import is_alive
from .parsing import parse_json
from .spec import Block, CacheSpec
from .stores import Store
from .unreadable import read_or_error, read_or_none, refuse_if_away

__all__ = ["Problem", "VerifyReport", "verify"]

Kind = Literal["uncommitted", "record", "missing", "damaged", "foreign", "leftover", "document"]
_HARMLESS = ("uncommitted", "leftover")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is not as it was committed."""

    kind: Kind
    """``uncommitted``: the block has no record; ``record``: its record is unusable; ``missing`` or
    ``damaged``: a chunk; ``foreign``: a key not of the cache; ``leftover``: half-written by a process that is
    dead or of another host, harmless; ``document``: a ``zarr.json``."""
    key: str
    detail: str
    point: str | None = None
    block: Block | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What `verify` found."""

    problems: tuple[Problem, ...]
    n_blocks: int
    """Blocks of the finished cache."""
    n_committed: int
    """Blocks whose record is sound."""
    nbytes: int
    """Bytes read and checked."""

    @property
    def is_complete(self) -> bool:
        """Whether every block is committed."""
        return not any(problem.kind == "uncommitted" for problem in self.problems)

    @property
    def is_sound(self) -> bool:
        """Whether all that is committed is as it was; an interrupted run is sound and not complete."""
        return all(problem.kind in _HARMLESS for problem in self.problems)

    @property
    def damaged(self) -> tuple[Block, ...]:
        """The blocks to compute again because of damage, in order."""
        blocks = {
            p.block
            for p in self.problems
            if p.block is not None and p.kind in ("record", "missing", "damaged")
        }
        return tuple(sorted(blocks, key=lambda block: block.index))

    @property
    def documents(self) -> tuple[str, ...]:
        """The keys of the documents of Zarr that repair writes again."""
        return tuple(problem.key for problem in self.problems if problem.kind == "document")

    @property
    def foreign(self) -> tuple[str, ...]:
        """The keys that do not belong to the cache; repair leaves them to whoever put them there."""
        return tuple(problem.key for problem in self.problems if problem.kind == "foreign")


def verify(store: Store, layout: Layout, ledger: Ledger) -> VerifyReport:
    """Return what is wrong with a cache; reads every byte once, one chunk or record at a time."""
    blocks = layout.spec.blocks
    problems: list[Problem] = []
    nbytes = n_committed = 0
    for block in blocks:
        found, size = _check_block(store, layout, ledger, block)
        problems += found
        nbytes += size
        n_committed += all(problem.kind not in ("uncommitted", "record") for problem in found)
    problems += _check_documents(store, layout.spec)
    problems += _foreign(store, layout)
    if problems:
        # A disk that was unmounted meanwhile reads as missing chunks.
        refuse_if_away(store)
    return VerifyReport(
        problems=tuple(problems), n_blocks=len(blocks), n_committed=n_committed, nbytes=nbytes
    )


def _check_block(store: Store, layout: Layout, ledger: Ledger, block: Block) -> tuple[list[Problem], int]:
    key = record_key(block.index, block.start, block.stop)
    try:
        record = read_or_error(store, lambda: ledger.read(block))
    except IncompleteError:
        return [Problem(kind="uncommitted", key=key, block=block, detail="there is no commit record")], 0
    except FormatError as error:
        return [Problem(kind="record", key=key, block=block, detail=str(error))], 0
    if isinstance(record, StorageError):
        return [Problem(kind="record", key=key, block=block, detail=f"it cannot be read: {record}")], 0
    problems: list[Problem] = []
    nbytes = 0
    for point in layout.spec.points:
        chunks, keys = record.chunks.get(point.name, ()), layout.chunk_keys(point.name, block)
        if len(chunks) != len(keys):
            detail = f"it lists {len(chunks)} chunks, {len(keys)} were expected"
            problems.append(Problem(kind="record", key=key, point=point.name, block=block, detail=detail))
        for chunk, place in zip(chunks, keys, strict=False):
            size, kind, detail = _check_chunk(store, place, chunk)
            nbytes += size
            if kind is not None:
                problems.append(Problem(kind=kind, key=place, point=point.name, block=block, detail=detail))
    return problems, nbytes


def _check_chunk(store: Store, key: str, expected: ChunkSum) -> tuple[int, Kind | None, str]:
    """Return the bytes read, what is wrong or None, and how that shows."""
    stored = read_or_error(store, lambda: store.read(key))
    if stored is None:
        return 0, "missing", "there is no such chunk"
    if isinstance(stored, StorageError):
        return 0, "damaged", f"it cannot be read: {stored}"
    detail = expected.problem(stored)
    return len(stored), "damaged" if detail else None, detail or ""


def _check_documents(store: Store, spec: CacheSpec) -> Iterator[Problem]:
    expected = zarr_documents(spec)
    root = read_or_none(store, "zarr.json")
    if not zarr_is_current(root, spec) or _essences(root) != _essences(expected["zarr.json"]):
        yield Problem(
            kind="document",
            key="zarr.json",
            detail="it is missing or unreadable, or does not describe this cache",
        )
    for key, document in expected.items():
        if key != "zarr.json" and _essence(read_or_none(store, key)) != _essence(document):
            yield Problem(
                kind="document",
                key=key,
                detail="it is missing or unreadable, or does not describe the point's array",
            )


def _essence(document: bytes | None) -> dict[str, Any] | None:
    """Return the members that every version of zarr-python writes alike."""
    try:
        return _chosen(parse_json(document or b""))
    except (ValueError, KeyError, TypeError):
        return None


def _chosen(members: dict[str, Any]) -> dict[str, Any]:
    names = (
        "shape",
        "data_type",
        "chunk_grid",
        "chunk_key_encoding",
        "fill_value",
        "codecs",
        "dimension_names",
        "node_type",
        "attributes",
    )
    return {name: members[name] for name in names}


def _essences(root: bytes | None) -> dict[str, Any] | None:
    """Return the same of every array that the root's document repeats: plain Zarr readers go by that."""
    try:
        members: dict[str, Any] = parse_json(root or b"")
        repeated = members["consolidated_metadata"]["metadata"]
        return {"node_type": members["node_type"]} | {name: _chosen(repeated[name]) for name in repeated}
    except (ValueError, KeyError, TypeError):
        return None


def _foreign(store: Store, layout: Layout) -> Iterator[Problem]:
    """Yield what is stored under keys that this cache never writes."""
    spec, keys = layout.spec, layout.array_keys
    sizes = layout.chunk_samples if spec.keeps_activations else {}
    n_chunks = {keys[name]: -(-spec.n_samples // size) for name, size in sizes.items()}
    axes = {keys[p.name]: len(p.shape) + 1 for p in spec.points}
    known = {DOCUMENT, LOCK, "zarr.json", *(f"{key}/zarr.json" for key in n_chunks)}
    for key, _ in store.list(""):
        if key in known:
            continue
        if key.startswith(f"{TEMPORARY}/"):
            if detail := _leftover(store, key):
                yield Problem(kind="leftover", key=key, detail=f"{detail}; harmless")
            continue
        if is_probe_key(key):
            detail = "a cluster run's, or left by one that was killed: the next run removes it; harmless"
            yield Problem(kind="leftover", key=key, detail=detail)
            continue
        record, chunk = parse_record_key(key), parse_chunk_key(key)
        if record and layout.has_block(Block(*record)):
            continue
        if chunk and chunk[1] < n_chunks.get(chunk[0], 0) and key.count(".", len(chunk[0])) == axes[chunk[0]]:
            continue
        yield Problem(
            kind="foreign",
            key=key,
            detail="the cache never writes this key: move or remove it, as repair leaves foreign files alone",
        )


def _leftover(store: Store, key: str) -> str | None:
    """Describe a temporary file that was left behind; None if a process of this host is writing it."""
    writer = parse_temporary_key(key)
    if writer is None or store.is_remote:
        return "this program writes no such file here: remove it"
    host, pid = writer
    alive = is_alive(host, pid)
    if alive:
        return None
    when = "a run removes it once it is a day old" if alive is None else "the next run removes it"
    return f"half-written by process {pid} of {host}: {when}"
