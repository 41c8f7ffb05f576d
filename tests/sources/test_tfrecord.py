"""TFRecord files written by TensorFlow, read at random; and damaged ones."""

from __future__ import annotations

import contextlib
import io
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from actisketch.pipeline.sources import DataSpec, PreparedSource, open_source
from actisketch.pipeline.sources.example import parse_example
from actisketch.pipeline.sources.tfrecord import masked_crc32c
from actisketch.storage.errors import InputError

FLOATS = st.lists(st.floats(width=32, allow_nan=False), max_size=9)
INTEGERS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=9)


def opened(path: Path | str, **settings: Any) -> PreparedSource:
    return open_source(DataSpec(path=str(path), **settings))


def feature(value: Any) -> Any:
    if isinstance(value, bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    if np.asarray(value).dtype.kind == "f":
        return tf.train.Feature(float_list=tf.train.FloatList(value=np.ravel(value)))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=np.ravel(value)))


def write(path: Path, examples: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            features = tf.train.Features(feature={name: feature(value) for name, value in example.items()})
            writer.write(tf.train.Example(features=features).SerializeToString())


@given(FLOATS, INTEGERS, st.lists(st.binary(max_size=300), max_size=3), st.text(max_size=5))
def test_every_example_that_tensorflow_writes_is_read_back(
    floats: list[float], integers: list[int], strings: list[bytes], name: str
) -> None:
    features = {
        "floats": tf.train.Feature(float_list=tf.train.FloatList(value=floats)),
        "integers": tf.train.Feature(int64_list=tf.train.Int64List(value=integers)),
        "strings" + name: tf.train.Feature(bytes_list=tf.train.BytesList(value=strings)),
    }
    message = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()

    example = parse_example(message, name="it")

    np.testing.assert_array_equal(example["floats"], np.asarray(floats, np.float32))
    np.testing.assert_array_equal(example["integers"], np.asarray(integers, np.int64))
    assert example["strings" + name] == strings


def test_a_record_that_is_no_example_is_named_with_its_file(tmp_path: Path) -> None:
    write(tmp_path / "a.tfrecord", [{"x": 1}, {"x": 2}])
    with tf.io.TFRecordWriter(str(tmp_path / "b.tfrecord")) as writer:
        writer.write((tmp_path / "a.tfrecord").read_bytes()[12:-4])  # a whole file as one record

    with pytest.raises(InputError, match=r"record 0 of .*b\.tfrecord' is not a tf\.train\.Example"):
        opened(tmp_path / "*.tfrecord", features={"x": {"dtype": "int64"}}).read(0, 3)


@given(st.binary(max_size=60))
def test_bytes_that_are_no_example_give_an_error_or_nothing(record: bytes) -> None:
    with contextlib.suppress(InputError):
        assert all(isinstance(name, str) for name in parse_example(record, name="record 3"))


def test_the_checksum_is_that_of_the_format() -> None:
    # RFC 3720 B.4: crc32c of 32 zero bytes is 0x8A9136AA; masked as TensorFlow does.
    crc = 0x8A9136AA

    assert masked_crc32c(bytes(32)) == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32


def test_lists_of_numbers_raw_bytes_and_images_are_decoded(tmp_path: Path) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
    example = {
        "png": file.getvalue(),
        "raw": pixels.tobytes(),
        "numbers": numbers,
        "tokens": [7, 11],
        "label": 5,
    }
    write(tmp_path / "d.tfrecord", [example] * 3)

    source = opened(
        tmp_path / "d.tfrecord",
        features={
            "png": {},
            "raw": {"shape": [4, 6, 3], "dtype": "uint8"},
            "numbers": {"shape": [2, 3]},
            "tokens": {"shape": [2], "dtype": "int32"},
            "label": {"dtype": "int64"},
        },
    )
    batch = source.read(1, 3)

    assert [spec.name for spec in source.inputs] == ["png", "raw", "numbers", "tokens"]
    assert [spec.dtype for spec in source.inputs] == ["uint8", "uint8", "float32", "int32"]
    np.testing.assert_array_equal(batch.inputs[0], [pixels] * 2)
    np.testing.assert_array_equal(batch.inputs[1], [pixels] * 2)
    np.testing.assert_array_equal(batch.inputs[2], [numbers] * 2)
    np.testing.assert_array_equal(batch.inputs[3], [[7, 11]] * 2)
    assert batch.labels == pytest.approx([5, 5])


@pytest.mark.parametrize(
    ("values", "dtype", "found"),
    [
        ([0.0, 0.5], "uint8", "0.5"),
        ([1, 303], "uint8", "303"),
        ([1, -1], "uint16", "-1"),
        ([1, 2], "bool", "2"),
    ],
)
def test_values_that_another_type_does_not_hold_are_refused(
    tmp_path: Path, values: list[float], dtype: str, found: str
) -> None:
    good = [value * 0 for value in values]
    write(tmp_path / "d.tfrecord", [{"x": good}, {"x": good}, {"x": values}])
    source = opened(tmp_path / "d.tfrecord", features={"x": {"shape": [2], "dtype": dtype}})

    with pytest.raises(InputError, match=f"'x' of .*2.* holds {found} as .*{dtype}.*correct its dtype"):
        source.read(0, 3)


def test_whole_numbers_and_rounded_floats_may_change_their_type(tmp_path: Path) -> None:
    write(tmp_path / "d.tfrecord", [{"whole": [3, 255], "tenth": [0.1, 0.7], "as_ints": [4.0, 5.0]}])
    features = {
        "whole": {"shape": [2], "dtype": "uint8"},
        "tenth": {"shape": [2], "dtype": "float16"},
        "as_ints": {"shape": [2], "dtype": "int32"},
    }
    inputs = opened(tmp_path / "d.tfrecord", features=features).read(0, 1).inputs

    np.testing.assert_array_equal(inputs[0], [[3, 255]])
    np.testing.assert_array_equal(inputs[1].astype(np.float16), np.array([[0.1, 0.7]], np.float16))
    np.testing.assert_array_equal(inputs[2], [[4, 5]])


def test_an_image_of_another_size_is_resized_to_its_shape(tmp_path: Path) -> None:
    examples = []
    for side in (8, 12):
        file = io.BytesIO()
        Image.fromarray(np.full((side, side), 100, np.uint8)).save(file, "JPEG")
        examples.append({"image": file.getvalue(), "y": 1})
    write(tmp_path / "d.tfrecord", examples)

    source = opened(
        tmp_path / "d.tfrecord", features={"image": {"shape": [5, 5, 1]}, "y": {"dtype": "int64"}}
    )

    np.testing.assert_allclose(source.read(0, 2).inputs[0], np.full((2, 5, 5, 1), 100), atol=2)
    with pytest.raises(InputError, match=r"shape \(12, 12, 3\).*\(8, 8, 3\).*image_size"):
        opened(tmp_path / "d.tfrecord", features={"image": {}, "y": {"dtype": "int64"}}).read(0, 2)


@pytest.mark.parametrize("layout", ["d/*.tfrecord", "d", "d/part-0.tfrecord"])
def test_files_are_taken_by_glob_by_folder_or_one_by_one_in_order_of_name(
    tmp_path: Path, layout: str
) -> None:
    for part in (10, 2, 0):
        write(tmp_path / f"d/part-{part}.tfrecord", [{"x": [part, index]} for index in range(3)])

    source = opened(tmp_path / layout, features={"x": {"shape": [2], "dtype": "int64"}})

    expected = [[part, index] for part in (0, 10, 2) for index in range(3)][: source.n_samples]
    assert source.n_samples == (3 if "0.tf" in layout else 9)
    np.testing.assert_array_equal(source.read(0, source.n_samples).inputs[0], expected)


def test_more_files_than_may_be_open_are_read(tmp_path: Path) -> None:
    for part in range(40):
        write(tmp_path / f"d/{part:03d}.tfrecord", [{"x": part}])
    code = """
import resource, sys
import tensorflow
from actisketch.pipeline.sources import DataSpec, open_source
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
spec = DataSpec(path=sys.argv[1], features={"x": {"dtype": "int64"}})
print(open_source(spec).read(0, 40).inputs[0].sum())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "d")], capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == [str(sum(range(40)))]


def test_num_samples_stops_the_scan(tmp_path: Path) -> None:
    write(tmp_path / "a.tfrecord", [{"x": index} for index in range(5)])
    data = (tmp_path / "a.tfrecord").read_bytes()
    (tmp_path / "a.tfrecord").write_bytes(data[:-3])

    source = opened(tmp_path / "a.tfrecord", features={"x": {"dtype": "int64"}}, num_samples=4)

    assert source.read(3, 4).inputs[0] == pytest.approx([3])


def test_a_file_that_ends_within_a_record_is_named_with_the_record(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    write(path, [{"x": index} for index in range(5)])
    data = path.read_bytes()

    for cut, record in ((3, 4), (len(data) // 5, 4), (len(data) // 5 + 3, 3)):
        path.write_bytes(data[:-cut])
        if cut == len(data) // 5:  # cut between records: a shorter file, and a valid one
            assert opened(path, features={"x": {"dtype": "int64"}}).n_samples == 4
            continue
        with pytest.raises(InputError, match=rf"record {record} of .*a\.tfrecord.* is cut off"):
            opened(path, features={"x": {"dtype": "int64"}})


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    write(path, [{"x": index + 100} for index in range(3)])
    data = path.read_bytes()

    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises(InputError, match=r"a\.tfrecord"):
            opened(path, features={"x": {"dtype": "int64"}}).read(0, 3)


def test_the_full_fingerprint_reads_the_data_and_not_only_its_checksums(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    write(path, [{"x": index + 100} for index in range(3)])
    data = bytearray(path.read_bytes())
    data[-6] ^= 4
    path.write_bytes(data)

    settings: dict[str, Any] = {"features": {"x": {"dtype": "int64"}}}
    opened(path, num_samples=2, **settings).content_hash(0, 2)
    with pytest.raises(InputError, match="wrong checksum"):
        opened(path, fingerprint="full", **settings).content_hash(0, 3)


def test_the_index_travels_so_that_a_worker_does_not_scan(tmp_path: Path) -> None:
    write(tmp_path / "a.tfrecord", [{"x": index} for index in range(5)])
    source = opened(tmp_path / "a.tfrecord", features={"x": {"dtype": "int64"}})
    source.read(0, 1)

    other = pickle.loads(pickle.dumps(source))

    np.testing.assert_array_equal(other.read(0, 5).inputs[0], range(5))


@pytest.mark.parametrize(
    ("features", "settings", "words"),
    [
        (None, {}, r"say what is in the records .*\['image', 'y'\]"),
        ({"picture": {}}, {}, r"no feature 'picture', it holds \['image', 'y'\]"),
        ({"image": {"shape": [5, 5], "dtype": "uint8"}}, {}, r"holds 12 values of uint8, shape \[5, 5\]"),
        ({"image": {"shape": [3], "dtype": "int64"}}, {}, "no whole number of int64"),
        ({"image": {"shape": [12], "encoding": "values"}}, {}, "holds bytes, not numbers"),
        ({"image": {"encoding": "image"}}, {}, "not an image"),
        ({"y": {"encoding": "raw"}}, {}, "one string of bytes was expected"),
        ({"image": {"shape": [12], "dtype": "uint8"}}, {"labels": "y"}, "data.labels = 'y'.*add it there"),
        ({"y": {}}, {"labels": "y"}, "describe the input"),
    ],
)
def test_features_that_do_not_fit_the_records_are_refused(
    tmp_path: Path, features: Any, settings: dict[str, Any], words: str
) -> None:
    write(tmp_path / "a.tfrecord", [{"image": bytes(12), "y": 1}])

    with pytest.raises(InputError, match=words):
        opened(tmp_path / "a.tfrecord", features=features, **settings)


def test_a_later_record_without_the_feature_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.tfrecord", [{"x": 1}, {"x": 2}])
    write(tmp_path / "b.tfrecord", [{"x": 3}, {"z": 4}])

    with pytest.raises(InputError, match=r"record 1 of .*b\.tfrecord' has no feature 'x'"):
        opened(tmp_path / "*.tfrecord", features={"x": {"dtype": "int64"}}).read(0, 4)


@pytest.mark.parametrize(("content", "words"), [(b"text", "not a TFRecord file"), (b"", "empty file")])
def test_a_file_that_holds_no_records_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.tfrecord").write_bytes(content)

    with pytest.raises(InputError, match=words):
        opened(tmp_path / "a.tfrecord", features={"x": {}})


def test_a_damaged_gzip_file_is_named(tmp_path: Path) -> None:
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord"), "GZIP") as writer:
        for index in range(50):
            features = tf.train.Features(feature={"x": feature(index)})
            writer.write(tf.train.Example(features=features).SerializeToString())
    data = (tmp_path / "a.tfrecord").read_bytes()
    (tmp_path / "a.tfrecord").write_bytes(data[: len(data) // 2])

    with pytest.raises(InputError, match=r"a\.tfrecord"):
        opened(tmp_path / "a.tfrecord", features={"x": {"dtype": "int64"}})
