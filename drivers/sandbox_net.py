"""A sandbox's network namespace: a veth pair an endpoint, addresses, default routes, the resolver's ports.

Everything here runs in a worker thread that is inside the sandbox's namespace. The outer end of a pair is
configured through the netlink socket of its network's segment, which stays in the namespace where it was opened.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_network
from pathlib import Path

from drivers import netlink, netns, resolver_filter, routes, ruleset
from drivers.driver import Segment
from drivers.names import parse_tag, veth_name
from drivers.netlink import KernelRefused, Link, Netlink, Request
from drivers.nft import FirewallRefused, Nft
from drivers.routes import Way
from drivers.spec import UNKNOWN, DnsPorts, DriverError, Endpoint, InvalidOption, Network, Sandbox

_SYSCTL = Path("/proc/sys")


@dataclass(frozen=True, slots=True)
class Attachment:
    """All that makes one endpoint real: itself, its network, where it is plugged in, and its devices' alias."""

    endpoint: Endpoint
    network: Network
    segment: Segment
    tag: str

    @property
    def outer_name(self) -> str:
        return veth_name(self.endpoint.id)

    @property
    def addresses(self) -> tuple[IPv4Interface | IPv6Interface, ...]:
        own = (self.endpoint.ipv4, self.endpoint.ipv6)
        return tuple(address for address in own if address is not None) + self.endpoint.link_local

    @property
    def has_ipv6(self) -> bool:
        return any(address.version == 6 for address in self.addresses)

    def gateway(self, version: int) -> IPv4Address | IPv6Address | None:
        """The gateway of the pool this endpoint's address comes from; None if the network has no way out."""
        address = self.endpoint.ipv4 if version == 4 else self.endpoint.ipv6
        if address is None or self.network.internal or not self.segment.leads_out:
            return None
        return next((subnet.gateway for subnet in self.network.subnets if address.ip in subnet.pool), None)


def ensure(owner: str, sandbox: Sandbox, attachments: Sequence[Attachment]) -> list[str]:
    """Make the namespace's interfaces, addresses, default routes and resolver ports as they should be.

    The calling thread must be inside the namespace. What others put there (further addresses, interfaces,
    routes) stays. Returns what had to be put right.
    """
    wrong: list[str] = []
    with Netlink() as inner:
        present = inner.links()
        if not any(link.name == "lo" and link.up for link in present):
            netns.bring_up("lo")
        wrong += _remove_left(inner, owner, present, {attachment.tag for attachment in attachments})
        devices: dict[str, int] = {}
        for attachment in attachments:
            link = next((link for link in present if link.alias == attachment.tag), None)
            if link is not None and attachment.segment.netlink.link(attachment.outer_name) is None:
                inner.run([netlink.delete_link(link.name)])  # its other end is being deleted
                link = None
            if link is None:
                link = _create_pair(inner, attachment)
                wrong.append(f"interface {attachment.endpoint.ifname} was missing")
                addressed = _ensure_addresses(inner, attachment, link)
                _bring_up(inner, attachment)
                _announce(inner, attachment)
            else:
                wrong += _repair_pair(inner, attachment, link)
                addressed = _ensure_addresses(inner, attachment, link)
                wrong += addressed
            devices[attachment.endpoint.id] = link.index
        for version, holder in ((4, sandbox.gateway4), (6, sandbox.gateway6)):
            wrong += routes.ensure(inner, version, set(_ways(version, holder, attachments, devices)))
        return wrong + ensure_dns(inner, sandbox.dns)


def _remove_left(inner: Netlink, owner: str, present: list[Link], wanted: set[str]) -> list[str]:
    wrong = []
    for link in present:
        tag = parse_tag(link.alias)
        if tag is not None and tag.owner == owner and link.alias not in wanted:
            inner.run([netlink.delete_link(link.name)])
            wrong.append(f"interface {link.name} of an endpoint that is gone was there")
    return wrong


# ---- one endpoint ---------------------------------------------------------------------------------------


