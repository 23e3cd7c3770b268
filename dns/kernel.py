"""The resolver's tables as the maps of `kernel.bpf.c`, which answers from them before a question leaves the kernel.

The maps follow every change of the tables in the step that makes it. A sandbox's entry names the tables it
searches, so a join writes the endpoint's own names, however many sandboxes see them. Maps and program outlive this
process, held by the filters that run the program; whoever holds the lock of the same control socket adopts them.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dns import bpf
from dns import kernel_layout as layout
from dns.control import KernelState, SandboxView
from dns.kernel_explain import explain
from dns.kernel_layout import Key, Table
from dns.tables import Network, Scope, Tables

log = logging.getLogger(__name__)

OBJECT = Path(__file__).with_suffix(".bpf.o")
PROGRAM = "netd_dns"
_MAX_SANDBOXES = 65535  # the numbers that fit into a filter's classid


@dataclass(slots=True)
class _Written:
    """What is in the maps of one network."""

    number: int
    keys: dict[bytes, bytes] = field(default_factory=dict)  # with their values; of adopted ones they are empty
    wildcards: set[bytes] = field(default_factory=set)
    incomplete: bool = False  # something did not fit into the map
    wire_name: bytes = b""


@dataclass(slots=True)
class _Sandbox:
    """A sandbox that has an entry; `view` and `links` are missing as long as it is only adopted."""

    number: int
    keys: set[bytes] = field(default_factory=set)
    view: SandboxView | None = None
    scope: Scope | None = None
    ports: tuple[int, int] = (0, 0)


class Kernel:
    """The program and its maps. Methods whose names say what changed are called in the step of the change."""

    def __init__(self, loaded: bpf.Loaded, tables: Tables, owner: tuple[int, int]) -> None:
        self.program = loaded.id
        self._loaded = loaded
        self._tables = tables
        self._owner = owner
        maps = loaded.maps
        self._names, self._sandboxes = maps["netd_names"], maps["netd_sandboxes"]
        self._numbers, self._settings = maps["netd_tables"], maps["netd_settings"]
        self._counters, self._log = maps["netd_counters"], maps["netd_log"]
        self._networks: dict[str, _Written] = {}
        self._served: dict[str, _Sandbox] = {}
        self._by_number: dict[int, str] = {}
        self._uses: Counter[str] = Counter()  # sandboxes that search a network: its number is kept for them
        self._last_network = self._last_sandbox = 0
        self._ring: bpf.RingBuffer | None = None
        self._followed = False
        self._removals = layout.removals(self._settings.get(layout.ONLY) or layout.settings(owner, False, 0))
        self._removed()
        self._adopt()

    @classmethod
    def open(cls, tables: Tables, owner: tuple[int, int]) -> Kernel:
        """Load the program, with the maps of the process before if there are any. Raises `bpf.Unavailable`."""
        adopted = _find_maps(owner)
        try:
            loaded = bpf.load(OBJECT, PROGRAM, adopted)
        except bpf.Unavailable:
            if not adopted:
                raise
            log.warning("the answers that are in the kernel are of another version: they are replaced, not adopted")
            loaded = bpf.load(OBJECT, PROGRAM, {})
        finally:
            for each in adopted.values():
                each.close()
        bpf.probe(loaded.descriptor)
        return cls(loaded, tables, owner)

    def _adopt(self) -> None:
        for number in range(1, self._numbers.entries):
            value = self._numbers.get(layout.NUMBER.pack(number))
            if value and (identity := layout.table_id(value)):
                self._networks[identity] = _Written(number)
                self._last_network = number
        for key in list(self._sandboxes.keys()):
            (number,) = layout.NUMBER.unpack(key)
            if (value := self._sandboxes.get(key)) is not None:
                identity = layout.sandbox_id(value)
                self._served[identity] = _Sandbox(number)
                self._by_number[number] = identity
                self._last_sandbox = max(self._last_sandbox, number)
        by_number = {written.number: written for written in self._networks.values()}
        for key in list(self._names.keys()):
            number, table, _ = Key.unpack(key)
            if table == Table.LINKS and number in self._by_number:
                self._served[self._by_number[number]].keys.add(key)
            elif table != Table.LINKS and number in by_number:
                by_number[number].keys[key] = b""
            else:
                self._remove(self._names, key)
        if self._served:
            log.info("the kernel goes on with the names of %d sandboxes", len(self._served))

    def let_go(self) -> None:
        """Leave program and maps to a successor, or to the filters that hold them."""
        self.follow(None)
        self._loaded.close()

    def _replace(self, into: bpf.Map, key: bytes, value: bytes) -> None:
        into.put(key, value)
        self._removed()

    def _remove(self, out_of: bpf.Map, key: bytes) -> None:
        out_of.remove(key)
        self._removed()

    def _removed(self) -> None:
        """Tell the program: it could be reading what was taken out, whose memory is used again for what comes next."""
        self._removals += 1
        self._settings.put(layout.ONLY, layout.settings(self._owner, self._followed, self._removals))

    # ---- networks ---------------------------------------------------------------------------------------

    @property
    def networks(self) -> set[str]:
        """The networks that have names in the kernel, adopted ones included."""
        return {identity for identity, written in self._networks.items() if written.keys}

    def put_network(self, network: Network) -> None:
        """A network's whole table is a new one."""
        written = self._network(network.id)
        if written is None:
            return
        wanted = {*network.names, *network.static, *network.reverse}
        written.wildcards = {name for name in (*network.names, *network.static) if _is_wildcard(name)}
        self._show(network.id, written)
        used = {key for name in wanted for key in self._write(network, written, name)}
        for key in written.keys.keys() - used:
            self._put(network.id, written, key, None)
        if written.wire_name != network.wire_name:
            written.wire_name = network.wire_name
            for sandbox in [s for s in self._served.values() if s.view and network.id in s.view.networks]:
                self._write_sandbox(sandbox)

    def change_names(self, network: Network, names: Iterable[bytes]) -> None:
        """What a network knows of some names is something else than before."""
        written = self._network(network.id)
        if written is None:
            return
        for name in names:
            if _is_wildcard(name):
                known = name in network.names or name in network.static
                (written.wildcards.add if known else written.wildcards.discard)(name)
                self._show(network.id, written)
            self._write(network, written, name)

    def delete_network(self, network_id: str) -> None:
        """A network is gone with all its names."""
        written = self._networks.get(network_id)
        if written is None:
            return
        for key in written.keys:
            self._remove(self._names, key)
        self._networks[network_id] = _Written(written.number)
        self._show(network_id, self._networks[network_id])
        self._release(network_id)

    def _network(self, network_id: str) -> _Written | None:
        """The network's entry; None if there is no room for one."""
        if network_id not in self._networks:
            taken = {written.number for written in self._networks.values()}
            number = _free(self._last_network, self._numbers.entries - 1, taken)
            if number is None or len(network_id.encode()) > layout.ID:
                return None
            self._last_network = number
            self._networks[network_id] = _Written(number)
            self._show(network_id, self._networks[network_id])
        return self._networks[network_id]

    def _release(self, network_id: str) -> None:
        """Give a network's number back when nobody can search it any more."""
        written = self._networks.get(network_id)
        used = self._uses[network_id] or network_id in self._tables.networks
        if written is not None and not written.keys and not used:
            self._numbers.put(layout.NUMBER.pack(written.number), layout.table("", False))
            del self._networks[network_id], self._uses[network_id]

    def _show(self, network_id: str, written: _Written) -> None:
        is_open = bool(written.wildcards) or written.incomplete
        self._numbers.put(layout.NUMBER.pack(written.number), layout.table(network_id, is_open))

    def _write(self, network: Network, written: _Written, name: bytes) -> list[bytes]:
        """Bring a name's entries in line with the table; their keys."""
        value = layout.answer(network, name)
        entries = [(Key(written.number, Table.NETWORK, name), value)]
        whole = layout.qualified(network, name)
        if whole is not None:
            is_name = value is not None and (name in network.names or name in network.static)
            value = layout.qualified_answer(network, value) if is_name and value is not None else None
            entries.append((Key(written.number, Table.QUALIFIED, whole), value))
        packed = [(key, content) for each, content in entries if (key := each.pack()) is not None]
        for key, content in packed:
            self._put(network.id, written, key, content)
        return [key for key, _ in packed]

    def _put(self, network_id: str, written: _Written, key: bytes, value: bytes | None) -> None:
        if written.keys.get(key) == value:
            return
        if value is None:
            self._remove(self._names, key)
            del written.keys[key]
            return
        try:
            self._replace(self._names, key, value)
            written.keys[key] = value
        except OSError as error:
            # what is not in the map is asked of the resolver, but only if no later table answers for it
            self._remove(self._names, key)
            written.keys.pop(key, None)
            if not written.incomplete:
                log.error("a name does not fit into the kernel, the resolver answers more from now on: %s", error)
            written.incomplete = True
            self._show(network_id, written)

    # ---- sandboxes --------------------------------------------------------------------------------------

    @property
    def adopted(self) -> frozenset[str]:
        """Sandboxes that are known from the maps alone."""
        return frozenset(identity for identity, sandbox in self._served.items() if sandbox.view is None)

    def put_sandbox(self, view: SandboxView, scope: Scope, ports: tuple[int, int]) -> int:
        """A sandbox searches these tables, and its sockets listen there; its number, 0 if there is none for it."""
        sandbox = self._served.get(view.sandbox)
        if sandbox is None:
            number = _free(self._last_sandbox, _MAX_SANDBOXES, self._by_number)
            if number is None or len(view.sandbox.encode()) > layout.ID:
                return 0
            self._last_sandbox = number
            sandbox = self._served[view.sandbox] = _Sandbox(number)
            self._by_number[number] = view.sandbox
        before = sandbox.view.networks if sandbox.view is not None else ()
        self._uses.update(view.networks)
        sandbox.view, sandbox.scope, sandbox.ports = view, scope, ports
        self._write_sandbox(sandbox)
        self._stop_using(before)
        return sandbox.number

    def delete_sandbox(self, identity: str) -> None:
        """A sandbox is served no more."""
        sandbox = self._served.pop(identity, None)
        if sandbox is None:
            return
        del self._by_number[sandbox.number]
        self._remove(self._sandboxes, layout.NUMBER.pack(sandbox.number))
        for key in sandbox.keys:
            self._remove(self._names, key)
        if sandbox.view is not None:
            self._stop_using(sandbox.view.networks)

    def _stop_using(self, networks: Iterable[str]) -> None:
        self._uses.subtract(networks)
        for network in networks:
            self._release(network)

    def _write_sandbox(self, sandbox: _Sandbox) -> None:
        assert sandbox.view is not None
        try:
            links = self._write_links(sandbox)
            search = [*([(sandbox.number, Table.LINKS)] if links else []), *self._search(sandbox.view.networks)]
        except OSError as error:
            log.error("sandbox %s: its links do not fit into the kernel: %s", sandbox.view.sandbox[:12], error)
            search = []
        value = layout.sandbox(sandbox.view.sandbox, *sandbox.ports, search)
        self._replace(self._sandboxes, layout.NUMBER.pack(sandbox.number), value)

    def _write_links(self, sandbox: _Sandbox) -> bool:
        """Whether there are any."""
        old, sandbox.keys = sandbox.keys, set()
        for alias, value in self._links(sandbox):
            packed = Key(sandbox.number, Table.LINKS, alias).pack()
            if packed is not None:
                self._replace(self._names, packed, value)
                sandbox.keys.add(packed)
        for key in old - sandbox.keys:
            self._remove(self._names, key)
        return bool(sandbox.keys)

    def _links(self, sandbox: _Sandbox) -> Iterator[tuple[bytes, bytes]]:
        """Aliases and where they lead; the last one of a name counts."""
        assert sandbox.scope is not None
        scope = sandbox.scope
        found: dict[bytes, bytes] = {}
        for identity in scope.networks:
            written = self._network(identity)
            network = self._tables.networks.get(identity)
            for alias, target in scope.links.get(identity, {}).items():
                # with the network's name behind them they have to be seen among all networks of that name
                if network is not None and (whole := layout.qualified(network, alias)) is not None:
                    found.setdefault(whole, layout.ASK)
                if alias in found or written is None or alias.endswith(b"\x04arpa\0"):
                    found[alias] = layout.ASK
                else:
                    found[alias] = layout.link(Key(written.number, Table.NETWORK, target))
        return iter(found.items())

    def _search(self, networks: Iterable[str]) -> Iterator[tuple[int, Table]]:
        """Facts 1.28 and 1.35 as one order of tables: whole names first; then, of `a.b.c`, `a.b` on a network `c`
        before `a` on `b.c`, so the networks with the shorter names."""
        behind: list[tuple[int, int]] = []
        for identity in networks:
            written = self._network(identity)
            if written is None:
                return  # what comes behind a gap cannot be known here
            yield written.number, Table.NETWORK
            network = self._tables.networks.get(identity)
            if network is not None and network.folded_name:
                behind.append((len(network.folded_name), written.number))
        for _, number in sorted(behind, key=lambda each: each[0]):
            yield number, Table.QUALIFIED

    # ---- what happens there -----------------------------------------------------------------------------

    def state(self, mode: str) -> KernelState:
        return KernelState(
            mode=mode,
            program=self.program,
            answered=self._counters.sum(layout.ANSWERED),
            passed=self._counters.sum(layout.PASSED),
        )

    def follow(self, take: Callable[[str, layout.Event], None] | None) -> int:
        """Hand every question that is answered to `take` from now on, or to nobody.

        Returns a descriptor: whenever it is readable call `drain`.
        """
        if self._ring is not None:
            self._ring.close()
            self._ring = None
        self._followed = take is not None
        self._removed()
        if take is None:
            return -1

        def sample(data: bytes) -> None:
            found = layout.event(data)
            take(self._by_number.get(found.number, ""), found)

        self._ring = bpf.RingBuffer(self._log, sample)
        return self._ring.descriptor

    def drain(self) -> None:
        """Hand over what has happened."""
        if self._ring is not None:
            self._ring.drain()

    def explain(self, identity: str, name: bytes, kind: int) -> str:
        """Why a question is answered in the kernel, or is not."""
        sandbox = self._served.get(identity)
        return explain(self._loaded.maps, sandbox.number if sandbox else 0, name, kind)


def _is_wildcard(name: bytes) -> bool:
    return name.startswith(b"\x01*")


def _free(last: int, most: int, taken: Iterable[int]) -> int | None:
    """A number from 1 on that is not taken, as long after its last use as can be; None if all are."""
    used = taken if isinstance(taken, dict) else set(taken)
    for step in range(most):
        number = (last + step) % most + 1
        if number not in used:
            return number
    return None


def _find_maps(owner: tuple[int, int]) -> dict[str, bpf.Map]:
    """The maps that a process before this one has left in the kernel; none if there are none."""
    found: dict[str, bpf.Map] = {}
    for maps in bpf.programs(PROGRAM):
        value = maps["netd_settings"].get(layout.ONLY) if "netd_settings" in maps else None
        if not found and value is not None and layout.owner(value) == owner:
            found = maps
        else:
            for each in maps.values():
                with contextlib.suppress(OSError):
                    each.close()
    return found
