"""The memory that a run may take where ``record.memory_limit`` is not set: a share of the machine's."""

from __future__ import annotations

from dataclasses import dataclass

from ..settings.job_settings import RecordSettings
from ..settings.sizes import format_bytes
from .machine_memory import usable_memory

__all__ = ["CLUSTER_NBYTES", "PROCESS_NBYTES", "SHARE", "DefaultLimit", "default_limit"]

# Of the machine's memory. The rest is for Python and TensorFlow, the files that the system keeps in memory, and other
# programs. Spark gives tasks as much of a process; Dask begins there to move data to disk.
SHARE = 0.6
# Python, TensorFlow and the libraries of one process, before any network: 600-700 MB here.
PROCESS_NBYTES = 700 * 10**6
# Of each worker of a cluster, whose machines are not known before it runs.
CLUSTER_NBYTES = 4 * 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultLimit:
    """Bytes that a process may take beyond Python and TensorFlow, and what they are a share of."""

    nbytes: int
    of_nbytes: int | None
    """Memory that the processes of the run may use together; None for workers on machines that are not known."""
    of: str | None
    """Whose memory that is, as ``"of this machine"``."""
    n_processes: int
    """Processes of the run that share it."""

    def sentence(self) -> str:
        """Return what the limit is, for a person."""
        if self.of_nbytes is None:
            return "the default for each worker of a cluster"
        shared = f", shared by {self.n_processes} workers" if self.n_processes > 1 else ""
        return f"the default, {SHARE * 100:g} % of the {format_bytes(self.of_nbytes)} {self.of}{shared}"


def default_limit(record: RecordSettings, *, is_remote: bool = False) -> DefaultLimit | None:
    """Return the limit of each process of a run, or None if ``record.memory_limit`` is set.

    Parameters
    ----------
    record : RecordSettings
        Its ``workers`` share this machine; those of its ``scheduler`` have machines of their own.
    is_remote : bool
        Whether a cluster of the caller's does the work.
    """
    if record.memory_limit is not None:
        return None
    if is_remote or record.scheduler is not None:
        return DefaultLimit(nbytes=CLUSTER_NBYTES, of_nbytes=None, of=None, n_processes=1)
    usable, n_processes = usable_memory(), max(1, record.workers)
    nbytes = int(SHARE * usable.nbytes / n_processes)
    return DefaultLimit(nbytes=nbytes, of_nbytes=usable.nbytes, of=usable.whose, n_processes=n_processes)
