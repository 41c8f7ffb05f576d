"""``actisketch compare``: the table, the page, the code for CI."""

import html
import json
import re
import shlex

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from actisketch.pipeline import compare, open_run

from ..service.conftest import MadeRun, make_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder / "a", changes={"sketch": {"per_channel": True}})
    make_run(folder / "b", seed=0.9, changes={"sketch": {"per_channel": True}})
    MadeRun(folder / "half", seed=0.9).begin().record(2)
    return folder


def test_the_table_and_the_json_have_the_numbers_of_the_call(call, runs):
    shown = call("compare", runs / "a", runs / "b")
    tree = json.loads(call("compare", runs / "a", runs / "b", "--json").out)
    expected = compare(runs / "a", runs / "b")

    assert shown.code == 0, shown.err
    assert [row["point"] for row in tree["points"]] == [row.point for row in expected.points]
    for row, point in zip(tree["points"], expected.points, strict=True):
        assert row["every"]["wasserstein"]["lo"] == point.every.wasserstein.lo
        assert f"{point.every.kolmogorov_smirnov.value:.3g}"[:5] in shown.out


@pytest.mark.parametrize("nonzero", ["--nonzero", "--all-values"])
def test_the_exit_code_tells_whether_a_layer_is_certainly_further_apart(call, runs, nonzero):
    flags = ("compare", runs / "a", runs / "b", nonzero, "--fail-above")
    found = compare(runs / "a", runs / "b", nonzero=nonzero == "--nonzero")
    largest = found.distance(found.points[0]).lo
    above, below = call(*flags, largest * 0.999), call(*flags, largest)

    assert (above.code, below.code) == (10, 0)
    assert repr(found.points[0].point) in above.err
    assert "--fail-above" in above.err


@pytest.mark.parametrize("given", ["nan", "NaN", "-nan", "-1", "x"])
def test_a_limit_that_is_no_number_is_refused(call, runs, given):
    answer = call("compare", runs / "a", runs / "b", f"--fail-above={given}")

    assert answer.code == 2
    assert "Invalid value for '--fail-above'" in answer.err


@pytest.mark.parametrize("nonzero", [True, False])
def test_the_number_that_orders_and_fails_is_shown(call, runs, nonzero):
    flags = (
        "compare",
        runs / "a",
        runs / "b",
        "--by",
        "wasserstein",
        "--nonzero" if nonzero else "--all-values",
    )
    lines = [re.split(r"  +", line.strip()) for line in call(*flags, "--points", "conv").out.splitlines()]
    (point,) = json.loads(call(*flags, "--points", "conv", "--json").out)["points"]
    values = open_run(runs / "a").activations("conv")[:].astype(float)
    others = open_run(runs / "b").activations("conv")[:].astype(float)
    a, b = (each[each != 0] if nonzero else each.ravel() for each in (values, others))
    relative = wasserstein_distance(a, b) / np.abs(a).mean()

    assert lines[2][:2] == ["point", "W1 relative"]
    assert lines[3][:2] == ["conv", f"{relative:.4g}"]
    assert point["distance"]["lo"] <= relative * (1 + 1e-12)
    assert relative * (1 - 1e-12) <= point["distance"]["hi"]
    assert point["distance"]["is_infinite"] is False


def test_a_layer_that_died_is_told_in_json(call, tmp_path):
    class Dead(MadeRun):
        def values(self, point, start, stop):
            return super().values(point, start, stop) * 0

    make_run(tmp_path / "a")
    for name in ("b", "c"):
        Dead(tmp_path / name).begin().record().finish()
    of_one, of_both = (
        json.loads(call("compare", tmp_path / first, tmp_path / "c", "--nonzero", "--json").out)["points"][0][
            "distance"
        ]
        for first in ("a", "b")
    )

    assert of_one == {"value": None, "lo": None, "hi": None, "is_infinite": True}
    assert of_both == {"value": None, "lo": None, "hi": None, "is_infinite": False}


def test_channels_that_are_not_compared_are_remarked_on(call, runs, tmp_path):
    make_run(tmp_path / "without")
    both = call("compare", runs / "a", runs / "b", "--per-channel")
    one = call("compare", runs / "a", tmp_path / "without", "--per-channel")
    not_asked = call("compare", runs / "a", tmp_path / "without")

    assert "no channels are compared: the second run has no sketches of them" in one.out
    assert "no channels" not in both.out + not_asked.out


