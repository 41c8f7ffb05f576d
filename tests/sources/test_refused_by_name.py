"""What a source does not take is refused by the name of what it found."""

import zlib

import numpy as np
import pytest

from actisketch.pipeline.sources import DataSpec, as_source, open_source
from actisketch.storage.errors import InputError

IMAGES = np.random.default_rng(3).random((20, 6, 6, 3), dtype=np.float32)


@pytest.mark.parametrize("level", [0, 1, 6, 9])
def test_zlib_is_named(tmp_path, level):
    path = tmp_path / "part.tfrecord"
    path.write_bytes(zlib.compress(b"\0" * 100, level))

    with pytest.raises(InputError, match=r"part\.tfrecord' is compressed as ZLIB, which is not read.*GZIP"):
        open_source(DataSpec(path=str(path)))


def test_what_is_no_record_file_is_not_called_zlib(tmp_path):
    path = tmp_path / "part.tfrecord"
    path.write_bytes(b"\x78\x00" + b"\0" * 100)

    with pytest.raises(InputError, match="is not a TFRecord file"):
        open_source(DataSpec(path=str(path)))


def _flow(**settings):
    image = pytest.importorskip("keras.src.legacy.preprocessing.image")
    return image.ImageDataGenerator().flow(IMAGES, batch_size=5, **settings)


@pytest.mark.parametrize("seed", [None, 1, 7])
def test_an_iterator_that_shuffles_is_refused_as_a_data_set_is(seed):
    with pytest.raises(InputError, match=r"NumpyArrayIterator shuffles .*shuffle=False"):
        as_source(_flow(shuffle=True, seed=seed))


def test_one_that_does_not_gives_the_samples_in_order():
    source = as_source(_flow(shuffle=False))

    np.testing.assert_array_equal(source.read(0, 20).inputs[0], IMAGES)


class _EarlierSource:
    """A source of the user's own, as it was written when `content_hash` was called `digest`."""

    n_samples, has_labels = 20, False

    def __init__(self):
        self._whole = as_source(IMAGES)
        self.inputs = self._whole.inputs

    def read(self, start, stop):
        return self._whole.read(start, stop)

    def fingerprint(self):
        return self._whole.fingerprint()

    def digest(self, start, stop):
        return self._whole.content_hash(start, stop)


def test_a_source_written_for_an_earlier_version_is_told_what_to_rename():
    with pytest.raises(
        InputError, match=r"'_EarlierSource' has no content_hash: rename its method digest to content_hash"
    ):
        as_source(_EarlierSource())


def test_a_source_that_is_complete_is_taken_as_it_is():
    class Renamed(_EarlierSource):
        content_hash = _EarlierSource.digest

    source = Renamed()

    assert as_source(source) is source


def test_what_a_source_lacks_is_named():
    class Unlabelled(_EarlierSource):
        content_hash = _EarlierSource.digest

        def __getattribute__(self, name):
            if name == "has_labels":
                raise AttributeError(name)
            return super().__getattribute__(name)

    with pytest.raises(InputError, match=r"'Unlabelled' has no has_labels"):
        as_source(Unlabelled())
