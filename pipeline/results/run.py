"""A finished run, asked without its model and its data: percentiles, factors, activations, exports."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ...storage import Cache
from ...storage.errors import FormatError, InputError
from ...storage.options import StorageOptions
from ..events import OnEvent, ignore_event
from ..exporters import Exported, make_export
from ..factors.exact_source import ExactSource, channels_of
from ..factors.factors_file import Factors
from ..factors.from_cache import factors_of
from ..factors.merge import check_complete, merged_sketches, statistics_by_point, unknown_point
from ..factors.merged_file import load_merged, merged_key
from ..factors.quantisation_noise import LayerNoise, noise_by_layer
from ..factors.ties import Ties
from ..folder.folder import RunFolder, open_folder
from ..settings.job_settings import JobSettings, ModelSettings
from ..settings.loading import validate_job
from ..sketch import Digest, PointSketch, Sketch
from ..stages.run_cache import open_cache
from .activation_array import Activations
from .matched_points import meant_points
from .percentile_rows import PercentileRow, as_percents, channel_rows, point_rows
from .run_views import RunViews
from .saved import RunStatus, Saved

__all__ = ["Run", "open_run"]

logger = logging.getLogger(__name__)


class Run(RunViews):
    """The results of a run.

    Made by :func:`open_run`, or returned by :func:`~..api.run`. Nothing here needs TensorFlow.

    Attributes
    ----------
    settings : JobSettings
        Those of the run, except what would run code (``model.custom_objects``, ``model.safe_mode = false``): a folder
        may come from anybody, and cannot allow it.
    asked_model : ModelSettings
        The model's table as the folder has it, to show it to the user.
    """

    def __init__(self, folder: RunFolder, settings: JobSettings, cache: Cache | None = None) -> None:
        self.folder, self._opened = folder, cache
        self.asked_model: ModelSettings = settings.model
        self.settings = settings.model_copy(update={"model": settings.model.without_code()})

    @cached_property
    def cache(self) -> Cache:
        """The Zarr cache, open for reading."""
        return self._opened or open_cache(self.settings, self.folder)

    @cached_property
    def sketches(self) -> Mapping[str, PointSketch]:
        """The merged sketch of each point.

        Raises
        ------
        IncompleteError
            If blocks are missing.
        """
        recorded = self._recorded  # first, as the cache knows then which records are whole
        check_complete(self.cache)
        kept = load_merged(self.folder.merged_path, recorded, self.points)
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
        return statistics_by_point(self.sketches, {p.name: p.shape for p in self.cache.spec.points})

    def percentile(self, point: str, q: float, *, nonzero: bool = True, exact: bool = False) -> PercentileRow:
        """Return one percentile of one point.

        Parameters
        ----------
        point : str
            Name of a recorded point.
        q : float
            In percent, 0 to 100.
        nonzero : bool
            Over the activations that are not zero, as SNN toolbox does; ``False``: over all.
        exact : bool
            Return the exact percentile from one pass over the cached activations: that of
            ``np.percentile(activations, q, method="linear")``, bit for bit.

        Raises
        ------
        InputError
            For an unknown point, a q outside [0, 100], or ``exact`` without recorded activations.

        Examples
        --------
        >>> open_run("digits").percentile("conv1", 99.9).value  # doctest: +SKIP
        1.9742
        """
        return self.percentiles(q, points=[self._known(point)], nonzero=nonzero, exact=exact)[0]

    def percentiles(
        self,
        qs: float | Sequence[float] = (50.0, 99.0, 99.9, 100.0),
        *,
        points: str | Iterable[str] | None = None,
        nonzero: bool = True,
        exact: bool = False,
        per_channel: bool = False,
        accept_rounding: bool = False,
    ) -> list[PercentileRow]:
        """Return percentiles, point by point; see :meth:`percentile`. ``per_channel`` gives one for each channel.

        ``qs`` is one percentile or several, ``points`` one name or several, or patterns (``"conv*"``); what is asked
        twice is answered once. NaN where there are no values, as over the non-zero activations of a dead layer.
        """
        ranks = as_percents(qs)
        chosen = self.points if points is None else meant_points(points, self.points)
        source = ExactSource(self.cache, self.sketches, accept_rounding) if exact else None
        rows_of = channel_rows if per_channel else point_rows
        return [
            row
            for name in chosen
            for row in rows_of(name, self.sketches[name], ranks, nonzero=nonzero, source=source)
        ]

    def digest(
        self, point: str, *, channel: int | None = None, nonzero: bool = True, compression: float = 200.0
    ) -> Digest:
        """Return the t-digest of one point, or of one channel of it: a small summary to send elsewhere.

        Parameters
        ----------
        point : str
            Name of a recorded point.
        channel : int, optional
            Counted from 0; only where the run has a sketch per channel. Default: all activations of the point.
        nonzero : bool
            Of the activations that are not zero; ``False``: of all.
        compression : float
            10 to 100,000: about half as many centroids.

        Raises
        ------
        InputError
            For an unknown point or channel, or a run without sketches per channel.

        See Also
        --------
        actisketch.pipeline.sketch.to_tdigest : the same as an object of the ``tdigest`` package.

        Examples
        --------
        >>> open_run("digits").digest("conv1").percentile(99.9)  # doctest: +SKIP
        1.9741
        """
        return self.sketch(point, channel=channel).digest(compression, nonzero=nonzero)

    def sketch(self, point: str, *, channel: int | None = None) -> Sketch:
        """Return the sketch of one point, or of one channel of it; as :meth:`digest`."""
        name = self._known(point)
        sketch = self.sketches[name]
        return sketch.layer if channel is None else channels_of(sketch, name).channel(channel)

    def _known(self, point: str) -> str:
        if point not in self.points:
            raise InputError(unknown_point(point, self.points), point=point)
        return point

    def factors(self, *, accept_rounding: bool = False, **changes: Any) -> Factors:
        """Return the scale factors, for the run's settings (those that the run wrote) or others: no model, no data.

        Parameters
        ----------
        accept_rounding : bool
            With ``exact=True``: answer from float16 storage too.
        **changes
            Keys of the table ``[factors]``: ``percentile``, ``method``, ``bits``, ``symmetric``, ``nonzero``,
            ``schedule``, ``exact``, ``per_channel``, ``floor``, ``overrides``.

        Raises
        ------
        InputError
            For an unknown key or an impossible value.
        """
        settings = self.with_factors({"accept_rounding": True, **changes} if accept_rounding else changes)
        found = factors_of(self.cache, self.sketches, settings, ties=self.ties)
        if changes.keys() & {"percentile", "overrides"}:
            for warning in (*settings.factors.warnings(), *found.lost_overrides()):
                logger.warning("%s", warning)
        return found

    def saved_factors(self) -> Factors:
        """Return the factors that the run wrote. Deprecated: :meth:`factors` gives the same."""
        warnings.warn("saved_factors() is deprecated: use factors()", DeprecationWarning, stacklevel=2)
        return self.written_factors()

    def written_factors(self) -> Factors:
        """Return the factors in the run's folder, which the other files there were made with; InputError without."""
        check_complete(self.cache)
        return self._saved.factors(set(self.points))

    @property
    def _saved(self) -> Saved:
        return Saved(
            folder=self.folder, settings=self.settings, ties=self.ties, recorded=lambda: self._recorded
        )

    @cached_property
    def _recorded(self) -> str:
        return merged_key(self.cache)

    def normalized_key(self) -> str | None:
        """Return the key of the certificate in the folder, and of the network if it passed.

        None if there is none, it was changed, or it is of other factors, settings, samples or labels than the run.
        """
        return self._saved.normalized_key()

    def with_factors(self, changes: Mapping[str, Any]) -> JobSettings:
        """Return the run's settings with other keys in ``[factors]``; whoever asks for a percentile gets that."""
        tree = self.settings.model_dump()
        if "percentile" in changes:
            changes = {"method": "percentile", **changes}
        tree["factors"] |= changes
        return validate_job(tree, origin="the flags")

    def activations(self, point: str) -> Activations:
        """Return the recorded activations of a point as an array of shape (n_samples, *point shape).

        Indexing it reads only the blocks that are needed, and checks each, on every kind of store. For other readers of
        Zarr, which check less, the cache at ``run.cache.url`` is a Zarr group with one array for each point.

        Raises
        ------
        InputError
            For an unknown point, or a run without recorded activations.

        Examples
        --------
        >>> open_run("digits").activations("conv1")[:100].max()  # doctest: +SKIP
        2.1034
        """
        name = self._known(point)
        if not self.cache.spec.keeps_activations:
            raise InputError(
                "this run holds sketches only: record with record.activations = true", point=point
            )
        return Activations(self.cache, name, self.settings.cache.storage_options)

    def certificate(self) -> dict[str, Any] | None:
        """Return the certificate of the normalised network as plain values.

        None if there is none, or it is out of date: see :meth:`normalized_key`.
        """
        return self._saved.certificate()

    @property
    def random_layers(self) -> tuple[str, ...]:
        """The layers that are random at inference, if ``model.allow_random`` allowed them."""
        return self._saved.random_layers

    def status(self) -> RunStatus:
        """Return how far the run is."""
        return self._saved.status(self.cache)

    def sensitivity(self, *, bits: int = 8, symmetric: bool = False) -> list[LayerNoise]:
        """Return the signal-to-quantisation-noise ratio of each point, by method, the worst point first.

        Of rounding to ``bits`` within the range that each method of ``factors.method`` chooses; with guaranteed bounds.
        """
        return noise_by_layer(self.sketches, self.settings.factors, bits=bits, symmetric=symmetric)

    def export(self, kind: str, *, factors: Factors | None = None) -> str:
        """Return the results as text, see :meth:`exported`.

        Parameters
        ----------
        kind : str
            ``json``: statistics and factors with intervals. ``csv``: a line for each point. ``tdigest``: that of each
            point, for ``tdigest.TDigest().update_from_dict``; of the values that are not zero, as the run's factors.
            ``toolbox``: SNN toolbox's ``{percentile}.json`` for the network as it is. ``toolbox-parsed``: for the
            network that its parser makes, by the names that it gives (``00Conv2D_28x28x16``).
        factors : Factors, optional
            Default: those of the run's settings. A t-digest has none.

        Warns
        -----
        RuntimeWarning
            If a factor for the toolbox is about 1 everywhere: the network seems to be normalised already. If the
            toolbox finds ranges that are no percentile under the name of one.
        """
        made = self.exported(kind, factors=factors)
        for warning in made.warnings:
            warnings.warn(warning, RuntimeWarning, stacklevel=2)
        if not isinstance(made.content, str):
            raise InputError(f"{kind!r} is no text: write its file with run.exported({kind!r}).write(path)")
        return made.content

    def exported(
        self,
        kind: str,
        *,
        factors: Factors | None = None,
        options: Mapping[str, Any] | None = None,
        on_event: OnEvent = ignore_event,
        **changes: Any,
    ) -> Exported:
        """Return an export in memory: its content, its table of ranges, its warnings.

        Parameters
        ----------
        kind : str
            A name of :func:`actisketch.pipeline.exporters.exporter_names`.
        factors : Factors, optional
            Default: those of the run's settings with ``changes``.
        options : mapping, optional
            Of the target, by the names of its flags; None counts as not given.
        on_event : callable
            Called with the progress of a target that the samples pass through.
        **changes
            Keys of the table ``[factors]``, as for :meth:`factors`.

        Raises
        ------
        InputError
            For an unknown kind or option, a missing library, and whatever the target cannot hold.
        """
        settings = self.with_factors(changes).factors
        return make_export(
            self,
            kind,
            settings=settings if factors is None else settings.model_copy(update=factors.chosen_by()),
            factors_of=lambda: self.factors(**changes) if factors is None else factors,
            options=options or {},
            changed=tuple(changes),
            on_event=on_event,
        )


def open_run(
    path: str | Path, *, storage_options: Mapping[str, Any] | None = None, cache: Cache | None = None
) -> Run:
    """Return the run in a folder.

    Parameters
    ----------
    path : path
        The output folder of ``actisketch run`` or :func:`~..api.run`.
    storage_options : mapping, optional
        Options of the cache's object store that the folder does not keep: secrets. Those in the environment
        (``AWS_SECRET_ACCESS_KEY``) need not be given.
    cache : Cache, optional
        That of the run, where it is open already.

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
    # The folder may have been moved or mounted elsewhere: the run is where the folder is now.
    tree["output"] = str(folder.path)
    try:
        settings = validate_job(tree, origin=f"the settings in {str(folder.manifest_path)!r}")
    except InputError as error:
        raise FormatError(
            f"{error}; the folder is damaged, or of a newer program: update actisketch"
        ) from None
    if storage_options:
        options = StorageOptions({**settings.cache.storage_options, **storage_options})
        with_secrets = settings.cache.model_copy(update={"storage_options": options})
        settings = settings.model_copy(update={"cache": with_secrets})
    return Run(folder, settings, cache)