def test_each_percentile_has_its_own_heading_once(call, runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    flags = ("-q", 99.9, "-q", 99.9, "-q", 0, "-q", 99.99999, "--points", "conv", "--points", "conv")
    lines = call("compare", runs / "a", runs / "b", *flags).out.splitlines()
    heads, cells = (re.split(r"  +", line.strip()) for line in lines[2:4])
    tree = json.loads(call("compare", runs / "a", runs / "b", *flags, "--json").out)
    (point,) = tree["points"]

    assert heads[6:-1] == ["p99.9", "p0", "p99.99999"]
    assert [each["q"] for each in point["percentiles"]] == [99.9, 0, 99.99999]
    for place, each in enumerate(point["percentiles"], 6):
        assert cells[place].startswith(f"{each['first']['value']:.3g}"[:4])


def test_a_run_that_is_not_finished_is_compared_and_told_of(call, runs):
    answer = call("compare", runs / "a", runs / "half")

    assert answer.code == 0, answer.err
    assert "not complete: 2 of 3 blocks are compared (12 of 17 samples)" in answer.out


def test_damage_is_told_and_left_out(call, tmp_path):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", seed=0.9)
    (tmp_path / "b" / "sketches.npz").unlink(missing_ok=True)
    records = sorted(
        path for path in (tmp_path / "b" / "cache").rglob("*") if path.is_file() and "commits" in path.parts
    )
    records[-1].write_bytes(b"\0" + records[-1].read_bytes()[1:])
    answer = call("compare", tmp_path / "a", tmp_path / "b")

    assert answer.code == 0, answer.err
    assert "the second run is damaged: block" in answer.out
    assert "2 of 3 blocks are compared" in answer.out


def test_patterns_choose_layers_and_channels_have_rows(call, runs):
    answer = call("compare", runs / "a", runs / "b", "--points", "co*", "--per-channel", "-q", 50)

    assert answer.code == 0, answer.err
    assert "dense" not in answer.out
    assert "p50" in answer.out
    assert len(re.findall(r"^conv +[01] ", answer.out, re.MULTILINE)) == 2


def test_the_page_stands_alone_and_shows_each_distribution(call, runs, tmp_path):
    page, other = tmp_path / "page.html", tmp_path / "other.html"
    answer = call("compare", runs / "a", runs / "b", "--html", page)
    call("compare", runs / "a", runs / "b", "--by", "wasserstein", "--html", other)
    text = page.read_text().replace("<wbr>", "")
    apart = compare(runs / "a", runs / "b").points[0].nonzero.kolmogorov_smirnov
    shown = re.findall("largest distance</dt><dd>([^ ]+)(?: to ([^ ]+))? at", text)[0]

    assert answer.code == 0, answer.err
    assert float(shown[0]) <= 1.001 * apart.lo
    assert float(shown[1] or shown[0]) >= 0.999 * apart.hi
    assert text.count("<svg") == text.count("<article") == 2
    assert "&lt;b&gt;dense/1&lt;/b&gt;" in text
    assert "<b>dense" not in text
    assert "default-src 'none'" in text
    assert ("W1, relative</th>" in other.read_text(), "W1, relative</th>" in text) == (True, False)
    assert f"actisketch compare {runs / 'a'} {runs / 'b'} --by ks --nonzero" in text
    assert re.findall(r'(?:src|href)="(?!#|data:)', text) == []


@pytest.mark.parametrize(
    "flags", [[], ["--points", "co*,<b>dense/1</b>", "-q", "50", "-q", "99.99", "--all-values"]]
)
def test_the_command_on_the_page_makes_the_page_again(call, runs, tmp_path, flags):
    pages = [tmp_path / name for name in ("first.html", "again.html")]
    call("compare", runs / "a", runs / "b", *flags, "--html", pages[0])
    (command,) = re.findall("<code>(actisketch .*?)</code>", pages[0].read_text())
    call(*shlex.split(html.unescape(command))[1:], "--html", pages[1])

    assert pages[0].read_text() == pages[1].read_text()


def test_a_page_replaces_no_folder_and_makes_none(call, runs, tmp_path):
    missing = call("compare", runs / "a", runs / "b", "--html", tmp_path / "no" / "page.html")

    assert missing.code == 2
    assert "create it first" in missing.err


def test_the_curves_of_the_page_are_the_shares_of_the_values(call, runs, tmp_path):
    call("compare", runs / "a", runs / "b", "--points", "conv", "--nonzero", "--html", tmp_path / "page.html")
    (picture,) = re.findall("<svg.*</svg>", (tmp_path / "page.html").read_text())
    lowest, highest = (float(re.findall(r">([^<]+)</text>", picture)[i]) for i in (2, 3))

    for made, ink in ((MadeRun(runs / "a"), "ink"), (MadeRun(runs / "b", seed=0.9), "after")):
        values = made.all_values("conv")
        (line,) = re.findall(f'class="l {ink}"[^>]* d="([^"]+)"', picture)
        for x, y in corners(line):
            value = lowest + (x - 40) / (639 - 40) * (highest - lowest)

            assert (176 - y) / (176 - 4) == pytest.approx(np.mean(values[values != 0] <= value), abs=0.02)


def corners(path):
    """Yield the corners of a line of an SVG, each of which is moved to (M, L), or across (H) or down (V) only."""
    x = y = 0.0
    for kind, places in re.findall("([MLHV])([^MLHV]+)", path):
        numbers = [float(place) for place in places.split()]
        x = numbers[0] if kind in "MLH" else x
        y = numbers[-1] if kind in "MLV" else y
        yield x, y
