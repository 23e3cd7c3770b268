"""The network namespaces of this host's sandboxes: pinned at a path, entered to open the resolver's sockets."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from drivers import netns
from drivers.spec import DriverError
from netd.names.resolver import Sockets

OWN = "/proc/self/ns/net"


def _opened(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise DriverError(f"network namespace {path} does not exist") from None


class Namespaces:
    """Those below one directory; all methods are idempotent."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, sandbox_id: str) -> str:
        """Where a sandbox's namespace is pinned (fact 3.60)."""
        return str(self._directory / sandbox_id[:12])

    @staticmethod
    def inode(path: str) -> int | None:
        """The number that tells network namespaces apart; None if there is none at `path`, anywhere on this host."""
        try:
            found = os.stat(path)
        except (OSError, ValueError):
            return None
        return found.st_ino if found.st_dev == os.stat(OWN).st_dev else None

    async def pin(self, path: str) -> None:
        """Make a namespace with nothing but loopback in it."""
        await asyncio.to_thread(netns.create, path)

    async def unpin(self, path: str) -> None:
        """Let go of a namespace of ours; one that was attached is not."""
        if Path(path).parent == self._directory:
            await asyncio.to_thread(netns.remove, path)

    async def sweep(self, known: Collection[str]) -> None:
        """Remove those that no record vouches for: a crash between pinning and recording."""
        await asyncio.to_thread(self._sweep, frozenset(known))

    def _sweep(self, known: frozenset[str]) -> None:
        for path in self._directory.iterdir() if self._directory.is_dir() else ():
            if str(path) not in known:
                netns.remove(str(path))

    @asynccontextmanager
    async def sockets(self, path: str) -> AsyncIterator[Sockets]:
        """New sockets for the resolver inside a namespace; ours are closed afterwards, it has its own copies."""
        udp, tcp = await asyncio.to_thread(netns.resolver_sockets, path)
        descriptor = -1
        try:
            descriptor = _opened(path)
            yield Sockets(udp, tcp, descriptor)
        finally:
            if descriptor >= 0:
                os.close(descriptor)
            udp.close()
            tcp.close()
