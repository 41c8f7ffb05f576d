"""Blocks, chunks, names and identity: arithmetic and text, no files."""

from __future__ import annotations

import hashlib
import pickle
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actisketch.storage import Block, CacheSpec, PointSpec, encoding_nbytes, projection
from actisketch.storage.differences import differences
from actisketch.storage.documents import describe, parse_description
from actisketch.storage.errors import FormatError, InputError
from actisketch.storage.keys import array_keys, chunk_key, parse_chunk_key, parse_record_key, record_key
from actisketch.storage.spec import CHUNK_NBYTES, LARGEST_CHUNK_NBYTES, choose_chunk_samples

from . import made_up

names = st.lists(st.text(max_size=120), min_size=1, max_size=8, unique=True)
SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(~[0-9a-f]{6})?")


class TestKeys:
    @given(names)
    def test_every_name_gets_a_key_of_its_own_that_every_file_system_takes(self, texts: list[str]) -> None:
        keys = array_keys(texts)

        assert list(keys) == texts
        assert len({key.casefold() for key in keys.values()}) == len(texts)
        for key in keys.values():
            assert SAFE.fullmatch(key)
            assert len(key) <= 90
            assert not key.startswith(("c.", "__")) or "~" in key or len(key) > 1

    @given(names, st.text(max_size=20))
    def test_another_point_behind_renames_no_array(self, texts: list[str], more: str) -> None:
        if more not in texts:
            assert array_keys([*texts, more]).items() >= array_keys(texts).items()

    def test_plain_names_stay_what_they_are(self) -> None:
        assert array_keys(["conv1", "dense_1", "a.b-c"]) == {
            "conv1": "conv1",
            "dense_1": "dense_1",
            "a.b-c": "a.b-c",
        }

    def test_a_plain_name_keeps_its_key_behind_an_odd_one_that_would_give_the_same(self) -> None:
        digits = hashlib.sha256(b"a/b").hexdigest()[:6]

        assert array_keys(["a/b", "a_b"]) == {"a/b": f"a_b~{digits}", "a_b": "a_b"}

    def test_names_that_differ_only_by_case_or_by_odd_letters_get_different_keys(self) -> None:
        keys = array_keys(
            ["Conv", "conv", "a/b", "a:b", "ä", "a", "", "zarr.json", "con", ".actisketch", "c"]
        )

        assert len({key.casefold() for key in keys.values()}) == 11

    @given(st.integers(0, 10**7), st.integers(1, 6))
    def test_a_chunk_key_comes_back(self, index: int, n_axes: int) -> None:
        assert parse_chunk_key(chunk_key("conv1", index, n_axes)) == ("conv1", index)

    @given(st.integers(0, 10**7), st.integers(0, 10**12), st.integers(0, 10**12))
    def test_a_record_key_comes_back(self, index: int, start: int, stop: int) -> None:
        assert parse_record_key(record_key(index, start, stop)) == (index, start, stop)

    @pytest.mark.parametrize(
        "key", ["conv1/zarr.json", "c", "x/c.", "x/c.1.x", "x/c.1.5", "x/d.0.0", "x/c.²", ""]
    )
    def test_other_keys_are_no_chunks(self, key: str) -> None:
        assert parse_chunk_key(key) is None


class TestBlocks:
    @given(st.integers(1, 5000), st.integers(1, 40), st.integers(1, 9))
    def test_blocks_cover_every_sample_once_in_whole_batches(self, n: int, batch: int, k: int) -> None:
        spec = made_up.spec(n_samples=n, batch_size=batch, block_samples=batch * k)

        assert [s for b in spec.blocks for s in range(b.start, b.stop)] == list(range(n))
        assert [b.index for b in spec.blocks] == list(range(spec.n_blocks))
        assert all(b.start % batch == 0 for b in spec.blocks)
        assert spec.blocks[-1] == spec.block(spec.n_blocks - 1)
        assert spec.blocks[0].n_samples == min(n, batch * k)

    @given(st.integers(1, 2**33), st.integers(1, 512), st.integers(1, 200))
    def test_chunks_divide_blocks_and_fit(self, sample_nbytes: int, batch: int, k: int) -> None:
        n = choose_chunk_samples(sample_nbytes, batch_size=batch, block_samples=batch * k)

        assert batch * k % n == 0
        assert n == 1 or n * sample_nbytes <= LARGEST_CHUNK_NBYTES
        assert n % batch == 0 or batch % n == 0

    def test_a_small_layer_makes_one_chunk_per_block_and_a_large_one_makes_many(self) -> None:
        small = choose_chunk_samples(40, batch_size=32, block_samples=32 * 64)
        large = choose_chunk_samples(12_845_056, batch_size=32, block_samples=32 * 64)

        assert small == 32 * 64
        assert 4 * 2**20 <= large * 12_845_056 <= CHUNK_NBYTES

    @given(st.integers(2**17, 2**21), st.integers(1, 200))
    def test_a_batch_worth_a_file_is_a_chunk(self, sample_nbytes: int, k: int) -> None:
        assert choose_chunk_samples(sample_nbytes, batch_size=32, block_samples=32 * k) == 32

    def test_smaller_batches_are_joined_until_they_are_worth_a_file(self) -> None:
        for sample_nbytes, n_batches in ((2**15, 4), (50_000, 4), (10_000, 16), (1000, 64)):
            n = choose_chunk_samples(sample_nbytes, batch_size=32, block_samples=32 * 64)

            assert n == 32 * n_batches

    def test_a_prime_batch_makes_no_tiny_chunks(self) -> None:
        n = choose_chunk_samples(1_000_003, batch_size=97, block_samples=97 * 8)

        assert n == 97


