"""The resolver process as the tables it holds; it refuses what the real one refuses, and is as ill as it is made."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Mapping
from enum import Enum, auto
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from dns.client import Explanation, KernelState, Ports, Record, ResolverAway, ResolverError, ResolverState, View
from tests.fakes.calls import Calls, stepped

P = ParamSpec("P")
R = TypeVar("R")


class Mood(Enum):
    """How a resolver answers."""

    WELL = auto()
    HANGS = auto()  # nothing is done, and nothing said
    DEAF = auto()  # all is done, and nothing said
    GONE = auto()
    REFUSES = auto()


def asked(method: Callable[Concatenate[FakeResolver, P], R]) -> Callable[Concatenate[FakeResolver, P], Any]:
    """Make a method that takes effect at once into a request, which is answered as the resolver's mood is."""
    carry_out = stepped(ResolverError)(method)

    @wraps(method)
    async def request(self: FakeResolver, *args: P.args, **kwargs: P.kwargs) -> R:
        self.asked += 1
        if self.mood is Mood.GONE:
            raise ResolverAway("the resolver process ended before it answered")
        if self.mood is Mood.REFUSES and method.__name__ != "state":
            raise ResolverError("the resolver does not want to")
        if self.mood is not Mood.HANGS:
            result = await carry_out(self, *args, **kwargs)
            if self.mood is not Mood.DEAF:
                return result
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nobody answers")

    return request


class FakeResolver:
    """`networks` has a table of records by endpoint for each network, `lines` its static records, `sandboxes` the
    views that are served."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self.networks: dict[str, dict[str, Record]] = {}
        self.lines: dict[str, list[str]] = {}
        self.sandboxes: dict[str, View] = {}
        self.kernel = KernelState()
        self.lost = asyncio.Event()
        self._ports: dict[str, Ports] = {}
        self.mood = Mood.WELL
        self.asked = 0  # how often
        self._number = itertools.count(40_000)
        self._callbacks: list[Callable[[], object]] = []

    def resemble(self, other: FakeResolver) -> None:
        """Have told what another one was told."""
        self.networks = {network: dict(table) for network, table in other.networks.items()}
        self.lines = {network: list(lines) for network, lines in other.lines.items()}
        self.sandboxes, self._ports = dict(other.sandboxes), dict(other._ports)

    def on_lost(self, callback: Callable[[], object]) -> None:
        self._callbacks.append(callback)

    def begin_anew(self) -> None:
        """The process has died, and another one has taken its place."""
        self.networks, self.lines, self.sandboxes, self._ports = {}, {}, {}, {}
        for callback in self._callbacks:
            callback()

    def ports(self, sandbox: str) -> Ports | None:
        """Where it listens for a sandbox."""
        return self._ports.get(sandbox)

    @asked
    def state(self) -> ResolverState:
        return ResolverState(sandboxes=dict(self._ports), networks=frozenset(self.networks))

    @asked
    def put_network(
        self,
        network: str,
        name: str,
        records: Iterable[Record],
        options: Mapping[str, str] | None = None,
        subnets: Iterable[Any] = (),
        *,
        static: Iterable[str] = (),
    ) -> None:
        self.networks[network] = {record.endpoint: record for record in records}
        self.lines[network] = list(static)

    @asked
    def delete_network(self, network: str) -> None:
        self.networks.pop(network, None)
        self.lines.pop(network, None)

    @asked
    def join(self, network: str, record: Record) -> None:
        self._table(network)[record.endpoint] = record

    @asked
    def leave(self, network: str, endpoint: str) -> None:
        self.networks.get(network, {}).pop(endpoint, None)

    @asked
    def put_record(self, network: str, line: str) -> None:
        self._table(network)
        if line not in self.lines[network]:
            self.lines[network].append(line)

    @asked
    def delete_record(self, network: str, name: str, type: str = "") -> None:
        self._table(network)
        self.lines[network] = [line for line in self.lines[network] if not _means(line, name, type)]

    @asked
    def put_sandbox(self, view: View, sockets: tuple[Any, Any] | None = None, netns_fd: int | None = None) -> Ports:
        if sockets is not None:
            self._ports[view.sandbox] = Ports(next(self._number), next(self._number))
        elif view.sandbox not in self._ports:
            raise ResolverError(f"sandbox {view.sandbox} has no sockets yet: send them along")
        self.sandboxes[view.sandbox] = view
        return self._ports[view.sandbox]

    @asked
    def delete_sandbox(self, sandbox: str) -> None:
        self.sandboxes.pop(sandbox, None)
        self._ports.pop(sandbox, None)

    @asked
    def explain(self, sandbox: str, name: str, type: str = "A") -> Explanation:
        return Explanation(name, type, "none", ())

    def _table(self, network: str) -> dict[str, Record]:
        try:
            return self.networks[network]
        except KeyError:
            raise ResolverError(f"network {network!a} is not known to the resolver: put it first") from None


def _means(line: str, name: str, type: str) -> bool:
    words = line.split()
    return words[0] == name and (not type or type in words[1:4])
