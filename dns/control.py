"""The control protocol between the daemon and `netd-dns`, over a unix stream socket.

A frame is a 4-byte big-endian length and a MessagePack body: `Request` one way, `Reply` the other. Replies
carry the request's number; those of a stream say `more`. Requests are carried out in the order they came.
Descriptors (SCM_RIGHTS) travel with the first byte of the frame they belong to.

A daemon that finds a process of another `VERSION` replaces it (`handover.py`). `GetState`, `Retire` and
`Surrender` are therefore for ever as they are here.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

LENGTH = struct.Struct("!I")
MAX_FRAME = 64 << 20


def _version() -> str:
    """Differs whenever the resolver's code does, so that no upgrade leaves an old process behind."""
    sources = sorted(each for each in Path(__file__).parent.iterdir() if each.suffix in (".py", ".c", ".o"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]


VERSION = _version()


class Message(Struct, frozen=True, tag_field="kind", omit_defaults=True):
    """Base of everything that can be asked of the resolver."""


class Port(Struct, frozen=True, array_like=True):
    """A port that an endpoint offers: `_80._tcp.web` finds it."""

    port: int
    proto: str = "tcp"


class Member(Struct, frozen=True, omit_defaults=True):
    """One endpoint on one network; addresses are packed, in network byte order."""

    endpoint: str
    names: tuple[str, ...] = ()
    addresses: tuple[bytes, ...] = ()
    ports: tuple[Port, ...] = ()


class Server(Struct, frozen=True, array_like=True):
    """An upstream; `host`: asked from the daemon's own namespace instead of the sandbox's (fact 1.54)."""

    address: str
    port: int = 53
    host: bool = False


class Route(Struct, frozen=True, array_like=True):
    """Split DNS: names at and below `suffix` are asked of these servers only."""

    suffix: str
    servers: tuple[Server, ...]


class SandboxView(Struct, frozen=True, omit_defaults=True):
    """What one sandbox can resolve."""

    sandbox: str
    container: str = ""
    networks: tuple[str, ...] = ()
    links: dict[str, dict[str, str]] = field(default_factory=dict)
    servers: tuple[Server, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    internal: bool = False
    routes: tuple[Route, ...] = ()


class PutNetwork(Message, frozen=True):
    """Replace a network's whole table. Options are the network's own (`netd.dns.*`), records lines of a zone file."""

    network: str
    name: str
    members: tuple[Member, ...] = ()
    options: dict[str, str] = field(default_factory=dict)
    subnets: tuple[str, ...] = ()
    records: tuple[str, ...] = ()


class DeleteNetwork(Message, frozen=True):
    network: str


class Join(Message, frozen=True):
    network: str
    member: Member


class Leave(Message, frozen=True):
    network: str
    endpoint: str


class PutSandbox(Message, frozen=True):
    """Serve a sandbox. With `sockets` a UDP and a listening TCP socket come along, with `netns` a namespace."""

    view: SandboxView
    sockets: bool = False
    netns: bool = False


class DeleteSandbox(Message, frozen=True):
    sandbox: str


class PutRecord(Message, frozen=True):
    """Add a static record, one line of a zone file: `www 60 IN A 10.1.2.3`; one that is there stays as it is."""

    network: str
    line: str


class DeleteRecord(Message, frozen=True):
    """Remove static records of a name: all of them, or those of one type (`A`, `TXT`, ...)."""

    network: str
    name: str
    type: str = ""


class GetState(Message, frozen=True):
    pass


class Retire(Message, frozen=True):
    """Leave the control socket to a successor, and serve each sandbox until it is surrendered."""


class Surrender(Message, frozen=True):
    """Hand a sandbox over: its UDP and TCP socket, and its namespace if it has one, come with the reply."""

    sandbox: str


class Explain(Message, frozen=True):
    """How would this sandbox's question be answered, and why?"""

    sandbox: str
    name: str
    type: str = "A"


class Follow(Message, frozen=True):
    """Stream the query log from now on; of one sandbox, or of all."""

    sandbox: str = ""


AnyMessage = (
    PutNetwork
    | DeleteNetwork
    | Join
    | Leave
    | PutSandbox
    | DeleteSandbox
    | PutRecord
    | DeleteRecord
    | GetState
    | Retire
    | Surrender
    | Explain
    | Follow
)


class Request(Struct, frozen=True, array_like=True):
    number: int
    message: AnyMessage


class Reply(Struct, frozen=True, array_like=True):
    number: int
    error: str = ""
    value: Any = None
    more: bool = False


class Ports(Struct, frozen=True, array_like=True):
    """Where a sandbox's sockets listen."""

    udp: int
    tcp: int
    program: int = 0  # id of the BPF program that answers in the kernel; 0: none does
    number: int = 0  # of the sandbox, for that program


class KernelState(Struct, frozen=True):
    """Whether questions are answered in the kernel (`program` is not 0), or why not; how many were since when."""

    mode: str = "off"  # auto | on | off: what was asked for
    program: int = 0
    reason: str = ""
    answered: int = 0
    passed: int = 0


class ResolverState(Struct, frozen=True):
    """What the resolver serves, for a new daemon to compare with what it should."""

    sandboxes: dict[str, Ports] = {}
    networks: frozenset[str] = frozenset()
    pid: int = 0
    queries: int = 0  # asked since it started, or of the kernel before
    version: str = ""
    kernel: KernelState = KernelState()
    adopted: frozenset[str] = frozenset()  # sandboxes that only the kernel knows of: their sockets are lost

    @property
    def known(self) -> set[str]:
        """All sandboxes that it has anything of."""
        return {*self.sandboxes, *self.adopted}


class Step(Struct, frozen=True):
    """One line of an explanation: a rule that was tried, and what came of it."""

    rule: str
    outcome: str
    answers: bool = False


class Explanation(Struct, frozen=True):
    """Why a question gets the answer it gets: the rules in the order they are tried."""

    name: str
    type: str
    source: str  # local | upstream | none
    steps: tuple[Step, ...]
    records: tuple[str, ...] = ()


class LogEntry(Struct, frozen=True):
    """One query as logged; every text is escaped."""

    time: float  # seconds since the epoch
    sandbox: str
    container: str
    client: str
    transport: str
    name: str
    type: str
    rcode: str
    source: str  # kernel | local | cache | upstream | none
    records: int
    latency: float  # seconds


_encoder = msgspec.msgpack.Encoder()


def frame(message: Request | Reply) -> bytes:
    """A message as it goes over the socket."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


class Frames:
    """Cuts a byte stream into frame bodies."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies completed by `data`; raises `ValueError` when a frame is larger than any we send."""
        self._buffer += data
        bodies = []
        at = 0
        while len(self._buffer) - at >= 4:
            (length,) = LENGTH.unpack_from(self._buffer, at)
            if length > MAX_FRAME:
                raise ValueError(f"a frame of {length} bytes is too long")
            if len(self._buffer) - at - 4 < length:
                break
            bodies.append(bytes(self._buffer[at + 4 : at + 4 + length]))
            at += 4 + length
        del self._buffer[:at]
        return bodies
