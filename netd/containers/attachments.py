"""Between containers and networks: what a container's network settings mean, when it starts and while it runs."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from netd.containers import links
from netd.containers.publishing import Publisher
from netd.containers.request import extra_hosts
from netd.containers.settings import check_connectable, configured, dns_names, hostname, static_addresses
from netd.core.errors import Conflict, Forbidden, InvalidParameter, NetdError, NotFound
from netd.core.events import EventBus
from netd.core.tasks import both
from netd.model.containers import Container
from netd.model.networks import EndpointSettings, NetworkConnect
from netd.model.sandboxes import Endpoint, Published, Sandbox
from netd.names.resolver import Names
from netd.networks.endpoints import EndpointRequest
from netd.networks.live import LiveNetwork
from netd.networks.manager import NetworkManager
from netd.networks.settings import check_network_accepts, check_settings
from netd.sandboxes import etc as hostsfile
from netd.sandboxes.etc import EtcFiles, resolv_conf_text
from netd.sandboxes.joining import Joining
from netd.sandboxes.manager import SandboxManager

log = logging.getLogger(__name__)

_BINDING = "com.docker.network.bridge.host_binding_ipv4"


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a start needs of the network, taken for it: give it back with `Attachments.undo`."""

    record: Container
    sandbox: Sandbox | None  # None: it joins another container's
    hostname: str
    netns: str  # empty: the host's
    files: Mapping[str, Path]
    linked: tuple[str, ...] = ()  # lines of /etc/hosts

    @property
    def domainname(self) -> str:
        return self.record.config.domainname


