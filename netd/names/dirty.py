"""What the kernel or the resolver may not have as it should be.

Keys, not changes: what is done about one is what is right by then, however often and in whatever order it changed.
"""

from __future__ import annotations

import asyncio


class Dirty:
    """Networks and sandboxes by id, in the order they were marked; `reconciler.py` sees to them."""

    def __init__(self) -> None:
        self.everything = True  # the resolver process is one that nothing was compared with yet
        self.kernel = False
        self.networks: dict[str, None] = {}
        self.sandboxes: dict[str, None] = {}
        self.news = asyncio.Event()

    def __bool__(self) -> bool:
        return self.everything or self.kernel or bool(self.networks) or bool(self.sandboxes)

    def mark_network(self, network_id: str) -> None:
        """Its table, or a name in it, has not been told; or the kernel has other peers of it, or more of it at all."""
        self.networks[network_id] = None
        self.news.set()

    def mark_sandbox(self, sandbox_id: str) -> None:
        """Its view has not been told, or the kernel does not follow its record, or it has not gone completely."""
        self.sandboxes[sandbox_id] = None
        self.news.set()

    def mark_kernel(self) -> None:
        """The kernel as a whole could not be looked at."""
        self.kernel = True
        self.news.set()

    def mark_everything(self) -> None:
        """Another resolver process has taken over."""
        self.everything = True
        self.news.set()
