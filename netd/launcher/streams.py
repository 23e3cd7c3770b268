"""The streams of a process in a container, as whoever attached to it sees them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

STDOUT = 1
STDERR = 2


class Streams(Protocol):
    """An attachment to a container's first process or to an exec session."""

    @property
    def tty(self) -> bool:
        """Whether there is one terminal instead of stdout and stderr."""

    def frames(self) -> AsyncIterator[tuple[int, bytes]]:
        """Output as (1 stdout | 2 stderr, data), until the process's output ends."""

    async def write(self, data: bytes) -> None:
        """Send `data` to the process's stdin; dropped once the process has ended."""

    async def close_stdin(self) -> None:
        """The process reads the end of its input, unless its stdin is a terminal or is to stay open."""

    async def close(self) -> None:
        """Detach. The process goes on, and its stdin stays as it is."""
