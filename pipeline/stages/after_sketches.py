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
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AfterSketches:
    """Sketches of what normalisation changed, by point."""

    activations: Mapping[str, PointSketch] = field(default_factory=dict)
    """Sketches of the normalised network."""
    weights_before: Mapping[str, Sketch] = field(default_factory=dict)
    weights_after: Mapping[str, Sketch] = field(default_factory=dict)

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
                    for name, text in tree[part].items()
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


def sketch_weights(normalized: NormalizedModel) -> tuple[dict[str, Sketch], dict[str, Sketch]]:
    """Return the sketches of each point's weights before and after normalisation, one array at a time."""
    after = {node.name: node for node in normalized.normalized_graph.nodes}
    before_by_point, after_by_point = {}, {}
    for point in normalized.points:
        if point.n_params == 0:
            continue
        before_by_point[point.name] = weight_sketch(_arrays(normalized.graph.nodes[point.node].operation))
        node = after.get(point.name)
        if node is not None and node.operation is not None:
            after_by_point[point.name] = weight_sketch(_arrays(node.operation))
    return before_by_point, after_by_point


def _arrays(layer: Any) -> Iterator[NDArray[Any]]:
    import keras

    for variable in layer.trainable_variables or layer.variables:
        yield keras.ops.convert_to_numpy(variable)
