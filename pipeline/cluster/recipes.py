"""What a worker process needs for its work: picklable, small, and checked where it is used.

Knows how a network and samples get to a worker. Does not know blocks or Dask.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ...storage import Cache
from ...storage.errors import FormatError, MismatchError, NotFoundError, StorageError
from ..certifier import Comparison, ComparisonSettings
from ..graph import graph_for, model_fingerprint, points_at
from ..normalizer import Rewriting
from ..record.model import import_keras, load_network
from ..record.producer import KerasProducer, Producer
from ..sources import Source

__all__ = ["ComparisonRecipe", "KerasRecipe", "NetworkRecipe", "Recipe", "set_tensorflow_threads"]

logger = logging.getLogger(__name__)

Made = TypeVar("Made", covariant=True)


class Recipe(Protocol[Made]):
    """Makes in a worker process what its tasks need."""

    def make(self, n_threads: int) -> Made:
        """Return it; it may use ``n_threads`` threads."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRecipe:
    """A Keras network and samples, the same as those of the coordinator.

    The worker reads the network from a file, or gets the bytes of a ``.keras`` file if the network was given in memory.
    """

    model_path: str | None
    model_bytes: bytes | None = field(repr=False)
    custom_objects: str | None
    safe_mode: bool
    fingerprint: Mapping[str, Any]
    """Of the coordinator's network."""
    source: Source
    data: Mapping[str, Any]
    """Fingerprint of the coordinator's data."""

    def open(self, n_threads: int) -> tuple[Any, Source]:
        """Load the network, once for a worker process.

        Raises
        ------
        InputError
            If the file is not there or cannot be loaded.
        MismatchError
            If the network or the data at that path is not the coordinator's.
        """
        set_tensorflow_threads(n_threads)
        model = self._load()
        if dict(model_fingerprint(model)) != dict(self.fingerprint):
            raise MismatchError(
                f"the network {self.model_path!r} on this host is not the one of the coordinator: share one file"
            )
        if self.source.fingerprint() != dict(self.data):
            raise MismatchError("the data on this host is not that of the coordinator: share one path")
        return model, self.source

    def _load(self) -> Any:
        if self.model_path is not None:
            return load_network(self.model_path, custom_objects=self.custom_objects, safe_mode=self.safe_mode)
        with tempfile.TemporaryDirectory(prefix="actisketch-") as folder:
            path = Path(folder) / "model.keras"
            path.write_bytes(self.model_bytes or b"")
            # It was in the coordinator's memory: there is no file to distrust.
            return load_network(str(path), custom_objects=self.custom_objects, safe_mode=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class KerasRecipe:
    """Activations of a Keras network over samples."""

    network: NetworkRecipe
    points: Mapping[str, int | None]
    """Of the coordinator; see `places_of`."""
    batch_size: int
    allow_random: bool = False

    def make(self, n_threads: int) -> Producer:
        """Return the producer; errors as `NetworkRecipe.open`."""
        model, source = self.network.open(n_threads)
        graph = graph_for(model, source.inputs)
        points = points_at(graph, self.points, source.inputs)
        return KerasProducer(
            graph, points, source, batch_size=self.batch_size, allow_random=self.allow_random
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRecipe:
    """A network, and the same network rewritten, over samples.

    The rewritten network is not sent: a worker rewrites its own copy in the same way, and the fingerprint shows whether
    that gave the same weights.
    """

    network: NetworkRecipe
    rewriting: Rewriting
    normalized: Mapping[str, Any]
    """Fingerprint of what the coordinator made."""
    settings: ComparisonSettings
    cache_url: str | None = None
    """Of the recorded activations, if they are to be read; a worker that cannot open it runs the original."""
    cache_hash: str = ""
    storage_options: Mapping[str, Any] = field(default_factory=dict)

    def make(self, n_threads: int) -> Comparison:
        """Return what compares parts; errors as `NetworkRecipe.open`.

        Raises
        ------
        MismatchError
            If rewriting gives other weights on this host.
        """
        model, source = self.network.open(n_threads)
        normalized = self.rewriting.rewrite(model)
        if dict(model_fingerprint(normalized.model)) != dict(self.normalized):
            raise MismatchError(
                "rewriting the network gives other weights on this host than on the coordinator's: certify there, "
                "without a cluster (actisketch normalize)"
            )
        return Comparison(model, normalized, source, self.settings, cache=self._cache())

    def _cache(self) -> Cache | None:
        if self.cache_url is None:
            return None
        try:
            cache = Cache.open(self.cache_url, self.storage_options)
        except (NotFoundError, FormatError, StorageError) as error:
            logger.warning("recorded activations cannot be read here, so the original runs: %s", error)
            return None
        return cache if cache.spec.content_hash == self.cache_hash else None


def set_tensorflow_threads(n_threads: int) -> None:
    """Give TensorFlow this many threads, and let GPU memory grow; once for a process.

    The last bits of values may depend on the number of threads: it is fixed for a run.
    """
    import_keras()
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(n_threads)
        tf.config.threading.set_inter_op_parallelism_threads(n_threads)
        for device in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(device, True)
    except RuntimeError:
        # TensorFlow was started before, by an earlier run or the user's own code.
        found = tf.config.threading.get_intra_op_parallelism_threads()
        if found not in (0, n_threads):
            logger.warning("TensorFlow runs with %d threads here, %d were asked for", found, n_threads)
