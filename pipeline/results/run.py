"""A run that exists, asked without its model and its data: percentiles, factors, activations, exports."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any

from ...storage import Cache
from ...storage.errors import FormatError, InputError
from ...storage.options import StorageOptions
from ..certifier import Certificate
from ..factors.factors import Factors
from ..factors.from_cache import factors_of
from ..factors.merge import ExactSource, check_complete, merged_sketches, statistics, unknown_point
from ..factors.merged_file import load_merged, merged_key
from ..factors.ties import Ties
from ..folder.folder import RunFolder, open_folder
from ..folder.json_file import read_document
from ..settings.job import JobSettings, ModelSettings
from ..settings.loading import validate_job
from ..sketch import Percentile, PointSketch
from ..stages.cache import open_cache
from ..stages.keys import factors_key, normalize_key, report_key
from .activation_array import Activations
from .export import export_text, is_normalised

__all__ = ["PercentileRow", "Run", "RunStatus", "open_run"]

logger = logging.getLogger(__name__)

ALREADY_NORMALISED = (
    "all factors are about 1: was this network normalised before? SNN toolbox overwrites its parsed network with the "
    "normalised one: parse with [tools] normalize = False, and record that network"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PercentileRow:
    """One percentile of one point, or of one channel of it."""

    point: str
    q: float
    """In percent, 0 to 100."""
    value: float
    lo: float
    hi: float
    """The exact order statistics lie within [lo, hi]; lo = hi = value when exact."""
    exact: bool
    channel: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """How far a run is."""

    output: str
    n_blocks: int
    n_blocks_done: int
    n_samples: int
    n_points: int
    cache: str
    cache_nbytes: int
    has_factors: bool
    """Whether they are there, whole, and of the run's settings and samples; so are network and report."""
    has_network: bool
    certificate_passed: bool | None
    """None when there is no certificate of what lies there now."""
    has_report: bool
    out_of_date: tuple[str, ...]
    """Which of "factors", "certificate", "network" and "report" lie there, but are of other settings or samples, or
    changed since: running the job again replaces them."""

    wants_network: bool
    wants_report: bool
    random_layers: tuple[str, ...] = ()
    """Layers that are random at inference: what was recorded is one draw of the network."""

    @property
    def is_recorded(self) -> bool:
        """Whether every block is recorded."""
        return self.n_blocks_done == self.n_blocks

    @property
    def is_complete(self) -> bool:
        """Whether everything that the job asked for is there."""
        network = self.has_network or not self.wants_network
        return (
            self.is_recorded and self.has_factors and network and (self.has_report or not self.wants_report)
        )


