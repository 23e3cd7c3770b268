"""One crew for all tests of this directory, and the number of interleavings at the end of the run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.interleavings.crew import Crew, crew


@pytest.fixture(scope="session")
def workers() -> Iterator[Crew]:
    with crew() as found:
        yield found


@pytest.fixture
def wrong(workers: Crew, record_property: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    """Call it with a module of this package and one of its states: what goes wrong in which interleaving."""

    def explore(subject: str, state: str) -> str:
        count, failures = workers.explore(subject, state)
        record_property("interleavings", count)
        assert count > 0
        return "\n".join([f"{len(failures)} of {count} interleavings went wrong", *failures]) if failures else ""

    return explore
