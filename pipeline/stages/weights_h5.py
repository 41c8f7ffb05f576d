"""Write the weights of a normalised network as ``.h5``, for use with the original's ``model.json`` in Keras 2."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ...storage.errors import InputError
from ..folder.folder import replacing
from ..graph import reason_of
from ..normalizer import NormalizedModel

__all__ = ["check_weights_path", "save_weights_h5", "with_weights_of"]

logger = logging.getLogger(__name__)


def check_weights_path(path: Path) -> None:
    """Refuse a file name for which Keras would not use the old format.

    Raises
    ------
    InputError
        With the name.
    """
    if path.suffix != ".h5":
        raise InputError(f"{str(path)!r} is not a name from which Keras 2 reads weights: end it in .h5")


def with_weights_of(normalized: NormalizedModel, original: Any) -> Any:
    """Return a copy of the original network that has the weights of the normalised one.

    Parameters
    ----------
    normalized : NormalizedModel
    original : keras.Model
        The network that was normalised. It is not changed.

    Raises
    ------
    InputError
        If more than weights changed: a BatchNormalization was folded, the bound of a ReLU moved, a nested model
        dissolved. These weights in the original's ``model.json`` would be another network.
    """
    import keras

    new = {layer.name: layer for layer in normalized.model.layers}
    own = [layer for layer in original.layers if not isinstance(layer, keras.layers.InputLayer)]
    changed = [layer.name for layer in own if not _is_same(layer, new.get(layer.name))]
    if changed:
        raise InputError(
            f"weights alone do not describe the normalised network: {', '.join(map(repr, changed[:5]))}"
            f"{' ...' if len(changed) > 5 else ''} were folded, dissolved or have other settings; use "
            "normalized.keras, or record a network without BatchNormalization, bounded ReLUs and nested models",
            layers=tuple(changed),
        )
    try:
        copy = keras.models.clone_model(original)
        for layer in own:
            copy.get_layer(layer.name).set_weights(new[layer.name].get_weights())
    except Exception as error:  # whatever a layer's own code raises
        raise InputError(
            f"the network {original.name!r} cannot be copied: {type(error).__name__}: {reason_of(error)}; use "
            "normalized.keras"
        ) from error
    return copy


def _is_same(layer: Any, new: Any) -> bool:
    """Tell whether a layer exists with the same settings; their texts are compared, as there may be arrays in them."""
    return new is not None and type(layer) is type(new) and repr(layer.get_config()) == repr(new.get_config())


def save_weights_h5(model: Any, path: Path) -> None:
    """Write a network as ``.h5``, whole or not at all.

    Raises
    ------
    StorageError
        If the disk refuses.
    """
    absl = logging.getLogger("absl")
    was_disabled = absl.disabled
    absl.disabled = True  # Keras warns of .h5, which is what was asked for
    try:
        with replacing(path) as partial:
            model.save(partial)
    finally:
        absl.disabled = was_disabled
    logger.info("weights of the normalised network in %s", path)