class TestSpec:
    def test_it_survives_storage_and_pickling(self) -> None:
        spec = made_up.spec(dtype="float16", codec="zstd", keeps_activations=False).resolved()

        assert parse_description(describe(spec), "x") == spec
        assert CacheSpec.from_dict(spec.to_dict()) == spec
        assert pickle.loads(pickle.dumps(spec)) == spec
        assert spec.resolved() == spec

    @pytest.mark.parametrize(
        "changed",
        [
            {"identity": {**made_up.IDENTITY, "data": {}}},
            {"identity": {}},
            {"dtype": "float16"},
            {"points": made_up.POINTS[:2]},
            {"points": made_up.POINTS[::-1]},
            {"points": (replace(made_up.POINTS[0], shape=(5, 3, 3)), *made_up.POINTS[1:])},
            {"points": (replace(made_up.POINTS[0], channel_axis=1), *made_up.POINTS[1:])},
        ],
    )
    def test_what_changes_values_changes_the_digest_and_is_listed(self, changed: dict[str, Any]) -> None:
        assert made_up.spec(**changed).content_hash != made_up.spec().content_hash
        assert differences(made_up.spec(), made_up.spec(**changed))

    @pytest.mark.parametrize(
        "changed",
        [
            {"n_samples": 1000},
            {"block_samples": 40},
            {"batch_size": 2},
            {"codec": "lz4"},
            {"keeps_activations": False},
            {"points": tuple(replace(p, meta={"n": 1}, channel_axis=len(p.shape)) for p in made_up.POINTS)},
        ],
    )
    def test_what_changes_no_values_does_not(self, changed: dict[str, Any]) -> None:
        assert made_up.spec(**changed).content_hash == made_up.spec().content_hash
        assert differences(made_up.spec(), made_up.spec(**changed)) == []

    def test_the_order_of_keys_in_the_identity_does_not_matter(self) -> None:
        turned = {key: dict(reversed(list(part.items()))) for key, part in reversed(made_up.IDENTITY.items())}

        assert made_up.spec(identity=turned).content_hash == made_up.spec().content_hash

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"n_samples": 0}, "n_samples must be a whole number of at least 1, got 0"),
            ({"batch_size": 2.5}, "batch_size must be a whole number"),
            (
                {"block_samples": 10},
                "not a multiple of batch_size=4: a block is a run of whole batches, use 12",
            ),
            ({"dtype": "float64"}, "dtype must be one of"),
            ({"codec": "gzip"}, "codec must be one of none, lz4, zstd, got 'gzip'"),
            ({"points": (*made_up.POINTS, made_up.POINTS[1])}, "several points are called 'schicht ü'"),
            ({"identity": {"model": {"x": {1, 2}}}}, "identity must be JSON-able"),
            ({"identity": {"model": float("nan")}}, "identity must be JSON-able"),
            (
                {"points": (PointSpec(name="p", shape=(2,), chunk_samples=3),)},
                "does not evenly divide block_samples=8",
            ),
            ({"points": (PointSpec(name="p", shape=(2**28, 2), chunk_samples=8),)}, "can be stored as one"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, changed: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=re.escape(message)):
            made_up.spec(**changed)

    @pytest.mark.parametrize("axis", [0, 4, -4, 9])
    def test_a_channel_axis_must_exist_and_not_be_the_sample_axis(self, axis: int) -> None:
        with pytest.raises(InputError, match="use 1 to 3 or -1 to -3"):
            PointSpec(name="p", shape=(2, 3, 5), channel_axis=axis)

    def test_a_shape_must_be_known(self) -> None:
        with pytest.raises(InputError, match="each axis must have a known length"):
            PointSpec(name="p", shape=(2, 0))

    @pytest.mark.parametrize("harmed", [{}, {"points": [{}]}, {"points": 3}])
    def test_a_damaged_description_is_a_format_error(self, harmed: dict[str, Any]) -> None:
        with pytest.raises(FormatError, match="damaged"):
            CacheSpec.from_dict(harmed)


class TestLayout:
    def test_bytes_and_files_are_counted_one_by_one(self, tmp_path: Any) -> None:
        from actisketch.storage import Cache

        spec = made_up.spec()
        with Cache.create_or_resume(tmp_path, spec) as cache:
            made_up.fill(cache)
            listed = list(cache.store.list(""))
        found = projection(spec)

        assert found.n_blocks == 5
        assert found.n_files == len(listed)
        assert found.nbytes == sum(nbytes for key, nbytes in listed if "/c." in key)

    def test_sketches_alone_take_no_bytes_for_activations(self) -> None:
        spec = made_up.spec(keeps_activations=False)
        found = projection(spec)

        assert (found.nbytes, found.n_files, encoding_nbytes(spec, n_threads=4)) == (0, 5 + 3, 0)


def test_a_block_knows_its_length() -> None:
    assert Block(2, 16, 21).n_samples == 5
