"""What a hand may delete of an overlay network, one command each; chance chooses among several of a kind."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tests.daemon.world import Place

Damage = Callable[[Place, dict[str, Any], random.Random], tuple[str, ...]]


def _outside(place: Place, *command: str) -> tuple[str, ...]:
    return ("nsenter", f"--net={place.member.exec_root}/overlays/{place.network_id[:12]}", *command)


def _inside(place: Place, *command: str) -> tuple[str, ...]:
    return ("nsenter", f"--net=/proc/{place.pid}/ns/net", *command)


def _device(before: dict[str, Any], kind: str, choose: random.Random) -> str:
    return str(choose.choice([words.split()[0].rstrip(":") for words in before["links"] if words.startswith(kind)]))


def forwarding_row(place: Place, before: dict[str, Any], choose: random.Random) -> tuple[str, ...]:
    mac, host = choose.choice(sorted(before["rows"][0]))
    return _outside(place, "bridge", "fdb", "del", mac, "dev", _device(before, "vxlan", choose), "dst", host, "self")


def forwarding_row_of_the_bridge(place: Place, before: dict[str, Any], choose: random.Random) -> tuple[str, ...]:
    mac, _ = choose.choice(sorted(before["rows"][0]))
    return _outside(place, "bridge", "fdb", "del", mac, "dev", _device(before, "vxlan", choose), "master")


def neighbour(place: Place, before: dict[str, Any], choose: random.Random) -> tuple[str, ...]:
    address, _ = choose.choice(sorted(before["rows"][1]))
    return _outside(place, "ip", "neigh", "del", address, "dev", _device(before, "vxlan", choose))


def all_neighbours(place: Place, before: dict[str, Any], choose: random.Random) -> tuple[str, ...]:
    return _outside(place, "ip", "neigh", "flush", "dev", _device(before, "vxlan", choose), "nud", "permanent")


def route(place: Place, before: dict[str, Any], choose: random.Random) -> tuple[str, ...]:
    line = choose.choice(before["routes"].splitlines())
    return _inside(place, "ip", "route", "del", *line.split()[:1], "dev", line.split()[line.split().index("dev") + 1])


def address(place: Place, before: dict[str, Any], choose: random.Random) -> tuple[str, ...]:
    return _inside(place, "ip", "address", "flush", "dev", "eth0")


def veth(place: Place, before: dict[str, Any], choose: random.Random) -> tuple[str, ...]:
    return _outside(place, "ip", "link", "del", _device(before, "veth", choose))


def veth_inside(place: Place, before: dict[str, Any], choose: random.Random) -> tuple[str, ...]:
    return _inside(place, "ip", "link", "del", "eth0")


def bridge(place: Place, before: dict[str, Any], choose: random.Random) -> tuple[str, ...]:
    return _outside(place, "ip", "link", "del", _device(before, "br", choose))


def vxlan(place: Place, before: dict[str, Any], choose: random.Random) -> tuple[str, ...]:
    return _outside(place, "ip", "link", "del", _device(before, "vxlan", choose))


def vxlan_down(place: Place, before: dict[str, Any], choose: random.Random) -> tuple[str, ...]:
    return _outside(place, "ip", "link", "set", _device(before, "vxlan", choose), "down")


DAMAGES = (
    *(forwarding_row, forwarding_row_of_the_bridge, neighbour, all_neighbours, route, address),
    *(veth, veth_inside, bridge, vxlan, vxlan_down),
)
