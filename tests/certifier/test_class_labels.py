"""Accuracy is of classes: whatever else labels are gives none and says why, never a wrong number."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf

from actisketch.pipeline import run
from actisketch.pipeline.certifier.decisions import Decisions
from actisketch.pipeline.graph import read_graph

N, N_CLASSES = 40, 10
X = np.random.default_rng(29).random((N, 6), dtype=np.float32)
CLASSES = np.random.default_rng(31).integers(0, N_CLASSES, N)
EYE = np.eye(N_CLASSES, dtype=np.float32)


@pytest.fixture(scope="module")
def classifier():
    keras.utils.set_random_seed(5)
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(N_CLASSES, "softmax", name="classes")])


@pytest.fixture(scope="module")
def two_outputs():
    keras.utils.set_random_seed(7)
    x = keras.Input((6,))
    hidden = keras.layers.Dense(8, "relu")(x)
    outputs = [keras.layers.Dense(N_CLASSES, "softmax", name=name)(hidden) for name in ("a", "b")]
    return keras.Model(x, outputs)


def certificate(model, data, tmp_path, labels=None, n_samples=N):
    settings = {"report": {"enabled": False}}
    result = run(
        model, data, labels, output=tmp_path / "run", batch_size=7, settings=settings,
        **({"num_samples": n_samples} if callable(data) else {}),
    )  # fmt: skip
    return result.certificate()


def right_share(model, classes):
    """The oracle: Keras and NumPy alone."""
    return float((np.asarray(model(X, training=False)).argmax(axis=-1) == classes).mean())


FITTING = {
    "classes": CLASSES,
    "column": CLASSES[:, None],
    "bytes": CLASSES.astype(np.uint8),
    "floats": CLASSES.astype(np.float32),
    "list": CLASSES.tolist(),
    "list of one": [CLASSES],
    "one-hot": EYE[CLASSES],
    "one-hot integers": EYE[CLASSES].astype(int),
    "smoothed": EYE[CLASSES] * 0.9 + 0.01,
    "half": (EYE[CLASSES] * 0.9 + 0.01).astype(np.float16),
}


def said_of_labels(certificate):
    """The notes, but for that of a network of one softmax layer: nothing was normalised."""
    return [note for note in certificate["notes"] if not note.startswith("nothing was normalised")]


@pytest.mark.parametrize("labels", FITTING.values(), ids=FITTING)
def test_classes_in_any_form_give_the_share_that_is_right(classifier, tmp_path, labels):
    found = certificate(classifier, X, tmp_path, labels)

    assert found["accuracy_before"] == pytest.approx(right_share(classifier, CLASSES))
    assert said_of_labels(found) == []


UNFIT = {
    "boxes": (np.random.default_rng(1).random((N, 4)), "shape (4,)"),
    "one-hot of 5": (EYE[CLASSES % 5, :5], "shape (5,)"),
    "one-hot of 12": (np.eye(12)[CLASSES], "shape (12,)"),
    "targets": (np.random.default_rng(2).normal(size=N), "not whole numbers"),
    "targets of ten": (np.random.default_rng(3).normal(size=(N, N_CLASSES)), "not one-hot"),
    "many-hot": ((np.random.default_rng(4).random((N, N_CLASSES)) > 0.5).astype(int), "not one-hot"),
    "from 1": (CLASSES + 1, "classes 0 to 9"),
    "ignored ones": (np.where(CLASSES == 3, -1, CLASSES), "classes 0 to 9"),
    "1000 classes": (CLASSES * 100, "classes 0 to 9"),
    "masks": (np.zeros((N, 5, 5), int), "shape (5, 5)"),
    "NaN": (np.where(CLASSES == 3, np.nan, CLASSES), "not whole numbers"),
}  # fmt: skip


@pytest.mark.parametrize(("labels", "reason"), UNFIT.values(), ids=UNFIT)
def test_labels_that_are_no_classes_give_no_accuracy_and_the_reason(classifier, tmp_path, labels, reason):
    found = certificate(classifier, X, tmp_path, labels)

    assert found["accuracy_before"] is found["accuracy_after"] is None
    (note,) = said_of_labels(found)
    assert note.startswith("no accuracy: ")
    assert reason in note


def test_words_as_labels_give_no_accuracy_and_the_reason(classifier, tmp_path):
    words = np.array(["ant", "bee", "cow", "dog"])[CLASSES % 4]

    found = certificate(classifier, tf.data.Dataset.from_tensor_slices((X, words)).batch(8), tmp_path)
    assert found["accuracy_before"] is None
    assert said_of_labels(found) == ["no accuracy: the labels are not numbers"]


def test_the_reason_does_not_depend_on_the_order_of_the_samples(classifier):
    outputs = [EYE[CLASSES]]
    odd = [CLASSES + 0.5, CLASSES + 1, EYE[CLASSES, :4], CLASSES]
    found = []
    for order in (odd, odd[::-1]):
        parts = [Decisions(read_graph(classifier)) for _ in order]
        for part, labels in zip(parts, order, strict=True):
            part.add(outputs, outputs, labels)
        for other in parts[1:]:
            parts[0].merge(other)
        found.append((parts[0].notes, parts[0].accuracy_before))

    assert found[0] == found[1]
    assert found[0][1] is None


SEGMENTATIONS = {
    "classes": lambda y: y,
    "with a channel": lambda y: y[..., None],
    "one-hot": lambda y: np.eye(3)[y],
}


@pytest.mark.parametrize("form", SEGMENTATIONS.values(), ids=SEGMENTATIONS)
def test_a_mask_of_classes_is_judged_at_every_position(tmp_path, form):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((5, 4, 2)), keras.layers.Conv2D(3, 3, padding="same", activation="softmax")]
    )
    x = np.random.default_rng(3).random((12, 5, 4, 2), dtype=np.float32)
    masks = np.random.default_rng(5).integers(0, 3, (12, 5, 4))
    share = (model.predict(x, verbose=0).argmax(axis=-1) == masks).mean()

    assert certificate(model, x, tmp_path, form(masks))["accuracy_before"] == pytest.approx(share)


@pytest.mark.parametrize("labels", [np.arange(N) % 2, (np.arange(N) % 2)[:, None], np.arange(N) % 2 == 1])
def test_a_single_sigmoid_has_two_classes(tmp_path, labels):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, "sigmoid")])
    share = ((model.predict(X, verbose=0)[:, 0] > 0.5) == (np.arange(N) % 2)).mean()

    assert certificate(model, X, tmp_path, labels)["accuracy_before"] == pytest.approx(share)
    assert "classes 0 to 1" in certificate(model, X, tmp_path / "three", np.arange(N) % 3)["notes"][0]


def test_a_network_that_decides_nothing_has_no_accuracy(tmp_path):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])

    assert certificate(model, X, tmp_path, CLASSES)["notes"] == [
        "no accuracy: no output of the network decides between classes"
    ]


OTHERS = np.random.default_rng(37).integers(0, N_CLASSES, N)
BOXES = np.random.default_rng(41).random((N, 4))
TARGETS = {
    "two": (CLASSES, OTHERS),
    "two one-hot": (EYE[CLASSES], EYE[OTHERS]),
    "classes and boxes": (CLASSES, BOXES),
    "by name": {"a": CLASSES, "b": OTHERS},
}


@pytest.mark.parametrize("batch", [None, 2, 8])
@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
def test_a_data_set_with_a_target_for_each_output_is_recorded_without_accuracy(
    two_outputs, tmp_path, caplog, targets, batch
):
    """As Keras trains such networks: tf.data makes a tuple of them."""
    data = tf.data.Dataset.from_tensor_slices((X, targets))
    with caplog.at_level(logging.WARNING):
        found = certificate(two_outputs, data if batch is None else data.batch(batch), tmp_path)

    assert found["passed"]
    assert found["accuracy_before"] is None
    assert "2 targets for each sample, and accuracy is of one output" in caplog.text


@pytest.mark.parametrize(("names", "told"), [("ab", "a"), ("ba", "b"), ("bca", "b"), ("a", None)])
def test_of_several_outputs_that_decide_the_one_of_the_accuracy_is_named(tmp_path, names, told):
    keras.utils.set_random_seed(13)
    x = keras.Input((6,))
    outputs = {name: keras.layers.Dense(N_CLASSES, "softmax", name=name)(x) for name in names}
    number = keras.layers.Dense(1, name="number")(x)  # decides nothing
    model = keras.Model(x, [number, *outputs.values()])

    found = certificate(model, X, tmp_path, CLASSES)

    expected = f"accuracy is of {told!r}, the first of {len(names)} outputs that decide between classes"
    assert [note for note in found["notes"] if "accuracy" in note] == ([expected] if told else [])
    of_first = model.predict(X, verbose=0)[1].argmax(axis=-1)
    assert found["accuracy_before"] == pytest.approx((of_first == CLASSES).mean())


class Data(keras.utils.PyDataset):
    def __init__(self, targets):
        super().__init__()
        self.targets = targets

    def __len__(self):
        return 5

    def __getitem__(self, index):
        part = slice(8 * index, 8 * index + 8)
        return X[part], self.targets(part)


@pytest.mark.parametrize("kind", [list, tuple])
def test_batches_with_a_target_for_each_output_are_recorded_without_accuracy(two_outputs, tmp_path, kind):
    data = Data(lambda part: kind((CLASSES[part], OTHERS[part])))

    assert certificate(two_outputs, data, tmp_path)["accuracy_before"] is None


@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_batches_with_labels_as_plain_numbers_give_accuracy(classifier, tmp_path, kind):
    data = Data(lambda part: kind(CLASSES[part].tolist()))

    found = certificate(classifier, data, tmp_path)["accuracy_before"]
    assert found == pytest.approx(right_share(classifier, CLASSES))


@pytest.mark.parametrize("wrapped", [(CLASSES,), {"classes": CLASSES}])
def test_a_single_target_in_a_tuple_or_a_dict_is_the_label(classifier, tmp_path, wrapped):
    data = tf.data.Dataset.from_tensor_slices((X, wrapped)).batch(8)

    found = certificate(classifier, data, tmp_path)["accuracy_before"]
    assert found == pytest.approx(right_share(classifier, CLASSES))


@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
def test_arrays_with_a_target_for_each_output_are_refused(two_outputs, tmp_path, targets):
    from actisketch.storage.errors import InputError

    with pytest.raises(InputError, match=r"y is a .* of 2 arrays, and accuracy is of one output"):
        certificate(two_outputs, X, tmp_path, targets)


def test_labels_of_other_places_are_told_in_plain_numbers(tmp_path):
    model = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Conv2D(3, 1, activation="softmax")])
    images = np.random.default_rng(37).random((N, 6, 6, 1), np.float32)
    found = certificate(model, images, tmp_path, labels=np.zeros((N, 5, 5), int))

    assert "decides between 3 classes at (6, 6) positions" in " ".join(found["notes"])
