"""Foresee what a run takes in memory, for any size of its blocks.

Arithmetic only: the packages know their own bytes, which are added up here.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...storage import CacheSpec, PointSpec, encoding_nbytes, is_url
from ...storage.codecs import DEFAULT_CODEC
from ...storage.writing import WRITING_THREADS
from ..certifier import reading_nbytes
from ..factors.merge import merged_nbytes
from ..record.block_memory import blocks_sketches_nbytes, counting_nbytes, held_nbytes
from ..record.point_sketch import sketch_spec
from ..record.taps import AHEAD_NBYTES
from ..settings.job_settings import JobSettings
from ..settings.sizes import format_bytes
from ..sketch import SketchSpec

__all__ = ["MemoryProjection", "NetworkNeeds", "RunNeeds"]

# For tracing the network, the compiled loops of the sketch, threads and the allocator: 60 to 140 MiB were measured,
# from a small network to blocks of half a gigabyte. Numba and its loops alone: 123 MiB where TensorFlow is not loaded.
RUNTIME_NBYTES, MEASURED_NBYTES = 160 * 2**20, 100 * 2**20
# oneDNN keeps the weights once more, in layouts of its own with padded channels: without it ResNet50 took 1.4 times its
# weights less.
COPIED_WEIGHTS = 1.5
# Networks of convolutions have smaller weights; huge ones are those of Dense layers and embeddings.
COPIES_NBYTES = 256 * 2**20
# And for each point, with the layers before it, in the traced network.
RUNTIME_POINT_NBYTES = 2**18


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryProjection:
    """Peak memory beyond that of Python and TensorFlow themselves, by cause."""

    model: int
    """The weights."""
    loading: int
    """Of reading the network's file: what stays, or the peak beyond what recording takes."""
    batch: int
    """The samples of one batch, and the network's largest tensors."""
    blocks: int
    """Values that are with their taps; chunks that are being filled, those of all points at once, and written."""
    codec: int
    """Encoding the largest chunks, one for each thread: copies, compressed forms, aligned memory."""
    sketches: int
    """Sketches of all points in open blocks, and the larger of counting and merging."""
    runtime: int
    """The traced network, its weights in other layouts, compiled loops, threads."""
    certificate: int = 0
    """What normalising and certifying take beyond batch, blocks and encoding, which are freed by then."""

    @property
    def total(self) -> int:
        """Sum of all causes."""
        recording = self.batch + self.blocks + self.codec
        return self.model + self.loading + recording + self.certificate + self.sketches + self.runtime

    def by_cause(self) -> str:
        """Return the bytes of each cause, for a person."""
        causes = (
            ("network", self.model),
            ("loading it", self.loading),
            ("one batch", self.batch),
            ("blocks in flight", self.blocks),
            ("encoding", self.codec),
            ("sketches", self.sketches),
            ("runtime", self.runtime),
            ("more for the certificate", self.certificate),
        )
        return ", ".join(f"{name} {format_bytes(nbytes)}" for name, nbytes in causes)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkNeeds:
    """What the network of a run takes."""

    points: tuple[PointSpec, ...]
    """The points to record."""
    model_nbytes: int = 0
    """Of the weights."""
    loading_nbytes: int = 0
    """Upper bound of what reading its file takes beside the weights; 0 for a network in memory."""
    input_nbytes: int = 0
    """Of one sample."""
    largest_tensor_nbytes: int = 0
    """Of the largest tensor, for one sample."""
    check_nbytes: int = 0
    """Of the values of the few samples with which the network is checked."""
    certificate_nbytes: int = 0
    """What normalising and certifying take beside the network; 0 for a run that stops at the factors."""
    multiplications: int = 0
    """Of one sample, about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunNeeds:
    """A job with its network and number of samples."""

    settings: JobSettings
    network: NetworkNeeds
    n_samples: int
    memory_limit: int
    """In bytes: that of the settings, or the default for this machine."""

    @property
    def points(self) -> tuple[PointSpec, ...]:
        """The points to record."""
        return self.network.points

    @property
    def sketch(self) -> SketchSpec:
        """The resolution of the sketches."""
        return sketch_spec(self.settings)

    def cache(self, block_samples: int) -> CacheSpec:
        """Return the description of the cache."""
        chosen = self.settings
        return CacheSpec(
            points=self.points,
            n_samples=self.n_samples,
            batch_size=chosen.record.batch_size,
            block_samples=block_samples,
            identity={},
            dtype=chosen.cache.dtype,
            keeps_activations=chosen.record.activations,
            codec=chosen.cache.codec or DEFAULT_CODEC,
        )

    def fits(self, block_samples: int) -> bool:
        """Return whether a run keeps to the memory limit."""
        return self.memory(block_samples).total <= self.memory_limit

    def memory(self, block_samples: int) -> MemoryProjection:
        """Return what a run takes."""
        network, batch_size = self.network, self.settings.record.batch_size
        cache = self.cache(block_samples)
        recording = {
            # Inputs are read while others are in the network, from a copy if they are prepared. Values that are with
            # their taps are counted with the blocks. The network also holds output and workspace
            # of the layer at work. TensorFlow keeps the memory of the check before for that.
            "batch": max(
                network.check_nbytes,
                min(batch_size, self.n_samples)
                * (3 * network.input_nbytes + 2 * network.largest_tensor_nbytes),
            ),
            "blocks": held_nbytes(cache),
            "codec": encoding_nbytes(
                cache, n_threads=WRITING_THREADS, is_remote=is_url(self.settings.cache.url or "")
            ),
            "sketches": self._sketches_nbytes(block_samples),
        }
        # The allocator was seen to keep up to as much as the weights; recording uses the rest again.
        stays = min(network.model_nbytes, network.loading_nbytes)
        loading = max(stays, network.loading_nbytes - sum(recording.values()))
        certificate = self._certificate_nbytes(cache, recording["batch"])
        later = max(0, certificate + recording["sketches"] - sum(recording.values()))
        copies = min(COPIES_NBYTES, int(COPIED_WEIGHTS * network.model_nbytes))
        runtime = max(RUNTIME_NBYTES, MEASURED_NBYTES + copies)
        runtime += RUNTIME_POINT_NBYTES * len(self.points)
        return MemoryProjection(
            model=network.model_nbytes, loading=loading, certificate=later, runtime=runtime, **recording
        )

    def _certificate_nbytes(self, cache: CacheSpec, batch_nbytes: int) -> int:
        """Return what normalising and certifying take: with the original running, or with its activations read."""
        network = self.network
        reading = reading_nbytes(cache)
        if not network.certificate_nbytes or not reading:
            return network.certificate_nbytes
        # Values that wait for their taps: as many bytes as while recording, or one value of more.
        waiting = max(AHEAD_NBYTES, cache.batch_size * network.largest_tensor_nbytes)
        return max(network.certificate_nbytes, network.model_nbytes + batch_nbytes + waiting + reading)

    def _sketches_nbytes(self, block_samples: int) -> int:
        counts = {"block_samples": block_samples, "n_samples": self.n_samples}
        recorded = blocks_sketches_nbytes(self.points, self.sketch, **counts)
        merged = merged_nbytes(self.points, self.sketch, **counts)
        return max(counting_nbytes(self.sketch) + recorded, merged)
