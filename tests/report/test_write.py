"""Writing a report: whole or not at all, the same bytes every time, bounded in size and time."""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from actisketch.pipeline.report import PointReport, ReportData, write, write_report
from actisketch.pipeline.report.point_figures import point_figures
from actisketch.pipeline.sketch import PointSketch, Sketch
from actisketch.storage.errors import InputError, StorageError

from ..on_disk import contents


def test_the_page_and_a_file_for_each_figure_are_written(small_report: ReportData, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []

    paths = write_report(tmp_path / "new" / "report", small_report, progress=lambda *step: steps.append(step))

    assert [path.name for path in paths] == [
        "index.html",
        "overview.svg",
        "overview.pdf",
        "001-conv1-activations.svg",
        "001-conv1-maxima.svg",
        "001-conv1-weights.svg",
        "001-conv1.pdf",
        "002-dead-activations.svg",
        "002-dead-maxima.svg",
        "002-dead.pdf",
        "003-conv2-activations.svg",
        "003-conv2-maxima.svg",
        "003-conv2-weights.svg",
        "003-conv2.pdf",
    ]
    assert {str(path.relative_to(tmp_path / "new" / "report")) for path in paths} == set(
        contents(tmp_path / "new" / "report")
    )
    for path in paths[1:]:
        if path.suffix == ".pdf":
            assert path.read_bytes().startswith(b"%PDF-")
        else:
            ElementTree.parse(path)
    assert steps == [(1, 3), (2, 3), (3, 3)]


def shapes(svg: str) -> list[str]:
    """The outlines and texts of a picture, without its colours."""
    return re.findall(r' d="([^"]+)"|>([^<]+)</text>', svg)


def test_the_pictures_in_the_page_are_the_files_beside_it(small_report: ReportData, tmp_path: Path) -> None:
    page, *files = write_report(tmp_path, small_report)
    html = page.read_text(encoding="utf-8")
    svgs = [path.read_text(encoding="utf-8") for path in files if path.suffix == ".svg"]
    drawn = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    pdfs = re.findall(r'download="([^"]+\.pdf)" href="data:application/pdf;base64,([^"]+)"', html)

    # The second is the overview for narrow screens, which has no file. The first shape of a file is the paper.
    assert [shapes(each) for each in drawn[:1] + drawn[2:]] == [shapes(each)[1:] for each in svgs]
    assert {name: base64.b64decode(each) for name, each in pdfs} == {
        path.name: path.read_bytes() for path in files if path.suffix == ".pdf"
    }
    assert set(re.findall(r'href="(figures/[^"]+)"', html)) == {
        f"figures/{path.name}" for path in files if path.suffix == ".svg"
    }


def test_the_same_report_gives_the_same_bytes(small_report: ReportData, tmp_path: Path) -> None:
    write_report(tmp_path / "a", small_report)
    write_report(tmp_path / "b", small_report)

    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize(
    "fault", [KeyboardInterrupt, OSError(28, "No space left on device"), ValueError("bug")]
)
def test_a_report_that_fails_while_it_is_drawn_leaves_the_older_one_as_it_was(
    small_report: ReportData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Any
) -> None:
    write_report(tmp_path, small_report)
    before, drawn = contents(tmp_path), point_figures

    def fail_at_the_second(point: PointReport, *, nonzero: bool) -> Any:
        if point.name == "dead":
            raise fault
        return drawn(point, nonzero=nonzero)

    monkeypatch.setattr(write, "point_figures", fail_at_the_second)

    with pytest.raises(
        StorageError
        if isinstance(fault, OSError)
        else type(fault)
        if isinstance(fault, ValueError)
        else fault
    ):
        write_report(tmp_path, small_report)
    assert contents(tmp_path) == before


def test_a_full_disk_is_told_in_one_sentence(
    small_report: ReportData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(StorageError, match=r"No space left on device; an older report is left as it was"):
        write_report(tmp_path, small_report)
    assert contents(tmp_path) == {}


def test_a_new_folder_goes_again_where_the_report_fails(
    small_report: ReportData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: os.write(-1, b""))

    with pytest.raises(StorageError):
        write_report(tmp_path / "new" / "report", small_report)
    assert list(tmp_path.iterdir()) == []


def test_a_page_of_others_is_not_replaced(small_report: ReportData, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<title>mine</title>")

    with pytest.raises(InputError, match="choose another folder"):
        write_report(tmp_path, small_report)
    assert contents(tmp_path) == {"index.html": b"<title>mine</title>"}


def test_a_folder_that_is_a_file_is_refused(small_report: ReportData, tmp_path: Path) -> None:
    (tmp_path / "report").write_text("mine")

    with pytest.raises(StorageError, match="report"):
        write_report(tmp_path / "report", small_report)
    assert (tmp_path / "report").read_text() == "mine"


def test_figures_of_an_older_report_go_and_files_of_others_stay(
    small_report: ReportData,
    point_of: Callable[..., PointReport],
    report_of: Callable[..., ReportData],
    tmp_path: Path,
) -> None:
    write_report(tmp_path, small_report)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "figures" / "mine.png").write_bytes(b"mine")
    # Of earlier versions.
    for name in ("overview.png", "002-dead-activations.png"):
        (tmp_path / "figures" / name).write_bytes(b"old")

    write_report(tmp_path, report_of((point_of("only"),)))

    assert set(contents(tmp_path)) == {
        "index.html",
        "notes.txt",
        "figures/mine.png",
        "figures/overview.svg",
        "figures/overview.pdf",
        "figures/001-only-activations.svg",
        "figures/001-only-weights.svg",
        "figures/001-only-maxima.svg",
        "figures/001-only.pdf",
    }


def test_a_stage_left_by_a_killed_process_is_cleared_once_it_is_old(
    small_report: ReportData, tmp_path: Path
) -> None:
    fresh, old = tmp_path / ".report-fresh", tmp_path / ".report-old"
    for folder in (fresh, old):
        folder.mkdir()
    os.utime(old, (time.time() - 7200,) * 2)

    write_report(tmp_path, small_report)

    assert fresh.exists()
    assert not old.exists()


KILLED = """
import sys, time, pathlib
import numpy as np
from actisketch.pipeline.report import PointReport, ReportData, write_report
from actisketch.pipeline.sketch import PointSketch, SketchSpec
sketch = PointSketch.empty(SketchSpec())
sketch.update(np.ones((3, 5), np.float32))
point = {"shape": (5,), "before": sketch, "percentile": sketch.layer.percentile(50)}
points = tuple(PointReport(name=f"p{number}", **point) for number in range(500))
def progress(done, total):
    print(done, flush=True)
write_report(sys.argv[1], ReportData(title="new", model_name="m", points=points, n_samples=3), progress=progress)
"""


def test_a_report_killed_while_it_is_drawn_leaves_the_older_one_as_it_was(
    small_report: ReportData, tmp_path: Path
) -> None:
    write_report(tmp_path, small_report)
    before = contents(tmp_path)

    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as output:
        assert output.readline() == "1\n"
        process.send_signal(signal.SIGKILL)
        process.wait()

    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before
    assert all(name.startswith(".report-") for name in set(after) - set(before))


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/abs/olute", "a\0b", "CON", "", "x" * 300, "層", "a b/c:d*e"]
)
def test_any_name_gives_a_safe_file_name(name: str) -> None:
    file_name = write.figure_name(7, name)

    assert re.fullmatch(r"007-[A-Za-z0-9._-]{1,60}", file_name)
    assert write.OUR_FIGURE.fullmatch(f"{file_name}-weights.svg")
    assert write.OUR_FIGURE.fullmatch(f"{file_name}.pdf")


def test_what_was_computed_for_the_pictures_is_not_kept_with_the_sketches(
    point_of: Callable[..., PointReport], report_of: Callable[..., ReportData], tmp_path: Path
) -> None:
    point = point_of()
    sketches = [point.before.layer, point.before.maxima, point.weights_before]
    fresh = [type(sketch).from_bytes(sketch.to_bytes()) for sketch in sketches if sketch is not None]
    report = report_of((replace(point, before=replace_sketches(point, *fresh[:2]), weights_before=fresh[2]),))
    before = [set(vars(sketch)) for sketch in fresh]

    write_report(tmp_path, report)

    assert [set(vars(sketch)) for sketch in fresh] == before


def replace_sketches(point: PointReport, layer: Sketch, maxima: Sketch) -> PointSketch:
    return PointSketch(spec=point.before.spec, layer=layer, channels=None, maxima=maxima)


@pytest.mark.slow
def test_150_layers_take_less_than_8_megabytes_and_30_seconds_of_one_core(
    point_of: Callable[..., PointReport], report_of: Callable[..., ReportData], tmp_path: Path
) -> None:
    points = tuple(
        point_of(f"block_{number // 5}/conv_{number % 5}", seed=number, scale=10.0 ** (number % 5))
        for number in range(150)
    )
    started = time.process_time()

    page, *figures = write_report(tmp_path, report_of(points))

    assert time.process_time() - started < 30
    assert page.stat().st_size < 8e6
    assert sum(path.stat().st_size for path in figures) < 8e6
    assert len(figures) == 2 + 150 * 4
