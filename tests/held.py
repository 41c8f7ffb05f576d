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
    is_held = threading.Lock()
    signalled, arriving = os.pipe()

    def tell_and_wait(progress: JobProgress, event: Event) -> None:
        global n_done
        tell(progress, event)
        n_done += isinstance(event, BlockDone)
        if n_done < n_blocks:
            return
        if is_held.acquire(blocking=False):
            os.write(1, b"held\n")
        # The main thread is left by what the signal raises in it. It waits for the others, which then go on.
        while threading.current_thread() is threading.main_thread():
            time.sleep(0.1)
        os.write(arriving, os.read(signalled, 1))

    # Tests that a shell runs in the background inherit that Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.set_blocking(arriving, False)
    signal.set_wakeup_fd(arriving)
    JobProgress.__call__ = tell_and_wait  # type: ignore[method-assign]
    main()
