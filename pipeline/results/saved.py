"""The results in a run's folder, and whether they are up to date: factors, certificate, network, report.

Knows documents and the keys that they were made from. Does not know activations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...storage import Cache
from ...storage.errors import FormatError, InputError
from ..factors.factors_file import Factors
from ..factors.ties import Ties
from ..folder.folder import RunFolder
from ..folder.json_file import read_document
from ..settings.job_settings import JobSettings
from ..stages.stage_keys import factors_key, normalize_key, report_key

__all__ = ["RunStatus", "Saved"]


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
    """Whether they are there, whole, and of the run's settings and samples; the same for network and report."""
    has_network: bool
    certificate_passed: bool | None
    """None if there is no certificate that is up to date."""
    has_report: bool
    out_of_date: tuple[str, ...]
    """Which of "factors", "certificate", "network" and "report" are there, but were changed or are of other settings or
    samples: running the job again replaces them."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """The results in a run's folder."""

    folder: RunFolder
    settings: JobSettings
    ties: Ties
    recorded: Callable[[], str]
    """Gives the key of what is recorded; called only if there is a result to compare with it."""

    @property
    def _factors_key(self) -> str:
        return factors_key(self.recorded(), self.settings, self.ties)

    @property
    def are_factors_current(self) -> bool:
        """Whether the factors in the folder are whole, and of the run's settings and samples."""
        folder = self.folder
        return folder.is_made_from("factors", self._factors_key, folder.factors_path, folder.statistics_path)

    def factors(self, points: set[str]) -> Factors:
        """Return the factors in the folder, of exactly these points.

        Raises
        ------
        InputError
            If there are none, or they are out of date.
        FormatError
            If their file is damaged or was changed.
        """
        path = self.folder.factors_path
        if not path.exists():
            raise InputError(f"{str(self.folder.path)!r} has no factors yet: run the job again to resume")
        if self.are_factors_current:
            factors = Factors.load(path)
            if {p.name for p in factors.points} == points:
                return factors
        if self.folder.made_from("factors") == self._factors_key:
            raise FormatError(
                f"{str(path)!r} or {self.folder.statistics_path.name!r} beside it is damaged or was changed: run the "
                "job again, which makes them again from the cache",
                path=str(path),
            )
        raise InputError(
            f"{str(path)!r} is out of date, of other settings or samples than the run's or of an earlier program: run "
            "the job again, which makes it again from the cache",
            path=str(path),
        )

    def normalized_key(self) -> str | None:
        """Return the key of the certificate in the folder, and of the network if it passed; None if out of date."""
        folder = self.folder
        if folder.made_from("normalize") is None or not self.are_factors_current:
            return None
        factors = Factors.load(folder.factors_path)
        labels = folder.manifest().get("labels")
        key = normalize_key(self.recorded(), factors, self.settings, labels=labels)
        return key if folder.is_made_from("normalize", key, folder.certificate_path) else None

    def certificate(self) -> dict[str, Any] | None:
        """Return the certificate as plain values; None if there is none, or it is out of date."""
        return None if self.normalized_key() is None else _read_certificate(self.folder.certificate_path)

    @property
    def random_layers(self) -> tuple[str, ...]:
        """Layers that are random at inference and were let through."""
        return tuple(self.folder.manifest().get("random_layers", ()))

    def status(self, cache: Cache) -> RunStatus:
        """Return how far the run with this cache is."""
        folder, normalized = self.folder, self.normalized_key()
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
            output=str(folder.path),
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


def _read_certificate(path: Path) -> dict[str, Any]:
    # Only here: what judges a network takes as long to load as a question takes.
    from ..certifier.certificate import Certificate, CertificateValues

    try:
        tree = read_document(path)
        Certificate.from_dict(tree)
        _ = tree["passed"]
    except FormatError as error:  # which says what to do; a newer certificate is not damaged
        raise FormatError(f"{str(path)!r} cannot be read: {error}", path=str(path)) from None
    except (OSError, ValueError, KeyError) as error:
        raise FormatError(
            f"the certificate {str(path)!r} is damaged: {error}; run the job again, which certifies again",
            path=str(path),
        ) from None
    return CertificateValues(tree)
