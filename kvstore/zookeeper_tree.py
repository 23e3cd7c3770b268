"""How keys lie in ZooKeeper's tree, and reading a part of it: once, or again and again as its servers tell.

A key `a/b` is the node `a/=b`: directories and keys never share a name, so a key may have children, and
keys that live as long as a session, which cannot have any, need none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote, unquote

from kvstore.contract import Entry
from kvstore.zookeeper_session import Request, Session


class Layout:
    """Where keys lie below a root."""

    def __init__(self, path: str) -> None:
        self.root = "/" + path.strip("/")

    def node(self, key: str) -> str:
        return f"{self.directory(key)}/={_segment(key.rpartition('/')[2])}"

    def directory(self, key: str) -> str:
        """Of a key, or the lowest that has all keys with a prefix."""
        return "/".join([self.root, *map(_segment, key.split("/")[:-1])])

    def key(self, node: str) -> str:
        """Of a key's node; of a directory the prefix of the keys in it, without the last slash."""
        *above, last = node[len(self.root) + 1 :].split("/")
        return "/".join([*map(unquote, above), unquote(last.removeprefix("="))])

    def leads_to(self, node: str, prefix: str) -> bool:
        """Whether a node is, or may have below it, a key with the prefix."""
        key = self.key(node)
        return key.startswith(prefix) if is_key(node) else f"{key}/".startswith(prefix) or prefix.startswith(f"{key}/")


def is_key(node: str) -> bool:
    return node[node.rindex("/") + 1] == "="


def _segment(text: str) -> str:
    """One path segment; ZooKeeper reserves `.` and `..`, and `=` marks keys."""
    return quote(text, safe=" :+@,") if text.strip(".") else text.replace(".", "%2E")


class Subtree:
    """The keys with a prefix. `refresh` reads what has not been read, or (`watched`) has changed since.

    Each node is read and its one-shot watch set in the same request, so a change is told or seen, never missed:
    of a key by its own watch, of one that comes by its directory's, of the first directory by a watch for it.
    """

    def __init__(self, session: Session, layout: Layout, prefix: str, *, watched: bool = False) -> None:
        self.nodes: dict[str, Entry] = {}
        self.empty: dict[str, int] = {}  # directories, with their version
        self._session, self._layout, self._prefix = session, layout, prefix
        self._top = layout.directory(prefix)
        self._children: dict[str, set[str]] = {}
        self._loop = asyncio.get_running_loop()
        self._watch = self._told if watched else None  # one object, so that kazoo keeps it once a node
        self._stale = {self._top}
        self._wake = asyncio.Event()

    def forget(self) -> None:
        """Read everything with the next `refresh`."""
        self.nodes, self.empty, self._children, self._stale = {}, {}, {}, {self._top}
        self._wake.set()

    async def changed(self) -> None:
        """Wait until there is something to `refresh`."""
        await self._wake.wait()

    def _told(self, event: Any) -> None:  # in a thread of kazoo
        self._loop.call_soon_threadsafe(self._note, event.path)

    def _note(self, node: str | None) -> None:
        if node is None:  # the connection was lost, and all watches with it
            self.forget()
        else:
            self._stale.add(node)
            self._wake.set()

    async def refresh(self) -> None:
        """Raises `StoreUnavailable` and `StoreDenied`; everything is read again then."""
        self._wake.clear()
        try:
            while self._stale:
                stale, self._stale = self._stale, set()
                keys = {node for node in stale if is_key(node)}
                await self._read_directories(sorted(stale - keys))
                await self._read_keys(sorted(keys))
        except BaseException:
            self.forget()
            raise

    async def _read_keys(self, nodes: Sequence[str]) -> None:
        reads = [partial(_get, node=node, watch=self._watch) for node in nodes]
        for node, found in await self._read(nodes, reads):
            if found is None:
                self._drop(node)
            else:
                self.nodes[node] = Entry(self._layout.key(node), found[0], found[1].mzxid)

    async def _read_directories(self, nodes: Sequence[str]) -> None:
        reads = [partial(_list, node=node, watch=self._watch) for node in nodes]
        for node, found in await self._read(nodes, reads):
            if found is None:
                self._drop(node)
                await self._await_top(node)
                continue
            names, stat = found
            present = {child for name in names if self._layout.leads_to(child := f"{node}/{name}", self._prefix)}
            known = self._children.get(node, set())
            self._children[node] = present
            self._drop_all(known - present)
            self._stale |= present - known
            if not names:
                self.empty[node] = stat.version

    async def _read(self, nodes: Sequence[str], reads: Sequence[Request]) -> Iterable[tuple[str, Any]]:
        """What is found at nodes, None for nothing; no word of any if everything was forgotten meanwhile."""
        begun = self.nodes
        found = await self._session.calls(reads, absent=None)
        return zip(nodes, found, strict=True) if begun is self.nodes else ()

    async def _await_top(self, node: str) -> None:
        if node != self._top or self._watch is None:
            return
        if await self._session.call(lambda zk: zk.exists_async(node, watch=self._watch)):
            self._stale.add(node)

    def _drop(self, node: str) -> None:
        self.nodes.pop(node, None)
        self._children.get(node.rpartition("/")[0], set()).discard(node)
        self._drop_all(self._children.pop(node, ()))

    def _drop_all(self, nodes: Iterable[str]) -> None:
        for node in tuple(nodes):
            self._drop(node)


def _get(zk: Any, node: str, watch: Any) -> Any:
    return zk.get_async(node, watch=watch)


def _list(zk: Any, node: str, watch: Any) -> Any:
    return zk.get_children_async(node, watch=watch, include_data=True)