class Attachments:
    """Which container is on which network, as configured and as it is."""

    def __init__(
        self,
        networks: NetworkManager,
        sandboxes: SandboxManager,
        joining: Joining,
        names: Names,
        publisher: Publisher,
        events: EventBus,
        data_root: Path,
    ) -> None:
        self._sandboxes = sandboxes
        self._networks = networks
        self._joining = joining
        self._names = names
        self._publisher = publisher
        self._events = events
        self._root = data_root / "containers"

    # ---- configuration ----------------------------------------------------------------------------------

    async def configure(self, record: Container, networks: Mapping[str, EndpointSettings]) -> Container:
        """Take a new container's endpoint settings; a network that does not exist yet shows at start (fact 3.2)."""
        taken: dict[str, EndpointSettings] = {}
        for ref, given in networks.items():
            settings = configured(given)
            try:
                live = self._networks.find(ref)
            except NotFound:
                taken[ref] = settings
                continue
            check_network_accepts(live, settings)
            taken[live.record.name] = settings
            await self._networks.reserve(live.record.name, static_addresses(settings), record.id)
        return replace(record, networks=taken)

    def reserve_static(self, record: Container) -> None:
        """After a restart: static addresses belong to their containers again."""
        for name, settings in record.networks.items():
            self._networks.reserve_again(name, static_addresses(settings), record.id)

    def forget(self, record: Container, network: LiveNetwork | None = None) -> None:
        """Let go of a container's static addresses, on one network or, when it is gone, on all."""
        self._networks.unreserve(record.id, network.record.id if network else None)

    def sandbox(self, record: Container) -> Sandbox | None:
        """The sandbox of a container's own that it runs in."""
        return self._sandboxes.get(record.sandbox_id)

    # ---- start and end ----------------------------------------------------------------------------------

    async def plan(self, record: Container, find: Callable[[str], Container]) -> Plan:
        """What a container is to start with, addresses and ports taken."""
        mode = record.host_config.network_mode
        if mode.startswith("container:"):
            return self._joined(record, find(mode.removeprefix("container:")))
        networks = await self._networks_of(record)
        record = replace(record, networks={name: settings for name, (_, settings) in networks.items()})
        linked = links.host_lines(record, find, self.sandbox)
        sandbox_id = secrets.token_hex(32)
        host_mode = mode == "host"
        sandbox = Sandbox(
            id=sandbox_id,
            container_id=record.id,
            name=record.name,
            netns="" if host_mode else self._sandboxes.netns_path(sandbox_id),
            hostname=hostname(record),
            dns=tuple(record.host_config.dns or ()),
            dns_search=tuple(record.host_config.dns_search or ()),
            dns_options=tuple(record.host_config.dns_options or ()),
            dns_routes=tuple(record.host_config.dns_routes or ()),
        )
        wanted = [
            (live, _request(record, settings)) for live, settings in sorted(networks.values(), key=_gateway_order)
        ]
        bare, sandbox = sandbox, await self._joining.added(sandbox, wanted)
        try:
            sandbox = replace(sandbox, published=self._publish(record, sandbox))
        except BaseException:
            self._joining.give_back(bare, sandbox)
            raise
        return Plan(record, sandbox, sandbox.hostname, sandbox.netns, self._files(record), tuple(linked))

    async def _networks_of(self, record: Container) -> dict[str, tuple[LiveNetwork, EndpointSettings]]:
        """A container's networks by name; one may have been given by its id, when this host did not know of it yet."""
        found: dict[str, tuple[LiveNetwork, EndpointSettings]] = {}
        for ref, settings in record.networks.items():
            live = await self._networks.find_anywhere(ref)
            if live.record.name not in found or ref == live.record.name:
                found[live.record.name] = live, settings
        return found

    def _publish(self, record: Container, sandbox: Sandbox) -> tuple[Published, ...]:
        carrier = sandbox.gateway4 or sandbox.gateway6
        options = self._networks.live[carrier.network_id].record.options if carrier else {}
        return self._publisher.allocate(record, sandbox, options.get(_BINDING, ""))

    def _files(self, record: Container) -> dict[str, Path]:
        return {f"/etc/{name}": self._root / record.id / name for name in ("hosts", "hostname", "resolv.conf")}

    def _joined(self, record: Container, target: Container) -> Plan:
        """Another container's namespace, host name and files (facts 3.6 and 3.7)."""
        if not target.state.alive:
            raise Conflict(
                f"cannot join network namespace of a non running container: container {target.name} is "
                f"{target.state.status}"
            )
        sandbox = self.sandbox(target)
        if sandbox is None:
            raise Conflict(f"cannot join the network of container {target.name}: it shares another container's network")
        return Plan(record, None, sandbox.hostname, sandbox.netns, self._files(target))

    async def prepare(self, plan: Plan) -> None:
        """The namespace and the files, before anything is started in them."""
        sandbox = plan.sandbox
        if sandbox is None:
            return
        etc = EtcFiles(self._root / plan.record.id)
        hosts = self._hosts(plan.record, sandbox, plan.linked)
        await self._names.host.look()
        text = resolv_conf_text(sandbox, self._names.settings(sandbox))
        await both(self._sandboxes.pin(sandbox), asyncio.to_thread(etc.write, sandbox.hostname, hosts, text))

    def _hosts(self, record: Container, sandbox: Sandbox, linked: Sequence[str]) -> str:
        extra = [
            (n, self._host_gateway() if a == "host-gateway" else a)
            for n, a in extra_hosts(record.host_config.extra_hosts or ())
        ]
        if not sandbox.netns and not extra:
            return hostsfile.of_host()
        own = [line for endpoint in sandbox.endpoints for line in _own_lines(record, sandbox, endpoint)]
        return hostsfile.render(extra, [*linked, *own])

    def _host_gateway(self) -> str:
        config = self._networks.by_name("bridge").record.ipam.config or []
        if not config:
            raise InvalidParameter("unable to derive the IP value for host-gateway")
        return config[0].gateway

    def refresh_links(self, target: Container, others: Iterable[Container]) -> None:
        """Tell running containers with a legacy link to this one its new address."""
        for other in others:
            if other.state.alive:
                with self._files_of(other) as etc:
                    links.refresh(other, etc.hosts, target, self.sandbox)

    @contextmanager
    def _files_of(self, record: Container) -> Iterator[EtcFiles]:
        """A running container's files, which are its own to break: what cannot be changed in them is no failure."""
        try:
            yield EtcFiles(self._root / record.id)
        except (OSError, ValueError) as error:
            log.warning("container %s: its files in /etc cannot be changed: %s", record.name, error)

    async def carry_out(self, plan: Plan) -> None:
        """Links, published ports and names, in a namespace that is there."""
        if plan.sandbox is not None:
            await self._sandboxes.bring_up(plan.sandbox)

    async def undo(self, sandbox: Sandbox | None) -> None:
        """Take down what `plan`, `prepare` and `carry_out` made, however far they came; errors go to the log."""
        if sandbox is not None:
            await self._sandboxes.tear_down(sandbox)
            self._publisher.release(sandbox.id)

    async def sweep(self, in_use: set[str], left_alone: set[str]) -> None:
        """After a restart: sandboxes that no running container holds go, but for those of the containers that are
        `left_alone`; the ports of the others are taken again."""
        for sandbox in list(self._sandboxes.all()):
            if sandbox.attached:
                continue
            if sandbox.id not in in_use and sandbox.container_id not in left_alone:
                await self.undo(sandbox)
            else:
                self._publisher.claim(sandbox)
        await self._sandboxes.sweep_namespaces()

    # ---- changes while it runs --------------------------------------------------------------------------

    async def with_network(self, record: Container, ref: str, body: NetworkConnect) -> tuple[LiveNetwork, Container]:
        """A container with one more network in its settings (facts 2.88 to 2.100), static addresses kept for it."""
        live = await self._networks.find_anywhere(ref)
        settings = configured(body.endpoint_config or EndpointSettings())
        check_settings(settings)
        check_connectable(record, live)
        check_network_accepts(live, settings)
        name = live.record.name
        sandbox = self.sandbox(record)
        lost = sandbox is not None and sandbox.endpoint_on(live.record.id) is None  # if it is among its networks
        if name in record.networks and not lost:
            raise Forbidden(f"endpoint with name {record.name} already exists in network {name}")
        await self._networks.reserve(name, static_addresses(settings), record.id)
        return live, replace(record, networks={**record.networks, name: settings})

    async def join(self, record: Container, live: LiveNetwork) -> None:
        """Give a container, if it runs, its endpoint on a network that is among its settings."""
        sandbox = self.sandbox(record)
        if sandbox is None:
            return
        wider = await self._joining.added(sandbox, [(live, _request(record, record.networks[live.record.name]))])
        endpoint = wider.endpoints[len(sandbox.endpoints)]
        try:
            # published ports that had no way in until now
            wider = wider if sandbox.published else replace(wider, published=self._publish(record, wider))
        except BaseException:
            self._joining.give_back(sandbox, wider)
            raise
        try:
            wider = await self._joining.widen(sandbox, wider)
        except BaseException:
            if not sandbox.published:
                self._publisher.release(sandbox.id)
            raise
        with self._files_of(record) as etc:
            hostsfile.append(etc.hosts, _own_lines(record, wider, endpoint))
        if wider.resolves != sandbox.resolves:
            with self._files_of(record) as etc:
                etc.rewrite_resolv_conf(resolv_conf_text(wider, self._names.settings(wider)))
        self._event("connect", record, endpoint)

    def without_network(self, record: Container, ref: str) -> tuple[LiveNetwork, Container]:
        """A container without a network in its settings."""
        live = self._networks.find(ref)
        if live.record.driver == "host":
            raise InvalidParameter(
                "cannot disconnect container from host network - container was created in host network mode"
            )
        sandbox = self.sandbox(record)
        endpoint = sandbox.endpoint_on(live.record.id) if sandbox else None
        if live.record.name not in record.networks and endpoint is None:
            the = "" if record.state.running else "the "
            raise NetdError(f"container {record.id} is not connected to {the}network {live.record.name}")
        return live, replace(record, networks={n: s for n, s in record.networks.items() if n != live.record.name})

    async def leave(self, record: Container, live: LiveNetwork) -> None:
        """Take a container's endpoint on a network away, if it has one."""
        sandbox = self.sandbox(record)
        endpoint = sandbox.endpoint_on(live.record.id) if sandbox else None
        if sandbox is not None and endpoint is not None:
            await self._detach(record, sandbox, endpoint)

    async def _detach(self, record: Container, sandbox: Sandbox, endpoint: Endpoint) -> None:
        await self._joining.narrow(sandbox, endpoint)
        with self._files_of(record) as etc:
            hostsfile.drop_addresses(etc.hosts, endpoint.addresses)
        self._event("disconnect", record, endpoint)

    async def lose(self, record: Container, endpoint_id: str) -> None:
        """Take an endpoint away that is not the container's any more; the network stays among its settings."""
        sandbox = self.sandbox(record)
        endpoint = next((e for e in sandbox.endpoints if e.id == endpoint_id), None) if sandbox else None
        if sandbox is not None and endpoint is not None:
            await self._detach(record, sandbox, endpoint)

    async def follow_up(self, record: Container) -> None:
        """Add or take away what follows from a container's endpoints, where it could not be done with them."""
        sandbox = self.sandbox(record)
        if sandbox is not None:
            await self._joining.follow_up(sandbox)

    async def rename(self, record: Container) -> None:
        """The container's new name replaces the old one in every table (fact 1.32).

        On global networks it may be another's; then nothing has changed.
        """
        sandbox = self.sandbox(record)
        if sandbox is None:
            return
        renamed = _renamed(sandbox, record)
        await self._networks.rename(sandbox, renamed)
        try:
            await self._sandboxes.rename(sandbox, renamed)
        except BaseException:
            await self._networks.rename(renamed, sandbox)
            raise

    async def adopt(self, record: Container) -> Container:
        """A running container of an earlier daemon, which may have been killed half-way: a rename or a disconnection
        is carried through, a connection was none. Other hosts are told by whoever tells them of all endpoints."""
        sandbox = self.sandbox(record)
        if sandbox is None:
            return record
        if sandbox.name != record.name:
            renamed = _renamed(sandbox, record)
            await self._sandboxes.rename(sandbox, renamed)
            sandbox = renamed
        for endpoint in self._joining.asked_for(sandbox):
            if endpoint.network not in record.networks:
                sandbox = await self._joining.narrow(sandbox, endpoint)
        on = {endpoint.network for endpoint in sandbox.endpoints}
        for name in record.networks.keys() - on:
            if not self._networks.may_lose(name):
                self.forget(record, self._networks.by_name(name))
                record = replace(record, networks={n: s for n, s in record.networks.items() if n != name})
        return record

    # ---- telling ----------------------------------------------------------------------------------------

    def announce(self, action: str, record: Container, sandbox: Sandbox | None) -> None:
        """The connect or disconnect events of a start or an end (fact 2.110)."""
        for endpoint in sandbox.endpoints if sandbox else ():
            self._event(action, record, endpoint)

    def _event(self, action: str, record: Container, endpoint: Endpoint) -> None:
        live = self._networks.live.get(endpoint.network_id)
        driver = live.record.driver if live else "overlay"  # only a global one goes while somebody is on it
        attributes = {"container": record.id, "name": endpoint.network, "type": driver}
        self._events.publish("network", action, endpoint.network_id, attributes)


def _gateway_order(item: tuple[LiveNetwork, EndpointSettings]) -> tuple[int, str]:
    """By gateway priority, then name: interface numbers follow (choice 8.9)."""
    live, settings = item
    return -settings.gw_priority, live.record.name


def _request(record: Container, settings: EndpointSettings) -> EndpointRequest:
    services = {**(record.config.exposed_ports or {}), **(record.host_config.port_bindings or {})}
    return EndpointRequest(settings, names=dns_names(record, settings), services=tuple(services))


def _renamed(sandbox: Sandbox, record: Container) -> Sandbox:
    endpoints = tuple(
        replace(e, names=dns_names(record, record.networks.get(e.network, EndpointSettings()))) if e.names else e
        for e in sandbox.endpoints
    )
    return replace(sandbox, name=record.name, endpoints=endpoints)


def _own_lines(record: Container, sandbox: Sandbox, endpoint: Endpoint) -> list[str]:
    return [hostsfile.own_line(a, sandbox.hostname, record.config.domainname) for a in endpoint.addresses]
