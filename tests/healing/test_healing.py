"""Whatever happens while parts of a host fail, nothing is wrong once they work again."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from netd.names.dirty import Dirty
from tests.healing.courses import course, shortest, wrong_after

COURSES = 400


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What fails is told in the log, rightly."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_nothing_is_wrong_once_all_works_again(tmp_path: Path) -> None:
    for seed in range(COURSES):
        if wrong_after(tmp_path, happened := course(seed)):
            happened = shortest(tmp_path, happened)
            pytest.fail(f"{happened}: {wrong_after(tmp_path, happened)}", pytrace=False)


def test_a_sandbox_that_is_not_marked_when_something_is_left_of_it_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dirty, "mark_sandbox", lambda self, sandbox_id: None)
    assert any(wrong_after(tmp_path, course(seed)) for seed in range(COURSES))
