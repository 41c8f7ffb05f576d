"""One hash of all labels of a source: accuracies depend on them, activations do not."""

from __future__ import annotations

import hashlib
from typing import Any

from .protocol import Source

__all__ = ["labels_hash"]

# Rows that are read at once: labels alone are small; labels that come with their samples are read with these.
_N_LABELS, _N_SAMPLES = 4096, 256


def labels_hash(source: Source) -> str | None:
    """Return a hash of the labels of all samples, in order; None when there are none.

    Cheap where a reader gives labels without samples (its method ``labels``), or where the hashes of its samples
    cover the labels too (``labels_identity``); else one pass over the data.
    """
    if not source.has_labels:
        return None
    reader: Any = getattr(source, "reader", None)
    hasher = hashlib.blake2b(digest_size=16)
    if hasattr(reader, "labels_identity"):
        hasher.update(repr(reader.labels_identity()).encode())
        return hasher.hexdigest()
    is_apart = hasattr(reader, "labels")
    step = _N_LABELS if is_apart else _N_SAMPLES
    for start in range(0, source.n_samples, step):
        stop = min(start + step, source.n_samples)
        labels = (
            reader.labels(start, stop)
            if is_apart
            else (reader.rows if reader else source.read)(start, stop).labels
        )
        if labels is None or labels.dtype.hasobject:
            hasher.update(repr(None if labels is None else labels.tolist()).encode())
        else:
            hasher.update(f"{labels.dtype.str} {labels.shape}".encode())
            hasher.update(labels.tobytes())
    return hasher.hexdigest()
