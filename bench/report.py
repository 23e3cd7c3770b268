"""How benchmarks begin and end: goals, and tables in bench/README.md, each between two lines with its mark."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.namespaces import enter_private_namespaces

README = Path(__file__).parent / "README.md"


@dataclass(frozen=True, slots=True)
class Goal:
    """Something to reach: `value` at least (or, with `most`, at most) `bound`."""

    what: str
    value: float
    bound: float
    unit: str = ""
    most: bool = True

    @property
    def reached(self) -> bool:
        return self.value <= self.bound if self.most else self.value >= self.bound

    def row(self) -> str:
        bound = f"at {'most' if self.most else 'least'} {self.bound:,.2f}{self.unit}"
        return f"| {self.what} | {self.value:,.2f}{self.unit} | {bound} | {'yes' if self.reached else '**no**'} |"


def begin() -> None:
    """Leave the machine's own namespaces; ends the process where it may not."""
    if os.geteuid() != 0:
        raise SystemExit("bench: it makes namespaces and containers, so run it as root")
    enter_private_namespaces()


def compared(goals: Iterable[Goal]) -> str:
    """Goals as a table."""
    return "\n".join(["| | measured | goal | reached |", "|---|---:|---:|---|", *(goal.row() for goal in goals)])


def finish(text: str, missed: Iterable[str], mark: str, *, write: bool) -> int:
    """Tell what was measured and which goals were missed; the exit code. `write` also puts it into the README."""
    print(text)
    if write:
        _write(mark, text)
    code = 0
    for what in missed:
        print(f"bench: goal missed: {what}", file=sys.stderr)
        code = 1
    return code


def _write(mark: str, text: str) -> None:
    """Replace what stands between the two marks."""
    before, _, rest = README.read_text().partition(mark)
    README.write_text(f"{before}{mark}\n\n{text}\n\n{mark}{rest.partition(mark)[2]}")
