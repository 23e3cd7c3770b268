"""The Linux bridge of a network of driver `bridge`, in the host's namespace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from drivers import bridge, netlink
from drivers.bridge import BridgeOptions
from drivers.driver import Segment
from drivers.names import Tag
from drivers.netlink import Link, Netlink, Request
from drivers.reaper import Reaper
from drivers.ruleset import Elements
from drivers.spec import DriverError, Endpoint, Network

_SYSCTL = Path("/proc/sys/net")


class BridgeDriver:
    """A driver (see `driver.Driver`) whose networks are bridges of this host.

    A device of the wanted name that is not ours is adopted if it is a bridge: it gets our addresses, keeps
    all it has, and is not deleted with the network.
    """

    def __init__(self, host: Netlink, reaper: Reaper, owner: str) -> None:
        self._host = host
        self._reaper = reaper
        self._owner = owner

    def validate(self, network: Network, existing: Iterable[Network]) -> None:
        bridge.validate(network, existing)

    def elements(self, network: Network) -> Elements:
        return bridge.elements(network)

    def device(self, network: Network) -> str:
        return bridge.parse_options(network).device

    def plugged(self, network: Network, endpoint: Endpoint) -> None:
        pass

    def unplugged(self, network: Network, endpoint: Endpoint) -> None:
        pass

    def namespace(self, network: Network) -> int:
        return -1

    def segment(self, network: Network, endpoint: Endpoint) -> Segment:
        options = bridge.parse_options(network)
        isolated = not options.icc and not _rules_see_frames()
        return Segment(self._host, self._reaper, options.device, options.mtu, isolated)

    def ensure_network(self, network: Network) -> list[str]:
        options = bridge.parse_options(network)
        wrong = _enable_forwarding(ipv6=bridge.has_ipv6(network))
        link = self._host.link(options.device)
        if link is None:
            self._host.run(self._creation(network, options))
            wrong.append(f"bridge {options.device} was missing")
            link = self._host.link(options.device)
            assert link is not None
            _write_sysctls(network, options)
        elif link.kind != "bridge":
            raise DriverError(
                f"device {options.device} exists and is not a bridge: choose another name with {bridge.NAME}"
            )
        else:
            wrong += self._repair_link(link, network, options)
        return wrong + self._ensure_addresses(link, network, options)

    def remove_network(self, network: Network) -> None:
        link = self._host.link(self.device(network))
        if link is None:
            return
        if link.alias == self._tag(network):
            self._reaper.delete([link.name])
            return
        ours = (assigned for assigned in self._host.addresses(link.index) if assigned.ours)
        self._host.run(netlink.delete_address(link.index, assigned.address) for assigned in ours)

    # ---- inside -----------------------------------------------------------------------------------------

    def _tag(self, network: Network) -> str:
        return str(Tag(self._owner, "network", network.id))

    def _creation(self, network: Network, options: BridgeOptions) -> Iterator[Request]:
        attrs: dict[str, object] = {"IFLA_IFNAME": options.device}
        # a fixed address: otherwise a bridge takes the lowest of its ports', and changes it when that one leaves
        attrs["IFLA_ADDRESS"] = "02:42:" + ":".join(network.id[i : i + 2] for i in range(0, 8, 2))
        attrs["IFLA_LINKINFO"] = {"attrs": [("IFLA_INFO_KIND", "bridge")]}
        if options.mtu:
            attrs["IFLA_MTU"] = options.mtu
        yield netlink.new_link(f"create bridge {options.device}", attrs)
        yield netlink.set_link(options.device, {"IFLA_IFALIAS": self._tag(network)}, up=True)

    def _repair_link(self, link: Link, network: Network, options: BridgeOptions) -> list[str]:
        wrong = []
        changes: dict[str, object] = {}
        if link.alias == self._tag(network) and options.mtu and link.mtu != options.mtu:
            wrong.append(f"bridge {link.name} had MTU {link.mtu}")
            changes["IFLA_MTU"] = options.mtu
        if not link.up:
            wrong.append(f"bridge {link.name} was down")
        if _read(f"ipv4/conf/{link.name}/route_localnet") == "0":
            wrong.append(f"bridge {link.name} could not be reached from 127.0.0.1")
            _write_sysctls(network, options)
        if wrong:
            self._host.run([netlink.set_link(link.name, changes, up=True)])
        return wrong

    def _ensure_addresses(self, link: Link, network: Network, options: BridgeOptions) -> list[str]:
        present = self._host.addresses(link.index)
        wanted = bridge.gateway_addresses(network, options)
        missing = sorted(wanted - {assigned.address for assigned in present}, key=str)
        surplus = [assigned.address for assigned in present if assigned.ours and assigned.address not in wanted]
        self._host.run(
            (
                *(netlink.delete_address(link.index, address) for address in surplus),
                *(netlink.add_address(link.index, address) for address in missing),
            )
        )
        wrong = [f"bridge {link.name} lacked address {address}" for address in missing]
        return wrong + [f"bridge {link.name} had address {address}, which is not its own" for address in surplus]


def _write_sysctls(network: Network, options: BridgeOptions) -> None:
    # route_localnet lets 127.0.0.1:port on the host reach a container; the firewall closes what else it opens
    _write(f"ipv4/conf/{options.device}/route_localnet", "1")
    _write(f"ipv6/conf/{options.device}/disable_ipv6", "0" if bridge.has_ipv6(network) else "1")
    # neighbours are asked from the link-local address, which duplicate address detection would withhold for seconds
    _write(f"ipv6/conf/{options.device}/accept_dad", "0")


def _rules_see_frames() -> bool:
    """Whether bridged packets pass the firewall (br_netfilter), which then separates containers by rule.

    Port isolation would there also cut what a published port sends back into the same network.
    """
    return _read("bridge/bridge-nf-call-iptables") == "1" == _read("bridge/bridge-nf-call-ip6tables")


def _enable_forwarding(*, ipv6: bool) -> list[str]:
    wrong = []
    for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding")[: 2 if ipv6 else 1]:
        if _read(name) == "0":
            _write(name, "1")
            wrong.append(f"net/{name} was off")
    return wrong


def _read(name: str) -> str:
    """A network sysctl of the calling thread's namespace; "" if the kernel has no such setting."""
    try:
        return (_SYSCTL / name).read_text().strip()
    except FileNotFoundError:
        return ""


def _write(name: str, value: str) -> None:
    path = _SYSCTL / name
    if path.exists():
        path.write_text(value)
