"""The certificate on a cluster: the bits of one process, from whatever parts, with workers that die."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actisketch.pipeline import run
from actisketch.pipeline.certifier import Comparison, ComparisonSettings, ComparisonTotals
from actisketch.pipeline.cluster.comparing import comparing_on, parts
from actisketch.pipeline.cluster.limits import Limits
from actisketch.pipeline.cluster.recipes import ComparisonRecipe, NetworkRecipe
from actisketch.pipeline.events import Event, SamplesDone
from actisketch.pipeline.graph import model_fingerprint
from actisketch.pipeline.normalizer import Rewriting
from actisketch.pipeline.rerun import normalize_run
from actisketch.pipeline.sketch import SketchSpec
from actisketch.pipeline.sources import as_source
from actisketch.storage.errors import IncompleteError, InputError

RESULTS = ("certificate.json", "normalized-sketches.json")


@pytest.fixture
def samples() -> Any:
    return np.random.default_rng(6).random((203, 6, 6, 1), dtype=np.float32)


def compared(model: Any, samples: Any, folder: Path) -> tuple[Comparison, ComparisonRecipe]:
    """A comparison, and the recipe by which a worker makes its own."""
    source = as_source(samples)
    rewriting = Rewriting(factors={"conv": 0.7, "classes": 1.0})
    normalized = rewriting.rewrite(model)
    settings = ComparisonSettings(batch_size=8, n_samples=len(samples), sketch_spec=SketchSpec())
    comparison = Comparison(model, normalized, source, settings)
    model.save(path := folder / "m.keras")
    recipe = ComparisonRecipe(
        network=NetworkRecipe(
            model_path=str(path),
            model_bytes=None,
            custom_objects=None,
            safe_mode=True,
            fingerprint=model_fingerprint(model),
            source=source,
            data=source.fingerprint(),
        ),
        rewriting=rewriting,
        normalized=model_fingerprint(normalized.model),
        settings=settings,
    )
    return comparison, recipe


def test_samples_go_through_both_networks_in_tasks_and_the_files_are_those_of_one_process(
    model: Any, samples: Any, threads_client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(model, samples, output=tmp_path / "here", batch_size=8)
    seen: list[tuple[int, int]] = []
    compare = Comparison.compare

    def watched(self: Comparison, start: int, stop: int, **options: Any) -> ComparisonTotals:
        from distributed import get_worker

        get_worker()  # refuses outside a task
        seen.append((start, stop))
        return compare(self, start, stop, **options)

    monkeypatch.setattr(Comparison, "compare", watched)
    run(model, samples, output=tmp_path / "dask", batch_size=8, client=threads_client)

    assert sorted(seen) == [(part.start, part.stop) for part in parts(203, batch_size=8, n_workers=1)]
    for name in RESULTS:
        assert (tmp_path / "dask" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def test_rounding_errors_are_measured_on_a_worker_and_are_the_same(
    model: Any, samples: Any, threads_client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So strict that every residual is in doubt: the rounding error of the original then decides.
    settings: dict[str, dict[str, Any]] = {"normalize": {"tolerance": 1e-12}, "report": {"enabled": False}}
    measured: list[dict[int, float]] = []
    rounding = Comparison.rounding

    def watched(self: Comparison, starts: Any) -> dict[int, float]:
        measured.append(rounding(self, starts))
        return measured[-1]

    monkeypatch.setattr(Comparison, "rounding", watched)
    run(model, samples, output=tmp_path / "here", batch_size=8, settings=settings)
    run(model, samples, output=tmp_path / "dask", batch_size=8, settings=settings, client=threads_client)

    assert measured[0]
    assert measured == [measured[0]] * 2
    for name in RESULTS:
        assert (tmp_path / "dask" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def test_a_worker_that_would_rewrite_otherwise_is_refused_before_the_first_sample(
    model: Any, samples: Any, threads_client: Any, tmp_path: Path
) -> None:
    comparison, recipe = compared(model, samples, tmp_path)
    other = replace(recipe, rewriting=Rewriting(factors={"conv": 0.8, "classes": 1.0}))
    done: list[int] = []

    with (
        pytest.raises(InputError, match="rewriting the network gives other weights on this host"),
        comparing_on(threads_client, other, comparison) as comparer,
    ):
        comparer.totals(done.append)

    assert not done


def test_what_fails_everywhere_is_named_with_its_cause(
    model: Any, samples: Any, threads_client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison, recipe = compared(model, samples, tmp_path)
    compare = Comparison.compare

    def faulty(self: Comparison, start: int, stop: int, **options: Any) -> ComparisonTotals:
        if start == 64:
            raise OSError("the file server is gone")
        return compare(self, start, stop, **options)

    monkeypatch.setattr(Comparison, "compare", faulty)
    with (
        pytest.raises(IncompleteError, match=r"1 of 7 parts .* the file server is gone"),
        comparing_on(threads_client, recipe, comparison, limits=Limits(retries=1)) as comparer,
    ):
        comparer.totals(lambda n_done: None)


@pytest.mark.parametrize(
    ("n_samples", "batch_size", "n_workers", "largest"),
    [(1, 32, 4, 32), (1000, 10, 2, 70), (50_000, 8, 1000, 56), (10**6, 100, 1, 3200)],
)
def test_parts_are_whole_batches_that_cover_all_samples(
    n_samples: int, batch_size: int, n_workers: int, largest: int
) -> None:
    found = parts(n_samples, batch_size=batch_size, n_workers=n_workers)

    assert [part.start for part in found[1:]] == [part.stop for part in found[:-1]]
    assert (found[0].start, found[-1].stop) == (0, n_samples)
    assert all(part.start % batch_size == 0 for part in found)
    assert max(part.stop - part.start for part in found) <= largest
    assert len(found) <= max(1024, n_samples // (32 * batch_size) + 1)


@pytest.mark.slow
def test_a_worker_that_dies_on_the_way_changes_no_byte(
    model: Any, samples: Any, start_cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real processes; the arithmetic of these small networks does not depend on the number of threads."""
    run(model, samples, output=tmp_path / "here", batch_size=8)
    cluster = start_cluster(2)
    model.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", samples)
    done: list[int] = []
    monkeypatch.setattr(Comparison, "compare", lambda *_, **__: pytest.fail("compared in the client"))

    def kill_one_worker(event: Event) -> None:
        if isinstance(event, SamplesDone) and not done:
            cluster.workers[0].kill()
            done.append(1)

    run(
        str(tmp_path / "m.keras"),
        str(tmp_path / "x.npy"),
        output=tmp_path / "dask",
        batch_size=8,
        settings={"record": {"scheduler": str(cluster.file)}},
        on_event=kill_one_worker,
    )

    assert done
    for name in RESULTS:
        assert (tmp_path / "dask" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def test_other_factors_of_a_finished_run_are_certified_on_a_cluster_too(
    model: Any, samples: Any, threads_client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", samples)
    finished = run(
        str(tmp_path / "m.keras"),
        str(tmp_path / "x.npy"),
        output=tmp_path / "r",
        batch_size=8,
        normalize=False,
    )
    factors = tmp_path / "max.json"
    factors.write_text(json.dumps(finished.factors(percentile=100.0).to_dict()))
    here = normalize_run(finished, factors_path=factors, output=tmp_path / "here")
    monkeypatch.setattr("actisketch.pipeline.stages.engine.LocalEngine.compare_networks", None)

    there = normalize_run(finished, factors_path=factors, output=tmp_path / "there", client=threads_client)

    assert there == here
    assert there.passed