def _create_pair(inner: Netlink, attachment: Attachment) -> Link:
    """Make the pair, the inner end still down: its settings must be there before it is up."""
    endpoint, segment, name = attachment.endpoint, attachment.segment, attachment.outer_name
    master = segment.netlink.link(segment.device)
    if master is None:
        raise DriverError(f"bridge {segment.device} of network {attachment.network.name} does not exist")
    stale = segment.netlink.link(name)
    if stale is not None:
        if stale.kind != "veth" or stale.alias not in ("", attachment.tag):
            raise DriverError(f"device {name} exists and belongs to somebody else")
        segment.netlink.run([netlink.delete_link(name)])  # its other end is not where it belongs
    with open("/proc/thread-self/ns/net") as namespace:
        try:
            segment.netlink.run(_pair(attachment, master, namespace.fileno()))
        except KernelRefused as refusal:
            if refusal.code == errno.EEXIST:
                raise DriverError(f'error renaming interface "{name}" to "{endpoint.ifname}": file exists') from None
            segment.netlink.run([netlink.delete_link(name)])
            raise
    inner.run([netlink.set_link(endpoint.ifname, {"IFLA_IFALIAS": attachment.tag})])
    _write_sysctls(attachment)
    link = inner.link(endpoint.ifname)
    if link is None:
        raise DriverError(f"interface {endpoint.ifname} vanished while it was set up")
    return link


def _pair(attachment: Attachment, master: Link, namespace: int) -> Iterator[Request]:
    endpoint, segment, name = attachment.endpoint, attachment.segment, attachment.outer_name
    mtu = {"IFLA_MTU": segment.mtu} if segment.mtu else {}
    peer = {"IFLA_IFNAME": endpoint.ifname, "IFLA_ADDRESS": endpoint.mac, **mtu, "IFLA_NET_NS_FD": namespace}
    data = {"attrs": [("VETH_INFO_PEER", {"attrs": list(peer.items())})]}
    info = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", data)]}
    yield netlink.new_link(f"create interface {endpoint.ifname}", {"IFLA_IFNAME": name, **mtu, "IFLA_LINKINFO": info})
    yield from _plug(attachment, master)


def _plug(attachment: Attachment, master: Link) -> Iterator[Request]:
    """Tag the outer end and make it a port of its bridge."""
    segment, name = attachment.segment, attachment.outer_name
    # a bridge port speaks no IP, so it needs no link-local address
    quiet = {"attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", 1)]})]}
    settings = {"IFLA_IFALIAS": attachment.tag, "IFLA_AF_SPEC": quiet, "IFLA_MASTER": master.index}
    yield netlink.set_link(name, settings, up=True)
    yield netlink.set_bridge_port(name, hairpin=segment.hairpin, isolated=segment.isolated)


def _repair_pair(inner: Netlink, attachment: Attachment, link: Link) -> list[str]:
    segment, name = attachment.segment, attachment.outer_name
    wrong = []
    outer, master = segment.netlink.link(name), segment.netlink.link(segment.device)
    if outer is None or master is None:
        raise DriverError(f"device {name if outer is None else segment.device} does not exist")
    if outer.master != master.index or not outer.up:
        segment.netlink.run(_plug(attachment, master))
        _settle(inner, attachment)
        wrong.append(f"device {name} was down or not on bridge {segment.device}")
    if segment.mtu and outer.mtu != segment.mtu:  # the outer end's: the inner one is the container's to change
        segment.netlink.run([netlink.set_link(name, {"IFLA_MTU": segment.mtu})])
        inner.run([netlink.set_link(link.name, {"IFLA_MTU": segment.mtu})])
        wrong.append(f"interface {link.name} had MTU {outer.mtu}")
    if not link.up:
        _bring_up(inner, attachment)
        wrong.append(f"interface {link.name} was down")
    return wrong


def _bring_up(inner: Netlink, attachment: Attachment) -> None:
    """Set the inner end up, its addresses already there, so that it announces them (arp_notify)."""
    inner.run([netlink.set_link(attachment.endpoint.ifname, {}, up=True)])
    _settle(inner, attachment)


def _announce(inner: Netlink, attachment: Attachment) -> None:
    """Tell the addresses again: what was told when the interface came up, the bridge may not have forwarded yet."""
    # the kernel does so when it is given a MAC (arp_notify, ndisc_notify), be it the same
    inner.run([netlink.set_link(attachment.endpoint.ifname, {"IFLA_ADDRESS": attachment.endpoint.mac})])


