"""Filters and points in time as Docker's clients write them (fact 2.84)."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netd.core.errors import InvalidParameter
from netd.core.filters import Filters
from netd.core.times import moment, rfc3339, timestamp

NOW = 1_700_000_000.0


def filters(**values: list[str]) -> Filters:
    return Filters.parse(json.dumps(values))


@given(st.dictionaries(st.text(), st.lists(st.text())))
def test_both_encodings_mean_the_same(values: dict[str, list[str]]) -> None:
    older = {key: dict.fromkeys(given_, True) for key, given_ in values.items()}
    assert Filters.parse(json.dumps(values)) == Filters.parse(json.dumps(older))


@given(st.text())
def test_anything_else_is_refused_or_parsed_but_never_breaks(text: str) -> None:
    try:
        Filters.parse(text)
    except InvalidParameter as error:
        assert "invalid filters" in str(error)


def test_no_filters_let_everything_pass() -> None:
    none = Filters.parse("")
    assert none.exact("driver", "bridge") and none.match("name", "x") and none.labels({}) and none.until("")


def test_values_of_one_key_are_alternatives() -> None:
    assert filters(driver=["bridge", "host"]).exact("driver", "host")
    assert not filters(driver=["bridge", "host"]).exact("driver", "null")


def test_names_match_by_part_and_by_expression() -> None:
    assert filters(name=["ho"]).match("name", "shop")
    assert filters(name=["^sh.p$"]).match("name", "shop")
    assert not filters(name=["^op"]).match("name", "shop")
    assert filters(name=["a[b"]).match("name", "a[b")
    assert not filters(name=["a[b"]).match("name", "ab")


@pytest.mark.parametrize("pattern", ["^(a+)+$", "(a|aa)+$", "(x+x+)+y", "(.*)*(.*)*(.*)*z", "((a?){200}a{200}){3}"])
def test_no_expression_takes_long(pattern: str) -> None:
    begun = time.monotonic()
    assert not filters(name=[pattern]).match("name", "a" * 60 + "!")
    assert time.monotonic() - begun < 0.5


def test_an_expression_that_is_too_large_matches_nothing_as_one_that_is_none() -> None:
    for pattern in (r"\pL{1000}", "a{1001}", "a" * 100_000 + ".", "(", "*", r"(?=a)", r"(a)\1"):
        assert not filters(name=[pattern]).match("name", "aaa")


def test_any_number_of_words_is_looked_for_but_only_some_expressions() -> None:
    ids = [f"{number:064x}" for number in range(1000)]
    assert filters(id=ids).match("id", ids[-1])
    assert filters(id=[each[50:] for each in ids]).match("id", ids[-1])
    with pytest.raises(InvalidParameter, match=r"^invalid filter: more than 16 patterns$"):
        filters(name=[f"^{number}" for number in range(17)]).match("name", "shop")


@given(st.text(), st.text())
def test_any_pattern_is_matched_or_refused_but_never_breaks(pattern: str, text: str) -> None:
    filters(name=[pattern]).match("name", text)
    try:
        filters(reference=[pattern]).glob("reference", [text])
    except InvalidParameter as error:
        assert str(error).startswith("invalid filter: ")


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("shop/*", "shop/web:1", "shop/web/a:1"),
        ("s*p", "shop", "shops"),
        ("sh?p", "shop", "sh/p"),
        ("*", "shop", "shop/web"),
        ("we[a-c]:[^2-9]", "web:1", "web:2"),
        (r"we\[b\]", "we[b]", "web"),
        (r"a[\]\-]", "a-", "a^"),
        ("a.c", "a.c", "abc"),
        ("*a*a*a*a*b", "aaaaab", "a" * 200),
    ],
)
def test_a_reference_is_described_as_gos_paths_are(pattern: str, matching: str, other: str) -> None:
    assert filters(reference=[pattern]).glob("reference", [other, matching])
    assert not filters(reference=[pattern]).glob("reference", [other])


@pytest.mark.parametrize("pattern", ["[", "a[]", "[]a]", "[-]", "[a-]", "a\\", "[z-a]"])
def test_what_is_no_pattern_of_a_reference_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidParameter, match=r"^invalid filter: "):
        filters(reference=[pattern]).glob("reference", ["a"])


def test_labels_must_all_hold() -> None:
    labels = {"tier": "web", "old": ""}
    assert filters(label=["tier", "old"]).labels(labels)
    assert filters(label=["tier=web"]).labels(labels)
    assert not filters(label=["tier=web", "new"]).labels(labels)
    assert not filters(label=["tier=db"]).labels(labels)
    assert not filters(**{"label!": ["tier"]}).labels(labels)
    assert filters(**{"label!": ["tier=db"]}).labels(labels)


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(InvalidParameter, match=r"^invalid filter 'foo'$"):
        filters(foo=["x"]).check("name")


def test_truth() -> None:
    assert filters(dangling=["1"]).truthy("dangling")
    assert not filters(dangling=["false", "0"]).truthy("dangling")
    assert Filters().truthy("dangling", default=True)
    with pytest.raises(InvalidParameter, match="invalid filter 'dangling=maybe'"):
        filters(dangling=["maybe"]).truthy("dangling")


def test_until_is_older_than() -> None:
    assert filters(until=["1m"]).until("2020-01-02T03:04:05.123456789Z")
    assert not filters(until=["1h"]).until(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    with pytest.raises(InvalidParameter, match="more than one until filter"):
        filters(until=["1h", "2h"]).until("2020-01-02T03:04:05Z")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1700000000", NOW),
        ("1700000000.25", NOW + 0.25),
        ("10m", NOW - 600),
        ("1h30m", NOW - 5400),
        ("1.5h", NOW - 5400),
        ("-1s", NOW + 1),
        ("2023-11-14T22:13:20Z", NOW),
        ("2023-11-14T22:13:20.5Z", NOW + 0.5),
        ("2023-11-14T22:13:20.500000000+00:00", NOW + 0.5),
        ("2023-11-15T00:13:20+02:00", NOW),
        ("2023-11-14T22:13:20", NOW),
        ("2023-11-14", NOW - 80_000),
        (timestamp(1_700_000_000_500_000_000), NOW + 0.5),
        (rfc3339(NOW + 0.25), NOW + 0.25),
    ],
)
def test_points_in_time(text: str, seconds: float) -> None:
    assert moment(text, now=NOW) == pytest.approx(seconds)


@given(st.text())
def test_other_words_are_no_points_in_time(text: str) -> None:
    try:
        moment(text, now=NOW)
    except InvalidParameter as error:
        assert "invalid time" in str(error)
