"""What a job will read is described before it is read, and what is likely a mistake is a warning."""

import json

import keras
import numpy as np
import PIL.Image
import pytest

L = keras.layers
BYTES = np.random.default_rng(7).integers(0, 256, (300, 8, 8, 3), dtype=np.uint8)
BYTES[0, 0, 0, :2] = 0, 255
UNSCALED, PERCENT = "reach the layer", "is in percent"


def network(*before, n_classes=10, name="stem"):
    keras.utils.set_random_seed(7)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            *before,
            L.Conv2D(2, 3, activation="relu", name=name),
            L.Flatten(),
            L.Dense(n_classes, activation="softmax", name="classes"),
        ]
    )


@pytest.fixture
def files(tmp_path):
    """Save a network and samples; return the flags that name them."""

    def files(model=None, x=BYTES, y=None):
        (model or network()).save(tmp_path / "net.keras")
        np.savez(tmp_path / "data.npz", x=x, **({} if y is None else {"y": y}))
        return ["--model", tmp_path / "net.keras", "--data", tmp_path / "data.npz"]

    return files


def described(call, *flags):
    answer = call("plan", *flags, "--json")
    assert answer.code == 0, answer.err
    return json.loads(answer.out)["data"]


def test_plan_tells_dtype_ranges_and_labels(call, files):
    flags = files(y=np.arange(300) % 10)
    found = described(call, *flags, "--divide-by", 255)
    text = call("plan", *flags, "--divide-by", 255).out

    assert found["inputs"] == [
        {
            "name": None,
            "dtype": "uint8",
            "shape": [8, 8, 3],
            "raw_range": [0.0, 255.0],
            "fed_range": [0.0, 1.0],
        }
    ]
    assert found["warnings"] == []
    assert (
        "data: 300 samples, uint8 of 8x8x3 from 0 to 255, fed as 0 to 1 (first 8), labels int64 from 0 to 9"
        in text
    )


def test_a_run_tells_it_before_it_records(call, files, tmp_path):
    answer = call("run", *files(), "--output", tmp_path / "r", "--no-normalize", "--no-report")
    log = (tmp_path / "r" / "run.log").read_text()

    assert answer.code == 0, answer.err
    assert answer.err.index("data: 300 samples, uint8") < answer.err.index("recording activations")
    assert f"warning: the samples are uint8 from 0 to 255 and {UNSCALED} 'stem'" in answer.err
    assert UNSCALED in log
    assert UNSCALED not in answer.out


def test_quiet_is_quiet_and_python_is_told(call, files, tmp_path, caplog):
    from actisketch.pipeline import run

    flags = files()
    answer = call("--quiet", "run", *flags, "--output", tmp_path / "r", "--no-normalize", "--no-report")
    run(
        flags[1],
        BYTES,
        output=tmp_path / "p",
        normalize=False,
        percentile=0.999,
        settings={"report": {"enabled": False}},
    )

    assert answer.err == ""
    assert UNSCALED in caplog.text
    assert PERCENT in caplog.text


@pytest.mark.parametrize(
    "x",
    [BYTES, BYTES.astype(np.float32), BYTES.astype(np.int64), (BYTES.astype(np.uint16) * 257)],
    ids=["uint8", "float32", "int64", "uint16"],
)
def test_bytes_that_nothing_scales_are_a_warning(call, files, x):
    flags = files(x=x)

    assert UNSCALED in str(described(call, *flags)["warnings"])
    assert described(call, *flags, "--divide-by", 255)["warnings"] == []
    assert described(call, *flags, "--preprocessing", "mobilenet_v2")["warnings"] == []


@pytest.mark.parametrize(
    "before",
    [
        [L.Rescaling(1 / 255)],
        [L.Normalization(mean=127.0, variance=5400.0)],
        [L.BatchNormalization()],
        [L.ZeroPadding2D(), L.Rescaling(1 / 255)],
    ],
    ids=["rescaling", "normalization", "batch", "padded"],
)
def test_a_network_that_scales_its_samples_itself_is_left_alone(call, files, before):
    assert described(call, *files(network(*before)), "--no-normalize")["warnings"] == []


@pytest.mark.parametrize(
    "before", [[L.ZeroPadding2D()], [L.RandomFlip()], [L.MaxPooling2D(2), L.Dropout(0.1)]]
)
def test_layers_that_only_move_values_scale_nothing(call, files, before):
    assert UNSCALED in str(described(call, *files(network(*before)), "--no-normalize")["warnings"])


def test_fractions_and_class_indices_are_no_bytes(call, files):
    x = keras.Input((4,), dtype="int32")
    words = keras.Model(x, L.Dense(10)(L.Flatten()(L.Embedding(300, 2)(x))))

    assert described(call, *files(x=BYTES / np.float32(255)))["warnings"] == []
    assert described(call, *files(words, np.full((20, 4), 255, np.uint8)))["warnings"] == []


@pytest.mark.parametrize("classes", [2, 9, 11])
def test_other_folders_than_classes_are_a_warning(call, files, tmp_path, classes):
    for label in range(classes):
        folder = tmp_path / "images" / f"class{label:02}"
        folder.mkdir(parents=True)
        PIL.Image.fromarray(BYTES[label, : 5 + label % 3]).save(folder / "one.png")
    model = files()[1]
    flags = ["--model", model, "--data", tmp_path / "images", "--divide-by", 255]
    found = described(call, *flags)

    assert found["image_sizes"] == [[5, 8], [5 + min(2, classes - 1), 8]]
    assert found["class_names"][:2] == ["class00", "class01"]
    assert f"{classes} class folders ('class00', 'class01'" in found["warnings"][0]


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (np.arange(300) % 10, None),
        (np.arange(300) % 12, "from 0 to 11, the network has 10 classes, numbered from 0"),
        (np.arange(300) % 10 + 1, "from 1 to 10, the network has 10 classes, numbered from 0"),
        (np.arange(300) % 10 - 1, "from -1 to 8"),
        (np.arange(300) % 4, "from 0 to 3, the network has 10 classes: some never occur"),
        (np.linspace(0, 1, 300), None),
    ],
)
def test_labels_that_are_other_classes_are_a_warning(call, files, labels, told):
    warnings = described(call, *files(y=labels), "--divide-by", 255)["warnings"]

    assert warnings == [] if told is None else told in warnings[0]


def test_one_output_decides_between_two_classes_and_few_samples_need_not_have_all(call, files):
    one = files(network(n_classes=1), y=np.arange(300) % 2)

    assert described(call, *one, "--divide-by", 255)["warnings"] == []
    assert described(call, *files(x=BYTES[:50], y=np.zeros(50, int)), "--divide-by", 255)["warnings"] == []


@pytest.mark.parametrize(("percentile", "is_low"), [(0.999, True), (1, True), (49.9, True), (50, False)])
def test_a_percentile_that_was_meant_as_a_fraction_is_a_warning(call, files, finished, percentile, is_low):
    planned = described(call, *files(), "--divide-by", 255, "--percentile", percentile)["warnings"]
    asked = call("factors", finished["run"], "--percentile", percentile)

    assert (PERCENT in str(planned)) == is_low
    assert ("99.9" in str(planned)) == is_low
    assert (f"warning: factors.percentile = {percentile:g} {PERCENT}" in asked.err) == is_low
    assert asked.code == 0


def test_of_an_override_too(call, finished):
    job = finished["job"]
    job.write_text(job.read_text() + "[factors.overrides]\nfirst = { percentile = 0.5 }\n")

    assert "factors.overrides.first.percentile = 0.5" in str(described(call, job)["warnings"])
