"""The table for terminals: fits, says everything, and needs neither colours nor boxes."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from actisketch.pipeline.report import PointReport, ReportData, layer_table
from actisketch.pipeline.report.numbers import number_text


def render(report: ReportData, width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(layer_table(report, width=width))
    return file.getvalue()


@pytest.fixture
def report(point_of: Callable[..., PointReport], report_of: Callable[..., ReportData]) -> ReportData:
    names = ["conv1", "block_1/expand/pointwise_conv2d", "dense:1", "[red]odd[/red]"]
    scales = [1.0, 0.0001, 3000.0, 1.0]
    points = [
        point_of(name, seed=seed, scale=scale)
        for seed, (name, scale) in enumerate(zip(names, scales, strict=True))
    ]
    return report_of((*points, point_of("per_channel", factor=(0.53, 1.97))))


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal(report: ReportData, width: int) -> None:
    assert max(map(len, render(report, width).splitlines())) <= width


@pytest.mark.parametrize("width", [80, 100, 120])
def test_all_columns_and_numbers_are_shown_from_80_columns_on(report: ReportData, width: int) -> None:
    text = render(report, width)

    for head in ("layer", "shape", "values", "zeros", "max", "p99.9", "[lo,hi]", "factor", "residual"):
        assert head in text
    for point in report.points:
        assert number_text(point.before.layer.maximum) in text
    assert "..." not in text
    assert "…" not in text


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_is_plain_ascii_without_colours_or_boxes(report: ReportData, width: int) -> None:
    text = render(report, width)

    assert text.isascii()
    assert "\x1b" not in text
    assert "|" not in text
    assert "--" not in text


def test_short_names_leave_room_for_every_column_at_80(
    point_of: Callable[..., PointReport], report_of: Callable[..., ReportData]
) -> None:
    text = render(report_of((point_of("conv1"), point_of("dense1", seed=5))), 80)

    assert "shape" in text
    assert len(text.splitlines()) == 3


def test_a_name_with_markup_is_shown_as_it_is(report: ReportData) -> None:
    assert "[red]odd[/red]" in render(report, 120)


def test_a_wide_terminal_has_one_line_for_each_layer(report: ReportData) -> None:
    assert len(render(report, 140).splitlines()) == 1 + len(report.points)


def test_a_narrow_terminal_keeps_layer_percentile_and_factor(report: ReportData) -> None:
    text = render(report, 40)

    assert "factor" in text
    assert "[lo,hi]" in text
    assert "shape" not in text


def test_without_a_certificate_there_is_no_column_of_residuals(
    point_of: Callable[..., PointReport], report_of: Callable[..., ReportData]
) -> None:
    report = report_of((point_of(residual=None),), certificate=None)

    assert "residual" not in render(report, 120)


def test_a_report_without_points_is_an_empty_table(report_of: Callable[..., ReportData]) -> None:
    assert "layer" in render(report_of(()), 80)


def test_a_name_steers_no_terminal(
    point_of: Callable[..., PointReport], report_of: Callable[..., ReportData]
) -> None:
    for name in ("dense\x1b[31m", "a\nb", "bell\x07", "right\u202eleft"):
        text = render(report_of((point_of(name),)), 120)

        assert not {"\x1b", "\x07", "\u202e"} & set(text)
        assert len(text.splitlines()) == len(render(report_of((point_of("plain"),)), 120).splitlines())


def test_pinned_and_tied_points_are_marked(
    point_of: Callable[..., PointReport], report_of: Callable[..., ReportData]
) -> None:
    points = (point_of("own"), point_of("soft", is_pinned=True), point_of("added", is_tied=True))
    lines = render(report_of(points), 120).splitlines()
    at = lines[0].index("rule")

    assert [line[at : at + 6].strip() for line in lines[1:]] == ["", "pinned", "tied"]
    assert "rule" not in render(report_of(points[:1]), 120)
