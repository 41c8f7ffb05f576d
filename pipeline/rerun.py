"""Work on an existing run: normalise it again, and compute damaged blocks again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ..storage import Block, Cache, sample_nbytes
from ..storage.errors import InputError
from ..storage.partial import discard
from .certifier import Certificate
from .engines import engine_for
from .events import BlockDone, OnEvent, StageDone, StageStarted, counted, ignore_event
from .factors.factors_file import Factors
from .factors.merged_file import merged_key
from .folder.folder import RunFolder, check_output, write_json
from .folder.timings import timed
from .record.point_sketch import sketch_spec
from .record.recorder import record_block, writing_threads
from .results.run import Run
from .settings.loading import given_files, validate_job
from .stages.factors import FactorsStage
from .stages.normalize import (
    NormalizeStage,
    check_factors,
    check_network_kept,
    rewriting_of,
    used_factors,
)
from .stages.prepare import Prepared, prepare
from .stages.same_data import check_data, check_data_of_damaged, data_state
from .stages.trust import trusted_by_caller
from .stages.versions import check_made_with, noted_versions
from .stages.weights_h5 import save_weights_h5, with_weights_of

__all__ = ["normalize_run", "repair_run"]


def normalize_run(
    run: Run,
    *,
    factors: Factors | None = None,
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
    """Rewrite and certify the network of a recorded run, with its own factors or others.

    Parameters
    ----------
    run : Run
        All of its blocks must be recorded.
    factors : Factors, optional
        As `Run.factors` gives them; default: the run's own.
    factors_path : path, optional
        A factors file, in their place.
    output : path, optional
        Folder for the network, the certificate and the factors; default: the run's own folder. Required with other
        factors, because the run's own folder holds only what follows from its own.
    model_path, data_path : str, optional
        Where the network and the samples are now; default: where they were.
    workers, scheduler, client
        A Dask cluster for the certificate, as in a job; default: this process, even if a cluster recorded the run.
    custom_objects, safe_mode
        As in the job's ``[model]``. Never taken from the run's folder, which may come from anybody.
    weights_h5 : path, optional
        Also write the weights to this ``.h5`` file, for use with the network's ``model.json`` in Keras 2.
    accept_versions : bool
        Continue with another TensorFlow or Keras than the run was made with.

    Raises
    ------
    InputError, MismatchError, CertificateError
        The first two leave the run's results as they are.
    """
    is_own = factors is None and factors_path is None
    if factors_path is not None:
        factors = Factors.load(factors_path)
    elif factors is None:
        factors = run.written_factors()
    if not is_own and output is None:
        raise InputError("other factors than the run's own need a folder of their own: give output")
    model = trusted_by_caller(
        run.asked_model, run.folder.manifest_path, custom_objects=custom_objects, safe_mode=safe_mode
    )
    check_made_with(run.folder, accept=accept_versions)
    if model_path is not None:
        model["path"] = str(Path(model_path).absolute())
    data = {}
    if data_path is not None:
        data["path"] = data_path if "://" in data_path else str(Path(data_path).absolute())
    record = {"workers": workers, "scheduler": scheduler, "accept_versions": accept_versions}
    # A network that cannot be normalised is refused here, even if the job did not normalise it.
    normalize = {"enabled": True}
    try:
        job = _prepare_again(run, {"model": model, "data": data, "record": record, "normalize": normalize})
    except InputError as error:
        raise _with_the_job_file(error) from None
    check_data(run.cache, job.source, folder=run.folder, state=data_state(job.source))
    if weights_h5 is not None:
        check_output(weights_h5, given=given_files(job.settings))
    folder = run.folder if output is None else RunFolder(output)
    check_network_kept(job.settings.model.path, folder.network_path)
    check_factors(factors, job.fingerprint, job.settings)
    recorded = merged_key(run.cache)
    if not is_own:
        factors = used_factors(factors, job.graph, job.settings)
    elif run.ties != job.ties:
        # An earlier program tied factors only when the network was normalised.
        run.folder.update_manifest({"ties": job.ties.to_dict()})
        factors = FactorsStage(
            folder=run.folder,
            cache=run.cache,
            settings=job.settings,
            recorded=recorded,
            ties=job.ties,
            on_event=on_event,
        ).reload_or_compute()
    weights = None
    if weights_h5 is not None:
        weights = with_weights_of(
            rewriting_of(factors, job.graph, job.settings).rewrite(job.model), job.model
        )
    if output is not None:
        folder.check_side_results()
        # So that an interrupted run leaves no certificate of other factors beside these.
        discard(folder.certificate_path)
        write_json(folder.factors_path, factors.to_dict())
    # Results that go elsewhere are no part of the run.
    clock = timed(folder, on_event) if output is None else nullcontext(on_event)
    with clock as told, engine_for(job.settings, client, None, told) as engine:
        certificate = NormalizeStage(
            folder=folder,
            is_own=output is None,
            job=job,
            factors=factors,
            recorded=recorded,
            cache=run.cache,
            engine=engine,
            on_event=told,
        ).reload_or_compute()
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
    """Compute the damaged blocks of a run again; return how many. Missing blocks are left to the job.

    ``custom_objects``, ``safe_mode`` and ``accept_versions`` are those of :func:`normalize_run`.

    Raises
    ------
    InputError, MismatchError
        If the model or the data is missing, or has changed. Nothing is changed then.
    """
    trusted = trusted_by_caller(
        run.asked_model, run.folder.manifest_path, custom_objects=custom_objects, safe_mode=safe_mode
    )
    check_made_with(run.folder, accept=accept_versions)
    report = run.cache.verify()
    # Only the samples of the cache: if the data has grown since, a repair does not extend the cache.
    data = {"num_samples": run.cache.spec.n_samples}
    job = _prepare_again(run, {"model": trusted, "data": data})
    # A cache that mixes blocks of old and new samples could not be told from a sound one.
    check_data_of_damaged(run.cache, job.source)
    with job.open_to_write() as cache:
        job.folder.clean()
        damaged = cache.repair(report)
        if damaged:
            run.folder.update_manifest(noted_versions(run.folder))
        n_samples = sum(block.n_samples for block in damaged)
        on_event(StageStarted(stage="record", n_total=n_samples, unit="samples"))
        _record_again(cache, damaged, job, on_event)
        n_missing = len(cache.missing())
    if n_missing:
        message = (
            f"{counted(n_missing, 'block')} of {len(cache.blocks):,} not recorded yet: run the job again"
        )
        on_event(StageDone(stage="record", message=message))
    return len(damaged)


def _with_the_job_file(error: InputError) -> InputError:
    """Return the error for layers without a rule with where to set what it advises: here there is no such option."""
    if not {"pin", "refusal"} & error.facts.keys():
        return error
    text = f"{error}\nset it in the job file and run the job again: `actisketch run` goes on with the recorded blocks"
    return InputError(text, **error.facts)


def _record_again(cache: Cache, blocks: Sequence[Block], job: Prepared, on_event: OnEvent) -> None:
    with writing_threads(cache.spec) as writing:
        for block in blocks:
            record_block(cache, job.producer, block, sketch=sketch_spec(job.settings), writing=writing)
            nbytes = block.n_samples * sample_nbytes(job.producer.points)
            on_event(BlockDone(block=block.index, n_samples=block.n_samples, nbytes=nbytes))


def _prepare_again(run: Run, changes: Mapping[str, Mapping[str, Any]]) -> Prepared:
    """Open the network and the samples of a run again, with changes to its settings, table by table."""
    tree = run.settings.model_dump()
    for table, values in changes.items():
        tree[table] |= values
    return prepare(validate_job(tree), existing=run.cache)
