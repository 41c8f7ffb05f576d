"""What Keras' safe mode refuses in a model file is named."""

from __future__ import annotations

import json
import re
import zipfile

import pytest

from actisketch.pipeline.record.model import load_network
from actisketch.storage.errors import InputError


def with_vocabulary(saved, there, vocabulary):
    """Write a model file again, whose StringLookup takes its words from a file beside it."""
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(there, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                tree = json.loads(content)
                lookup = next(
                    each for each in tree["config"]["layers"] if each["class_name"] == "StringLookup"
                )
                lookup["config"]["vocabulary"] = str(vocabulary)
                content = json.dumps(tree).encode()
            if "assets" not in name:
                new.writestr(name, content)


def test_a_vocabulary_outside_of_the_file_is_not_called_code(tmp_path):
    import keras

    (tmp_path / "words.txt").write_text("a\nb\n")
    given = keras.Input((4,), dtype="string")
    keras.Model(given, keras.layers.StringLookup(vocabulary=["a", "b"])(given)).save(tmp_path / "old.keras")
    with_vocabulary(tmp_path / "old.keras", tmp_path / "new.keras", tmp_path / "words.txt")

    with pytest.raises(InputError, match=re.escape(str(tmp_path / "words.txt"))) as raised:
        load_network(tmp_path / "new.keras")
    assert "a vocabulary file outside of the model archive" in str(raised.value)
    assert "Lambda" not in str(raised.value)
    assert "--unsafe-model" in str(raised.value)


def test_a_lambda_layer_is_called_code(tmp_path):
    import keras

    given = keras.Input((4,))
    keras.Model(given, keras.layers.Lambda(lambda x: x * 2)(given)).save(tmp_path / "code.keras")

    with pytest.raises(InputError, match=r"contains code \(a Lambda layer\).*--unsafe-model"):
        load_network(tmp_path / "code.keras")
