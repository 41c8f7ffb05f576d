"""Record a run block by block until the time is over: python record_slowly.py FOLDER SECONDS."""

import sys
import time
from pathlib import Path

from made_runs import MadeRun

if __name__ == "__main__":
    until_s = time.monotonic() + float(sys.argv[2])
    made = MadeRun(Path(sys.argv[1]), n_samples=6 * 10_000).begin()
    while time.monotonic() < until_s:
        made.record(1)
        time.sleep(0.1)
