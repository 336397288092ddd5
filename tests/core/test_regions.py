"""Lists of regions: ordered, groups stand for their members, `any` for all; what is malformed is no list."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.regions import (
    ANY,
    DEFAULT_GROUPS,
    MAX_LIST_BYTES,
    MAX_REGIONS,
    Regions,
    parse_regions,
    region_names,
    resolve_regions,
)

GROUPS = {"eu": ("fra", "ams"), "empty": (), "any": ("fra",)}
OPEN = {
    "ams", "arn", "bom", "cdg", "dfw", "ewr", "fra", "gru", "iad", "lax", "lhr", "nrt", "ord", "sin", "sjc", "syd",
    "yyz",
}  # fmt: skip
"""The regions that Fly runs (2026), but for Johannesburg."""
NAMES = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
BLANKS = st.text(" \t", max_size=2)


def only(*names: str) -> frozenset[str]:
    return frozenset(names)


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("fra", (only("fra"),)),
        ("fra,ord", (only("fra"), only("ord"))),
        ("ord,fra", (only("ord"), only("fra"))),
        (" fra ,\tord ", (only("fra"), only("ord"))),
        ("FRA,Eu", (only("fra"), only("fra", "ams"))),
        ("lhr,eu,any", (only("lhr"), only("fra", "ams"), None)),
        ("any", (None,)),
        ("any,fra", (None,)),
        ("empty", (only(),)),
        ("fra,fra", (only("fra"), only("fra"))),
        ("local-2", (only("local-2"),)),
        ("x" * 63, (only("x" * 63),)),
    ],
)
def test_a_list_is_an_order_of_places(text: str, places: Regions) -> None:
    assert parse_regions(text, GROUPS) == places
    assert parse_regions(text.encode(), GROUPS) == places


@pytest.mark.parametrize(
    "text",
    [
        "", " ", ",", "fra,", ",fra", "fra,,ord", "fra ord", "fra;ord", '"fra"', "-fra", "fra-", "f_a", "x" * 64,
        "fra\n", "fra\0", "fr\u00e4", "\u212a", "f\u0131", "\u0660",
    ],
)  # fmt: skip
def test_what_is_malformed_is_no_list(text: str) -> None:
    assert parse_regions(text, GROUPS) is None
    assert parse_regions(text.encode(), GROUPS) is None


def test_a_list_is_bounded() -> None:
    assert region_names(",".join(["fra"] * MAX_REGIONS)) == ("fra",) * MAX_REGIONS
    assert region_names(",".join(["fra"] * (MAX_REGIONS + 1))) is None
    assert region_names("fra".ljust(MAX_LIST_BYTES)) == ("fra",)
    assert region_names("fra".ljust(MAX_LIST_BYTES + 1)) is None
    assert region_names(b"fra," * 25_000) is None


def test_flys_groups_are_the_default() -> None:
    assert set(DEFAULT_GROUPS) == {"apac", "eu", "na", "sa", "us", "usa"}
    assert ANY not in DEFAULT_GROUPS
    assert DEFAULT_GROUPS["us"] == DEFAULT_GROUPS["usa"]
    assert {"yyz", "qro"} <= set(DEFAULT_GROUPS["na"]) - set(DEFAULT_GROUPS["us"])
    assert set(DEFAULT_GROUPS["us"]) < set(DEFAULT_GROUPS["na"])
    assert parse_regions("sa", DEFAULT_GROUPS) == (only("bog", "eze", "gig", "gru", "scl"),)


def test_a_region_is_in_one_part_of_the_world() -> None:
    apart = [code for name in ("apac", "eu", "na", "sa") for code in DEFAULT_GROUPS[name]]
    assert len(apart) == len(set(apart))
    assert all(re.fullmatch(r"[a-z]{3}", code) for code in apart)
    assert set(apart) >= OPEN


@given(st.lists(st.tuples(NAMES, BLANKS, BLANKS, st.booleans()), min_size=1, max_size=15))
def test_names_come_back_as_they_were_listed(listed: list[tuple[str, str, str, bool]]) -> None:
    text = ",".join(before + (name.upper() if upper else name) + after for name, before, after, upper in listed)
    names = tuple(name for name, *_ in listed)
    assert region_names(text) == names
    assert region_names(text.encode()) == names
    assert parse_regions(text, {}) == resolve_regions(names, {})


@given(st.text(max_size=60) | st.binary(max_size=60) | st.text("fr-,. \tANY", max_size=20))
def test_whatever_comes_is_a_list_or_none(text: str | bytes) -> None:
    places = parse_regions(text, DEFAULT_GROUPS)
    assert places is None or 1 <= len(places) <= MAX_REGIONS
