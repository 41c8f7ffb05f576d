"""What every source promises, whatever it is made of."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from actisketch.pipeline.sources import (
    HashedReads,
    PreparedSource,
    Source,
    as_source,
    labels_hash,
    prepared,
)
from actisketch.storage.errors import InputError

Make = Callable[[Path, NDArray[np.uint8], NDArray[np.int64], int | None], Source]
Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


class TestSourceContract:
    def test_it_says_how_many_samples_of_what_there_are(
        self, make: Make, x: Images, y: Labels, tmp_path: Path
    ) -> None:
        source = make(tmp_path, x, y, None)

        assert isinstance(source, Source)
        assert source.n_samples == 23
        assert [spec.shape for spec in source.inputs] == [(5, 7, 3)]
        assert [spec.dtype for spec in source.inputs] == ["uint8"]
        assert source.has_labels

    def test_labels_have_a_hash_that_other_labels_do_not_have(
        self, make: Make, x: Images, y: Labels, tmp_path: Path, kind: str
    ) -> None:
        # Still in order, as a folder of images sorts by class.
        other = y.copy()
        other[np.argmax(y != y[0])] = y[0]
        found = []
        for name, labels in [("first", y), ("same", y), ("other", other)]:
            (tmp_path / name).mkdir()
            source = make(tmp_path / name, x, labels, None)
            # Of records the hash of the samples covers the labels, as these are in the same bytes.
            found.append(
                (labels_hash(source), source.content_hash(0, 23) if kind.startswith("tfrecord") else "")
            )

        assert found[0] == found[1] != found[2]

    def test_any_range_in_any_order_gives_the_samples_and_labels(
        self, make: Make, x: Images, y: Labels, tmp_path: Path
    ) -> None:
        source = make(tmp_path, x, y, None)

        for start, stop in [(0, 5), (5, 10), (10, 23), (3, 4), (22, 23), (0, 23), (6, 14), (4, 8), (2, 20)]:
            batch = source.read(start, stop)
            assert len(batch) == stop - start
            assert batch.labels is not None
            np.testing.assert_array_equal(batch.inputs[0], x[start:stop])
            np.testing.assert_array_equal(batch.labels, y[start:stop])

    def test_num_samples_takes_the_first_ones(self, make: Make, x: Images, y: Labels, tmp_path: Path) -> None:
        source = make(tmp_path, x, y, 13)

        assert source.n_samples == 13
        np.testing.assert_array_equal(source.read(0, 13).inputs[0], x[:13])
        with pytest.raises(InputError, match=r"13"):
            source.read(10, 14)

    def test_more_samples_than_there_are_is_an_error_with_both_numbers(
        self, make: Make, x: Images, y: Labels, tmp_path: Path
    ) -> None:
        with pytest.raises(InputError, match=r"29.*23|23.*29"):  # a stream finds out when it ends
            make(tmp_path, x, y, 29).read(20, 29)

    def test_a_range_outside_is_refused(self, make: Make, x: Images, y: Labels, tmp_path: Path) -> None:
        source = make(tmp_path, x, y, None)

        for start, stop in [(-1, 3), (0, 0), (5, 4), (20, 24)]:
            with pytest.raises(InputError, match="cannot be read"):
                source.read(start, stop)
            with pytest.raises(InputError, match="cannot be read"):
                source.content_hash(start, stop)

    def test_fingerprint_is_plain_json_and_does_not_depend_on_the_number_of_samples(
        self, make: Make, x: Images, y: Labels, tmp_path: Path
    ) -> None:
        all_of_them, some = (make(tmp_path, x, y, n) for n in (None, 13))

        fingerprint = all_of_them.fingerprint()

        assert json.loads(json.dumps(fingerprint)) == fingerprint
        assert some.fingerprint() == fingerprint
        assert all_of_them.content_hash(3, 11) == some.content_hash(3, 11)
        assert str(tmp_path) not in json.dumps(fingerprint)

    def test_hashes_do_not_depend_on_what_was_read_before(
        self, make: Make, x: Images, y: Labels, tmp_path: Path
    ) -> None:
        fresh, read = (make(tmp_path, x, y, None) for _ in range(2))
        expected = [fresh.content_hash(start, start + 4) for start in (16, 8, 0)]

        read.read(17, 23)
        read.read(0, 9)

        assert [read.content_hash(start, start + 4) for start in (16, 8, 0)] == expected
        assert len(set(expected)) == 3

    @pytest.mark.parametrize("n_hashed", [23, 5])
    def test_what_is_hashed_while_it_is_read_is_what_is_hashed_later(
        self, make: Make, x: Images, y: Labels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_hashed: int
    ) -> None:
        source = make(tmp_path, x, y, None)
        assert isinstance(source, PreparedSource)
        monkeypatch.setattr(prepared, "HASH_BUDGET_NBYTES", n_hashed * source.reader.row_nbytes())
        source = source.with_hashing("full" if n_hashed == 23 else "sampled")
        expected = make(tmp_path, x, y, None).with_hashing(source.hashed).content_hash(2, 21)  # type: ignore[attr-defined] # of PreparedSource

        reads = HashedReads(source, 2, 21)
        batches = [reads.read(start, min(start + 3, 21)) for start in range(2, 21, 3)]

        np.testing.assert_array_equal(np.concatenate([batch.inputs[0] for batch in batches]), x[2:21])
        np.testing.assert_array_equal(np.concatenate([batch.labels for batch in batches]), y[2:21])
        assert reads.content_hash() == expected

    def test_one_changed_value_is_noticed_in_its_range_only(
        self, make: Make, x: Images, y: Labels, tmp_path: Path
    ) -> None:
        changed = x.copy()
        changed[9, 2, 3, 1] ^= 1
        for name in ("before", "after"):
            (tmp_path / name).mkdir()

        before = make(tmp_path / "before", x, y, None)
        after = make(tmp_path / "after", changed, y, None)

        assert after.fingerprint() == before.fingerprint()
        assert after.content_hash(8, 12) != before.content_hash(8, 12)
        assert after.content_hash(0, 8) == before.content_hash(0, 8)
        assert after.content_hash(12, 23) == before.content_hash(12, 23)

    def test_another_order_is_another_hash(self, make: Make, x: Images, y: Labels, tmp_path: Path) -> None:
        swapped = x.copy()
        swapped[[1, 2]] = swapped[[2, 1]]
        for name in ("before", "after"):
            (tmp_path / name).mkdir()

        before = make(tmp_path / "before", x, y, None)
        after = make(tmp_path / "after", swapped, y, None)

        assert after.content_hash(0, 5) != before.content_hash(0, 5)

    def test_the_same_values_are_the_same_data_however_they_are_kept(
        self, hashes_values: bool, make: Make, x: Images, y: Labels, tmp_path: Path
    ) -> None:
        if not hashes_values:
            pytest.skip("what is hashed are encoded bytes")
        source = make(tmp_path, x, y, None)
        memory = as_source(x, y)

        assert source.fingerprint() == memory.fingerprint()
        assert source.content_hash(5, 19) == memory.content_hash(5, 19)

    def test_it_travels_to_another_process(
        self, travels: bool, make: Make, x: Images, y: Labels, tmp_path: Path
    ) -> None:
        if not travels:
            pytest.skip("made of something that cannot be pickled")
        source = make(tmp_path, x, y, None)
        source.read(4, 9)

        other = pickle.loads(pickle.dumps(source))

        np.testing.assert_array_equal(other.read(6, 17).inputs[0], x[6:17])
        assert other.fingerprint() == source.fingerprint()
