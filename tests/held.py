"""The command line, held after it has told of so many blocks: a signal finds it there, on any machine.

Usage: python held.py N_BLOCKS ARGUMENTS. Says "held" on standard output and waits; the fixture `start_held` runs it.
"""

import os
import signal
import sys
import threading
import time

from actisketch.pipeline.cli import main
from actisketch.pipeline.display.job_progress import JobProgress
from actisketch.pipeline.events import BlockDone, Event

if __name__ == "__main__":  # worker processes import this file too
    n_blocks, n_done, tell = int(sys.argv.pop(1)), 0, JobProgress.__call__

    def tell_and_wait(progress: JobProgress, event: Event) -> None:
        global n_done
        tell(progress, event)
        n_done += isinstance(event, BlockDone)
        # Signals reach the main thread only; blocks are also told of by the one that writes.
        if n_done >= n_blocks and threading.current_thread() is threading.main_thread():
            os.write(1, b"held\n")
            while True:
                time.sleep(0.1)

    # Tests that a shell runs in the background inherit that Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    JobProgress.__call__ = tell_and_wait  # type: ignore[method-assign]
    main()