def _settle(inner: Netlink, attachment: Attachment) -> None:
    # the kernel may put off what follows a change of carrier (IPv6, forwarding by the bridge) for a second;
    # being asked about a device makes it do that at once (Linux 6.8)
    inner.link(attachment.endpoint.ifname)
    attachment.segment.netlink.link(attachment.outer_name)
    attachment.segment.netlink.link(attachment.segment.device)


def _ensure_addresses(inner: Netlink, attachment: Attachment, link: Link) -> list[str]:
    present = inner.addresses(link.index)
    holds = {assigned.address for assigned in present}
    missing = [address for address in attachment.addresses if address not in holds]
    surplus = [a.address for a in present if a.ours and a.address not in attachment.addresses]
    inner.run(
        (
            *(netlink.delete_address(link.index, address) for address in surplus),
            *(netlink.add_address(link.index, address) for address in missing),
        )
    )
    kept = [address for address in attachment.addresses if address in holds]
    return routes.renew(inner, link, kept) + [f"interface {link.name} lacked address {address}" for address in missing]


def _write_sysctls(attachment: Attachment) -> None:
    endpoint = attachment.endpoint
    # announce addresses when the interface comes up: they are reused, and neighbours remember the last holder's MAC
    _sysctl("ipv4", endpoint.ifname, "arp_notify").write_text("1")
    if _sysctl("ipv6", endpoint.ifname, "disable_ipv6").exists():
        with_ipv6 = {"disable_ipv6": "0", "accept_dad": "0", "accept_ra": "0", "ndisc_notify": "1"}
        for key, value in (with_ipv6 if attachment.has_ipv6 else {"disable_ipv6": "1"}).items():
            _sysctl("ipv6", endpoint.ifname, key).write_text(value)
    for key, value in endpoint.sysctls.items():
        path = _SYSCTL.joinpath(*(endpoint.ifname if part == "IFNAME" else part for part in key.split(".")))
        try:
            path.write_text(value)
        except OSError as error:
            raise InvalidOption(f"cannot set {key}={value} on {endpoint.ifname}: {error.strerror}") from None


def _sysctl(family: str, ifname: str, key: str) -> Path:
    return _SYSCTL / "net" / family / "conf" / ifname / key


# ---- routes ---------------------------------------------------------------------------------------------


def _ways(
    version: int, holder: str | None, attachments: Sequence[Attachment], devices: dict[str, int]
) -> Iterator[Way]:
    """The routes of one address family: the default over the endpoint `holder`, and those of each segment."""
    for attachment in attachments:
        device = devices[attachment.endpoint.id]
        if attachment.endpoint.id == holder and (gateway := attachment.gateway(version)) is not None:
            yield Way(None, gateway, device)
        for destination, gateway in attachment.segment.routes:
            if ip_network(destination).version == version:
                yield Way(destination, gateway, device)


# ---- the resolver's ports -------------------------------------------------------------------------------


def ensure_dns(inner: Netlink, ports: DnsPorts | None) -> list[str]:
    """Rewrite 127.0.0.11:53 to these ports, or not at all. A new way is there before an old one is taken away."""
    if ports == UNKNOWN:
        return []
    if ports is not None and ports.program:
        changed = resolver_filter.ensure(inner, ports)
        if changed:
            _ensure_redirect(None)
    else:
        changed = _ensure_redirect(ports)
        changed |= resolver_filter.remove(inner)
    return ["the redirect to the resolver was not as it should be"] if changed else []


def _ensure_redirect(ports: DnsPorts | None) -> bool:
    """Have this table of nftables, or none; whether it was otherwise. It is replaced atomically."""
    wanted = ruleset.dns_redirect(ports.udp, ports.tcp) if ports is not None else ""
    with Nft() as nft:
        try:
            present = nft.run(f"list table {ruleset.DNS_TABLE}")
        except FirewallRefused:
            present = ""
        if present == wanted:
            return False
        # replacing costs an RCU grace period when the socket is closed, so do not where there is nothing
        nft.run((ruleset.without(ruleset.DNS_TABLE) if present else "") + wanted)
    return True
