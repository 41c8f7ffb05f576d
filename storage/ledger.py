"""Know which blocks are committed, by the records in the store; the clock and the chunks are never asked.

Knows records. Does not read chunks.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

from .errors import FormatError, IncompleteError, InputError, StorageError
from .keys import COMMITS, parse_record_key, record_key
from .record import PREFIX_NBYTES, CommitRecord, RecordPrefix
from .spec import Block, CacheSpec
from .stores import Store
from .unreadable import read_or_error

__all__ = ["Ledger"]

logger = logging.getLogger(__name__)

# A record's prefix and header, for about a hundred points of a few chunks each: one request in most cases.
_HEAD_NBYTES = 16 * 2**10


class Ledger:
    """The commit records of one cache."""

    def __init__(self, store: Store, spec: CacheSpec) -> None:
        self._store = store
        self._spec = spec
        self.cache_digest = bytes.fromhex(spec.digest)[:16]
        self._chunk_samples = spec.chunk_samples
        # What a scan has found sound, by block index, and headers that were read.
        self._sound: set[int] = set()
        self._headers: dict[int, CommitRecord] = {}
        self._guard = threading.Lock()

    def scan(self, *, drop_outdated: bool = False) -> set[int]:
        """Return the indices of the blocks whose record is there, of this cache, and whole.

        With `drop_outdated`, remove the records of blocks that have other bounds since the cache grew.
        """
        found: set[int] = set()
        with self._guard:
            for key, nbytes in self._store.list(COMMITS):
                place = parse_record_key(key)
                if place is None or not self.is_block(Block(*place)):
                    if place is not None and drop_outdated:
                        self._store.delete(key)
                    continue
                if place[0] in self._sound or self._is_sound(key, Block(*place), nbytes):
                    found.add(place[0])
            self._sound = found
            self._headers = {index: header for index, header in self._headers.items() if index in found}
        return found

    def is_committed(self, block: Block) -> bool:
        """Whether a sound record of the block is there; looks at that record only."""
        key = self._key(block)
        start = self._read_prefix(key, block)
        return start is not None and self._is_sound(key, block, start[1])

    def _read_prefix(self, key: str, block: Block) -> tuple[bytes, int] | None:
        start = read_or_error(self._store, lambda: self._store.read_start(key, PREFIX_NBYTES))
        if isinstance(start, StorageError):
            logger.warning("block %d counts as missing: its record cannot be read (%s)", block.index, start)
            return None
        return start

    def _is_sound(self, key: str, block: Block, nbytes: int) -> bool:
        # One request per record would make a remote scan slow; there a PUT is whole or absent, and
        # reading the record checks it.
        if self._store.is_remote:
            return nbytes > PREFIX_NBYTES
        found = self._read_prefix(key, block)
        if found is None:
            return False
        start, size = found
        try:
            prefix = RecordPrefix.decode(start)
        except FormatError as error:
            logger.warning("block %d counts as missing: %s (%s)", block.index, error, key)
            return False
        if prefix.block != block or prefix.cache_digest != self.cache_digest or size != prefix.nbytes:
            logger.warning(
                "block %d counts as missing: its record is cut or of another (%s)", block.index, key
            )
            return False
        return True

    def is_block(self, block: Block) -> bool:
        """Whether the cache has this block, with these bounds."""
        return 0 <= block.index < self._spec.n_blocks and self._spec.block(block.index) == block

    def _key(self, block: Block) -> str:
        if not self.is_block(block):
            raise InputError(
                f"{block!r} is not a block of the cache {self._store.url!r}: take one of cache.blocks"
            )
        return record_key(block.index, block.start, block.stop)

    def read(self, block: Block, *, with_sketches: bool = True) -> CommitRecord:
        """Return the record of a block, checked.

        Raises
        ------
        IncompleteError
            If the block is not committed.
        FormatError
            If the record is damaged or belongs elsewhere.
        """
        key, place = self._key(block), self._store.url
        try:
            stored = self._store.read(key) if with_sketches else self._read_head(key)
            if stored is None:
                raise IncompleteError(
                    f"block {block.index} of the cache {place!r} is not committed: run again to resume",
                    block=block.index,
                )
            return self._owned(CommitRecord.decode(stored, with_sketches=with_sketches), block)
        except FormatError as error:
            raise FormatError(
                f"the record of block {block.index} in {place!r} is unusable: {error}; "
                "verify with repair recomputes it",
                block=block.index,
                key=key,
            ) from error

    def _owned(self, record: CommitRecord, block: Block) -> CommitRecord:
        if record.block != block or record.cache_digest != self.cache_digest:
            raise FormatError("it belongs to another block or another cache")
        n_chunks = {
            name: -(-block.n_samples // size) if self._spec.record else 0
            for name, size in self._chunk_samples.items()
        }
        if {name: len(chunks) for name, chunks in record.chunks.items()} != n_chunks:
            raise FormatError("it has other points or other chunks than the cache")
        return record

    def _read_head(self, key: str) -> bytes | None:
        start = self._store.read_start(key, _HEAD_NBYTES)
        if start is None:
            return None
        needed = RecordPrefix.decode(start[0]).header_nbytes + PREFIX_NBYTES + 4
        if needed > len(start[0]):
            start = self._store.read_start(key, needed)
        return None if start is None else start[0]

    def header(self, block: Block) -> CommitRecord:
        """Return the record without its sketches; read once."""
        header = self._headers.get(block.index)
        if header is None or header.block != block:
            header = self.read(block, with_sketches=False)
            self._headers[block.index] = header
        return header

    def put(self, record: CommitRecord) -> CommitRecord:
        """Write a record durably; an equal one that is there already is kept.

        Raises
        ------
        StorageError
            If another worker has committed the block with other bytes: its record is removed, because
            nobody can tell whose chunks are in place. Compute the block again.
        """
        block = record.block
        key, mine = self._key(block), record.encode()
        stored = self._store.read(key) if self.is_committed(block) else None
        if stored is not None and stored != mine:
            self.drop(block)
            raise StorageError(
                f"block {block.index} was committed by another worker with other values: its record "
                "was removed, "
                "run again",
                block=block.index,
            )
        if stored is None:
            self._store.write_durably(key, [mine])
        with self._guard:
            self._sound.add(block.index)
            self._headers[block.index] = replace(record, sketches=None)
        return record

    def drop(self, block: Block) -> None:
        """Remove the record of a block."""
        self._store.delete(self._key(block))
        with self._guard:
            self._sound.discard(block.index)
            self._headers.pop(block.index, None)