class Run:
    """The results of a run.

    Made by :func:`open_run`, or returned by :func:`~..api.run`. Nothing here needs TensorFlow, except
    what says so.

    Attributes
    ----------
    settings : JobSettings
        Those of the run, but for what would run code (``model.custom_objects``, ``model.safe_mode = false``): a folder
        may come from anybody, and opts in to nothing.
    asked_model : ModelSettings
        The model's table as the folder has it, to be told to the user.
    """

    def __init__(self, folder: RunFolder, settings: JobSettings) -> None:
        self.folder = folder
        self.asked_model: ModelSettings = settings.model
        self.settings = settings.model_copy(update={"model": settings.model.without_code()})

    def __repr__(self) -> str:
        return (
            f"<Run {str(self.folder.path)!r}: {len(self.points)} points, {self.cache.spec.n_samples} samples>"
        )

    @cached_property
    def cache(self) -> Cache:
        """The Zarr cache, open for reading."""
        return open_cache(self.settings, self.folder)

    @cached_property
    def sketches(self) -> dict[str, PointSketch]:
        """The merged sketch of each point.

        Raises
        ------
        IncompleteError
            If blocks are missing.
        """
        check_complete(self.cache)
        kept = load_merged(self.folder.merged_path, merged_key(self.cache), self.points)
        return merged_sketches(self.cache) if kept is None else kept

    @property
    def points(self) -> tuple[str, ...]:
        """Names of the recorded points, in model order."""
        return tuple(point.name for point in self.cache.spec.points)

    @property
    def ties(self) -> Ties:
        """Which points share a scale."""
        return Ties.from_dict(self.folder.manifest().get("ties", {}))

    def statistics(self) -> dict[str, dict[str, Any]]:
        """Return shape, counts, extremes, mean and standard deviation of each point."""
        return statistics(self.sketches, {p.name: p.shape for p in self.cache.spec.points})

    def percentile(self, point: str, q: float, *, nonzero: bool = True, exact: bool = False) -> PercentileRow:
        """Return one percentile of one point.

        Parameters
        ----------
        point : str
            Name of a recorded point.
        q : float
            In percent, 0 to 100.
        nonzero : bool
            Over the activations that are not zero, as SNN toolbox; ``False``: over all.
        exact : bool
            Refine to the exact percentile by one pass over the cached activations; then equal to
            ``np.percentile(activations, q, method="linear")`` bit for bit.

        Raises
        ------
        InputError
            For an unknown point, a q outside [0, 100], or ``exact`` without recorded activations.

        Examples
        --------
        >>> open_run("digits").percentile("conv1", 99.9).value  # doctest: +SKIP
        1.9742
        """
        return self.percentiles([q], points=[point], nonzero=nonzero, exact=exact)[0]

    def percentiles(
        self,
        qs: Sequence[float],
        *,
        points: Iterable[str] | None = None,
        nonzero: bool = True,
        exact: bool = False,
        per_channel: bool = False,
        accept_rounding: bool = False,
    ) -> list[PercentileRow]:
        """Return percentiles, point by point; see :meth:`percentile`. ``per_channel`` gives one for each channel.

        NaN where there are no values, as over the activations that are not zero of a layer that is dead.
        """
        for q in qs:
            _check_percent(q)
        chosen = self._chosen(points)
        source = ExactSource(self.cache, self.sketches, accept_rounding) if exact else None
        if per_channel:
            return [row for name in chosen for row in self._channel_rows(name, qs, nonzero, source)]
        rows = []
        for name in chosen:
            layer = self.sketches[name].layer
            is_empty = layer.n == (layer.n_zeros if nonzero else 0)
            if source is not None and not is_empty:
                values = source.percentiles(name, qs, nonzero=nonzero)
                rows += [
                    _row(name, q, Percentile(v, v, v), exact=True) for q, v in zip(qs, values, strict=True)
                ]
            else:
                exact_rows = source is not None
                rows += [_row(name, q, layer.percentile(q, nonzero=nonzero), exact=exact_rows) for q in qs]
        return rows

    def _channel_rows(
        self, name: str, qs: Sequence[float], nonzero: bool, source: ExactSource | None
    ) -> list[PercentileRow]:
        channels = self.sketches[name].channels
        if channels is None:
            raise InputError(
                "this run has no sketch per channel: record with sketch.per_channel = true", point=name
            )
        if source is not None:
            exact = source.channel_percentiles(name, qs, nonzero=nonzero)
            answers = [(values, values, values) for values in exact]
        else:
            answers = [channels.percentile(q, nonzero=nonzero) for q in qs]
        return [
            PercentileRow(point=name, channel=i, q=q, value=value, lo=lo, hi=hi, exact=source is not None)
            for q, columns in zip(qs, answers, strict=True)
            for i, (value, lo, hi) in enumerate(zip(*(column.tolist() for column in columns), strict=True))
        ]

    def _chosen(self, points: Iterable[str] | None) -> list[str]:
        names = self.points
        chosen = list(names) if points is None else list(points)
        for name in chosen:
            if name not in names:
                raise InputError(unknown_point(name, names), point=name)
        return chosen

    def factors(self, *, accept_rounding: bool = False, **changes: Any) -> Factors:
        """Return the scale factors, for the run's settings or others: no model, no data.

        Parameters
        ----------
        accept_rounding : bool
            With ``exact=True``: answer from float16 storage too.
        **changes
            Keys of the table ``[factors]``: ``percentile``, ``nonzero``, ``schedule``, ``exact``,
            ``per_channel``, ``floor``, ``overrides``.

        Raises
        ------
        InputError
            For an unknown key or an impossible value.
        """
        settings = self.with_factors({"accept_rounding": True, **changes} if accept_rounding else changes)
        if changes.keys() & {"percentile", "overrides"}:
            for warning in settings.factors.warnings():
                logger.warning("%s", warning)
        return factors_of(
            self.cache, self.sketches, settings, ties=self.ties, accept_rounding=accept_rounding
        )

    def saved_factors(self) -> Factors:
        """Return the factors that the run wrote.

        Raises
        ------
        InputError
            If it has not come that far.
        """
        path = self.folder.factors_path
        if not path.exists():
            raise InputError(f"{str(self.folder.path)!r} has no factors yet: run the job again to resume")
        if self.are_factors_current:
            factors = Factors.load(path)
            if {p.name for p in factors.points} == set(self.points):
                return factors
        if self.folder.made_from("factors") == self._factors_key:
            raise FormatError(
                f"{str(path)!r} or {self.folder.statistics_path.name!r} beside it is damaged or was changed: run the "
                "job again, which makes them anew from the cache",
                path=str(path),
            )
        raise InputError(
            f"{str(path)!r} is out of date, of other settings or samples than the run's or of an earlier program: run "
            "the job again, which makes it anew from the cache",
            path=str(path),
        )

    @property
    def are_factors_current(self) -> bool:
        """Whether the factors that lie in the folder are whole, and of the run's settings and samples."""
        folder = self.folder
        return folder.is_made_from("factors", self._factors_key, folder.factors_path, folder.statistics_path)

    @cached_property
    def _recorded(self) -> str:
        return merged_key(self.cache)

    @property
    def _factors_key(self) -> str:
        return factors_key(self._recorded, self.settings, self.ties)

    def normalized_key(self) -> str | None:
        """Return the key of the certificate that lies in the folder, and of the network if it passed.

        None when there is none, or it is of other factors, settings, samples or labels than the run's, or was changed.
        """
        folder = self.folder
        if folder.made_from("normalize") is None or not self.are_factors_current:
            return None
        factors = Factors.load(folder.factors_path)
        labels = folder.manifest().get("labels")
        key = normalize_key(self._recorded, factors, self.settings, labels=labels)
        return key if folder.is_made_from("normalize", key, folder.certificate_path) else None

    def with_factors(self, changes: Mapping[str, Any]) -> JobSettings:
        """Return the run's settings with other keys in ``[factors]``."""
        tree = self.settings.model_dump()
        tree["factors"] |= changes
        return validate_job(tree, origin="the flags")

    def activations(self, point: str) -> Activations:
        """Return the recorded activations of a point, of shape (n_samples, *point shape), to be indexed.

        Only the blocks that an index needs are read, and each is checked. On every kind of store. For plain Zarr
        readers, which check less, the cache at ``run.cache.url`` is a Zarr group with one array for each point.

        Raises
        ------
        InputError
            For an unknown point, or a run without recorded activations.

        Examples
        --------
        >>> open_run("digits").activations("conv1")[:100].max()  # doctest: +SKIP
        2.1034
        """
        (name,) = self._chosen([point])
        if not self.cache.spec.keeps_activations:
            raise InputError(
                "this run holds sketches only: record with record.activations = true", point=point
            )
        return Activations(self.cache, name, self.settings.cache.storage_options)

    def certificate(self) -> dict[str, Any] | None:
        """Return the certificate of the normalised network as plain values.

        None if there is none, or if what lies there is not of the run as it is now: see :meth:`normalized_key`.
        """
        return None if self.normalized_key() is None else _read_certificate(self.folder.certificate_path)

    @property
    def random_layers(self) -> tuple[str, ...]:
        """The layers that are random at inference, which ``model.allow_random`` let through; none for most networks."""
        return tuple(self.folder.manifest().get("random_layers", ()))

    def status(self) -> RunStatus:
        """Return how far the run is."""
        cache, folder = self.cache, self.folder
        normalized = self.normalized_key()
        certificate = None if normalized is None else _read_certificate(folder.certificate_path)
        page = folder.report_path / "index.html"
        has_report = folder.is_made_from("report", report_key(folder, normalized), page)
        current = {
            "factors": (self.are_factors_current, folder.factors_path),
            "certificate": (normalized is not None, folder.certificate_path),
            "network": (normalized is not None and folder.network_path.exists(), folder.network_path),
            "report": (has_report, page),
        }
        return RunStatus(
            output=str(self.folder.path),
            n_blocks=len(cache.blocks),
            n_blocks_done=len(cache.blocks) - len(cache.missing()),
            n_samples=cache.spec.n_samples,
            n_points=len(cache.spec.points),
            cache=cache.url,
            cache_nbytes=cache.nbytes(),
            has_factors=current["factors"][0],
            has_network=current["network"][0],
            certificate_passed=None if certificate is None else bool(certificate["passed"]),
            has_report=has_report,
            out_of_date=tuple(
                name for name, (is_current, path) in current.items() if path.exists() and not is_current
            ),
            wants_network=self.settings.normalize.enabled,
            wants_report=self.settings.report.enabled,
            random_layers=self.random_layers,
        )

    def export(self, kind: str, *, factors: Factors | None = None) -> str:
        """Return the results as text.

        Parameters
        ----------
        kind : {"json", "csv", "toolbox", "toolbox-parsed"}
            ``json``: statistics and factors with intervals. ``csv``: a line for each point.
            ``toolbox``: SNN toolbox's ``{percentile}.json`` for the network as it is. ``toolbox-parsed``: for the
            network that its parser makes, by the names that it gives (``00Conv2D_28x28x16``).
        factors : Factors, optional
            Default: those of the run's settings.

        Raises
        ------
        InputError
            For factors of channels, which the toolbox cannot read; for layers that it cannot parse.

        Warns
        -----
        RuntimeWarning
            If a factor for the toolbox is about 1 everywhere: the network seems to be normalised already.
        """
        factors = factors or self.factors()
        names = self.folder.manifest().get("toolbox", {})
        text = export_text(kind, factors, statistics=self.statistics(), names=names)
        if kind.startswith("toolbox") and is_normalised(factors):
            warnings.warn(ALREADY_NORMALISED, RuntimeWarning, stacklevel=2)
        return text


