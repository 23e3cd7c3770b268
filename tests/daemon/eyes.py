"""What containers see: questions to their resolver and pings, by sockets of this process inside their namespaces.

No process is started for a look, so that hundreds of pairs can be looked at in a moment, and for minutes.
"""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import count

from dnslib import QTYPE, DNSRecord

from drivers import netns

RESOLVER = ("127.0.0.11", 53)
_AGAIN = 0.5  # seconds without an answer until a question or a ping is sent again


@dataclass
class Seen:
    """What a look found: addresses by name, and addresses that answered a ping."""

    names: dict[str, set[str]] = field(default_factory=dict)
    alive: set[str] = field(default_factory=set)


class Eye:
    """Sockets inside one container's network namespace, which they keep alive until `close`."""

    _numbers = count(1)

    def __init__(self, pid: int) -> None:
        self.pid = pid
        with netns.entered(f"/proc/{pid}/ns/net"):
            self.dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.icmp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        for each in (self.dns, self.icmp):
            each.setblocking(False)
        self._ident = next(self._numbers) & 0xFFFF
        self._sequence = 0
        self._asked: dict[int, str] = {}

    def ask(self, name: str) -> None:
        question = DNSRecord.question(name)
        self._asked[question.header.id] = name
        self._send(self.dns, question.pack(), RESOLVER)

    def ping(self, address: str) -> None:
        self._sequence = (self._sequence + 1) & 0xFFFF
        body = struct.pack("!HH8s", self._ident, self._sequence, b"netd-eye")
        checksum = _checksum(b"\x08\0\0\0" + body)
        self._send(self.icmp, struct.pack("!BBH", 8, 0, checksum) + body, (address, 0))

    @staticmethod
    def _send(through: socket.socket, data: bytes, to: tuple[str, int]) -> None:
        try:
            through.sendto(data, to)
        except OSError:
            return  # no route: the same as no answer

    def answers(self) -> Iterable[tuple[str, set[str]]]:
        """(name, addresses) of the answers that are here."""
        while data := _received(self.dns):
            answer = DNSRecord.parse(data[0])
            if name := self._asked.pop(answer.header.id, None):
                yield name, {str(rr.rdata) for rr in answer.rr if rr.rtype == QTYPE.A}

    def echoes(self) -> Iterable[str]:
        """Addresses from which an answer to one of our pings is here."""
        while found := _received(self.icmp):
            packet, sender = found
            kind, _, _, ident = struct.unpack_from("!BBHH", packet, (packet[0] & 0x0F) * 4)
            if (kind, ident) == (0, self._ident):
                yield sender

    def close(self) -> None:
        self.dns.close()
        self.icmp.close()


def look(
    eyes: Collection[Eye], names: Collection[str] = (), addresses: Collection[str] = (), *, within: float = 1.0
) -> dict[Eye, Seen]:
    """Let all ask for all names and ping all addresses; ends when everything was answered, or after `within` seconds.

    A name's answer that has no address in it counts as one, and leaves the name's set empty.
    """
    seen = {each: Seen() for each in eyes}
    deadline, again = time.monotonic() + within, 0.0
    with selectors.DefaultSelector() as ready:
        for each in eyes:
            ready.register(each.dns, selectors.EVENT_READ, each)
            ready.register(each.icmp, selectors.EVENT_READ, each)
        while any(len(s.names) < len(names) or len(s.alive) < len(addresses) for s in seen.values()):
            now = time.monotonic()
            if now >= deadline:
                break
            if now >= again:
                again = now + _AGAIN
                for each, found in seen.items():
                    for name in set(names) - found.names.keys():
                        each.ask(name)
                    for address in set(addresses) - found.alive:
                        each.ping(address)
            for key, _ in ready.select(min(deadline, again) - time.monotonic()):
                here: Eye = key.data
                for name, found_addresses in here.answers():
                    if name in names:
                        seen[here].names[name] = found_addresses
                seen[here].alive |= set(here.echoes()) & set(addresses)
    return seen


def until_reached(eyes: Collection[Eye], address: str, *, within: float, every: float = 0.05) -> list[float]:
    """Ping an address from all of them again and again; after how many seconds each was answered for the first time."""
    for each in eyes:
        list(each.echoes())  # of an earlier look
    took: dict[Eye, float] = {}
    begun = time.monotonic()
    while len(took) < len(eyes):
        for each in set(eyes) - took.keys():
            each.ping(address)
        time.sleep(every)
        for each in set(eyes) - took.keys():
            if address in each.echoes():
                took[each] = time.monotonic() - begun
        left = [each.pid for each in set(eyes) - took.keys()]
        assert time.monotonic() - begun < within, f"{address} was not reached from the containers of processes {left}"
    return list(took.values())


def _received(through: socket.socket) -> tuple[bytes, str] | None:
    try:
        data, sender = through.recvfrom(4096)
    except OSError:
        return None  # nothing there, or an error of an earlier packet
    return data, sender[0]


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
