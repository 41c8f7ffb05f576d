"""Numbers as text: short, ASCII, and never better than the truth."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actisketch.pipeline.report import numbers, page, scale
from actisketch.pipeline.report.numbers import count_text, interval_text, number_text, plain, share_text

positive = st.floats(1e-30, 1e30)


@pytest.mark.parametrize("module", [numbers, scale, page])
def test_the_examples_in_the_docstrings_run(module: object) -> None:
    failed, _ = doctest.testmod(module)  # type: ignore[arg-type]  # they are modules

    assert failed == 0


@given(st.floats(-1e300, 1e300))
def test_number_text_is_within_half_a_digit_of_the_number(value: float) -> None:
    assert float(number_text(value)) == pytest.approx(value, rel=0.5001e-3, abs=1e-320)


@given(positive, st.floats(0.0, 1e-2), st.booleans())
def test_the_interval_in_text_contains_the_interval(lo: float, width: float, negative: bool) -> None:
    lo, hi = (-lo * (1 + width), -lo) if negative else (lo, lo * (1 + width))
    ends = [float(end) for end in interval_text(lo, hi).strip("[]").split(", ")]

    if lo == hi:
        assert ends[0] == pytest.approx(lo, rel=1e-5)
    else:
        assert ends[0] <= lo
        assert hi <= ends[1]


@given(st.floats(0.0, 1.0))
def test_a_share_reads_none_or_all_only_when_it_is(share: float) -> None:
    text = share_text(share)

    assert (text == "0 %") == (share == 0)
    assert (text == "100 %") == (share == 1)
    assert not text.startswith("100.0")


def test_unknown_is_a_dash() -> None:
    nan = float("nan")

    assert share_text(None) == share_text(nan) == number_text(nan) == interval_text(nan, nan) == "-"


@given(st.integers(0, 10**20))
def test_counts_take_few_characters(count: int) -> None:
    assert len(count_text(count)) <= 7


@given(st.text(), st.integers(9, 50))
def test_a_plain_name_is_one_printable_line_of_bounded_length(text: str, limit: int) -> None:
    shown = plain(text, limit=limit)

    assert len(shown) <= limit
    assert shown.isprintable()


def test_control_characters_are_spelled_out() -> None:
    assert plain("a\x1b[2Jb\nc") == r"a\x1b[2Jb\nc"
