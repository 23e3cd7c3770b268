"""No order in which two calls can meet loses, resurrects or hides a container."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.interleavings.containers import STATES


@pytest.mark.parametrize("state", STATES)
def test_whatever_begins_meanwhile_is_done_or_refused_and_nothing_is_left(
    wrong: Callable[[str, str], str], state: str
) -> None:
    if failures := wrong("containers", state):
        pytest.fail(failures, pytrace=False)
