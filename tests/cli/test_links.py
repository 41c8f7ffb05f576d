"""A run folder made by somebody else may have a link under any name of ours: nothing is written through one."""

import os
import shutil

import pytest

from actisketch.pipeline import open_run

DOCUMENTED = {0, 2, 3, 4, 5, 6, 7, 8, 9}


@pytest.fixture
def precious(tmp_path_factory):
    """A home with files that nobody may touch; some have names that a run or a cache uses."""
    home = tmp_path_factory.mktemp("home")
    (home / "note.txt").write_text("precious")
    array = home / "array"
    array.mkdir()
    for name in ("zarr.json", "c.0.0", "lock", "index.html", "overview.svg", "001-first-weights.svg"):
        (array / name).write_text(f"precious {name}")
    (array / "commits").mkdir()
    (array / "commits" / "00000000.0-16.block").write_text("precious block")
    return home


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def put(link, target, kind):
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    if kind == "hard":
        os.link(target, link)
    else:
        link.symlink_to(target)


def work(call, finished):
    """Let everything be written: blocks and documents, results, report, log."""
    for chunk in (finished["run"] / "cache" / "second").glob("c.1.*"):
        chunk.unlink()
    (finished["run"] / "cache" / "zarr.json").unlink(missing_ok=True)
    return [
        call("verify", finished["run"], "--repair"),
        call("run", finished["job"], "--percentile", 98, "--report"),
        call("normalize", finished["run"]),
        call("report", finished["run"]),
    ]


@pytest.fixture(autouse=True)
def drawn_once(monkeypatch):
    """Where pictures are written is the question, not what they show: every point gets those of the first."""
    from actisketch.pipeline.report import point_figures

    draw, drawn = point_figures.point_figures, []

    def point_figures_of_the_first(point, *, nonzero):
        drawn.extend(() if drawn else draw(point, nonzero=nonzero))
        return drawn

    monkeypatch.setattr("actisketch.pipeline.report.write.point_figures", point_figures_of_the_first)


FILES = (
    "cache/.actisketch/lock",
    "cache/.actisketch/commits/00000001.16-32.block",
    "cache/zarr.json",
    "cache/first/c.0.0",
    "run.log",
    "timings.json",
    "factors.json",
    "normalized.keras",
    "report/index.html",
)


@pytest.mark.parametrize("kind", ["link", "dangling link", "hard"])
@pytest.mark.parametrize(
    "names",
    [FILES, ("run.json",), ("cache/.actisketch/cache.json",)],
    ids=["all that is written", "manifest", "description"],
)
def test_a_link_in_the_place_of_a_file_is_replaced_or_refused_and_never_written_through(
    call, finished, precious, names, kind
):
    call("report", finished["run"])
    for name in names:
        put(finished["run"] / name, precious / ("nowhere" if kind == "dangling link" else "note.txt"), kind)
    before = contents(precious)
    answers = work(call, finished)

    assert contents(precious) == before
    for answer in answers:
        assert answer.code in DOCUMENTED, answer.err
        assert "Traceback" not in answer.err
    if "run.log" in names:
        for name in ("cache/.actisketch/lock", "run.log"):
            assert not (finished["run"] / name).is_symlink()
            assert (finished["run"] / name).stat().st_nlink == 1


@pytest.mark.parametrize(
    "name",
    [
        "report",
        "report/figures",
        "cache/.actisketch",
        "cache/.actisketch/tmp",
        "cache/.actisketch/commits",
        "cache/first",
    ],
)
def test_a_link_in_the_place_of_a_folder_is_refused_by_name(call, finished, precious, name):
    call("report", finished["run"])
    put(finished["run"] / name, precious / "array", "link")
    before = contents(precious)
    answers = work(call, finished)

    assert contents(precious) == before
    for answer in answers:
        assert answer.code in DOCUMENTED, answer.err
        assert "Traceback" not in answer.err
    assert any(f"{finished['run'] / name}' is a link to" in answer.err for answer in answers) or (
        "has lost its description" in answers[0].err
    )


def test_a_whole_cache_may_be_a_link(call, finished, tmp_path):
    cache = finished["run"] / "cache"
    shutil.move(cache, tmp_path / "elsewhere")
    cache.symlink_to(tmp_path / "elsewhere")
    sound = call("verify", finished["run"])
    for chunk in (cache / "second").glob("c.1.*"):
        chunk.unlink()
    repaired = call("verify", finished["run"], "--repair")
    again = call("verify", finished["run"])

    assert (sound.code, again.code) == (0, 0), sound.err + again.err
    assert "sound" in sound.out
    assert "foreign" not in repaired.err
    assert cache.is_symlink()


def test_a_half_written_name_that_is_a_link_is_not_written_through(call, finished, precious):
    before = contents(precious)
    for stem, suffix in (
        ("run", ".json"),
        ("factors", ".json"),
        ("normalized", ".keras"),
        ("sketches", ".npz"),
    ):
        put(finished["run"] / f".{stem}.{os.getpid()}.partial{suffix}", precious / "note.txt", "link")
    answer = call("run", finished["job"], "--percentile", 98)

    assert answer.code == 0, answer.err
    assert contents(precious) == before
    assert open_run(finished["run"]).status().has_network


def test_a_pipe_in_the_place_of_a_file_to_write_is_replaced(call, finished):
    for name in ("run.log", "cache/.actisketch/lock"):
        path = finished["run"] / name
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    answer = call("run", finished["job"], "--percentile", 98)

    assert answer.code == 0, answer.err
    assert (finished["run"] / "run.log").read_text()


@pytest.mark.parametrize("verb", ["status", "percentiles", "verify", "report"])
@pytest.mark.parametrize(
    "name", ["run.json", "sketches.npz", "factors.json", "normalized.keras", "cache/.actisketch/cache.json"]
)
def test_a_pipe_in_the_place_of_a_file_to_read_is_not_waited_for(call, finished, name, verb):
    path = finished["run"] / name
    path.unlink()
    os.mkfifo(path)
    answer = call(verb, finished["run"], *(["-q", "99"] if verb == "percentiles" else []))

    assert answer.code in DOCUMENTED


def test_a_link_to_the_root_of_all_files_is_not_walked(call, finished):
    (finished["run"] / "cache" / "everything").symlink_to("/")
    (finished["run"] / "cache" / "first" / "everything").symlink_to("/")
    answer = call("verify", finished["run"])

    assert answer.code == 4
    assert "foreign: first/everything: " in answer.out
    assert "foreign: everything/etc: " in answer.out
    assert "everything/etc/" not in answer.out