def _read_certificate(path: Path) -> dict[str, Any]:
    try:
        tree = read_document(path)
        Certificate.from_dict(tree)
        _ = tree["passed"]
    except (OSError, ValueError, KeyError) as error:
        raise FormatError(
            f"the certificate {str(path)!r} is damaged: {error}; run the job again, which certifies anew",
            path=str(path),
        ) from None
    return tree


def _check_percent(q: Any) -> None:
    if not isinstance(q, Real) or not 0 <= float(q) <= 100:
        raise InputError(f"percentile {q!r} is refused: a number from 0 to 100")


def _row(name: str, q: float, found: Percentile, *, exact: bool) -> PercentileRow:
    return PercentileRow(point=name, q=q, value=found.value, lo=found.lo, hi=found.hi, exact=exact)


def open_run(path: str | Path, *, storage_options: Mapping[str, Any] | None = None) -> Run:
    """Return the run in a folder.

    Parameters
    ----------
    path : path
        The output folder of ``actisketch run`` or :func:`~..api.run`.
    storage_options : mapping, optional
        Options of the cache's object store beside those that the folder keeps: secrets, which are kept nowhere. What
        is in the environment (``AWS_SECRET_ACCESS_KEY``) need not be given.

    Raises
    ------
    InputError
        If there is no run.
    FormatError
        If its manifest is damaged or of a newer program.

    Examples
    --------
    >>> run = open_run("digits")  # doctest: +SKIP
    >>> run.factors(percentile=99.0).by_point()  # doctest: +SKIP
    {'conv1': 1.61, 'conv2': 1.88, ...}
    """
    folder = open_folder(path)
    tree = dict(folder.manifest().get("settings", {}))
    # The folder may have been moved or mounted elsewhere: where it lies now is where the run is.
    tree["output"] = str(folder.path)
    try:
        settings = validate_job(tree, origin=f"the settings in {str(folder.manifest_path)!r}")
    except InputError as error:
        raise FormatError(
            f"{error}; the folder is damaged, or of a newer program: update actisketch"
        ) from None
    if storage_options:
        options = StorageOptions({**settings.cache.storage_options, **storage_options})
        cache = settings.cache.model_copy(update={"storage_options": options})
        settings = settings.model_copy(update={"cache": cache})
    return Run(folder, settings)
