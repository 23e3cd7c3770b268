"""Whatever names a behaviour by its number names one that docs/behaviour.md tells of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARTS = ("netd", "dns", "drivers", "kvstore", "tests", "docs", "bench", "vagrant", "scripts")
BEHAVIOUR = (ROOT / "docs" / "behaviour.md").read_text()
FACTS = re.findall(r"^- \*\*(\d\.\d+)\*\* ", BEHAVIOUR, re.M)
SECTIONS = re.findall(r"^### (\d[A-Z])\. ", BEHAVIOUR, re.M)

_SPAN = r"\d\.\d+(?:\s+to\s+\d\.\d+)?"
# `fact 2.67`, `facts 3.6 and 3.7`, `facts 2.8 to 2.19, 2.62 to 2.66`, `choice 8.9`
IN_TEXT = re.compile(rf"\b(?:fact|choice)s?\s+({_SPAN}(?:(?:,|,?\s+and)\s+{_SPAN})*)", re.I)
# `section 2M`, `sections 2A to 2K`
OF_A_SECTION = re.compile(r"\bsections?\s+(\d[A-Z]\b(?:\s+(?:to|and)\s+\d[A-Z]\b)?)", re.I)
# the first column of a table: `1.3, 1.4`
IN_A_TABLE = re.compile(r"^\| (\d\.\d+(?:, \d\.\d+)*) \|", re.M)
NAME_OF_A_TEST = re.compile(r"^ *(?:async )?def test_(\w+)", re.M)

# one number or a range, as text has it (`2.8 to 2.19`) and as the name of a test has it (`1_21_to_1_23`)
_NUMBER = re.compile(r"(?<!\d)(?<!\d_)([1-9])[._]([1-9]\d*)(?:[\s_]+to[\s_]+[1-9][._]([1-9]\d*))?(?!\d)")


def files() -> Iterator[Path]:
    yield from ROOT.glob("*.md")
    for part in PARTS:
        yield from (path for path in (ROOT / part).rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def references(pattern: re.Pattern[str], paths: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """What the pattern finds, each with the place where it stands (`netd/containers/ports.py:78`)."""
    for path in paths:
        text = path.read_text(errors="replace")
        for found in pattern.finditer(text):
            yield f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, found.start()) + 1}", found[1]


def numbers(written: str) -> Iterator[str]:
    """The facts that are meant; a range means all that lie in it."""
    for chapter, first, last in _NUMBER.findall(written):
        yield from (f"{chapter}.{number}" for number in range(int(first), int(last or first) + 1))


def test_every_number_is_of_a_fact() -> None:
    found = (reference for pattern in (IN_TEXT, NAME_OF_A_TEST) for reference in references(pattern, files()))
    table = references(IN_A_TABLE, [ROOT / "docs" / "dns.md"])
    lost = [f"{where}: {n}" for where, written in (*found, *table) for n in numbers(written) if n not in FACTS]
    assert not lost, "docs/behaviour.md has no such fact:\n" + "\n".join(lost)


def test_every_section_exists() -> None:
    found = references(OF_A_SECTION, files())
    lost = [f"{where}: {s}" for where, written in found for s in re.findall(r"\d\w", written) if s not in SECTIONS]
    assert not lost, "docs/behaviour.md has no such section:\n" + "\n".join(lost)


def test_facts_stand_in_their_order_and_each_once() -> None:
    order = [tuple(map(int, fact.split("."))) for fact in FACTS]
    assert order == sorted(set(order))


def test_the_contents_lead_to_every_section() -> None:
    headings = re.findall(r"^##+ (\d.*)", BEHAVIOUR, re.M)
    anchors = [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]
    assert re.findall(r"\]\(#(.*?)\)", BEHAVIOUR) == anchors


def test_every_fact_about_names_is_tested_or_bettered() -> None:
    """A test carries its number, or it stands in the table of differences in docs/dns.md."""
    tests = references(NAME_OF_A_TEST, (ROOT / "tests").rglob("test_*.py"))
    table = references(IN_A_TABLE, [ROOT / "docs" / "dns.md"])
    covered = {number for _, written in (*tests, *table) for number in numbers(written)}
    assert [fact for fact in FACTS if fact.startswith("1.") and fact not in covered] == []
