"""One resolver process for each test module; every test empties it when it is done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dns.helpers import end


@pytest.fixture(scope="module", params=["user", "kernel"])
def dns_socket(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Where the process is reached; `world` sees from the name of its folder which way questions are answered."""
    path = tmp_path_factory.mktemp("dns") / request.param / "dns.sock"
    yield path
    if path.exists():
        end(path)
    problems = [line for line in path.with_suffix(".log").read_text().splitlines() if " ERROR " in line]
    assert not problems
