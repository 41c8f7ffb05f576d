"""A whole job, stage by stage: record, reduce, factors, normalize, report.

Each stage looks whether its results exist and were made from the same things; then it reloads them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..storage import Block, Cache
from ..storage.errors import InputError
from ..storage.options import StorageOptions
from .answers import existing_cache, factors_of, open_cache
from .describing import describe_data
from .events import BlockDone, Event, OnEvent, Remark, StageDone, StageStarted, counted, ignore_event
from .factors import Factors
from .folder import RunFolder, write_json
from .graph import toolbox_names
from .measuring import measured_key, with_measured_input
from .merged import load_merged, merged_key, save_merged
from .normalizer import Certificate
from .normalizing import check_factors, normalize_network, rewriting_of, used_factors
from .preparation import Prepared, prepare, sketch_spec
from .recorder import record_block, record_missing, recording_threads
from .reduce import merged_sketches, statistics
from .reporting import draw_report
from .results import Run, open_run
from .settings import JobSettings, validate_job
from .sizes import format_bytes
from .sources import Source
from .stages import factors_key
from .staleness import check_data, check_data_of_damaged, data_state, remember_data
from .ties import Ties
from .trust import trusted_by_caller
from .versions import check_made_with, noted_versions
from .weights import save_weights_h5, with_weights_of

if TYPE_CHECKING:
    from .cluster.engine import ClusterEngine

__all__ = ["JobResult", "normalize_run", "plan_job", "repair_run", "run_job"]

logger = logging.getLogger(__name__)


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
        As :func:`~.preparation.prepare`.
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
        job = replace(job, random=_random_layers(job))
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
    with _engine(settings, client, performance_report, listen) as engine:
        n_computed, n_blocks = _record(job, listen, engine)
        cache = open_cache(settings, folder)
        _write_manifest(job)
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


def _random_layers(job: Prepared) -> tuple[str, ...]:
    """Return the layers that are random at inference.

    Raises
    ------
    InputError
        If they are not allowed, or the network would have to be certified.
    """
    random = job.producer.check()
    if random and job.settings.normalize.enabled:
        raise InputError(
            f"a network that is random at inference ({', '.join(map(repr, random[:5]))}) cannot be certified, because "
            "it differs from itself: stop at the factors with normalize.enabled = false (--no-normalize)",
            layers=random,
        )
    return random


def _tell_of_data(job: Prepared, on_event: OnEvent) -> None:
    found = describe_data(job)
    on_event(Remark(topic="data", message=found.sentence()))
    for warning in found.warnings:
        logger.warning("%s", warning)


def _engine(
    settings: JobSettings, client: Any, performance_report: str | Path | None, on_event: OnEvent
) -> AbstractContextManager[ClusterEngine | None]:
    """Return what runs the stages on a cluster; in process by default, and then Dask is not imported."""
    if client is None and not settings.record.workers and settings.record.scheduler is None:
        if performance_report is not None:
            raise InputError("a performance report is of a cluster: set record.workers or record.scheduler")
        return nullcontext()
    from .cluster.engine import ClusterEngine

    return ClusterEngine(settings, client=client, performance_report=performance_report, on_event=on_event)


def _record(job: Prepared, on_event: OnEvent, engine: ClusterEngine | None) -> tuple[int, int]:
    """Record what is missing; return the numbers of blocks computed and in all."""
    settings = job.settings
    with Cache.create_or_resume(
        job.cache_url, job.spec, storage_options=settings.cache.storage_options
    ) as cache:
        job.folder.clean()
        _tell_of_data(job, on_event)
        missing, n_blocks, n_total = cache.missing(), len(cache.blocks), cache.spec.n_samples
        n_missing, n_done = len(missing), n_total - sum(block.n_samples for block in missing)
        on_event(StageStarted(stage="record", n_total=n_total, n_done=n_done, unit="samples"))
        if n_missing:
            # Before the first block, so that a run that is interrupted is known for one.
            _write_manifest(job, noted_versions(job.folder, is_new=n_missing == n_blocks))
        if engine is not None:
            n_computed = engine.record(job, cache, on_event)
        else:
            n_computed = record_missing(
                cache,
                job.producer,
                sketch=sketch_spec(settings),
                slab=job.plan.slab_samples,
                on_event=on_event,
            )
        nbytes = cache.nbytes()
    reloaded = n_computed == 0
    what = (
        "nothing to compute: reloaded" if reloaded else f"computed {counted(n_computed, 'block')}, reloaded"
    )
    message = f"{what} {n_blocks - n_computed} of {counted(n_blocks, 'block')}; the cache holds {format_bytes(nbytes)}"
    logger.info("record: %s", message)
    on_event(StageDone(stage="record", message=message, reloaded=reloaded))
    return n_computed, n_blocks


def _write_manifest(job: Prepared, versions: Mapping[str, Any] | None = None) -> None:
    """Note what the run is; ``versions`` where something will be computed with those that are here."""
    if versions is None and "versions" not in job.folder.manifest():
        versions = noted_versions(job.folder)
    job.folder.update_manifest(
        {
            "settings": job.settings.model_dump(mode="json"),
            "withheld": sorted(StorageOptions(job.settings.cache.storage_options).secrets()),
            "model": {"name": job.model.name, "fingerprint": dict(job.fingerprint)},
            "n_samples": job.plan.n_samples,
            "ties": job.ties.to_dict(),
            "toolbox": toolbox_names(job.graph, job.points),
            **(versions or {}),
            **({"random_layers": list(job.random)} if job.random else {}),
        }
    )


def make_factors(
    folder: RunFolder,
    cache: Cache,
    settings: JobSettings,
    *,
    recorded: str,
    ties: Ties | None = None,
    engine: ClusterEngine | None = None,
    on_event: OnEvent = ignore_event,
) -> Factors:
    """Reduce the sketches, write ``statistics.json`` and ``factors.json``; reload them where nothing changed.

    ``recorded`` names what is in the cache: :func:`~.merged.merged_key`.
    """
    key = factors_key(recorded, settings, ties or Ties())
    if folder.is_made_from("factors", key, folder.factors_path, folder.statistics_path):
        is_kept = load_merged(folder.merged_path, recorded, [p.name for p in cache.spec.points]) is not None
        if not is_kept:
            save_merged(folder.merged_path, recorded, merged_sketches(cache))
        message = "reloaded statistics and factors" + ("" if is_kept else ", merged the sketches again")
        on_event(StageDone(stage="factors", message=message, reloaded=is_kept))
        return Factors.load(folder.factors_path)
    on_event(StageStarted(stage="factors"))
    sketches = merged_sketches(cache) if engine is None else engine.merged_sketches(cache)
    save_merged(folder.merged_path, recorded, sketches)
    shapes = {point.name: point.shape for point in cache.spec.points}
    exact = None if engine is None else engine.exact(cache, sketches)
    factors = factors_of(cache, sketches, settings, ties=ties, exact=exact)
    folder.forget("factors")
    write_json(folder.statistics_path, {"points": statistics(sketches, shapes)})
    write_json(folder.factors_path, factors.to_dict())
    folder.mark_made("factors", key, folder.factors_path, folder.statistics_path)
    on_event(StageDone(stage="factors", message=f"factors of {counted(len(factors.points), 'point')}"))
    _warn_of_small(factors, settings.factors.floor)
    return factors


def _warn_of_small(factors: Factors, floor: float) -> None:
    """Say which points are taken for dead although they are not zero everywhere."""
    small = [
        f"{p.name!r} ({p.value:.3g})" for p in factors.points if p.rule == "dead" and p.value and p.value > 0
    ]
    if small:
        logger.warning(
            "below factors.floor = %g, so taken for dead and left at the factor 1: %s; lower the floor if they are not",
            floor,
            ", ".join(small),
        )


def normalize_run(
    run: Run,
    *,
    factors_path: Path | None = None,
    output: Path | None = None,
    model_path: str | None = None,
    data_path: str | None = None,
    workers: int = 0,
    scheduler: str | None = None,
    client: Any = None,
    custom_objects: str | Path | None = None,
    safe_mode: bool = True,
    weights_h5: Path | None = None,
    accept_versions: bool = False,
    on_event: OnEvent = ignore_event,
) -> Certificate:
    """Rewrite and certify the network of a run that is recorded, with its own or with other factors.

    Parameters
    ----------
    run : Run
        All of its blocks recorded.
    factors_path : path, optional
        A factors file; default: the run's own factors.
    output : path, optional
        Folder for the network, the certificate and the factors; default: the run's own, which hold what belongs to
        the run's own factors. Needed with other factors.
    model_path, data_path : str, optional
        Where the network and the samples are now; default: where they were.
    workers, scheduler, client
        A Dask cluster for the certificate, as in :func:`run_job`; default: this process, whatever recorded the run.
    custom_objects, safe_mode
        As in the job's ``[model]``. They are never taken from the run's folder, which may come from anybody.
    weights_h5 : path, optional
        Also write the weights to this ``.h5`` file, for the ``model.json`` that Keras 2 has of the network.
    accept_versions : bool
        Go on with another TensorFlow or Keras than the run was made with.

    Raises
    ------
    InputError, MismatchError, CertificateError
        The run's results are untouched by the first two.
    """
    factors = run.saved_factors() if factors_path is None else Factors.load(factors_path)
    if factors_path is not None and output is None:
        raise InputError("other factors than the run's own need a folder of their own: give output")
    cluster: dict[str, Any] = {"workers": workers, "scheduler": scheduler}
    trusted = trusted_by_caller(run, custom_objects=custom_objects, safe_mode=safe_mode)
    check_made_with(run.folder, accept=accept_versions)
    cluster |= {"accept_versions": accept_versions}
    job = _prepare_again(
        run, trusted, model_path=model_path, data_path=data_path, cluster=cluster, normalizes=True
    )
    check_data(run.cache, job.source, folder=run.folder, state=data_state(job.source))
    folder = run.folder if output is None else RunFolder(output)
    check_factors(factors, job.fingerprint, job.settings)
    recorded = merged_key(run.cache)
    if factors_path is not None:
        factors = used_factors(factors, job.graph, job.settings)
    elif run.ties != job.ties:
        # An earlier program left them untied until the network was normalised.
        run.folder.update_manifest({"ties": job.ties.to_dict()})
        factors = make_factors(
            run.folder, run.cache, job.settings, recorded=recorded, ties=job.ties, on_event=on_event
        )
    weights = None
    if weights_h5 is not None:
        weights = with_weights_of(rewriting_of(factors, job.settings).rewrite(job.model), job.model)
    if output is not None:
        folder.check_side_results()
        write_json(folder.factors_path, factors.to_dict())
    with _engine(job.settings, client, None, on_event) as engine:
        certificate = normalize_network(
            folder,
            factors,
            job.settings,
            model=job.model,
            fingerprint=job.fingerprint,
            source=job.source,
            recorded=recorded,
            remember=output is None,
            engine=engine,
            on_event=on_event,
        )
    if weights_h5 is not None:
        save_weights_h5(weights, weights_h5)
    return certificate


def repair_run(
    run: Run,
    *,
    custom_objects: str | Path | None = None,
    safe_mode: bool = True,
    accept_versions: bool = False,
    on_event: OnEvent = ignore_event,
) -> int:
    """Compute the damaged blocks of a run again; return how many. Blocks that are missing are left to :func:`run_job`.

    ``custom_objects``, ``safe_mode`` and ``accept_versions`` are those of :func:`normalize_run`.

    Raises
    ------
    InputError, MismatchError
        If the model or the data is not there any more, or is another one: nothing is changed then.
    """
    trusted = trusted_by_caller(run, custom_objects=custom_objects, safe_mode=safe_mode)
    check_made_with(run.folder, accept=accept_versions)
    report = run.cache.verify()
    # The samples of the cache: data that grew since is no reason to extend it now.
    job = _prepare_again(run, trusted, model_path=None, data_path=None, n_samples=run.cache.spec.n_samples)
    # Blocks of other samples beside those that are kept would be a mixture that nothing shows any more.
    check_data_of_damaged(run.cache, job.source)
    options = run.settings.cache.storage_options
    with Cache.create_or_resume(job.cache_url, job.spec, storage_options=options) as cache:
        job.folder.clean()
        damaged = cache.repair(report)
        if damaged:
            run.folder.update_manifest(noted_versions(run.folder))
        n_samples = sum(block.n_samples for block in damaged)
        on_event(StageStarted(stage="record", n_total=n_samples, unit="samples"))
        _record_again(cache, damaged, job, on_event)
        n_missing = len(cache.missing())
    if n_missing:
        message = f"{counted(n_missing, 'block')} of {len(cache.blocks)} not recorded yet: run the job again"
        on_event(StageDone(stage="record", message=message))
    return len(damaged)


def _record_again(cache: Cache, blocks: Sequence[Block], job: Prepared, on_event: OnEvent) -> None:
    sample_nbytes = 4 * sum(math.prod(point.shape) for point in job.producer.points)
    with recording_threads() as pool:
        for block in blocks:
            record_block(
                cache,
                job.producer,
                block,
                sketch=sketch_spec(job.settings),
                slab=job.plan.slab_samples,
                pool=pool,
            )
            nbytes = block.n_samples * sample_nbytes
            on_event(BlockDone(block=block.index, n_samples=block.n_samples, nbytes=nbytes))


def _prepare_again(
    run: Run,
    trusted: Mapping[str, Any],
    *,
    model_path: str | None,
    data_path: str | None,
    n_samples: int | None = None,
    cluster: Mapping[str, Any] | None = None,
    normalizes: bool = False,
) -> Prepared:
    """Open the network and the samples of a run again; ``trusted`` is what may run code to do so.

    ``normalizes`` refuses a network that cannot be normalised, even where the job did not ask for it.
    """
    tree = run.settings.model_dump()
    tree["normalize"]["enabled"] |= normalizes
    tree["model"] |= trusted
    tree["record"].update(cluster or {})
    if n_samples is not None:
        tree["data"]["num_samples"] = n_samples
    if model_path is not None:
        tree["model"]["path"] = str(Path(model_path).absolute())
    if data_path is not None:
        tree["data"]["path"] = data_path if "://" in data_path else str(Path(data_path).absolute())
    return prepare(validate_job(tree), existing=run.cache.spec)
