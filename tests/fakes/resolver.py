"""The resolver process as the tables it holds; it refuses what the real one refuses."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dns.client import KernelState, Ports, Record, ResolverError, ResolverState, View
from tests.fakes.calls import Calls, stepped


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
        self._number = itertools.count(40_000)

    def on_lost(self, callback: Callable[[], object]) -> None:
        """It is never lost."""

    @stepped(ResolverError)
    def state(self) -> ResolverState:
        return ResolverState(sandboxes=dict(self._ports), networks=frozenset(self.networks))

    @stepped(ResolverError)
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

    @stepped(ResolverError)
    def delete_network(self, network: str) -> None:
        self.networks.pop(network, None)
        self.lines.pop(network, None)

    @stepped(ResolverError)
    def join(self, network: str, record: Record) -> None:
        self._table(network)[record.endpoint] = record

    @stepped(ResolverError)
    def leave(self, network: str, endpoint: str) -> None:
        self.networks.get(network, {}).pop(endpoint, None)

    @stepped(ResolverError)
    def put_record(self, network: str, line: str) -> None:
        self._table(network)
        self.lines[network].append(line)

    @stepped(ResolverError)
    def delete_record(self, network: str, name: str, type: str = "") -> None:
        self._table(network)
        self.lines[network] = [line for line in self.lines[network] if not _means(line, name, type)]

    @stepped(ResolverError)
    def put_sandbox(self, view: View, sockets: tuple[Any, Any] | None = None, netns_fd: int | None = None) -> Ports:
        if sockets is not None:
            self._ports[view.sandbox] = Ports(next(self._number), next(self._number))
        elif view.sandbox not in self._ports:
            raise ResolverError(f"sandbox {view.sandbox} has no sockets yet: send them along")
        self.sandboxes[view.sandbox] = view
        return self._ports[view.sandbox]

    @stepped(ResolverError)
    def delete_sandbox(self, sandbox: str) -> None:
        self.sandboxes.pop(sandbox, None)
        self._ports.pop(sandbox, None)

    def _table(self, network: str) -> dict[str, Record]:
        try:
            return self.networks[network]
        except KeyError:
            raise ResolverError(f"network {network!a} is not known to the resolver: put it first") from None


def _means(line: str, name: str, type: str) -> bool:
    words = line.split()
    return words[0] == name and (not type or type in words[1:4])
