"""Network namespaces as a set of paths."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from drivers.spec import DriverError
from netd.names.resolver import Sockets
from tests.fakes.calls import Calls, before, step, stepped

_DIRECTORY = Path("/fake/netns")
_inodes = itertools.count(1)


class FakeNamespaces:
    """`present` are the paths at which there is a namespace, with its inode, ours and others' that are attached."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self.present: dict[str, int] = {}

    def path(self, sandbox_id: str) -> str:
        return str(_DIRECTORY / sandbox_id[:12])

    def make(self, path: str) -> None:
        """Somebody else makes one, or another one at the same path."""
        self.present[path] = next(_inodes)

    def inode(self, path: str) -> int | None:
        return self.present.get(path)

    @stepped(DriverError)
    def pin(self, path: str) -> None:
        self.present.setdefault(path, next(_inodes))

    @stepped(DriverError)
    def unpin(self, path: str) -> None:
        if Path(path).parent == _DIRECTORY:
            self.present.pop(path, None)

    @stepped(DriverError)
    def sweep(self, known: Collection[str]) -> None:
        for path in set(self.present) - set(known):
            if Path(path).parent == _DIRECTORY:
                del self.present[path]

    @asynccontextmanager
    async def sockets(self, path: str) -> AsyncIterator[Sockets]:
        await before(self.calls, "Namespaces.sockets", DriverError)
        if path not in self.present:
            raise DriverError(f"network namespace {path} does not exist")
        await step()
        if path not in self.present:
            raise DriverError(f"network namespace {path} does not exist")
        yield Sockets(None, None, self.present[path])  # type: ignore[arg-type]
