"""Folders of images, against what Keras makes of the same folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from actisketch.pipeline.sources import DataSpec, PreparedSource, open_source
from actisketch.pipeline.sources.pixels import resize_like_keras
from actisketch.storage.errors import InputError

RNG = np.random.default_rng(17)


def opened(path: Path, **settings: Any) -> PreparedSource:
    return open_source(DataSpec(path=str(path), **settings))


def write(path: Path, height: int = 9, width: int = 13, channels: int = 3) -> Any:
    pixels = RNG.integers(0, 256, (height, width, channels)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(path)
    return pixels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Class folders with names, endings and depths that sort in unexpected ways."""
    names = ["b/10.png", "b/9.png", "B/a.PNG", "a/z/0.png", "a/y.png", "a/z.png", "a b/1.bmp", "a/é.png"]
    for name in names:
        write(tmp_path / name)
    write(tmp_path / ".hidden/x.png")
    (tmp_path / "a/notes.txt").write_text("no image")
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize("color_mode", ["rgb", "rgba"])
def test_order_labels_and_pixels_are_those_of_keras(folder: Path, color_mode: str) -> None:
    import keras

    expected = keras.utils.image_dataset_from_directory(
        folder, shuffle=False, batch_size=None, image_size=(9, 13), color_mode=color_mode, verbose=False
    )
    pixels, labels = zip(*expected.as_numpy_iterator(), strict=True)

    source = opened(folder, color_mode=color_mode)
    batch = source.read(0, source.n_samples)

    assert source.n_samples == 8
    np.testing.assert_array_equal(batch.labels, labels)
    np.testing.assert_array_equal(batch.inputs[0], np.stack(pixels))


def test_colours_become_grey_as_load_img_makes_them(folder: Path) -> None:
    import keras

    expected = keras.utils.load_img(folder / "a/y.png", color_mode="grayscale")

    source = opened(folder, color_mode="grayscale")

    np.testing.assert_array_equal(source.read(1, 2).inputs[0][0, ..., 0], np.asarray(expected))


@pytest.mark.parametrize("size", [(5, 7), (30, 40), (9, 40), (1, 1)])
def test_keras_bilinear_gives_the_pixels_of_image_dataset_from_directory(
    folder: Path, size: tuple[int, int]
) -> None:
    import keras

    expected = keras.utils.image_dataset_from_directory(
        folder, shuffle=False, batch_size=None, image_size=size, verbose=False
    )
    source = opened(folder, image_size=size, interpolation="keras_bilinear")

    pixels = source.read(0, 8).inputs[0]

    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, np.stack([x for x, _ in expected.as_numpy_iterator()]), atol=1e-4)


def test_keras_bilinear_of_the_same_size_changes_nothing() -> None:
    pixels = RNG.integers(0, 256, (4, 6, 3)).astype(np.uint8)

    np.testing.assert_array_equal(resize_like_keras(pixels, (4, 6)), pixels)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
def test_other_filters_are_those_of_load_img(folder: Path, interpolation: str) -> None:
    import keras

    expected = keras.utils.load_img(folder / "a/y.png", target_size=(5, 7), interpolation=interpolation)

    source = opened(folder, image_size=(5, 7), interpolation=interpolation)

    np.testing.assert_array_equal(source.read(1, 2).inputs[0][0], np.asarray(expected))


def test_cropping_keeps_the_proportions_as_keras_does(folder: Path) -> None:
    import keras

    expected = keras.utils.load_img(
        folder / "a/y.png", target_size=(6, 6), interpolation="nearest", keep_aspect_ratio=True
    )

    source = opened(folder, image_size=(6, 6), interpolation="nearest", crop_to_aspect_ratio=True)

    np.testing.assert_array_equal(source.read(1, 2).inputs[0][0], np.asarray(expected))


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    second = write(tmp_path / "2.png")
    first = write(tmp_path / "1.png")

    source = opened(tmp_path)
    batch = source.read(0, 2)

    assert batch.labels is None
    np.testing.assert_array_equal(batch.inputs[0], [first, second])


def test_jpeg_and_gif_are_decoded(tmp_path: Path) -> None:
    pixels = write(tmp_path / "0.png", channels=1)
    Image.fromarray(pixels[..., 0]).save(tmp_path / "1.gif")
    Image.fromarray(pixels[..., 0]).save(tmp_path / "2.jpg", quality=100)

    decoded = opened(tmp_path, color_mode="grayscale").read(0, 3).inputs[0].astype(int)

    np.testing.assert_array_equal(decoded[0], decoded[1])
    np.testing.assert_allclose(decoded[0], decoded[2], atol=3)


def test_the_hash_follows_content_not_names(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    source = opened(folder)
    found = source.content_hash(0, 8)

    (folder / "a/y.png").rename(folder / "a/x.png")

    assert opened(folder).content_hash(0, 8) == found
    assert opened(folder, image_size=(5, 7)).fingerprint() != source.fingerprint()
    assert opened(folder, color_mode="grayscale").fingerprint() != source.fingerprint()


def test_images_of_different_sizes_are_named(tmp_path: Path) -> None:
    write(tmp_path / "0.png")
    write(tmp_path / "1.png", height=10)

    with pytest.raises(InputError, match=r"'1\.png' has shape \(10, 13, 3\).*'0\.png'.*set image_size"):
        opened(tmp_path).read(0, 2)
    assert opened(tmp_path, image_size=(4, 4)).read(0, 2).inputs[0].shape == (2, 4, 4, 3)


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "not an image"), (b"text", "not an image"), (None, "cannot be decoded")]
)
def test_an_unreadable_image_is_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    write(tmp_path / "0.png")
    write(tmp_path / "1.png", 90, 90)
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:5000] if content is None else content)

    with pytest.raises(InputError, match=words) as caught:
        opened(tmp_path, image_size=(9, 13)).read(0, 2)
    assert "1.png" in str(caught.value)


def test_an_image_of_16_bits_is_refused_not_cut_off(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "deep.png")

    with pytest.raises(InputError, match=r"deep\.png.* more than 8 bits"):
        opened(tmp_path)


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "0.png", 40, 40)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)

    with pytest.raises(InputError, match=r"0\.png.* cannot be decoded"):
        opened(tmp_path)


def test_folders_without_images_and_mixed_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no images"):
        opened(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match="neither"):
        opened(tmp_path)
    write(tmp_path / "a/0.png")
    write(tmp_path / "thumbnail.png")
    with pytest.raises(InputError, match=r"'thumbnail\.png'.*beside the class folders"):
        opened(tmp_path)


def test_keys_and_files_do_not_fit_a_folder_of_images(tmp_path: Path) -> None:
    write(tmp_path / "0.png")

    with pytest.raises(InputError, match="leave them out"):
        opened(tmp_path, inputs="x")
    with pytest.raises(InputError, match="name the folder"):
        opened(tmp_path / "0.png", format="images")
