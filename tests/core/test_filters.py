"""Filters and points in time as Docker's clients write them (fact 2.84)."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from netd.core import expressions
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


def test_very_many_values_are_refused() -> None:
    words = [str(number) for number in range(1025)]
    assert filters(name=words[:500], label=words[:524]).get("label") == frozenset(words[:524])
    with pytest.raises(InvalidParameter, match=r"^invalid filters: more than 1024 values$"):
        filters(name=words[:500], label=words[:525])
    with pytest.raises(InvalidParameter, match=r"^invalid filters: more than 1024 values$"):
        Filters.parse(json.dumps({"name": dict.fromkeys(words, True)}))


def test_no_filters_let_everything_pass() -> None:
    none = Filters.parse("")
    assert none.exact("driver", "bridge") and none.match("name", "x") and none.labels({}) and none.until()("")


def test_values_of_one_key_are_alternatives() -> None:
    assert filters(driver=["bridge", "host"]).exact("driver", "host")
    assert not filters(driver=["bridge", "host"]).exact("driver", "null")


def test_names_match_by_part_and_by_expression() -> None:
    assert filters(name=["ho"]).match("name", "shop")
    assert filters(name=["^sh.p$"]).match("name", "shop")
    assert not filters(name=["^op"]).match("name", "shop")
    assert filters(name=["a[b"]).match("name", "a[b")
    assert not filters(name=["a[b"]).match("name", "ab")


@pytest.mark.parametrize("pattern", ["^(a+)+$", "(a|aa)+$", "(x+x+)+y", "(.*)*(.*)*(.*)*z", "(a?){30}a{30}z"])
def test_no_expression_takes_long(pattern: str) -> None:
    begun = time.monotonic()
    assert not filters(name=[pattern]).match("name", "a" * 60 + "!")
    assert time.monotonic() - begun < 0.5


def test_what_is_no_expression_matches_nothing() -> None:
    for pattern in ("a{1001}", "(", "*", "(pattern too large", r"(?=a)", r"(a)\1"):
        assert not filters(name=[pattern]).match("name", "aaa")


LARGE = ["(a?){600}zz$", "([0-9a-f]?){300}z", "(?:[0-9a-f]*){300}z", "((a?){200}a{200}){3}", r"\pL{1000}", r"\pL" * 342]


@pytest.mark.parametrize("pattern", LARGE)
def test_an_expression_that_is_too_large_is_refused(pattern: str) -> None:
    for name in ("shop", "läden"):
        with pytest.raises(InvalidParameter, match=r"^invalid filter: the expressions are too large: .*$"):
            filters(name=[pattern]).match("name", name)


def test_names_with_dots_are_words_in_which_a_dot_is_any_character() -> None:
    wanted = filters(name=[f"my.project.service-{number:02}" for number in range(16)])
    assert wanted.match("name", "my.project.service-15.1")
    assert wanted.match("name", "my-project-service-07")
    assert not wanted.match("name", "my.project.service-16")
    with pytest.raises(InvalidParameter, match="more than 16 patterns"):
        filters(name=[f"a.{number}" for number in range(17)]).match("name", "shop")


def test_expressions_that_are_too_large_together_are_refused() -> None:
    patterns = [f"(a?){{{10 + more}}}z" for more in range(16)]
    for pattern in patterns:
        assert not filters(name=[pattern]).match("name", "shop")
    with pytest.raises(InvalidParameter, match=r"^invalid filter: the expressions are too large: .*$"):
        filters(name=patterns).match("name", "shop")
    with pytest.raises(InvalidParameter, match=r"^invalid filter: the expressions are too large: .*$"):
        filters(reference=[f"*{more}" * 10 for more in range(16)]).glob("reference", ["shop"])


def test_many_words_are_looked_for_but_only_some_expressions() -> None:
    ids = [f"{number:064x}" for number in range(1000)]
    assert filters(id=ids).match("id", ids[-1])
    assert filters(id=[each[50:] for each in ids]).match("id", ids[-1])
    with pytest.raises(InvalidParameter, match=r"^invalid filter: more than 16 patterns$"):
        filters(name=[f"^{number}" for number in range(17)]).match("name", "shop")


def test_of_a_long_text_the_beginning_is_searched() -> None:
    text = "a" * 254 + "bc" + "d" * 100_000
    assert filters(name=["^a+b"]).match("name", text) and filters(name=["ab"]).match("name", text)
    assert not filters(name=["c"]).match("name", text) and not filters(name=["c.*"]).match("name", text)
    assert filters(name=[text]).match("name", text)


WRITTEN = [
    *("^/?web-[0-9]+$", "^(a|b|c)$", r"\p{L}+", "[^/]*", "^/web$", "web.*", "(?i)web", r"\w+_db_\d+", "^[a-z0-9_.-]+$"),
    *("^/?shop-(web|db|cache)-[0-9]{1,3}$", "^[0-9a-f]{12}"),
]


def test_what_people_write_is_far_from_too_large() -> None:
    for pattern in WRITTEN:
        for name in ("shop", "läden"):
            filters(name=[pattern, *(f"{pattern}|{number}" for number in range(4))]).match("name", name)
    filters(name=WRITTEN).match("name", "shop")
    filters(id=["^[0-9a-f]{64}$"]).match("id", "0" * 64)
    filters(reference=[f"registry.example.com:5000/team-{n}/*:v?.[0-9].*" for n in range(8)]).glob("reference", ["a"])


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        (r"^\p{L}+$", "läden", "läden-1"),
        ("^l.den$", "läden", "lden"),
        ("^caf[é☕]+$", "café☕", "cafe"),
        (r"\x{20ac}|a", "a", "b"),
        (r"(?i)^\x{17f}hop$", "Shop", "ship"),
        ("(?i)^ſhop$", "Shop", "ship"),
    ],
)
def test_a_character_is_one_whatever_its_alphabet(pattern: str, matching: str, other: str) -> None:
    assert filters(name=[pattern]).match("name", matching)
    assert not filters(name=[pattern]).match("name", other)


_PARTS = [
    "a",
    "B",
    "(",
    ")",
    "[",
    "]",
    "^",
    "$",
    "|",
    "*",
    "+",
    "?",
    ".",
    "-",
    "\\",
    "{2}",
    r"\w",
    r"\b",
    r"\PL",
    "(?i)",
    "é",
]


@given(st.lists(st.sampled_from(_PARTS), max_size=8).map("".join), st.text("aAbB-_.1k/", max_size=8))
def test_an_expression_means_the_same_for_names_in_ascii(pattern: str, text: str) -> None:
    try:
        ascii, other = (expressions._compiled(pattern, ascii) for ascii in (True, False))
    except InvalidParameter:
        reject()
    assert (ascii is None) == (other is None)
    assert ascii is None or bool(ascii.search(text.encode())) == bool(other.search(text.encode()))


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What RE2 compiles from now on."""
    seen = []

    def compile(pattern: bytes, *options: object) -> object:
        seen.append(pattern.decode())
        return original(pattern, *options)

    original = expressions.re2.compile
    monkeypatch.setattr(expressions.re2, "compile", compile)
    return seen


