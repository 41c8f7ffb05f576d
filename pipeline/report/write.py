"""Write a report into a folder: first all of it beside the old one, then move it into place.

``index.html`` is self-contained; ``figures/`` holds the same pictures as files. If drawing is interrupted,
the older report stays as it was. The renames at
the end take milliseconds: if they are interrupted, every file is whole, ``index.html`` is the old one or
the new one, and the next report repairs the rest.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ...storage.errors import InputError, StorageError
from ...storage.files import put_in_place, sync
from ...storage.partial import no_empty_folder, partial_name, remove_leftovers
from .contents import ReportData
from .overview import tall_overview, wide_overview
from .page import Drawn, Section, page_chunks, section
from .picture import Picture
from .point_figures import point_figures
from .rendered import render_pdf, rendering

__all__ = ["write_report"]

logger = logging.getLogger(__name__)

PAGE = "index.html"
FIGURES = "figures"
OVERVIEW = "overview"
# The template writes it within its first bytes: a page without it is not ours.
MARK = '<meta name="generator" content="actisketch report">'
MARKED_WITHIN = 4096
# Left by a killed process of an earlier version; no report takes an hour, so after that nobody uses it any more.
STAGE_PREFIX = ".report-"
STAGE_LEFT_S = 3600
# Only files of these names are removed from the folder of figures.
OUR_FIGURE = re.compile(
    r"overview\.(svg|pdf|png)|\d{3,}-[A-Za-z0-9._-]+(\.pdf|-(activations|weights|maxima|channels)\.(svg|png))"
)


def write_report(
    folder: str | os.PathLike[str], report: ReportData, *, progress: Callable[[int, int], None] | None = None
) -> list[Path]:
    """Write the HTML page and the figures of `report` into `folder`, and replace an older report.

    Parameters
    ----------
    folder : path
        Created if needed. Other files in it are left alone.
    report : ReportData
    progress : callable, optional
        Called after each point with the number of points drawn and of all points.

    Returns
    -------
    list of Path
        ``index.html`` first, then those of ``figures``: the overview, and for each point in order an SVG of each
        figure and a PDF with a page for each.

    Raises
    ------
    InputError
        If the folder holds an ``index.html`` that is not a report of actisketch, or ``figures`` is a link.
    StorageError
        If the folder cannot be written to. An older report is left as it was, and a new folder is removed again.

    Notes
    -----
    Beyond the sketches, memory does not grow with the number of points: each point's pictures are
    drawn, written and forgotten before the next.

    Examples
    --------
    >>> paths = write_report("out/report", report)  # doctest: +SKIP
    >>> paths[0].name  # doctest: +SKIP
    'index.html'
    """
    started, folder = time.monotonic(), Path(folder)
    try:
        _check_place(folder)
        with no_empty_folder(folder), _stage(folder) as stage:
            names = _draw(stage, report, progress)
            paths = _publish(stage, folder, names)
    except InputError:
        raise
    except OSError as error:
        raise StorageError(
            f"cannot write the report to {str(folder)!r}: {error.strerror or error}"
            f"{f' ({error.filename!r})' if error.filename else ''}; an older report is left as it was. Free space, "
            "move what is in the way, or choose another folder",
            folder=str(folder),
        ) from error
    nbytes = sum(path.stat().st_size for path in paths)
    logger.info(
        "report of %d points written to %s: %d files, %d bytes, %.1f s",
        len(report.points),
        folder,
        len(paths),
        nbytes,
        time.monotonic() - started,
    )
    return paths


def figure_name(number: int, point_name: str) -> str:
    """Return ``"003-conv1"``, which sorts as the graph does and is safe on every file system."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", point_name)[:60] or "_"
    return f"{number:03d}-{safe}"


def _check_place(folder: Path) -> None:
    """Refuse a folder with a page that is not ours, or whose figures are a link."""
    page, figures = folder / PAGE, folder / FIGURES
    if figures.is_symlink():
        raise InputError(
            f"{str(figures)!r} is a link to {os.readlink(figures)!r}, and figures are not written through a link: "
            "remove it, or choose another folder",
            path=str(figures),
        )
    if not page.is_file():  # an empty folder of that name is replaced
        return
    with open(page, encoding="utf-8", errors="replace") as file:
        is_ours = MARK in file.read(MARKED_WITHIN)
    if not is_ours:
        raise InputError(
            f"{str(page)!r} is not a report of actisketch and would be replaced: choose another folder, or move it",
            path=str(page),
        )


@contextmanager
def _stage(folder: Path) -> Iterator[Path]:
    """Provide an empty folder inside `folder`, so that renames out of it stay on one file system."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    for left in folder.glob(f"{STAGE_PREFIX}*"):
        if time.time() - left.lstat().st_mtime > STAGE_LEFT_S:
            shutil.rmtree(left, ignore_errors=True)
    stage = Path(tempfile.mkdtemp(prefix=partial_name("report-", "-"), dir=folder))
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _draw(stage: Path, report: ReportData, progress: Callable[[int, int], None] | None) -> list[str]:
    """Draw everything into `stage`; return the names of the figures."""
    names: list[str] = []
    (stage / FIGURES).mkdir()

    def drawn(name: str, pictures: Mapping[str, Picture]) -> Drawn:
        pdf = render_pdf(pictures.values())
        svgs = {f"{each}.svg": picture.svg_file() for each, picture in pictures.items()}
        for file_name, content in {**svgs, f"{name}.pdf": pdf}.items():
            (stage / FIGURES / file_name).write_bytes(content)
            names.append(file_name)
        return Drawn(pictures=pictures, name=name, pdf=pdf)

    def sections() -> Iterator[Section]:
        for number, point in enumerate(report.points, start=1):
            point = point.uncached()
            name = figure_name(number, point.name)
            figures = point_figures(point, nonzero=report.nonzero)
            pictures = {f"{name}-{figure.kind}": figure.picture for figure in figures}
            yield section(number, point, drawn(name, pictures), nonzero=report.nonzero)
            if progress is not None:
                progress(number, len(report.points))

    with rendering(), open(stage / PAGE, "w", encoding="utf-8", newline="\n") as page:
        overview = drawn(OVERVIEW, {OVERVIEW: wide_overview(report)}) if report.points else None
        tall = tall_overview(report) if report.points else None
        page.writelines(page_chunks(report, overview=overview, tall=tall, sections=sections()))
        page.flush()
        os.fsync(page.fileno())
    return names


def _publish(stage: Path, folder: Path, names: list[str]) -> list[Path]:
    """Move the files into place, the page last; then remove figures that only the older report had."""
    figures = folder / FIGURES
    figures.mkdir(exist_ok=True)
    for name in names:
        sync(stage / FIGURES / name)
        put_in_place(stage / FIGURES / name, figures / name)
    sync(figures)
    put_in_place(stage / PAGE, folder / PAGE)
    sync(folder)
    kept = set(names)
    for old in figures.iterdir():
        if old.name not in kept and OUR_FIGURE.fullmatch(old.name):
            old.unlink(missing_ok=True)
    return [folder / PAGE, *(figures / name for name in names)]
