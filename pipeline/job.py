"""A whole job, stage by stage: record, reduce, factors, normalize, report.

Each stage looks whether its results exist and were made from the same things; then it reloads them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .certifier import Certificate
from .engines import engine_for
from .events import Event, OnEvent, StageDone, ignore_event
from .factors.factors import Factors
from .factors.merged_file import merged_key
from .folder.folder import RunFolder
from .results.report import draw_report
from .results.run import open_run
from .settings.job import JobSettings
from .sources import Source
from .stages.cache import existing_cache, open_cache
from .stages.factors import make_factors
from .stages.input_factor import measured_key, with_measured_input
from .stages.normalize import normalize_network
from .stages.prepare import Prepared, prepare
from .stages.record import random_layers, record, write_manifest
from .stages.same_data import check_data, data_state, remember_data
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
    """Whether every stage found its results and nothing was computed."""


def plan_job(settings: JobSettings, *, model: Any = None, source: Source | None = None) -> Prepared:
    """Return a job, planned; nothing is run or written.

    Raises
    ------
    InputError
        As :func:`~.stages.prepare.prepare`.
    """
    folder = RunFolder(Path(settings.output))
    existing = existing_cache(settings, folder)
    return prepare(settings, model=model, source=source, existing=existing.spec if existing else None)


def run_job(
    settings: JobSettings,
    *,
    model: Any = None,
    source: Source | None = None,
    client: Any = None,
    performance_report: str | Path | None = None,
    on_event: OnEvent = ignore_event,
) -> JobResult:
    """Run a job, or the part of it that an earlier run did not finish.

    Parameters
    ----------
    settings : JobSettings
        The job.
    model : keras.Model, optional
        The network, where it is not a file. Never modified.
    source : Source, optional
        The samples, where they are not a file.
    client : distributed.Client, optional
        A Dask cluster to run on, instead of what ``record.workers`` and ``record.scheduler`` say.
    performance_report : path, optional
        HTML file for the cluster's performance report.
    on_event : callable
        Told about progress.

    Raises
    ------
    InputError, MismatchError, OverBudgetError
        Before anything is written.
    BusyError, StorageError, CertificateError
        What is finished by then is kept; run again to resume.
    """
    done: list[StageDone] = []

    def listen(event: Event) -> None:
        if isinstance(event, StageDone):
            done.append(event)
        on_event(event)

    job = plan_job(settings, model=model, source=source)
    folder = job.folder
    folder.check_claim()
    folder.manifest()  # a damaged or newer one is refused before work starts
    existing = existing_cache(settings, folder)
    state = data_state(job.source)
    if existing is not None:
        check_data(existing, job.source, folder=folder, state=state)
    if existing is None or existing.missing() or existing.spec.n_samples != job.plan.n_samples:
        if existing is not None and len(existing.missing()) < len(existing.blocks):
            check_made_with(folder, accept=settings.record.accept_versions)
        job.check_budget(done_nbytes=existing.nbytes() if existing is not None else 0)
        job = replace(job, random=random_layers(job))
    measured = None
    if settings.normalize.input_factor == "measured":
        key = measured_key(settings, job.source)
        before = folder.manifest().get("measured_input", {})
        # The key has the first sample only: the cache, which was compared, stands for the others.
        recorded = None if existing is None else merged_key(existing)
        is_known = before.get("key") == key and before.get("recorded") == recorded is not None
        known = before.get("factor") if is_known else None
        job = with_measured_input(job, known, on_event=listen)
        settings = job.settings
        measured = {"key": key, "factor": settings.normalize.input_factor}
    with engine_for(settings, client, performance_report, listen) as engine:
        n_computed, n_blocks = record(job, engine, listen)
        cache = open_cache(settings, folder)
        write_manifest(job)
        recorded = merged_key(cache)
        if measured is not None:
            folder.update_manifest({"measured_input": {**measured, "recorded": recorded}})
        remember_data(folder, state, recorded=recorded)
        factors = make_factors(
            folder, cache, settings, recorded=recorded, ties=job.ties, engine=engine, on_event=listen
        )
        certificate = None
        if settings.normalize.enabled:
            certificate = normalize_network(
                folder,
                factors,
                settings,
                model=job.model,
                fingerprint=job.fingerprint,
                source=job.source,
                recorded=recorded,
                engine=engine,
                on_event=listen,
            )
    if settings.report.enabled:
        run = open_run(folder.path, storage_options=settings.cache.storage_options)
        draw_report(run, folder.report_path, on_event=listen)
    return JobResult(
        folder=folder,
        n_blocks_computed=n_computed,
        n_blocks=n_blocks,
        factors=factors,
        certificate=certificate,
        is_reloaded=all(event.reloaded for event in done),
    )
