"""No order in which two calls can meet loses, resurrects or hides a container.

A failure says which pair, from which state, at which await, and where an error came instead of a result.
`-k "state and operation"` plays one first operation; `Case` and `play` in engine.py play one interleaving.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kvstore.contract import Entry
from tests.interleavings.containers import STATES, Containers, base, operations
from tests.interleavings.engine import explore


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Entry]:
    return base(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize(
    ("state", "first"),
    [(state, op.name) for state in STATES.values() for op in operations(state.subjects[0], state)],
    ids=lambda value: getattr(value, "name", str(value)).replace(" ", "-"),
)
def test_whatever_begins_meanwhile_is_done_or_refused_and_nothing_is_left(
    tmp_path: Path, entries: dict[str, Entry], state, first: str
) -> None:
    one = next(op for op in operations(state.subjects[0], state) if op.name == first)
    seconds = operations(state.subjects[1], state)
    explored = explore(state.name, lambda: Containers(tmp_path, entries, state), one, seconds)
    print(f"{explored.count} interleavings")
    assert not explored.failures, str(explored)
