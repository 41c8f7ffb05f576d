"""The service over a folder, whose jobs are those of `made_job.py`: python serve_jobs.py ROOT [auto]."""

from __future__ import annotations

import sys
from pathlib import Path

from actisketch.pipeline.service.access import Access
from actisketch.pipeline.service.application import ServiceSettings
from actisketch.pipeline.service.jobs import job_queue
from actisketch.pipeline.service.jobs.job_places import Permissions
from actisketch.pipeline.service.run_root import RunRoot
from actisketch.pipeline.service.server import Listening, serve_runs

if __name__ == "__main__":
    # As the product's, but sooner.
    job_queue.INTERVAL_S = 0.02
    job_queue.SIGNALS = tuple((number, after_s / 30) for number, after_s in job_queue.SIGNALS)
    root = RunRoot.of(sys.argv[1])
    jobs = job_queue.JobQueue(
        root,
        Permissions(),
        auto_resume="auto" in sys.argv,
        command=(sys.executable, str(Path(__file__).with_name("made_job.py"))),
    )
    access = Access(jobs_tokens=["a-token-that-may-act"])
    serve_runs(
        root,
        access,
        Listening(port=0),
        settings=ServiceSettings(fresh_s=0.0),
        jobs=jobs,
        announce=lambda address: print(address, flush=True),
    )
