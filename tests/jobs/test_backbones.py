"""Backbones of keras-hub: every layer with weights is recorded, wherever it is, with integer and with several inputs.

The expected values are those of an eager call of the backbone, in which Keras' `Layer.__call__` notes what each layer
gives. That and the tap on a traced layer share nothing.
"""

import numpy as np
import pytest

from actisketch.pipeline import run

pytestmark = pytest.mark.filterwarnings(
    "ignore:Layer .* was passed an input with a mask attached:UserWarning"
)

SMALL = {"num_layers": 2, "hidden_dim": 16, "intermediate_dim": 24}
TEXT = {**SMALL, "vocabulary_size": 53, "num_heads": 2, "max_sequence_length": 7}
GROUPED = {**SMALL, "vocabulary_size": 53, "num_query_heads": 4, "num_key_value_heads": 2}


def vit(models):
    return models.ViTBackbone(
        image_shape=(8, 8, 3), patch_size=4, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=24
    )


def swin(models):
    return models.SwinTransformerBackbone(
        image_shape=(32, 32, 3), patch_size=4, embed_dim=8, depths=[2, 2], num_heads=[1, 2], window_size=4
    )


def whisper(models):
    lengths = {"max_encoder_sequence_length": 20, "max_decoder_sequence_length": 7}
    return models.WhisperBackbone(**SMALL, vocabulary_size=53, num_heads=2, num_mels=5, **lengths)


def llama(models):
    model = models.LlamaBackbone(**GROUPED)
    for layer in model.transformer_layers:
        layer.rope_scaling_factor = 1.0  # keras-hub 0.32 asks for it in get_config() and does not set it
    return model


MAKERS = {
    "vit": vit,
    "swin": swin,
    "whisper": whisper,
    "bert": lambda models: models.BertBackbone(**TEXT),
    "gpt2": lambda models: models.GPT2Backbone(**TEXT),
    "gemma": lambda models: models.GemmaBackbone(**GROUPED, head_dim=8),
    "llama": llama,
}
# Behind these the graph has an activation function, after which a point of the graph is recorded.
ACTIVATED = ("encoder_token_embedding_conv_layer_1", "encoder_token_embedding_conv_layer_2")
N_SAMPLES = 5


def samples(model, length=7):
    """Return a dict of samples: images, features, token ids, and masks with padding at the end."""
    rng = np.random.default_rng(7)
    found = {}
    for tensor in model.inputs:
        name = tensor.name
        if name.endswith("token_ids"):
            found[name] = rng.integers(1, 53, (N_SAMPLES, length)).astype(np.int32)
        elif name.endswith("padding_mask"):
            found[name] = (np.arange(length) < rng.integers(3, length + 1, (N_SAMPLES, 1))).astype(np.int32)
        elif name == "segment_ids":
            found[name] = rng.integers(0, 2, (N_SAMPLES, length)).astype(np.int32)
        else:
            shape = [20 if n is None else n for n in tensor.shape[1:]]
            found[name] = rng.normal(size=(N_SAMPLES, *shape)).astype(np.float32)
    return found


def eager_outputs(model, data, monkeypatch):
    """Return what each layer gives, in the order of its calls, by its Keras path."""
    import keras

    found, call = {}, keras.layers.Layer.__call__

    def noting(layer, *args, **kwargs):
        output = call(layer, *args, **kwargs)
        found.setdefault(layer.path, []).append(output)
        return output

    with monkeypatch.context() as patched:
        patched.setattr(keras.layers.Layer, "__call__", noting)
        model(data if len(data) > 1 else next(iter(data.values())), training=False)
    return found


def leaf_paths(model):
    """Return the paths of all layers with weights of their own and no layer with weights inside."""
    return {
        layer.path
        for layer in model._flatten_layers(include_self=False)
        if layer._trainable_variables + layer._non_trainable_variables
        and not any(inner.weights for inner in layer._flatten_layers(include_self=False))
    }


def by_sample(output):
    """Return the values of each sample: windows of an image one after the other, what all samples share repeated."""
    array = np.asarray(output, np.float32)
    if len(array) == 1:
        array = np.repeat(array, N_SAMPLES, axis=0)
    return array.reshape(N_SAMPLES, -1)


@pytest.mark.parametrize(
    "name",
    [
        *("vit", "swin", "bert"),
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("whisper", "gpt2", "gemma", "llama")),
    ],
)
def test_all_leaves_of_a_backbone_are_recorded_as_it_computes_them(name, tmp_path, monkeypatch):
    import keras
    import keras_hub

    keras.utils.set_random_seed(7)
    model = MAKERS[name](keras_hub.models)
    data = samples(model)
    expected = eager_outputs(model, data, monkeypatch)
    result = run(
        model,
        data if len(data) > 1 else next(iter(data.values())),
        output=tmp_path / "r",
        points="leaves",
        batch_size=4,
        normalize=False,
        settings={"report": {"enabled": False}},
    )

    assert {point.partition(":")[0] for point in result.points} == leaf_paths(model)
    for point in result.points:
        path, _, call = point.partition(":")
        output = expected[path][int(call or 0)]
        output = keras.activations.gelu(output, approximate=False) if path in ACTIVATED else output
        recorded = result.activations(point)[:].reshape(N_SAMPLES, -1)
        np.testing.assert_allclose(recorded, by_sample(output), rtol=1e-4, atol=2e-5, err_msg=point)


def test_a_backbone_has_one_fingerprint_in_every_process(monkeypatch):
    """keras-hub keeps the address of each class in the class."""
    import keras_hub

    from actisketch.pipeline.graph import model_fingerprint

    model = MAKERS["bert"](keras_hub.models)
    before = model_fingerprint(model)
    kind = type(model.get_layer("position_embedding"))
    assert kind._api_export_symbol_id == id(kind)
    monkeypatch.setattr(kind, "_api_export_symbol_id", 7)

    assert model_fingerprint(model) == before
