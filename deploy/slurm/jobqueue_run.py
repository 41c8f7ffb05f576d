"""Run a job on workers that are SLURM jobs of their own, as many as the queue grants, with dask-jobqueue.

    pip install dask-jobqueue
    python deploy/slurm/jobqueue_run.py job.toml --jobs 20 --cores 8 --memory 16GB

Run it on a login node, or in a small job of its own. Workers join when their jobs start and get work at once. A lost
worker is replaced, which `adapt` does and `scale` does not. After an interrupt, run it again to resume.
"""

from __future__ import annotations

import argparse
from typing import Any


def make_cluster(options: argparse.Namespace) -> Any:
    """Return a cluster whose workers are SLURM jobs; none is submitted yet."""
    from dask_jobqueue import SLURMCluster

    return SLURMCluster(
        # One process per job, so that TensorFlow has all its cores.
        cores=options.cores,
        processes=1,
        memory=options.memory,
        walltime=options.walltime,
        queue=options.partition,
        interface=options.interface,
        # The run limits its own memory (record.memory_limit), SLURM that of the job.
        worker_extra_args=["--memory-limit", "0", "--no-dashboard"],
        job_script_prologue=options.prologue,
        scheduler_options={"dashboard_address": ":0"},
        log_directory=options.logs,
    )


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("job", help="job file, with paths that every node can read")
    parser.add_argument("--jobs", type=int, default=4, help="largest number of SLURM jobs at a time")
    parser.add_argument(
        "--cores", type=int, default=4, help="cores of each job, which are its TensorFlow threads"
    )
    parser.add_argument("--memory", default="8GB", help="memory of each job")
    parser.add_argument("--walltime", default="04:00:00", help="time limit of each job")
    parser.add_argument("--partition", help="partition of the jobs")
    parser.add_argument("--interface", help="network interface that connects the nodes, such as ib0")
    parser.add_argument("--logs", default="dask-logs", help="folder of the workers' logs")
    parser.add_argument(
        "--prologue", action="append", default=[], help="shell line to run before the worker starts"
    )
    return parser.parse_args(arguments)


def main() -> None:
    """Run the job."""
    from distributed import Client

    from actisketch.pipeline.job import run_job
    from actisketch.pipeline.settings.loading import load_job

    options = parse()
    with make_cluster(options) as cluster, Client(cluster) as client:
        cluster.adapt(minimum_jobs=1, maximum_jobs=options.jobs)
        result = run_job(load_job(options.job), client=client)
    print(f"{result.n_blocks_computed} of {result.n_blocks} blocks computed; results in {result.folder.path}")


if __name__ == "__main__":
    main()
