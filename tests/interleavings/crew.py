"""The cases of a test, spread over the machine's processors."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.interleavings.engine import explore

_MEMORY = Path("/dev/shm")  # worlds have small files: where there is such a place they are never written to a disk

Job = Future[tuple[int, list[str]]]


class Crew:
    """Workers that explore what one module of this package tells of."""

    def __init__(self, pool: ProcessPoolExecutor, root: Path) -> None:
        self._pool = pool
        self._root = root

        self._begun: dict[tuple[str, str], list[Job]] = {}

    def explore(self, subject: str, state: str) -> tuple[int, list[str]]:
        """Everything that can happen in a state: how many interleavings there are, and what is wrong with which."""
        if (subject, state) not in self._begun:
            self._begin(subject)
        results = [job.result() for job in self._begun[subject, state]]
        return sum(count for count, _ in results), [failure for _, failures in results for failure in failures]

    def _begin(self, subject: str) -> None:
        """Give all states out at once: no worker is idle because another has not finished a state yet."""
        for name, state in module(subject).STATES.items():
            self._begun[subject, name] = [
                self._pool.submit(_explore, subject, name, first.name, self._root) for first in state.firsts()
            ]


@contextmanager
def crew() -> Iterator[Crew]:
    """As many workers as there are processors."""
    place = _MEMORY if _MEMORY.is_dir() else None
    with (
        TemporaryDirectory(prefix="interleavings-", dir=place) as directory,
        ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool,
    ):
        yield Crew(pool, Path(directory))


def _explore(subject: str, state: str, first: str, root: Path) -> tuple[int, list[str]]:
    found = module(subject).STATES[state]
    operation = next(operation for operation in found.firsts() if operation.name == first)
    explored = explore(found, operation, root / str(os.getpid()))
    return explored.count, [str(failure) for failure in explored.failures]


def module(name: str) -> Any:
    """A module of this package by its name."""
    return importlib.import_module(f"tests.interleavings.{name}")
