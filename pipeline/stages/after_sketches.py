"""Sketches of what normalisation changed, made when the network is rewritten: so a report needs no model."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ...storage.errors import FormatError
from ..folder.folder import write_json
from ..folder.json_file import read_document
from ..normalizer import NormalizedModel
from ..report import weight_sketch
from ..sketch import PointSketch, Sketch

__all__ = ["AfterSketches", "sketch_weights"]

FORMAT_VERSION = 1


_KINDS: dict[str, type[PointSketch] | type[Sketch]] = {
    "activations": PointSketch,
    "weights_before": Sketch,
    "weights_after": Sketch,
    "biases_before": Sketch,
    "biases_after": Sketch,
}
# Earlier programs counted biases with the weights: then they are not known apart.
_NEW_PARTS = ("biases_before", "biases_after")
# What Keras' layers call what they add.
_BIASES = frozenset({"bias", "beta"})


@dataclass(frozen=True, slots=True, kw_only=True)
class AfterSketches:
    """Sketches of what normalisation changed, by point."""

    activations: Mapping[str, PointSketch] = field(default_factory=dict)
    """Sketches of the normalised network."""
    weights_before: Mapping[str, Sketch] = field(default_factory=dict)
    """Kernels and other weights that values are multiplied with."""
    weights_after: Mapping[str, Sketch] = field(default_factory=dict)
    biases_before: Mapping[str, Sketch] = field(default_factory=dict)
    """Empty sketches where there are none, which folding a BatchNormalization changes."""
    biases_after: Mapping[str, Sketch] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write them as JSON, whole or not at all."""
        tree: dict[str, Any] = {"actisketch_sketches": FORMAT_VERSION}
        for part in _KINDS:
            sketches: Mapping[str, PointSketch | Sketch] = getattr(self, part)
            tree[part] = {name: base64.b64encode(each.to_bytes()).decode() for name, each in sketches.items()}
        write_json(path, tree)

    @classmethod
    def load(cls, path: Path) -> AfterSketches:
        """Read them; without such a file there are none.

        Raises
        ------
        FormatError
            If the file is damaged or of a newer format.
        """
        try:
            tree = read_document(path)
            version = tree["actisketch_sketches"]
            if version > FORMAT_VERSION:
                raise FormatError(
                    f"it has format {version}, this program reads up to {FORMAT_VERSION}: update actisketch",
                    version=version,
                )
            parts: dict[str, Any] = {
                part: {
                    name: kind.from_bytes(base64.b64decode(text, validate=True))
                    for name, text in (tree.get(part, {}) if part in _NEW_PARTS else tree[part]).items()
                }
                for part, kind in _KINDS.items()
            }
            return cls(**parts)
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, FormatError) and "version" in error.facts:
                # Newer than this program, as a whole or one of its sketches: running the job again would not help.
                raise FormatError(f"{str(path)!r} cannot be read: {error}", **error.facts) from None
            raise FormatError(
                f"{str(path)!r} is damaged: {error}; run the job again, or `actisketch normalize`: both write it anew"
            ) from None


def sketch_weights(normalized: NormalizedModel) -> dict[str, dict[str, Sketch]]:
    """Return sketches of each point's weights and biases, before and after, as `AfterSketches` names them.

    Weights and biases are apart: a folded BatchNormalization gives a bias to a layer that had none, and its weights are
    still compared with its weights. One array at a time is in memory.
    """
    after = {node.name: node for node in normalized.normalized_graph.nodes}
    found: dict[str, dict[str, Sketch]] = {part: {} for part in _KINDS if part != "activations"}
    for point in normalized.points:
        if point.n_params == 0:
            continue
        nodes = {"before": normalized.graph.nodes[point.node], "after": after.get(point.name)}
        for when, node in nodes.items():
            if node is not None and node.operation is not None:
                for part, is_bias in (("weights", False), ("biases", True)):
                    found[f"{part}_{when}"][point.name] = weight_sketch(
                        _arrays(node.operation, is_bias=is_bias)
                    )
    return found


def _arrays(layer: Any, *, is_bias: bool) -> Iterator[NDArray[Any]]:
    import keras

    for variable in layer.trainable_variables or layer.variables:
        if (variable.path.rpartition("/")[2] in _BIASES) == is_bias:
            yield keras.ops.convert_to_numpy(variable)
