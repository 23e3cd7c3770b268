from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.double import Double


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Double]:
    """The API over managers in memory."""
    with Double(tmp_path / "netd.sock") as double:
        yield double
