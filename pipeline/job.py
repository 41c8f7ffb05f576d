"""A whole job: the order of its stages. Each of them reloads its results if they were made from the same things."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..storage import Cache
from .certifier import Certificate
from .engines import engine_for
from .events import Event, OnEvent, StageDone, ignore_event
from .factors.factors_file import Factors
from .factors.merged_file import merged_key
from .folder.folder import RunFolder
from .folder.progress_file import progress_told
from .folder.timings import timed
from .results.report import draw_report
from .results.run import open_run
from .settings.job_settings import JobSettings
from .sources import Source
from .stages.factors import FactorsStage
from .stages.input_factor import remember_input_factor, with_measured_input
from .stages.normalize import NormalizeStage, check_network_kept
from .stages.prepare import Prepared, prepare
from .stages.record import random_layers, record, write_manifest
from .stages.run_cache import existing_cache
from .stages.same_data import check_data, check_data_unchanged, data_state, remember_data
from .stages.versions import check_made_with

__all__ = ["JobResult", "plan_job", "run_job"]


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """What a job did."""

    folder: RunFolder
    n_blocks_computed: int
    n_blocks: int
    factors: Factors
    certificate: Certificate | None
    is_reloaded: bool
    """Whether every stage reloaded its results, and nothing was computed."""


def plan_job(
    settings: JobSettings, *, model: Any = None, source: Source | None = None, is_remote: bool = False
) -> Prepared:
    """Plan a job; nothing is run or written. ``is_remote``: a cluster of the caller's will do the work.

    Raises
    ------
    InputError
        As :func:`~.stages.prepare.prepare`.
    """
    existing = existing_cache(settings, RunFolder(Path(settings.output)))
    return prepare(settings, model=model, source=source, existing=existing, is_remote=is_remote)


def run_job(
    settings: JobSettings,
    *,
    model: Any = None,
    source: Source | None = None,
    client: Any = None,
    performance_report: str | Path | None = None,
    on_event: OnEvent = ignore_event,
) -> JobResult:
    """Run a job, or what an earlier run left to do.

    Parameters
    ----------
    settings : JobSettings
        The job.
    model : keras.Model, optional
        The network, where it is not a file. Never modified.
    source : Source, optional
        The samples, where they are not a file.
    client : distributed.Client, optional
        A Dask cluster to run on, in place of ``record.workers`` and ``record.scheduler``.
    performance_report : path, optional
        HTML file for the cluster's performance report.
    on_event : callable
        Told about progress.

    Raises
    ------
    InputError, MismatchError, OverBudgetError
        Before anything is written. MismatchError also if samples were changed while they were recorded.
    BusyError, StorageError, CertificateError
        What is finished is kept; run again to resume.
    """
    done: list[StageDone] = []

    def listen(event: Event) -> None:
        if isinstance(event, StageDone):
            done.append(event)
        on_event(event)

    job = plan_job(settings, model=model, source=source, is_remote=client is not None)
    folder = job.folder
    folder.check_claim()
    if settings.normalize.enabled:
        check_network_kept(settings.model.path, folder.network_path)
    folder.manifest()  # a damaged or newer one is refused before work starts
    state = data_state(job.source)
    job = _checked(job, state)
    with progress_told(folder, listen) as heard, timed(folder, heard) as told:
        cache, n_computed, factors, certificate = _work(
            job, settings, state, client=client, performance_report=performance_report, on_event=told
        )
    return JobResult(
        folder=folder,
        n_blocks_computed=n_computed,
        n_blocks=len(cache.blocks),
        factors=factors,
        certificate=certificate,
        is_reloaded=all(event.reloaded for event in done),
    )


def _work(
    job: Prepared,
    settings: JobSettings,
    state: str | None,
    *,
    client: Any,
    performance_report: str | Path | None,
    on_event: OnEvent,
) -> tuple[Cache, int, Factors, Certificate | None]:
    """Go through the stages; return cache, number of computed blocks, factors and certificate."""
    folder = job.folder
    is_measured = settings.normalize.input_factor == "measured"
    if is_measured:
        if job.existing is not None:
            job.open_to_write().close()  # what is refused is refused now, and not after a pass over the samples
        job = with_measured_input(job, on_event=on_event)
        settings = job.settings
    with engine_for(settings, client, performance_report, on_event) as engine:
        cache, n_computed = record(job, engine, on_event)
        if n_computed and settings.data.path is not None:  # the state of arrays would be a hash of every byte
            check_data_unchanged(cache, job.source, state=state)
        recorded = merged_key(cache)
        write_manifest(job)
        if is_measured:
            remember_input_factor(job, recorded)
        remember_data(folder, state, recorded=recorded)
        factors = FactorsStage(
            folder=folder,
            cache=cache,
            settings=settings,
            recorded=recorded,
            ties=job.ties,
            engine=engine,
            on_event=on_event,
        ).reload_or_compute()
        certificate = None
        if settings.normalize.enabled:
            certificate = NormalizeStage(
                folder=folder,
                job=job,
                factors=factors,
                recorded=recorded,
                cache=cache,
                engine=engine,
                on_event=on_event,
            ).reload_or_compute()
    if settings.report.enabled:
        run = open_run(folder.path, storage_options=settings.cache.storage_options, cache=cache)
        draw_report(run, folder.report_path, on_event=on_event)
    return cache, n_computed, factors, certificate


def _checked(job: Prepared, state: str | None) -> Prepared:
    """Refuse, before anything is written, a job that cannot work; ``state`` is the state of its samples.

    Limits, versions and random layers are checked only if there is something to compute.
    """
    cache = job.existing
    if cache is not None:
        check_data(cache, job.source, folder=job.folder, state=state)
        if job.is_recorded:
            return job
        if len(cache.missing()) < len(cache.blocks):
            check_made_with(job.folder, accept=job.settings.record.accept_versions)
    job.check_budget()
    return replace(job, random=random_layers(job))
