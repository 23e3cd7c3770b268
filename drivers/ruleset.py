"""The firewall as text: what the desired networks and published ports mean in nftables. Pure functions.

One table of ours, `inet netd`, holds both families. Its rules are constant; networks and ports are elements
of its sets and maps, so a packet's way does not get longer with their number:

- `bridges`: our bridges; `same`: (bridge, itself), which asks "does it stay in one network?" in one lookup;
  `internal`, `no_icc`, `masqueraded`: the bridges with that property; `snat4/6`: a fixed source address.
- `subnets4/6`: the pools, for telling a container's packets that come back through a published port.
- `ports4/6`: published on any local address; `bound4/6`: published on one; `ranges4/6`: ranges with the same
  numbers on both sides, one interval element each. Interval maps cost more to change and are kept apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address

from drivers.spec import PortForward, Sandbox

TABLE = "inet netd"
MODEL = "inet netd_model"

# element key -> value, in nftables' own spelling; the value of a set's element is empty
Elements = dict[str, dict[str, str]]

_DECLARATIONS: Mapping[str, str] = {
    "bridges": "set {name} {{ type ifname; }}",
    "same": "set {name} {{ type ifname . ifname; }}",
    "internal": "set {name} {{ type ifname; }}",
    "no_icc": "set {name} {{ type ifname; }}",
    "masqueraded": "set {name} {{ type ifname; }}",
    "snat4": "map {name} {{ type ifname : ipv4_addr; }}",
    "snat6": "map {name} {{ type ifname : ipv6_addr; }}",
    "subnets4": "set {name} {{ type ipv4_addr; flags interval; }}",
    "subnets6": "set {name} {{ type ipv6_addr; flags interval; }}",
    "ports4": "map {name} {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}",
    "ports6": "map {name} {{ type inet_proto . inet_service : ipv6_addr . inet_service; }}",
    "bound4": "map {name} {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}",
    "bound6": "map {name} {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }}",
    "ranges4": "map {name} {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr; flags interval; }}",
    "ranges6": "map {name} {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr; flags interval; }}",
}

_CHAINS = """\
	chain guard {
		type filter hook prerouting priority raw; policy accept;
		iifname @bridges ip daddr 127.0.0.0/8 drop
		iifname @bridges ip saddr 127.0.0.0/8 drop
	}
	chain publish {
		dnat ip to ip daddr . meta l4proto . th dport map @bound4
		dnat ip to meta l4proto . th dport map @ports4
		dnat ip to ip daddr . meta l4proto . th dport map @ranges4
		dnat ip6 to ip6 daddr . meta l4proto . th dport map @bound6
		dnat ip6 to meta l4proto . th dport map @ports6
		dnat ip6 to ip6 daddr . meta l4proto . th dport map @ranges6
	}
	chain prerouting {
		type nat hook prerouting priority -100; policy accept;
		ip daddr 127.0.0.0/8 return
		fib daddr type local goto publish
	}
	chain output {
		type nat hook output priority -100; policy accept;
		ip6 daddr ::1 return
		fib daddr type local goto publish
	}
	chain postrouting {
		type nat hook postrouting priority 100; policy accept;
		oifname @bridges ip saddr 127.0.0.0/8 masquerade
		oifname @bridges ct status dnat ip saddr @subnets4 masquerade
		oifname @bridges ct status dnat ip6 saddr @subnets6 masquerade
		oifname @bridges return
		snat ip to iifname map @snat4
		snat ip6 to iifname map @snat6
		iifname @masqueraded masquerade
	}
	chain forward {
		type filter hook forward priority 0; policy accept;
		iifname != @bridges oifname != @bridges accept
		ct state established,related accept
		iifname . oifname @same goto within
		iifname @internal drop
		oifname @internal drop
		ct status dnat accept
		oifname @bridges drop
	}
	chain within {
		ct status dnat accept
		iifname @no_icc drop
	}
