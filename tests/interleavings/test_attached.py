"""No order in which two things can happen leaves anything of netd in a namespace that is not attached."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.interleavings.attached import STATES


@pytest.mark.parametrize("state", STATES)
def test_whatever_begins_meanwhile_is_done_or_refused_and_nothing_is_left(
    wrong: Callable[[str, str], str], state: str
) -> None:
    if failures := wrong("attached", state):
        pytest.fail(failures, pytrace=False)
