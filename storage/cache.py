"""The cache: create or resume it, write blocks, read them back checked.

Knows the order of things on disk (``README.md``): the description first, chunks, then records. Does not
know models, nor what a sketch means.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .claim import refuse_foreign, refuse_linked_arrays, refuse_lost_description
from .codecs import decode
from .commit_record import CommitRecord
from .differences import called, differences
from .documents import describe, parse_description, zarr_documents, zarr_is_current
from .errors import FormatError, InputError, MismatchError, NotFoundError
from .keys import DOCUMENT, LOCK, PRIVATE, is_probe_key
from .layout import Layout
from .ledger import Ledger
from .spec import Block, CacheSpec
from .stores import Lock, Store, open_store
from .unreadable import read_or_none
from .verify import VerifyReport, verify
from .writer import BlockWriter
from .writing import WritingThreads

__all__ = ["Cache"]

logger = logging.getLogger(__name__)

Url = str | os.PathLike[str]
Options = Mapping[str, Any] | None


class Cache:
    """Activations and sketches of one model, one data set and one set of settings.

    Made by `create_or_resume` (the one writer), `attach` (a worker of that writer) or `open` (read only).
    Close it, or use it in a ``with``, to give the writer's lock back.
    """

    def __init__(self, store: Store, spec: CacheSpec, *, lock: Lock | None, may_write: bool) -> None:
        self.store = store
        self._spec = spec
        self._lock = lock
        self._may_write = may_write
        self._layout = Layout(spec)
        self._ledger = Ledger(store, self._layout)
        self._before_chunk: Callable[[], None] = lambda: None

    # --- open and close

    @classmethod
    def create_or_resume(
        cls, url: Url, spec: CacheSpec, storage_options: Options = None, *, opened: Cache | None = None
    ) -> Cache:
        """Open the cache for writing, making it if there is none.

        Parameters
        ----------
        url : str or path
            Local folder or URL (`open_store`).
        spec : CacheSpec
            What the cache must hold. A cache that is there keeps its `batch_size`, `block_samples` and `codec`, which
            are not part of its identity: read them from ``cache.spec``. More samples extend the cache.
        storage_options : mapping, optional
            For object stores.
        opened : Cache, optional
            The same cache, open for reading. It is opened for writing itself, unless it is to hold more samples: then
            another one is returned.

        Raises
        ------
        MismatchError
            If the place holds foreign files, or a cache of other points, of another model, of other data or settings,
            or of more samples. ``differences`` lists what differs.
        BusyError
            If another live process writes to it.
        """
        store = open_store(url, storage_options) if opened is None else opened.store
        refuse_foreign(store)
        lock = store.lock(LOCK)
        try:
            _clean(store)
            stored = store.read(DOCUMENT)
            there = parse_description(stored, store.url) if stored is not None else None
            held = spec.resolved() if there is None else _agreed(there, spec, store.url)
            refuse_linked_arrays(store, held)
            if held != there:
                store.write_durably(DOCUMENT, [describe(held)])
            if opened is None or opened.spec != held:
                cache = cls(store, held, lock=lock, may_write=True)
            else:
                cache, opened._lock, opened._may_write = opened, lock, True
            if not zarr_is_current(read_or_none(store, "zarr.json"), held):
                cache._write_zarr_documents()
            n_done = len(cache._ledger.scan(drop_outdated=True))
        except BaseException:
            lock.release()
            raise
        logger.info("cache %s: %d of %d blocks are there", store.url, n_done, held.n_blocks)
        return cache

    @classmethod
    def open(cls, url: Url, storage_options: Options = None) -> Cache:
        """Open an existing cache to read; takes no lock and changes nothing."""
        return cls._existing(url, storage_options, may_write=False)

    @classmethod
    def attach(cls, url: Url, storage_options: Options = None) -> Cache:
        """Open a cache in a worker process: may write blocks while the coordinator holds the lock."""
        return cls._existing(url, storage_options, may_write=True)

    @classmethod
    def _existing(cls, url: Url, storage_options: Options, *, may_write: bool) -> Cache:
        store = open_store(url, storage_options)
        stored = store.read(DOCUMENT)
        if stored is None:
            refuse_lost_description(store)
            raise NotFoundError(
                f"there is no cache at {store.url!r}: run a job that writes one, or check the path",
                place=store.url,
            )
        return cls(store, parse_description(stored, store.url), lock=None, may_write=may_write)

    def close(self) -> None:
        """Release the lock; what is there can still be read. May be called twice."""
        if self._lock is not None:
            self._lock.release()
            self._may_write = False

    def __enter__(self) -> Cache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- what the cache holds

    @property
    def url(self) -> str:
        """Where the cache is."""
        return self.store.url

    @property
    def spec(self) -> CacheSpec:
        """What the cache holds, as stored."""
        return self._spec

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks of the finished cache, in order."""
        return self._spec.blocks

    def missing(self) -> tuple[Block, ...]:
        """Return the blocks without a sound record, in order; looks at the store each time."""
        sound = self._ledger.scan()
        return tuple(block for block in self.blocks if block.index not in sound)

    def committed(self) -> tuple[CommitRecord, ...]:
        """Return the records in block order, without their sketches."""
        sound = self._ledger.scan()
        return tuple(self._ledger.header(block) for block in self.blocks if block.index in sound)

    def survey(self) -> tuple[tuple[CommitRecord, ...], tuple[Block, ...]]:
        """Return the records that are whole, in order and without their sketches, and the blocks with a damaged one.

        Takes no lock, and looks at the store each time: a job may be writing.
        """
        return self._ledger.survey()

    def is_committed(self, block: Block) -> bool:
        """Whether a sound record of the block is there; looks at that record only."""
        return self._ledger.is_committed(block)

    def readable_headers(self) -> Iterator[CommitRecord]:
        """Yield, without its sketches, each record that can be read, whatever else of the cache is damaged."""
        return self._ledger.readable_headers()

    def commit_key(self) -> str:
        """Return a hash of what is committed: it changes with any chunk, sketch or fact of any block."""
        return self._ledger.content_hash()

    def read_commit(self, block: Block) -> CommitRecord:
        """Return the record of a block with its sketches, checked.

        Raises
        ------
        IncompleteError
            If the block is not committed.
        FormatError
            If the record is damaged or belongs elsewhere.
        """
        return self._ledger.read(block)

    # --- write

    def write(self, block: Block, *, writing: WritingThreads | None = None) -> BlockWriter:
        """Return a writer that takes the block batch by batch; commit it at its end.

        Holds at most one chunk of each point, so memory does not grow with the block; with ``writing`` also those that
        its threads write while the caller goes on.
        """
        self._check_may_write()
        self._ledger.check_block(block)
        return BlockWriter(self.store, self._layout, block, committed=self._commit, writing=writing)

    def _commit(self, record: CommitRecord) -> CommitRecord:
        self._check_may_write()
        return self._ledger.put(record)

    def discard(self, block: Block) -> None:
        """Remove a block's record and then its chunks: it is missing, whatever state it was in."""
        self._check_may_write()
        self._ledger.check_block(block)
        self._ledger.drop(block)
        for point in self._spec.points:
            for key in self._layout.chunk_keys(point.name, block):
                self.store.delete(key)

    def _check_may_write(self) -> None:
        if not self._may_write:
            raise InputError(
                f"the cache {self.url!r} is open to read only, or closed: use Cache.create_or_resume"
            )
        if self._lock is not None:
            self._lock.check()

    # --- read

    def watched(self, check: Callable[[], None]) -> Cache:
        """Return the same cache, to read, that calls ``check`` before each chunk: what it raises ends a long read."""
        watched = copy.copy(self)
        watched._lock, watched._may_write, watched._before_chunk = None, False, check
        return watched

    def all_sketches(self) -> Iterator[Mapping[str, bytes]]:
        """Yield the sketches of all points block by block; IncompleteError where a block is missing."""
        for block in self.blocks:
            sketches = self.read_commit(block).sketches
            if sketches is None:  # pragma: no cover - with_sketches reads them
                raise FormatError("the record was read without its sketches", block=block.index)
            yield sketches

    def read_block(self, point: str, block: Block) -> NDArray[Any]:
        """Return the activations of one block.

        Parameters
        ----------
        point : str
        block : Block
            One of `blocks`.

        Returns
        -------
        ndarray of shape (block samples, *point shape), in ``spec.dtype``
            May be read-only.

        Raises
        ------
        FormatError
            If a chunk is missing, or is not byte for byte what was committed.
        IncompleteError
            If the block is not committed.
        """
        parts = list(self._read_chunks(point, block))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def chunks(self, point: str) -> Iterator[NDArray[Any]]:
        """Yield the activations of a point chunk by chunk, in order of samples; each is checked.

        Holds one chunk at a time (at most about 64 MiB unless one sample is larger).
        """
        for block in self.blocks:
            yield from self._read_chunks(point, block)

    def read_chunk(self, point: str, index: int, *, memory: memoryview | None = None) -> NDArray[Any]:
        """Return chunk ``index`` of a point, checked: ``spec.chunk_samples[point]`` samples, or those that are left.

        May be called from several threads. The values may lie in ``memory``, which is written to: pages that are new
        to the process cost more than the reading.

        Raises
        ------
        FormatError
            If it is missing, or is not byte for byte what was committed.
        IncompleteError
            If its block is not committed.
        """
        per_block = self._spec.block_samples // self._layout.chunk_samples[self._spec.point(point).name]
        block = self._spec.block(index // per_block)
        return self._read_chunk(point, block, index % per_block, memory)

    def _read_chunks(self, name: str, block: Block) -> Iterator[NDArray[Any]]:
        self._spec.point(name)
        self._ledger.check_block(block)
        for index in range(max(1, self._layout.n_chunks(name, block))):
            yield self._read_chunk(name, block, index)

    def _read_chunk(
        self, name: str, block: Block, index: int, memory: memoryview | None = None
    ) -> NDArray[Any]:
        """Return one chunk of a block, by its number in it."""
        point = self._spec.point(name)
        if not self._spec.keeps_activations:
            raise InputError(
                f"the cache {self.url!r} holds sketches only: to keep activations, make another cache",
                point=name,
            )
        size = self._layout.chunk_samples[name]
        # The record has as many chunks as the layout, or the ledger refuses it.
        expected = self._ledger.header(block).chunks[name][index]
        key = self._layout.chunk_keys(name, block)[index]
        self._before_chunk()
        stored = self.store.read(key) if memory is None else self.store.read_into(key, memory)
        problem = "is missing" if stored is None else expected.problem(stored)
        if stored is None or problem:
            raise FormatError(
                f"chunk {key!r} of point {name!r}, block {block.index}, {problem}: verify with "
                "repair recomputes it",
                point=name,
                block=block.index,
                key=key,
            )
        shape, codec = (size, *point.shape), self._spec.codec
        values = decode(stored, shape=shape, dtype=self._spec.dtype, codec=codec, is_checked=True)
        return values[: min(size, block.n_samples - index * size)]

    # --- the whole

    def nbytes(self) -> int:
        """Return the bytes that the cache takes in its store."""
        return sum(nbytes for _, nbytes in self.store.list(""))

    def repair(self, report: VerifyReport) -> tuple[Block, ...]:
        """Discard what `verify` found damaged and rewrite documents; return the blocks to compute again."""
        for block in report.damaged:
            self.discard(block)
        if any(problem.kind == "document" for problem in report.problems):
            self._write_zarr_documents()
        return report.damaged

    def _write_zarr_documents(self) -> None:
        self._check_may_write()
        for key, document in zarr_documents(self._spec).items():
            self.store.write_durably(key, [document])

    def verify(self) -> VerifyReport:
        """Read everything and name every damaged, missing or foreign chunk and record."""
        return verify(self.store, self._layout, self._ledger)


def _clean(store: Store) -> None:
    """Remove what killed processes left. While this process holds the lock, no cluster run can be alive."""
    store.clean()
    for key in [key for key, _ in store.list(PRIVATE) if is_probe_key(key)]:
        store.delete(key)


def _agreed(stored: CacheSpec, asked: CacheSpec, place: str) -> CacheSpec:
    """Return the spec to go on with; MismatchError if the stored one does not serve."""
    lines = differences(stored, asked)
    if asked.keeps_activations and not stored.keeps_activations:
        lines.append(
            f"{called(asked, 'keeps_activations')}: the cache has sketches only, this run wants activations"
        )
    if asked.n_samples < stored.n_samples:
        lines.append(
            f"{called(asked, 'n_samples')}: the cache has {stored.n_samples}, this run has {asked.n_samples} (a cache "
            "can grow, not shrink)"
        )
    if lines:
        raise MismatchError(
            f"the cache {place!r} was made for something else; choose another folder, or run with "
            "what it was made for:\n  " + "\n  ".join(lines),
            place=place,
            differences=tuple(lines),
        )
    return replace(stored, n_samples=asked.n_samples)