"""


def port_elements(sandbox: Sandbox) -> Elements:
    """A sandbox's part of our table: its published ports.

    A port on an IPv6 host address of a container without IPv6 has no element: address families are not
    translated.
    """
    found: Elements = {}
    for endpoint in sandbox.endpoints:
        for forward in endpoint.ports:
            interface = endpoint.ipv4 if forward.host_ip.version == 4 else endpoint.ipv6
            if interface is not None:
                for set_name, key, value in _forward_elements(forward, interface.ip):
                    found.setdefault(set_name, {})[key] = value
    return found


def _forward_elements(forward: PortForward, target: IPv4Address | IPv6Address) -> Iterator[tuple[str, str, str]]:
    family, host = forward.host_ip.version, forward.host_ip
    if forward.count > 1 and forward.host_port == forward.container_port:
        # every address, spelled as nftables lists it
        where = ("0.0.0.0/0" if family == 4 else "::/0") if host.is_unspecified else str(host)
        last = forward.host_port + forward.count - 1
        yield f"ranges{family}", f"{where} . {forward.proto} . {forward.host_port}-{last}", str(target)
        return
    for offset in range(forward.count):
        key = f"{forward.proto} . {forward.host_port + offset}"
        value = f"{target} . {forward.container_port + offset}"
        if host.is_unspecified:
            yield f"ports{family}", key, value
        else:
            yield f"bound{family}", f"{host} . {key}", value


def whole_table(wanted: Elements) -> str:
    """A transaction that replaces our table, whatever is there, by one that holds `wanted`."""
    return _definition(TABLE) + change({}, wanted)


def dormant_table() -> str:
    """A transaction that makes `MODEL`, a table like ours that holds no element and sees no packet."""
    return _definition(MODEL, "\tflags dormant;\n")


def _definition(table: str, flags: str = "") -> str:
    declarations = "".join(f"\t{text.format(name=name)}\n" for name, text in _DECLARATIONS.items())
    return f"{without(table)}table {table} {{\n{flags}{declarations}{_CHAINS}}}\n"


def change(removed: Elements, added: Elements) -> str:
    """The transaction that takes `removed` out and then puts `added` in; empty if there is nothing to do."""
    out = (f"delete element {TABLE} {name} {{ {', '.join(gone)} }}\n" for name, gone in removed.items() if gone)
    into = (f"add element {TABLE} {name} {{ {', '.join(_spelled(new))} }}\n" for name, new in added.items() if new)
    return "".join((*out, *into))


def _spelled(content: Mapping[str, str]) -> Iterator[str]:
    for key, value in content.items():
        yield f"{key} : {value}" if value else key


def merged(parts: Iterable[Elements]) -> Elements:
    """All elements of the table, every set named."""
    whole: Elements = {name: {} for name in _DECLARATIONS}
    for part in parts:
        for name, content in part.items():
            whole[name].update(content)
    return whole


# ---- the resolver's ports inside a sandbox --------------------------------------------------------------

DNS_TABLE = "ip netd_dns"


def dns_redirect(udp: int, tcp: int) -> str:
    """The table that rewrites 127.0.0.11:53 to the resolver's ports, and back; spelled as nftables lists it.

    Stateless: no connection is tracked, and a container may itself listen on 0.0.0.0:53.
    """
    rules = "".join(
        f"\t\tip daddr 127.0.0.11 {proto} dport 53 notrack {proto} dport set {port}\n"
        f"\t\tip saddr 127.0.0.11 {proto} sport {port} notrack {proto} sport set 53\n"
        for proto, port in (("udp", udp), ("tcp", tcp))
    )
    chain = f"\tchain output {{\n\t\ttype filter hook output priority raw; policy accept;\n{rules}\t}}\n"
    return f"table {DNS_TABLE} {{\n{chain}}}\n"


def without(table: str) -> str:
    """The start of a transaction that replaces a table, or a whole one that removes it."""
    # `add` makes the `delete` succeed when there is no such table
    return f"add table {table}\ndelete table {table}\n"
