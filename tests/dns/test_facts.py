"""Every numbered fact about Docker's resolver has a test that carries its number, or stands in docs/dns.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FACTS = set(range(1, 81))
_NUMBER = r"1_(\d+)(?:_to_1_(\d+))?(?!\d)"


def numbers_in_tests() -> Iterator[int]:
    """Numbers in the names of tests: `test_1_46_and_1_47_...`, `..._1_74`, and ranges: `test_1_21_to_1_23_...`."""
    for part in ("dns", "daemon", "core"):
        for path in (ROOT / "tests" / part).glob("test_*.py"):
            for name in re.findall(r"^def test_(\w+)", path.read_text(), re.M):
                for first, last in re.findall(rf"(?:^|_){_NUMBER}(?=_|$)", name):
                    yield from range(int(first), int(last or first) + 1)


def numbers_in_the_table() -> Iterator[int]:
    """Numbers in the first column of the table of differences."""
    for row in re.findall(r"^\| (1\.[\d., ]+) \|", (ROOT / "docs" / "dns.md").read_text(), re.M):
        yield from (int(number) for number in re.findall(r"1\.(\d+)", row))


def test_every_fact_is_tested_or_bettered() -> None:
    assert FACTS - set(numbers_in_tests()) - set(numbers_in_the_table()) == set()


def test_every_number_is_of_a_fact() -> None:
    assert set(numbers_in_tests()) | set(numbers_in_the_table()) <= FACTS
