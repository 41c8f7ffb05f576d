"""Commit records: every value comes back, every harm is seen."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actisketch.storage import Block
from actisketch.storage.codecs import CODECS, crc32c, decode, encode
from actisketch.storage.commit_record import PREFIX_NBYTES, ChunkSum, CommitPrefix, CommitRecord
from actisketch.storage.documents import zarr_documents
from actisketch.storage.errors import FormatError

from . import made_up

chunk_records = st.builds(ChunkSum, st.integers(0, 2**40), st.integers(0, 2**32 - 1))
facts = st.dictionaries(
    st.text(max_size=9), st.one_of(st.text(max_size=9), st.integers(-(2**53), 2**53), st.none())
)


@st.composite
def records(draw: Any) -> CommitRecord:
    names = draw(st.lists(st.text(max_size=9), max_size=4, unique=True))
    start = draw(st.integers(0, 2**50))
    return CommitRecord(
        block=Block(draw(st.integers(0, 2**31)), start, start + draw(st.integers(1, 2**20))),
        cache_hash=draw(st.binary(min_size=16, max_size=16)),
        chunks={name: tuple(draw(st.lists(chunk_records, max_size=3))) for name in names},
        sketches={name: draw(st.binary(max_size=99)) for name in names},
        facts=draw(facts),
    )


@given(records())
def test_a_record_comes_back_and_its_prefix_tells_what_a_scan_needs(record: CommitRecord) -> None:
    stored = record.encode()
    prefix = CommitPrefix.decode(stored[:PREFIX_NBYTES])

    assert CommitRecord.decode(stored) == record
    assert (prefix.block, prefix.cache_hash, prefix.nbytes) == (
        record.block,
        record.cache_hash,
        len(stored),
    )
    head = stored[: PREFIX_NBYTES + prefix.header_nbytes + 4]
    without = CommitRecord.decode(head, with_sketches=False)
    assert (without.chunks, without.facts, without.sketches) == (record.chunks, record.facts, None)


@given(records(), st.data())
def test_every_cut_and_every_changed_byte_is_seen(record: CommitRecord, data: st.DataObject) -> None:
    stored = record.encode()
    cut = data.draw(st.integers(0, len(stored) - 1))
    with pytest.raises(FormatError):
        CommitRecord.decode(stored[:cut])
    harmed = bytearray(stored)
    harmed[cut] ^= data.draw(st.integers(1, 255))

    with pytest.raises(FormatError):
        CommitRecord.decode(bytes(harmed))


def test_a_newer_record_is_told_apart_from_a_damaged_one() -> None:
    record = CommitRecord(block=Block(0, 0, 1), cache_hash=b"d" * 16, chunks={}, sketches={}, facts={})
    stored = bytearray(record.encode())
    stored[8] = 2
    stored[PREFIX_NBYTES - 4 : PREFIX_NBYTES] = crc32c(bytes(stored[: PREFIX_NBYTES - 4])).to_bytes(
        4, "little"
    )

    with pytest.raises(FormatError, match="version 2, this program reads version 1: update actisketch"):
        CommitRecord.decode(bytes(stored))
    with pytest.raises(FormatError, match="this is not a commit record"):
        CommitRecord.decode(b"\0" * 200)


@pytest.mark.parametrize("codec", list(CODECS))
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@given(values=st.lists(st.floats(width=16), min_size=1, max_size=64))
def test_chunks_come_back_bit_for_bit(codec: str, dtype: str, values: list[float]) -> None:
    array = np.array(values, dtype)
    encoded = encode(array, codec)
    stored = b"".join(bytes(part) for part in encoded.parts)

    assert len(stored) == encoded.nbytes
    assert decode(stored, shape=array.shape, dtype=dtype, codec=codec).tobytes() == array.tobytes()
    assert ChunkSum(encoded.nbytes, encoded.crc).problem(stored) is None


@pytest.mark.parametrize("codec", list(CODECS))
def test_a_chunk_that_is_no_chunk_is_refused(codec: str) -> None:
    array = np.arange(35, dtype=np.float32)
    stored = b"".join(bytes(part) for part in encode(array, codec).parts)
    garbage = b"garbage, but with the right checksum"
    for harmed in (b"", b"abc", stored[:-1], b"\1" + stored, garbage + crc32c(garbage).to_bytes(4, "little")):
        with pytest.raises(FormatError):
            decode(harmed, shape=(35,), dtype="float32", codec=codec)
    with pytest.raises(FormatError, match="holds 35 values, 36 were expected"):
        decode(stored, shape=(36,), dtype="float32", codec=codec)


def test_the_checksum_is_the_last_codec_of_every_array() -> None:
    for name in CODECS:
        documents = zarr_documents(made_up.spec(codec=name))
        found = [json.loads(document).get("codecs") for document in documents.values()]

        assert [codecs[-1]["name"] for codecs in found if codecs] == ["crc32c"] * 3


def test_crc32c_is_the_one_of_the_standard() -> None:
    """RFC 3720, B.4: 32 bytes of zeros, of ones, and counting."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(np.arange(32, dtype=np.uint8)) == 0x46DD794E
