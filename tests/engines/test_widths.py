"""Widths are exact, and the mask is what the prefix property needs."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from engines.errors import WidthError
from engines.widths import MAX_GRID, WidthRule, format_width, parse_grid, parse_width
from tests.networks import rules, widths


@pytest.mark.parametrize("value", ["0.35", 0.35, Fraction(7, 20), " 0.35 ", "35/100", ".35", np.float64(0.35), np.float32(0.35)])
def test_width_is_read_by_its_decimal_text(value: str | float | Fraction) -> None:
    """0.35 is 35/100, not the binary neighbour that would round the other way at a half-way point."""
    assert parse_width(value) == Fraction(35, 100)


def test_sum_of_floats_is_taken_as_it_is_written() -> None:
    assert parse_width(0.1 + 0.2) == Fraction("0.30000000000000004")


@pytest.mark.parametrize("value", [1, 1.0, "1", "1.0", Fraction(1)])
def test_full_width_may_be_written_in_any_way(value: str | float | Fraction) -> None:
    assert parse_width(value) == 1


@pytest.mark.parametrize("value", [0, 1.01, "0", "-0.5", "1.01", "2", -1, Fraction(0), Fraction(3, 2), "-0"])
def test_width_outside_0_to_1_is_refused(value: str | float | Fraction) -> None:
    with pytest.raises(WidthError, match=r"must be in \(0, 1\], got "):
        parse_width(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "a",
        "nan",
        "inf",
        "-inf",
        float("nan"),
        float("inf"),
        "1/0",
        "1//2",
        "0x1",
        "0.5.5",
        True,
        None,
        "1e-999999999",
        "1e-2",
        1e-7,
    ],
)
def test_what_is_no_plain_number_is_refused(value: str) -> None:
    """Exponents too: "1e-999999999" as an exact fraction would take all memory."""
    with pytest.raises(WidthError, match=r"must be a number like 0\.25 or 1/4, got "):
        parse_width(value)


def test_a_very_long_number_is_refused_and_cut_in_the_message() -> None:
    with pytest.raises(WidthError) as caught:
        parse_width("0." + "3" * 10_000)
    assert len(str(caught.value)) < 120


def test_width_error_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="must be in"):
        parse_width("2")


@pytest.mark.parametrize(
    ("width", "text"),
    [
        (Fraction(1), "1.0"),
        (Fraction(1, 4), "0.25"),
        (Fraction(3, 10), "0.3"),
        (Fraction(1, 3), "1/3"),
        (Fraction(1, 1024), "0.0009765625"),
        (Fraction(7, 12), "7/12"),
        (Fraction(1, 100), "0.01"),
    ],
)
def test_width_is_written_as_a_decimal_where_that_is_exact(width: Fraction, text: str) -> None:
    assert format_width(width) == text


@given(st.fractions(min_value=Fraction(1, 10**6), max_value=1, max_denominator=10**6))
def test_a_written_width_reads_back_as_the_same_fraction(width: Fraction) -> None:
    assert parse_width(format_width(width)) == width


def test_the_grid_of_the_paper_has_76_widths() -> None:
    grid = parse_grid("0.25:1.0:0.01")
    assert grid == tuple(Fraction(i, 100) for i in range(25, 101))
    assert len(grid) == 76


@pytest.mark.parametrize(
    ("text", "grid"),
    [
        ("0.25:1:0.25", ["0.25", "0.5", "0.75", "1"]),
        ("0.25:1.0:0.4", ["0.25", "0.65", "1"]),
        ("0.5:0.5:0.1", ["0.5"]),
        ("0.5:0.6:7", ["0.5", "0.6"]),
        ("1/4:1/2:1/12", ["1/4", "1/3", "5/12", "1/2"]),
        (" 0.5 : 1 : 0.5 ", ["0.5", "1"]),
        ("1.0", ["1"]),
        ("1,0.25, 0.5,0.50", ["0.25", "0.5", "1"]),
    ],
)
def test_grid_includes_both_ends_and_each_width_once_ascending(text: str, grid: list[str]) -> None:
    assert parse_grid(text) == tuple(Fraction(width) for width in grid)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must be a number"),
        ("a:b:c", "must be a number"),
        ("0.25:1.0", "start:stop:step"),
        ("0.25:1:0.1:2", "start:stop:step"),
        (":::", "start:stop:step"),
        ("::", "must be a number"),
        ("0:1:0.1", r"must be in \(0, 1\], got 0"),
        ("0.25:1.01:0.01", r"must be in \(0, 1\], got 1.01"),
        ("0.25:1:0", "step of a grid must be positive"),
        ("0.25:1:-0.01", "step of a grid must be positive"),
        ("0.25:1:nan", "the step of a grid must be a number"),
        ("0.25:inf:0.01", "must be a number"),
        ("0.25:1:1e-999999999", "the step of a grid must be a number"),
        ("1:0.25:0.01", "from the narrower to the wider end"),
        ("0.25:1:0.00001", f"has 75001 widths; the most is {MAX_GRID}"),
        ("0.25:1:0.00000000000000000000000000000000001", f"the most is {MAX_GRID}"),
        ("0.25,,1", "must be a number"),
        ("0.25,1.01", r"must be in \(0, 1\], got 1.01"),
        ("0.25;1", "must be a number"),
    ],
)
def test_a_bad_grid_is_refused_with_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(WidthError, match=words):
        parse_grid(text)


@pytest.mark.parametrize(
    ("channels", "divisor", "width", "active"),
    [
        (45, 1, "0.25", 11),  # 11.25
        (45, 1, "0.5", 23),  # 22.5, half up
        (45, 1, "0.3", 14),  # 13.5, half up
        (45, 1, "1", 45),
        (50, 1, "0.29", 15),  # 14.5; in floats 0.29 * 50 is 14.499999999999998
        (10, 1, "0.35", 4),  # 3.5
        (10, 1, "0.01", 1),  # 0.1, but never less than one unit
        (48, 8, "0.25", 16),  # 1.5 of 6 units
        (48, 8, "0.24", 8),  # 1.44
        (48, 16, "0.01", 16),
        (48, 16, "1", 48),
        (64, 16, "5/8", 48),  # 2.5 of 4 units
    ],
)
def test_active_channels_by_hand(channels: int, divisor: int, width: str, active: int) -> None:
    assert WidthRule(Fraction(1, 100), divisor).active(channels, Fraction(width)) == active


@given(rules(), st.integers(1, 300), widths(), widths())
def test_active_channels_grow_with_the_width_in_whole_units(rule: WidthRule, units: int, a: Fraction, b: Fraction) -> None:
    channels = units * rule.divisor
    narrow, wide = rule.active(channels, min(a, b)), rule.active(channels, max(a, b))
    assert rule.divisor <= narrow <= wide <= channels
    assert narrow % rule.divisor == wide % rule.divisor == 0
    assert rule.active(channels, Fraction(1)) == channels


@pytest.mark.parametrize(("a_min", "divisor"), [("0", 1), ("-1/4", 1), ("1.01", 1), ("0.25", 0), ("0.25", -8)])
def test_a_rule_without_sense_is_refused(a_min: str, divisor: int) -> None:
    with pytest.raises(WidthError):
        WidthRule(Fraction(a_min), divisor)


@pytest.mark.parametrize("channels", [0, -8, 12])
def test_channels_must_be_whole_units(channels: int) -> None:
    with pytest.raises(WidthError, match=f"{channels} channels are not a positive multiple of the divisor 8"):
        WidthRule(Fraction(1, 4), 8).active(channels, Fraction(1))


@pytest.mark.parametrize(("width", "ok"), [("0.25", True), ("1", True), ("0.249", False), ("1.001", False)])
def test_a_network_refuses_widths_it_was_not_made_for(width: str, ok: bool) -> None:
    rule = WidthRule(Fraction(1, 4))
    if ok:
        rule.check(Fraction(width))
    else:
        with pytest.raises(WidthError, match=r"is outside \[0\.25, 1\.0\]"):
            rule.check(Fraction(width))


@pytest.mark.parametrize(
    ("a_min", "divisor", "inputs", "outputs", "reads"),
    [
        # Units 1, 2, 3 of four first come at 3/8, 5/8 and 7/8, the first is there at a_min.
        ("1/4", 1, 4, 4, [1, 2, 3, 4]),
        ("1/4", 1, 8, 4, [2, 3, 5, 7]),
        ("1/2", 1, 4, 4, [2, 2, 3, 4]),
        ("1", 1, 3, 3, [3, 3, 3]),
        ("1/4", 2, 8, 8, [2, 2, 4, 4, 6, 6, 8, 8]),
        # Half a unit at 1/4 would be none, but one is always active: it may read only what is active at 1/4.
        ("1/4", 1, 8, 1, [2]),
        ("1/20", 4, 64, 4, [4, 4, 4, 4]),
    ],
)
def test_reads_by_hand(a_min: str, divisor: int, inputs: int, outputs: int, reads: list[int]) -> None:
    assert WidthRule(Fraction(a_min), divisor).reads(inputs, outputs).tolist() == reads


@given(rules(), st.integers(1, 20), st.integers(1, 20))
def test_a_row_reads_exactly_what_is_active_at_its_first_width(rule: WidthRule, units_in: int, units_out: int) -> None:
    """Against a search over every width at which anything changes."""
    inputs, outputs = units_in * rule.divisor, units_out * rule.divisor
    changes = rule.distinct([inputs, outputs])
    active = [(rule.active(inputs, width), rule.active(outputs, width)) for width in changes]
    expected = [next(k_in for k_in, k_out in active if row < k_out) for row in range(outputs)]
    assert rule.reads(inputs, outputs).tolist() == expected


@given(rules(), st.integers(1, 20), st.integers(1, 20), st.data())
def test_no_row_of_a_slice_reads_beyond_the_slice(rule: WidthRule, units_in: int, units_out: int, data: st.DataObject) -> None:
    """The prefix property in the mask: what is active at a width reads nothing that is not, in whole blocks of the divisor."""
    inputs, outputs = units_in * rule.divisor, units_out * rule.divisor
    width = data.draw(widths(rule.a_min))
    mask = rule.mask(inputs, outputs)
    assert mask.shape == (outputs, inputs)
    assert not mask[: rule.active(outputs, width), rule.active(inputs, width) :].any()
    blocks = mask.reshape(units_out, rule.divisor, units_in, rule.divisor)
    assert (blocks == blocks[:, :1, :, :1]).all()


@given(rules(), st.integers(1, 20), st.integers(1, 20))
def test_rows_active_at_the_narrowest_width_form_a_dense_leading_block(rule: WidthRule, units_in: int, units_out: int) -> None:
    inputs, outputs = units_in * rule.divisor, units_out * rule.divisor
    assert rule.mask(inputs, outputs)[: rule.active(outputs, rule.a_min), : rule.active(inputs, rule.a_min)].all()


def test_lenet_has_35_different_networks_between_a_quarter_and_one() -> None:
    distinct = WidthRule(Fraction(1, 4)).distinct([45, 45, 45])
    assert len(distinct) == 35
    assert distinct[:3] == (Fraction(1, 4), Fraction(23, 90), Fraction(25, 90))
    assert distinct[-1] == Fraction(89, 90)


@given(rules(), st.lists(st.integers(1, 20), min_size=1, max_size=3), st.data())
def test_distinct_holds_the_narrowest_width_of_each_network(rule: WidthRule, units: list[int], data: st.DataObject) -> None:
    channels = [rule.divisor * u for u in units]
    distinct = rule.distinct(channels)
    networks = [tuple(rule.active(m, width) for m in channels) for width in distinct]
    assert len(set(networks)) == len(networks)
    assert distinct[0] == rule.a_min
    width = data.draw(widths(rule.a_min))
    here = max(i for i, start in enumerate(distinct) if start <= width)
    assert networks[here] == tuple(rule.active(m, width) for m in channels)


@given(rules(), st.integers(1, 20), widths())
def test_below_its_narrowest_width_a_rule_has_no_networks(rule: WidthRule, units: int, width: Fraction) -> None:
    assume(width < rule.a_min)
    assert min(rule.distinct([units * rule.divisor])) == rule.a_min
    with pytest.raises(WidthError):
        rule.check(width)