def test_what_is_long_is_refused_before_it_is_compiled(compiled: list[str]) -> None:
    for key, patterns in (("name", [f"^{'a' * 64}{number}" for number in range(16)]), ("reference", ["a?" * 513])):
        with pytest.raises(InvalidParameter, match=r"^invalid filter: the expressions are too large: .*$"):
            filters(**{key: patterns}).match(key, "shop") and filters(**{key: patterns}).glob(key, ["shop"])
    assert not compiled


def test_expressions_are_compiled_once_for_all_texts(compiled: list[str]) -> None:
    wanted = [f"^once-{number}$" for number in range(5)]
    for number in range(100):
        filters(name=wanted, id=["^[0-9]+$"]).match("name", f"web-{number}")
        filters(name=wanted, id=["^[0-9]+$"]).match("id", f"{number}")
    assert sorted(compiled) == sorted([*wanted, "^[0-9]+$"])


@given(st.text(), st.text())
def test_any_pattern_is_matched_or_refused_but_never_breaks(pattern: str, text: str) -> None:
    for search in (
        lambda: filters(name=[pattern]).match("name", text),
        lambda: filters(reference=[pattern]).glob("reference", [text]),
    ):
        try:
            search()
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


def test_a_label_has_one_value_and_may_be_asked_for_by_key_and_value() -> None:
    assert filters(label=["tier", "tier=web"]).labels({"tier": "web"})
    assert filters(label=["tier=a=b", "old="]).labels({"tier": "a=b", "old": ""})
    assert not filters(label=["tier=web", "tier=db"]).labels({"tier": "web"})


def test_events_are_chosen_by_the_beginning_of_any_of_their_values() -> None:
    assert filters(container=["b", "we"]).prefix("container", ("0123", "web"))
    assert not filters(container=["b", "eb"]).prefix("container", ("0123", "web"))


def test_what_names_objects_to_be_found_is_limited() -> None:
    ids = [f"{number:064x}" for number in range(129)]
    assert filters(before=ids[1:]).references("before") == frozenset(ids[1:])
    with pytest.raises(InvalidParameter, match=r"^invalid filter 'before': more than 128 values$"):
        filters(before=ids).references("before")


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
    assert filters(until=["1m"]).until()("2020-01-02T03:04:05.123456789Z")
    assert not filters(until=["1h"]).until()(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    with pytest.raises(InvalidParameter, match="more than one until filter"):
        filters(until=["1h", "2h"]).until()


def test_until_is_read_before_anything_is_compared_with_it() -> None:
    with pytest.raises(InvalidParameter, match="invalid time 'yesterday'"):
        filters(until=["yesterday"]).until()


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
