"""The t-digest of a sketch, and its door to the tdigest package."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tdigest import TDigest

from actisketch.pipeline.sketch import Digest, Sketch, from_tdigest, to_tdigest, to_tdigest_dict
from actisketch.storage.errors import FormatError, InputError

from .distributions import NAMES, make

SCALES = ["k1", "k2"]


def sketch_of(name: str) -> Sketch:
    sketch = Sketch()
    sketch.update(make(name))
    return sketch


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", NAMES)
class TestEveryDigest:
    def test_has_monotone_quantiles_between_the_ends_of_its_centroids(self, name: str, scale: str) -> None:
        digest = sketch_of(name).digest(scale=scale)
        qs = np.concatenate((np.linspace(0, 1, 301), [0.999, 0.9999]))
        qs.sort()
        values = np.array([digest.quantile(q) for q in qs])
        ends = np.cumsum(digest.weights)
        ranks = qs * (digest.n - 1)
        lower = digest.lo[np.searchsorted(ends, np.floor(ranks), side="right")]
        upper = digest.hi[np.searchsorted(ends, np.ceil(ranks), side="right")]

        assert (np.diff(values) >= 0).all()
        assert ((lower <= values) & (values <= upper)).all()

    def test_brackets_the_exact_percentile_by_its_tracked_intervals(self, name: str, scale: str) -> None:
        values, digest = np.sort(make(name)), sketch_of(name).digest(scale=scale)
        ends = np.cumsum(digest.weights).astype(int)
        begins = ends - digest.weights.astype(int)

        assert (digest.lo <= values[begins]).all()
        assert (values[ends - 1] <= digest.hi).all()
        assert digest.n == values.size
        assert len(digest) <= 600

    def test_has_a_monotone_cdf_that_is_right_between_centroids(self, name: str, scale: str) -> None:
        values, digest = make(name), sketch_of(name).digest(scale=scale)
        shares = [digest.cdf(x) for x in np.sort(values)[:: max(1, values.size // 500)].tolist()]

        assert (np.diff(shares) >= 0).all()
        for x in digest.hi.tolist():
            assert digest.cdf(x) == (values <= x).sum() / values.size

    def test_survives_json_and_answers_the_same_each_time(self, name: str, scale: str) -> None:
        digest = sketch_of(name).digest(scale=scale)

        assert Digest.from_json(digest.to_json()) == digest == sketch_of(name).digest(scale=scale)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    "name", ["rectified", "heavy tail", "bimodal with a gap of 1e5", "sorted", "constant"]
)
class TestTheTdigestPackage:
    def test_takes_our_centroids_as_they_are(self, name: str, scale: str) -> None:
        digest = sketch_of(name).digest(scale=scale)

        assert to_tdigest(digest).to_dict() == to_tdigest_dict(digest)
        assert json.loads(json.dumps(to_tdigest_dict(digest))) == to_tdigest_dict(digest)

    def test_answers_within_its_own_interpolation(self, name: str, scale: str) -> None:
        digest = sketch_of(name).digest(scale=scale)
        theirs = to_tdigest(digest)
        ends = np.cumsum(digest.weights)
        for q in (1.0, 10.0, 50.0, 90.0, 99.0, 99.9):
            place = int(np.searchsorted(ends, q / 100 * digest.n))
            if q / 100 * digest.n < digest.weights[0] / 2:
                continue  # it extrapolates below its first mean, even to negative values of a rectified layer
            # It interpolates between means of neighbours, whatever the centroids hold.
            low = digest.means[max(place - 1, 0)]
            high = digest.means[min(place + 1, len(digest) - 1)]
            ours = digest.percentile(q)

            assert low <= theirs.percentile(q) <= high or len(digest) == 1
            assert min(low, digest.lo[place]) <= ours <= max(high, digest.hi[place])
            assert abs(ours - theirs.percentile(q)) <= max(high, digest.hi[place]) - min(
                low, digest.lo[place]
            )

    def test_agrees_on_the_trimmed_mean(self, name: str, scale: str) -> None:
        digest = sketch_of(name).digest(scale=scale)

        assert to_tdigest(digest).trimmed_mean(5, 95) == pytest.approx(digest.trimmed_mean(5, 95), rel=1e-9)

    def test_gives_back_what_it_took(self, name: str, scale: str) -> None:
        digest = sketch_of(name).digest(scale=scale)
        back = from_tdigest(to_tdigest(digest))

        assert back.means.tolist() == digest.means.tolist()
        assert back.weights.tolist() == digest.weights.tolist()
        assert back.compression == pytest.approx(digest.compression)
        assert not back.certified


def test_a_digest_made_by_tdigest_answers_as_it_does() -> None:
    values = make("heavy tail")[:3000].astype(np.float64)
    theirs = TDigest()
    theirs.batch_update(values)
    ours = from_tdigest(theirs.to_dict())

    assert ours.n == pytest.approx(3000)
    for q in (1, 50, 99):
        assert ours.cdf(theirs.percentile(q)) == pytest.approx(q / 100, abs=0.01)


class TestAtoms:
    """Values that are all one number: between two of them the answer is known."""

    @pytest.mark.parametrize("scale", SCALES)
    @pytest.mark.parametrize(
        ("atoms", "q"),
        [
            ({0: 90, 1: 10}, 90),
            ({1000: 26, 3000: 11, 9000: 2}, 95),
            ({-4: 1, 4: 1}, 50),
            ({-7: 30, 0: 50, 2: 20}, 30),
            ({0: 999, 1e6: 1}, 99.95),
        ],
    )
    def test_are_interpolated_as_numpy_does(self, atoms: dict[float, int], q: float, scale: str) -> None:
        values = np.repeat(np.array(list(atoms), np.float32), list(atoms.values()))
        sketch = Sketch()
        sketch.update(values)

        assert sketch.digest(scale=scale).percentile(q) == pytest.approx(
            np.percentile(values.astype(np.float64), q), rel=1e-9
        )

    @given(
        atoms=st.dictionaries(st.integers(-50, 50), st.integers(1, 40), min_size=1, max_size=8),
        q=st.floats(0, 100),
        scale=st.sampled_from(SCALES),
    )
    def test_of_any_kind(self, atoms: dict[int, int], q: float, scale: str) -> None:
        values = np.repeat(np.array(list(atoms), np.float32), list(atoms.values()))
        sketch = Sketch()
        sketch.update(values)

        assert sketch.digest(scale=scale).percentile(q) == pytest.approx(
            np.percentile(values.astype(np.float64), q), rel=1e-9, abs=1e-9
        )

    def test_beside_a_spread_of_values(self) -> None:
        values = np.concatenate((np.zeros(500), np.linspace(5, 6, 500))).astype(np.float32)
        sketch = Sketch()
        sketch.update(values)
        for q in (49.96, 50.0, 50.02):
            expected = np.percentile(values.astype(np.float64), q)

            assert sketch.digest().percentile(q) == pytest.approx(expected, rel=1e-3)


class TestTrimmedMeans:
    def test_of_a_sketch_are_those_of_the_values(self) -> None:
        values = np.sort(make("rectified")).astype(np.float64)
        expected = values[values.size // 20 : -(values.size // 20)].mean()

        assert sketch_of("rectified").trimmed_mean(5, 95) == pytest.approx(expected, rel=1e-4)

    def test_need_an_order(self) -> None:
        with pytest.raises(InputError, match="lower < upper"):
            sketch_of("rectified").trimmed_mean(95, 5)


class TestRefusals:
    @pytest.mark.parametrize("compression", [9, 1e6, float("nan")])
    def test_compression_is_never_clipped(self, compression: float) -> None:
        with pytest.raises(InputError, match="compression must be from 10 to 100000"):
            sketch_of("rectified").digest(compression)

    def test_unknown_scales_and_quantiles(self) -> None:
        with pytest.raises(InputError, match="'k1' or 'k2'"):
            sketch_of("rectified").digest(scale="k3")
        with pytest.raises(InputError, match=r"from 0 to 1, got 99\.9"):
            sketch_of("rectified").digest().quantile(99.9)

    @pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": "actisketch-digest", "version": 1}'])
    def test_what_is_no_digest(self, text: str) -> None:
        with pytest.raises(FormatError):
            Digest.from_json(text)

    @pytest.mark.parametrize(
        ("member", "value"),
        [
            ("version", "x"),
            ("version", None),
            ("version", 0),
            ("means", "abc"),
            ("means", [[1.0]]),
            ("means", [None]),
            ("means", 0.5),
            ("means", [10**400]),
            ("weights", [0.0]),
            ("lo", [1.0, 2.0]),
            ("hi", [float("inf")]),
            ("compression", "much"),
            ("compression", 0),
            ("scale", "k3"),
        ],
    )
    def test_a_damaged_member(self, member: str, value: object) -> None:
        text = json.dumps(sketch_of("constant").digest().to_dict() | {member: value})
        with pytest.raises(FormatError, match="damaged"):
            Digest.from_json(text)

    def test_newer_versions(self) -> None:
        facts = sketch_of("constant").digest().to_dict() | {"version": 2}
        with pytest.raises(FormatError, match="newer"):
            Digest.from_dict(facts)

    @pytest.mark.parametrize(
        "facts", [{}, {"centroids": [{"m": 1}]}, {"centroids": [{"m": float("nan"), "c": 1}]}]
    )
    def test_what_is_no_tdigest(self, facts: dict[str, object]) -> None:
        with pytest.raises(FormatError):
            from_tdigest(facts)

    def test_an_empty_digest_as_an_object_of_tdigest(self) -> None:
        with pytest.raises(InputError, match="the digest is empty"):
            to_tdigest(Sketch().digest())

    def test_the_share_below_no_number_is_no_number(self) -> None:
        assert np.isnan(sketch_of("rectified").digest().cdf(float("nan")))

    def test_an_empty_digest_answers_nan(self) -> None:
        digest = Sketch().digest()

        assert len(digest) == 0
        assert np.isnan([digest.quantile(0.5), digest.cdf(0.0), digest.trimmed_mean(5, 95)]).all()
