"""A clean-up goes on after an error, and tells all of them at its end."""

from __future__ import annotations

import pytest

from netd.core.teardown import Teardown


def test_every_step_is_tried_and_every_error_told(caplog: pytest.LogCaptureFixture) -> None:
    done = []
    teardown = Teardown("sandbox 0123")
    with teardown.step("links"):
        raise OSError("no such device")
    with teardown.step("names"):
        done.append("names")
    with teardown.step("namespace"):
        raise OSError("busy")
    teardown.tell()
    assert done == ["names"]
    assert [r.getMessage() for r in caplog.records] == [
        "sandbox 0123: could not remove its links: no such device",
        "sandbox 0123: could not remove its namespace: busy",
    ]


def test_one_error_names_them_all() -> None:
    teardown = Teardown("container web")
    for reason in ("busy", "full"):
        with teardown.step():
            raise OSError(reason)
    with pytest.raises(RuntimeError, match="container web could not be cleaned up completely: busy; full"):
        teardown.throw(RuntimeError)


def test_a_clean_up_without_errors_raises_nothing() -> None:
    teardown = Teardown("container web")
    with teardown.step("links"):
        pass
    teardown.throw(RuntimeError)


def test_a_cancelled_step_cancels_the_rest() -> None:
    with pytest.raises(KeyboardInterrupt), Teardown("container web").step("links"):
        raise KeyboardInterrupt
