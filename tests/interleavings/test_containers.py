"""No order in which two calls can meet loses, resurrects or hides a container.

A failure says which pair, from which state, at which await, and where an error came instead of a result.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kvstore.contract import Entry
from tests.interleavings.containers import STATES, Containers, State, base
from tests.interleavings.engine import explore


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Entry]:
    """What is stored in all worlds."""
    return base(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize(
    ("state", "first"),
    [(state, operation.name) for state in STATES.values() for operation in state.firsts()],
    ids=lambda value: getattr(value, "name", str(value)).replace(" ", "-"),
)
def test_whatever_begins_meanwhile_is_done_or_refused_and_nothing_is_left(
    tmp_path: Path, entries: dict[str, Entry], state: State, first: str
) -> None:
    operation = next(operation for operation in state.firsts() if operation.name == first)
    explored = explore(state.name, lambda: Containers(tmp_path, entries, state), operation, state.seconds())
    assert not explored.failures, str(explored)
