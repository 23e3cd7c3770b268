"""When does a name resolve, and when does what it leads to answer: asked all the while, from inside a container.

As a program, in a container's network: reads a name, says "asking", asks the container's resolver for it every
2 ms until there is an address, pings that every 5 ms until there is an answer, and says when it had either.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

ASK, PING = 0.002, 0.005  # seconds from one try to the next
PATIENCE = 10.0  # seconds until it is "never"
NEVER = float("inf")
_RESOLVER = ("127.0.0.11", 53)
_ECHO_REQUEST = 8  # RFC 792


@dataclass(frozen=True, slots=True)
class Seen:
    """Seconds of `time.monotonic`, which all processes of a machine share; `NEVER` for what did not come."""

    resolved: float
    answered: float


class Prober:
    """The program, running in the network of the process `pid`."""

    def __init__(self, pid: int) -> None:
        command = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, __file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def watch(self, name: str, act: Callable[[], T]) -> tuple[T, Seen]:
        """What `act` gives, and what is seen of the name that it brings about: asked for from before."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name}\n")
        self._process.stdin.flush()
        self._hear()
        result = act()
        resolved, answered = map(float, self._hear().split())
        return result, Seen(resolved, answered)

    def _hear(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the prober has ended"
        return line

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def probe(name: str) -> Seen:
    until = time.monotonic() + PATIENCE
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as dns:
        dns.connect(_RESOLVER)
        dns.send(_question(name))
        print("asking", flush=True)
        address = _until_seen(dns, lambda: _question(name), _address, ASK, until)
    resolved = time.monotonic()
    if not address:
        return Seen(NEVER, NEVER)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as icmp:
        icmp.connect((address, 0))
        token = os.urandom(16)
        answered = _until_seen(icmp, lambda: _echo_request(token), lambda data: _echoed(data, token), PING, until)
    return Seen(resolved, time.monotonic() if answered else NEVER)


def _until_seen(
    peer: socket.socket, request: Callable[[], bytes], found: Callable[[bytes], str], every: float, until: float
) -> str:
    """Send a request at every beat, whatever became of those before; the first answer that says something."""
    beat = time.monotonic()
    while beat < until:
        with contextlib.suppress(OSError):  # no way there yet
            peer.send(request())
        beat += every
        while select.select([peer], [], [], max(0.0, beat - time.monotonic()))[0]:
            try:
                if answer := found(peer.recv(2048)):
                    return answer
            except OSError:
                break
    return ""


def _question(name: str) -> bytes:
    """For an A record, with an id of its own (RFC 1035, section 4.1)."""
    header = os.urandom(2) + struct.pack("!HHHHH", 0x0100, 1, 0, 0, 0)
    return header + bytes([len(name)]) + name.encode() + struct.pack("!BHH", 0, 1, 1)


def _address(reply: bytes) -> str:
    """The answer's last record is an A record, if there is one."""
    answers = int.from_bytes(reply[6:8], "big")
    return socket.inet_ntoa(reply[-4:]) if answers and not reply[3] & 15 else ""


def _echo_request(token: bytes) -> bytes:
    words = (_ECHO_REQUEST << 8) + sum(word for (word,) in struct.iter_unpack("!H", token))
    checksum = ~((words & 0xFFFF) + (words >> 16)) & 0xFFFF
    return struct.pack("!BBHHH", _ECHO_REQUEST, 0, checksum, 0, 0) + token


def _echoed(packet: bytes, token: bytes) -> str:
    """An echo reply of ours, behind its IP header of 20 bytes."""
    return "yes" if packet[20] == 0 and packet[28:] == token else ""


if __name__ == "__main__":
    for line in sys.stdin:
        seen = probe(line.strip())
        print(seen.resolved, seen.answered, flush=True)
