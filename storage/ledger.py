"""Know which blocks are committed, from the commit records in the store and nothing else.

Knows commit records. Does not read chunks.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from .commit_record import PREFIX_NBYTES, CommitPrefix, CommitRecord
from .errors import FormatError, IncompleteError, InputError, StorageError
from .keys import COMMITS, parse_record_key, record_key
from .layout import Layout
from .spec import Block
from .stores import Store
from .unreadable import read_or_error

__all__ = ["Ledger"]

logger = logging.getLogger(__name__)

# Prefix and header of a commit record, for about a hundred points of a few chunks each: one request in most cases.
_HEAD_NBYTES = 16 * 2**10
# Requests to an object store at the same time: 10,000 records take seconds and not minutes.
_REMOTE_READERS = 32


class Ledger:
    """The commit records of one cache."""

    def __init__(self, store: Store, layout: Layout) -> None:
        self._store = store
        self._layout = layout
        self._blocks = layout.spec.blocks
        self._cache_hash = layout.spec.short_hash
        # What a scan has found sound, by block index, and headers that were read.
        self._sound: set[int] = set()
        self._headers: dict[int, CommitRecord] = {}
        self._guard = threading.Lock()

    def scan(self, *, drop_outdated: bool = False) -> set[int]:
        """Return the indices of the blocks that have a whole record of this cache.

        With `drop_outdated`, remove the records of blocks that have other bounds since the cache grew.
        """
        found: set[int] = set()
        with self._guard:
            for key, nbytes in self._store.list(COMMITS):
                place = parse_record_key(key)
                if place is None:
                    continue
                block = Block(*place)
                if not self._layout.has_block(block):
                    if drop_outdated:
                        self._store.delete(key)
                # One request per record would make a remote scan slow. An object is whole or absent there, and reading
                # the record checks it.
                elif block.index in self._sound or (
                    nbytes > PREFIX_NBYTES if self._store.is_remote else self.is_committed(block)
                ):
                    found.add(block.index)
            self._sound = found
            self._headers = {index: header for index, header in self._headers.items() if index in found}
        return found

    def is_committed(self, block: Block) -> bool:
        """Whether a sound record of the block is there; looks at that record only."""
        key = self._key(block)
        start = read_or_error(self._store, lambda: self._store.read_start(key, PREFIX_NBYTES))
        if isinstance(start, StorageError):
            logger.warning("block %d counts as missing: its record cannot be read (%s)", block.index, start)
            return False
        if start is None or self._store.is_remote:
            return start is not None and start[1] > PREFIX_NBYTES
        try:
            prefix = CommitPrefix.decode(start[0])
        except FormatError as error:
            logger.warning("block %d counts as missing: %s (%s)", block.index, error, key)
            return False
        if not self._is_whole(prefix, block, start[1]):
            logger.warning(
                "block %d counts as missing: its record is cut, or belongs to another block or cache (%s)",
                block.index,
                key,
            )
            return False
        return True

    def _is_whole(self, prefix: CommitPrefix, block: Block, nbytes: int) -> bool:
        return prefix.block == block and prefix.cache_hash == self._cache_hash and nbytes == prefix.nbytes

    def check_block(self, block: Block) -> None:
        """Refuse what is not a block of the cache."""
        if not self._layout.has_block(block):
            raise InputError(
                f"{block!r} is not a block of the cache {self._store.url!r}: take one of cache.blocks"
            )

    def _key(self, block: Block) -> str:
        self.check_block(block)
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
            stored = self._store.read(key) if with_sketches else self._read_head(key)[0]
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
        if record.block != block or record.cache_hash != self._cache_hash:
            raise FormatError("it belongs to another block or another cache")
        n_chunks = {name: self._layout.n_chunks(name, block) for name in self._layout.array_keys}
        if {name: len(chunks) for name, chunks in record.chunks.items()} != n_chunks:
            raise FormatError("it has other points or other chunks than the cache")
        return record

    def _read_head(self, key: str) -> tuple[bytes | None, int]:
        """Return the start of a record, at least prefix and header, and its length; (None, 0) if it does not exist."""
        start = self._store.read_start(key, _HEAD_NBYTES)
        if start is None:
            return None, 0
        needed = CommitPrefix.decode(start[0]).header_nbytes + PREFIX_NBYTES + 4
        if needed > len(start[0]):
            start = self._store.read_start(key, needed)
        return (None, 0) if start is None else start

    def header(self, block: Block) -> CommitRecord:
        """Return the record without its sketches; read once."""
        header = self._headers.get(block.index)
        if header is None or header.block != block:
            header = self.read(block, with_sketches=False)
            self._headers[block.index] = header
        return header

    def readable_headers(self) -> Iterator[CommitRecord]:
        """Yield the header of every record that can be read, whatever else of the cache is damaged."""
        for block in self._blocks:
            key = self._key(block)
            try:
                found = read_or_error(self._store, partial(self._read_head, key))
                if isinstance(found, StorageError) or found[0] is None:
                    continue
                header = CommitRecord.decode(found[0], with_sketches=False)
            except FormatError:
                continue
            if header.block == block:
                yield header

    def survey(self) -> tuple[tuple[CommitRecord, ...], tuple[Block, ...]]:
        """Return the headers of the blocks with a whole record, and the blocks with one that is not, in order."""
        # Listed first: a block that is committed meanwhile is not damaged.
        places = [parse_record_key(key) for key, _ in self._store.list(COMMITS)]
        listed = {Block(*place).index for place in places if place and self._layout.has_block(Block(*place))}
        sound = self.scan()
        headers = tuple(header for header in self.readable_headers() if header.block.index in sound)
        damaged = listed - {header.block.index for header in headers}
        return headers, tuple(block for block in self._blocks if block.index in damaged)

    def content_hash(self) -> str:
        """Return a hash of all headers: they hold the checksums of all chunks and sketches."""
        hasher = hashlib.blake2b(digest_size=16)
        if self._store.is_remote:
            with ThreadPoolExecutor(_REMOTE_READERS, thread_name_prefix="actisketch-head") as pool:
                for head in pool.map(self._hashed_head, self._blocks):
                    hasher.update(head)
        else:
            for block in self._blocks:
                hasher.update(self._hashed_head(block))
        return hasher.hexdigest()

    def _hashed_head(self, block: Block) -> bytes:
        """Return the prefix and the header of a record; nothing where there is none that can be read."""
        key = self._key(block)
        try:
            found = read_or_error(self._store, lambda: self._read_head(key))
            head, nbytes = (None, 0) if isinstance(found, StorageError) else found
            prefix = CommitPrefix.decode(head or b"")
        except FormatError:
            return b""
        if self._is_whole(prefix, block, nbytes):
            self._sound.add(block.index)  # `scan` need not read its head again
        return (head or b"")[: PREFIX_NBYTES + prefix.header_nbytes]

    def put(self, record: CommitRecord) -> CommitRecord:
        """Write a record durably; an equal one that is there already is kept.

        Raises
        ------
        StorageError
            If another worker has committed the block with other bytes. Its record is removed, because
            nobody can tell whose chunks are in place. Compute the block again.
        """
        block = record.block
        key, mine = self._key(block), record.encode()
        stored = self._store.read(key) if self.is_committed(block) else None
        if stored is not None and stored != mine:
            self.drop(block)
            raise StorageError(
                f"block {block.index} was committed by another worker with other values: its record was removed, "
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
