"""How patient a cluster run is: retries, silence, and how much work is handed out at a time."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one run on a cluster; every one ends in an error that says so, never in a hang."""

    retries: int = 3
    """How often a block is tried again after a failure that may pass (storage, a lost worker)."""
    first_failures: int = 8
    """If so many blocks have failed and none has succeeded, the run stops: the cause is not in the blocks."""
    # A worker that imports TensorFlow and loads a network is ready after 9-15 s here; batch systems take minutes.
    no_workers_s: float = 300.0
    """How long to wait while there is no worker at all, in seconds."""
    scheduler_silence_s: float = 60.0
    """How long to wait for a scheduler whose connection broke, in seconds."""
    spare_blocks: int = 2
    """Blocks that are submitted beyond what the workers hold, so that none waits for the coordinator."""

    def window(self, n_workers: int, in_flight: int) -> int:
        """Return how many blocks may be submitted and not finished: a bound on keys, futures and lost work."""
        return in_flight * n_workers + self.spare_blocks
