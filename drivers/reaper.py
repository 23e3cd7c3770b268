"""Deleting devices without waiting for the kernel to be done with them.

The call that deletes a device returns only after RCU grace periods, 10 to 50 ms. So a device is first taken out
of service, which takes a fraction of a millisecond: it is down, off its bridge, and its name is free. Threads of
their own then sit out the deletion; should the process die before that, its tag says that it is nobody's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from drivers import netlink
from drivers.names import Tag
from drivers.netlink import Netlink
from drivers.spec import DriverError

log = logging.getLogger(__name__)

_THREADS = 4


class Reaper:
    """Deletes devices of the network namespace the calling thread is in when it makes one."""

    def __init__(self, owner: str) -> None:
        self._tag = str(Tag(owner, "gone", ""))
        # opened here and not by the threads, which may be started while their starter visits a sandbox
        self._sockets: SimpleQueue[Netlink] = SimpleQueue()
        for _ in range(_THREADS):
            self._sockets.put(Netlink())
        self._front = Netlink()
        self._leaving: set[str] = set()  # devices whose deletion is under way
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="reaper")

    def close(self) -> None:
        """Wait for the deletions under way."""
        self._pool.shutdown()
        self._front.close()
        while not self._sockets.empty():
            self._sockets.get().close()

    def delete(self, names: Iterable[str]) -> None:
        """Take devices, those that are there, out of service at once, and delete them in the background."""
        for name in names:
            link = self._front.link(name) if name not in self._leaving else None
            if link is not None:
                gone = f"gone{link.index}"
                self._front.run(netlink.retire(link, gone, self._tag))
                self._leaving.add(gone)
                self._pool.submit(self._delete, gone)

    def _delete(self, name: str) -> None:
        connection = self._sockets.get()
        try:
            connection.run([netlink.delete_link(name)])
        except DriverError as error:
            log.error("%s; it is out of service, and will be tried again when the daemon starts", error)
        finally:
            self._leaving.discard(name)
            self._sockets.put(connection)
