"""Three hosts and a store of their own, and all that has to be true of them whenever they are left in peace."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drivers.spec import DriverError
from kvstore.contract import StoreError
from kvstore.open import open_store
from tests.daemon.cluster import Hub, Member
from tests.daemon.eyes import Eye, Seen, look
from tests.daemon.harness import eventually, run
from tests.kvstore.servers import Server

HOSTS = (1, 2, 3)
REMEMBERED = 12  # names of containers that are gone, and must not be found
Pair = tuple[str, str]


@dataclass(frozen=True)
class Place:
    """A running container's endpoint on a global network."""

    member: Member
    name: str
    network: str
    network_id: str
    endpoint: str
    address: str
    mac: str
    pid: int

    def __str__(self) -> str:
        return f"{self.name} of {self.member.hostname} on {self.network} ({self.address}, {self.endpoint[:8]})"


class World:
    """One store with three hosts. `wanted` is what should be running: names, by host number."""

    def __init__(self, kind: str, server: Server, number: int, image: Path) -> None:
        self.kind = kind
        self.server = server
        self.hub = Hub(kind, server.port, f"10.99.{number}")
        self.members: dict[int, Member] = {}
        self.wanted: dict[str, int] = {}
        self.gone: list[str] = []
        self._image = image
        self._eyes: dict[int, Eye] = {}  # by process
        self._dns: subprocess.Popen[bytes] | None = None

    def make(self) -> None:
        self.hub.make()
        self._start_dns()
        for number in HOSTS:
            self.members[number] = self.hub.member(number, self._image, f"--dns={self.hub.address}")

    def _start_dns(self) -> None:
        """A server that at once denies names that nobody here has."""
        words = ("--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--user=root")
        where = (f"--listen-address={self.hub.address}", "--bind-interfaces", "--pid-file=", "--local=/#/")
        self._dns = subprocess.Popen(["dnsmasq", *words, *where], stderr=subprocess.DEVNULL)

    def remove(self) -> None:
        for each in self._eyes.values():
            each.close()
        self.hub.remove()
        if self._dns is not None:
            self._dns.kill()
            self._dns.wait()

    # ---- doing ------------------------------------------------------------------------------------------

    def run(self, name: str, host: int, *networks: str, **more: Any) -> str:
        """Start a container that is to be there from now on; its address on the first network."""
        member = self.members[host]
        member.run_container(name, "sleep", "100000", network=networks[0], **more)
        for network in networks[1:]:
            assert member.api("POST", f"/networks/{network}/connect", {"Container": name}).status == 200
        self.wanted[name] = host
        return member.address(name, networks[0])

    def rm(self, name: str) -> None:
        self.members[self.wanted[name]].remove_container(name)
        self.forget(name)

    def forget(self, name: str) -> None:
        """Nobody should find this container any more."""
        del self.wanted[name]
        self.gone = [*self.gone, name][-REMEMBERED:]

    # ---- looking ----------------------------------------------------------------------------------------

    def places(self) -> list[Place]:
        return [place for member in self.members.values() for place in self.places_of(member)]

    def places_of(self, member: Member) -> list[Place]:
        """The endpoints on global networks of what runs on a host, as its daemon shows them."""
        found = []
        names = {n["Id"]: n["Name"] for n in member.get("/networks") if n["Scope"] == "global"}
        for item in member.get("/containers/json"):
            pid = member.inspect(item["Id"])["State"]["Pid"]
            for shown in item["NetworkSettings"]["Networks"].values():
                if shown["EndpointID"] and (network := names.get(shown["NetworkID"])):
                    place = Place(
                        *(member, item["Names"][0][1:], network, shown["NetworkID"]),
                        *(shown["EndpointID"], shown["IPAddress"], shown["MacAddress"], pid),
                    )
                    found.append(place)
        return found

    def place(self, name: str, network: str) -> Place:
        member = self.members[self.wanted[name]]
        return next(p for p in self.places_of(member) if (p.name, p.network) == (name, network))

    def eye(self, place: Place) -> Eye:
        """The sight of a running container; the same one as long as its process lives."""
        if place.pid not in self._eyes:
            self._eyes[place.pid] = Eye(place.pid)
        return self._eyes[place.pid]

    def forget_neighbours(self) -> None:
        """Empty the containers' tables of neighbours: those of all namespaces share the machine's room for them."""
        for pid in {place.pid for place in self.places()}:
            run("nsenter", f"--net=/proc/{pid}/ns/net", "ip", "neigh", "flush", "all")

    def drop_eyes(self, kept: Collection[int] = ()) -> None:
        """Let go of the namespaces of all processes but these."""
        for pid in self._eyes.keys() - set(kept):
            self._eyes.pop(pid).close()

    def lost(self) -> dict[str, str]:
        """The containers of which a host says that they lost their place, and why."""
        told = re.compile(r"endpoint (\S+) cannot have what it had: (.*?);")
        logs = (member.log.read_text() for member in self.members.values())
        return {name: why for log in logs for name, why in told.findall(log)}

    def kept(self) -> set[str]:
        """The addresses that containers were asked to have."""
        shown = (m.inspect(c["Id"]) for m in self.members.values() for c in m.get("/containers/json?all=1"))
        networks = [n for container in shown for n in container["NetworkSettings"]["Networks"].values()]
        return {n["IPAMConfig"]["IPv4Address"] for n in networks if (n["IPAMConfig"] or {}).get("IPv4Address")}

    def given_up(self) -> set[str]:
        """The containers that could not be started again, as their address was taken meanwhile."""
        told = re.compile(r"container (\S+) could not be restarted: Address already in use")
        return {name for member in self.members.values() for name in told.findall(member.log.read_text())}

    def complaints(self) -> str:
        """What the daemons have complained of last."""
        found = []
        for member in self.members.values():
            lines = [line for line in member.log.read_text().splitlines() if " warning " in line or " error " in line]
            found += [f"{member.hostname}: {line[11:240]}" for line in lines[-40:]]
        return "\n".join(found)

    # ---- what has to be true ----------------------------------------------------------------------------

    def agrees(self, within: float) -> float:
        """Wait until everything is as it should be; how many seconds that took."""
        begun = time.monotonic()
        last: list[str] = []

        def settled() -> bool:
            last[:] = self.problems()
            return not last

        try:
            eventually(settled, within=within, every=0.1)
        except AssertionError:
            told = "\n".join([f"not within {within:.0f} s on {self.kind}:", *last, self.complaints()])
            raise AssertionError(told) from None
        return time.monotonic() - begun

    def problems(self) -> list[str]:
        """Everything that is not as it should be, a sentence each."""
        try:
            return list(self._problems())
        except (OSError, StoreError, DriverError, TimeoutError) as error:
            return [f"cannot look: {error!r}"]

    def _problems(self) -> Iterator[str]:
        every = self.places()
        running = {
            (m.hostname, c["Names"][0][1:])
            for m in self.members.values()
            for c in m.get("/containers/json")
            if c["State"] == "running"  # others wait for their restart
        }
        given_up = self.given_up()
        wanted = {(f"host{host}", name) for name, host in self.wanted.items()}
        yield from _differ("runs", wanted, running | {found for found in wanted if found[1] in given_up})
        keys, values = self._stored()
        endpoints = {key.split("/")[2] for key in keys if key.startswith("ep/")}
        lost = self.lost()
        places = [p for p in every if p.endpoint in endpoints or p.name not in lost]
        addresses = [(p.network, p.address) for p in places]
        yield from (f"{address} is there twice" for address in set(addresses) if addresses.count(address) > 1)
        ids = {p.network: p.network_id for p in places}
        yield from _differ("is a host", {f"hosts/{m.hostname}" for m in self.members.values()}, _under(keys, "hosts/"))
        claimed = {f"ipam/{ids[network]}/ip/{address}" for network, address in addresses}
        for wanted, found in (
            ({f"ep/{p.network_id}/{p.endpoint}" for p in places}, _under(keys, "ep/")),
            # what is kept for a container that has ended may be there
            (claimed, {k for k in _under(keys, "ipam/") if k in claimed or k.rpartition("/")[2] not in self.kept()}),
            ({f"epname/{p.network_id}/{p.name}" for p in places}, _under(keys, "epname/")),
        ):
            yield from _differ("is in the store", wanted, found)
        for p in places:
            record = values.get(f"ep/{p.network_id}/{p.endpoint}")
            told = record and (record["host"], record["ipv4"].partition("/")[0], record["mac"], record["name"])
            if told and told != (p.member.hostname, p.address, p.mac, p.name):
                yield f"the store has {told} for {p}"
        for member in self.members.values():
            yield from self._wrong_in_kernel(member, places)
        yield from self._out_of_sight(places)

    def _stored(self) -> tuple[set[str], dict[str, Any]]:
        async def read() -> dict[str, bytes]:
            store = await open_store(f"{self.server.url}/netd")
            try:
                async with asyncio.timeout(5):
                    prefixes = ("hosts/", "ep/", "ipam/", "epname/", "networks/", "names/", "vni/", "subnets/")
                    return {e.key: e.value for prefix in prefixes for e in await store.list(prefix)}
            finally:
                await store.close()

        entries = asyncio.run(read())
        return set(entries), {key: json.loads(value) for key, value in entries.items()}

    def _wrong_in_kernel(self, member: Member, places: list[Place]) -> Iterator[str]:
        """Of the networks that a host is on: rows for the endpoints of the other hosts, and no others."""
        here = {p.network_id: p.network for p in places if p.member is member}
        pinned = member.exec_root / "overlays"
        present = {path.name for path in pinned.iterdir()} if pinned.is_dir() else set()
        where = member.hostname
        yield from _differ(f"is a network in the kernel of {where}", {i[:12] for i in here}, present)
        for network_id in here:
            if network_id[:12] not in present:
                continue
            others = [p for p in places if p.network_id == network_id and p.member is not member]
            forwards, neighbours = self.rows(member, network_id)
            network = here[network_id]
            wanted = {(p.mac, p.member.machine_address) for p in others}
            yield from _differ(f"is a forwarding row of {network} on {where}", wanted, forwards)
            wanted = {(p.address, p.mac) for p in others}
            yield from _differ(f"is a neighbour row of {network} on {where}", wanted, neighbours)

    @staticmethod
    def rows(member: Member, network_id: str) -> tuple[set[Pair], set[Pair]]:
        """(MAC, host) and (address, MAC): the static rows of a network's VXLAN device."""
        inside = ("nsenter", f"--net={member.exec_root}/overlays/{network_id[:12]}")
        forwards = json.loads(run(*inside, "bridge", "-json", "fdb", "show", check=False).stdout or "[]")
        neighbours = json.loads(run(*inside, "ip", "-json", "neigh", "show", "nud", "permanent").stdout or "[]")
        return (
            {(row["mac"], row["dst"]) for row in forwards if "dst" in row},
            {(row["dst"], row["lladdr"]) for row in neighbours if row["dev"].startswith("vxlan")},
        )

    def _out_of_sight(self, places: list[Place]) -> Iterator[str]:
        """Whoever does not find all on its networks by name, or somebody else, or does not reach them."""
        self.drop_eyes({p.pid for p in places})
        groups: dict[frozenset[str], dict[Eye, str]] = {}
        for name in {p.name for p in places}:
            own = [p for p in places if p.name == name]
            groups.setdefault(frozenset(p.network for p in own), {})[self.eye(own[0])] = str(own[0])
        for networks, eyes in groups.items():
            # a name that is on both networks of who asks has the address on the first of them
            found: dict[str, set[str]] = {p.name: set() for p in places} | {name: set() for name in self.gone}
            for p in places:
                if p.network in networks:
                    found[p.name].add(p.address)
            near = {address for addresses in found.values() for address in addresses}
            for each, seen in look(eyes, found, near, within=2).items():
                yield from _missed(eyes[each], seen, found, near)


def _missed(who: str, seen: Seen, found: dict[str, set[str]], near: set[str]) -> Iterator[str]:
    for name, addresses in found.items():
        resolved = seen.names.get(name, set())
        if not resolved <= addresses or bool(resolved) != bool(addresses):
            yield f"{who} resolves {name} to {resolved}, not {addresses}"
    if seen.alive != near:
        yield f"{who} does not reach {sorted(near - seen.alive)}"


def _under(keys: set[str], prefix: str) -> set[str]:
    return {key for key in keys if key.startswith(prefix)}


def _differ(what: str, wanted: Collection[object], found: Collection[object]) -> Iterator[str]:
    yield from (f"{item} {what}, and should not" for item in sorted(set(found) - set(wanted), key=str))
    yield from (f"it should be that {item} {what}" for item in sorted(set(wanted) - set(found), key=str))


@contextlib.contextmanager
def timed(limit: float, what: str) -> Iterator[None]:
    """What happens inside may take so many seconds."""
    begun = time.monotonic()
    yield
    took = time.monotonic() - begun
    assert took < limit, f"{what} took {took:.1f} s"
