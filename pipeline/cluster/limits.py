"""How patient a cluster run is: retries, silence, and how much work is handed out at a time."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one run on a cluster; a run that exceeds one ends with an error that says so, and never hangs."""

    retries: int = 3
    """How often a block is tried again after a failure that may be temporary (storage, a lost worker)."""
    first_failures: int = 8
    """If this many blocks have failed and none has succeeded, the run stops: the cause is not in the blocks."""
    # A worker takes 9-15 s to import TensorFlow and load a network; batch systems take minutes to start one.
    no_workers_s: float = 300.0
    """How long to wait without any worker, in seconds."""
    scheduler_silence_s: float = 60.0
    """How long to wait for a scheduler whose connection broke, in seconds."""
    spare_blocks: int = 2
    """Blocks that are submitted beside those that workers hold, so that no worker waits for the coordinator."""

    def window(self, n_workers: int, in_flight: int) -> int:
        """Return how many blocks may be submitted and not finished: a bound on keys, futures and lost work."""
        return in_flight * n_workers + self.spare_blocks
