"""Telling the containers of a segment that an address is now at another MAC, on behalf of a remote endpoint.

Otherwise they go on sending to the MAC they remember until it fails to answer, which takes half a minute.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

from drivers.neighbours import Neighbour

_ETH_P_ARP, _ETH_P_IPV6 = 0x0806, 0x86DD
_BROADCAST, _ALL_NODES_MAC = b"\xff" * 6, b"\x33\x33\0\0\0\1"
_ALL_NODES = IPv6Address("ff02::1").packed
_REPLACE_WHAT_YOU_HAVE = 0x20000000  # the override flag, RFC 4861 section 4.4


class Announcer:
    """Sends into devices of the namespace the calling thread is in when it makes one.

    Its socket is kept, as closing one takes the kernel 10 ms.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC)

    def close(self) -> None:
        self._socket.close()

    def announce(self, device: str, neighbours: Iterable[Neighbour]) -> None:
        """Send gratuitous ARP (RFC 5227, section 3) or unsolicited neighbour advertisements (RFC 4861, 7.2.6)."""
        for neighbour in neighbours:
            mac = bytes.fromhex(neighbour.mac.replace(":", ""))
            address = neighbour.address
            frame = _arp(mac, address) if isinstance(address, IPv4Address) else _advertisement(mac, address)
            self._socket.sendto(frame, (device, 0))


def _arp(mac: bytes, address: IPv4Address) -> bytes:
    request = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    return _ethernet(_BROADCAST, mac, _ETH_P_ARP) + request + mac + address.packed + bytes(6) + address.packed


def _advertisement(mac: bytes, address: IPv6Address) -> bytes:
    target_link_layer = struct.pack("!BB", 2, 1) + mac
    body = struct.pack("!I", _REPLACE_WHAT_YOU_HAVE) + address.packed + target_link_layer
    pseudo = address.packed + _ALL_NODES + struct.pack("!II", 4 + len(body), socket.IPPROTO_ICMPV6)
    icmp = struct.pack("!BB", 136, 0)
    checksum = _checksum(pseudo + icmp + b"\0\0" + body)
    ip = struct.pack("!IHBB", 6 << 28, 4 + len(body), socket.IPPROTO_ICMPV6, 255) + address.packed + _ALL_NODES
    return _ethernet(_ALL_NODES_MAC, mac, _ETH_P_IPV6) + ip + icmp + struct.pack("!H", checksum) + body


def _ethernet(to: bytes, source: bytes, kind: int) -> bytes:
    return to + source + struct.pack("!H", kind)


def _checksum(data: bytes) -> int:
    total: int = sum(word for (word,) in struct.iter_unpack("!H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
