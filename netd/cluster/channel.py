"""The control channel between hosts, TCP and UDP port 7946: is the way to each other free, and early news.

Every host asks every other one now and then, over UDP, and sends it probes on the overlay's own path
(probe.py); the answer names the probes that arrived. Endpoints that come or go are told directly, over TCP, so
that hosts hear of them while the store is away. Only addresses that the cluster's hosts advertise are listened to.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from netd.cluster.model import EndpointRecord, HostRecord
from netd.cluster.probe import Probe
from netd.config.cluster import CONTROL_PORT
from netd.core.errors import NetdError
from netd.core.tasks import Tasks

log = logging.getLogger(__name__)

EVERY = 10.0  # seconds between two checks of a path
AGAIN = 2.0  # the same while something is in the way
ANSWER = 1.0  # seconds an answer may take
SKEW = 2.0  # seconds two clocks may differ
TRIES = 2
LIMIT = 1 << 20  # bytes of a line


class _Message(msgspec.Struct, omit_defaults=True):
    """What hosts say: `ask`, `answer`, `seen` (a probe arrived), `way` (to the other) over UDP, `endpoint` over TCP."""

    kind: str
    host: str
    nonce: str = ""
    clock: float = 0.0
    endpoint: EndpointRecord | None = None
    gone: bool = False
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Path:
    """What is known of the way to a host. `size` is that of the largest packet that should pass, in bytes."""

    host: str
    udp: bool = False
    tcp: bool = False
    small: bool = False
    full: bool = False
    size: int = 0
    delay: float = 0.0  # seconds there and back
    skew: float = 0.0  # seconds by which its clock is ahead
    checked: float = field(default_factory=time.time)  # Unix time

    def problem(self, there: str) -> str:
        """What is wrong, for the log and for `netd hosts`; empty if nothing is. `there` is the host's address."""
        if blocked := self.blocked(there):
            return blocked
        if abs(self.skew) > SKEW:
            which = "ahead" if self.skew > 0 else "behind"
            return f"the clock of host {self.host} ({there}) is {abs(self.skew):.0f} s {which}: set it right"
        return ""

    def blocked(self, there: str) -> str:
        """What does not pass."""
        to = f"host {self.host} ({there})"
        if not self.udp and not self.tcp:
            return f"{to} does not answer on port {CONTROL_PORT}: it is down, or the port is blocked"
        if not self.udp:
            return f"UDP port {CONTROL_PORT} to {to} is blocked: open it in the firewalls of both hosts"
        if not self.tcp:
            return f"TCP port {CONTROL_PORT} to {to} is blocked: open it in its firewall"
        if not self.small:
            return f"UDP port 4789 to {to} is blocked: containers there cannot be reached over overlay networks"
        if not self.full:
            return (
                f"packets of {self.size} bytes to {to} are lost on the way though small ones pass: set the MTU of "
                "the network cards to what the path carries, or com.docker.network.driver.mtu of the networks"
            )
        return ""


class Channel(asyncio.DatagramProtocol):
    """This host's end. By the names of the others: the ways to them, the ways back as they say, when each was heard."""

    def __init__(
        self,
        me: HostRecord,
        others: Callable[[], Mapping[str, HostRecord]],
        heard: Callable[[EndpointRecord, bool], Awaitable[None]],
        *,
        every: float = EVERY,
        wake: asyncio.Event | None = None,
    ) -> None:
        """`wake` is set when a host appears: the way to it is checked at once."""
        self.paths: dict[str, Path] = {}
        self.back: dict[str, Path] = {}
        self.seen: dict[str, float] = {}  # Unix times
        self.problems: dict[str, str] = {}
        self.is_open = False
        self._me = me
        self._others = others
        self._heard = heard
        self._every = every
        self._udp: asyncio.DatagramTransport
        self._tcp: asyncio.Server
        self._probe = Probe(me.advertise, self._probed)
        self._probing = False
        self._wake = wake or asyncio.Event()
        self._waiting: dict[str, asyncio.Future[float]] = {}  # by nonce: until when it was answered, and the clock
        self._telling = Tasks()
        self._serving: set[asyncio.StreamWriter] = set()
        self._decoder = msgspec.json.Decoder(_Message)

    async def open(self, *, probes: bool = True) -> None:
        """Listen. Raises `OSError` if the port is taken; without means to probe the paths stay unchecked."""
        loop = asyncio.get_running_loop()
        where = (self._me.advertise, CONTROL_PORT)
        self._udp, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=where)
        try:
            self._tcp = await asyncio.start_server(self._serve, *where, limit=LIMIT)
        except BaseException:
            self._udp.close()
            raise
        self.is_open = True
        if not probes:
            return
        try:
            await self._probe.open()
            self._probing = True
        except NetdError as error:
            log.warning("%s", error)

    async def close(self) -> None:
        self.is_open = False
        await self._telling.close()
        self._udp.close()
        for listener in self._tcp.sockets:
            asyncio.get_running_loop().remove_reader(listener.fileno())
        await asyncio.sleep(0)  # a connection that is just being accepted when its server closes stays open unheard
        self._tcp.close()
        for writer in self._serving:
            writer.transport.abort()
        await asyncio.sleep(0)  # what is aborted is closed in the next round of the loop
        if self._probing:
            await self._probe.close()

    # ---- paths ------------------------------------------------------------------------------------------

    async def watch_paths(self) -> None:
        """Check the way to every host, for ever; run it as a task."""
        while True:
            self._wake.clear()
            others = [h for h in self._others().values() if h.advertise and h.name != self._me.name]
            await asyncio.gather(*map(self.check, others))
            for known in (self.paths, self.back, self.seen, self.problems):
                for name in known.keys() - {h.name for h in others}:
                    del known[name]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(self._every, AGAIN) if self.problems else self._every):
                    await self._wake.wait()

    def problem(self, host: str) -> str:
        """What is wrong with the way to a host or, as that one says, back from it; empty if nothing is."""
        if known := self.problems.get(host):
            return known
        if host not in self.paths:
            return f"the way to host {host} has not been checked yet"
        blocked = self.back[host].blocked(self._me.advertise) if host in self.back else ""
        return f"{host} says: {blocked}" if blocked else ""

    async def check(self, host: HostRecord) -> Path:
        """Find out about the way to a host now; what is wrong goes to the log when it changes."""
        path = await self._examine(host)
        self.paths[host.name] = path
        self._say(host.advertise, _Message("way", self._me.name, path=path))
        problem = path.problem(host.advertise)
        if problem != self.problems.get(host.name, ""):
            log.log(logging.ERROR if problem else logging.INFO, "%s", problem or f"the way to {host.name} is free")
        if problem:
            self.problems[host.name] = problem
        else:
            self.problems.pop(host.name, None)
        return path

    async def _examine(self, host: HostRecord) -> Path:
        tcp, asked = await asyncio.gather(self._connects(host), self._asks(host))
        if asked is None:
            return Path(host.name, tcp=tcp)
        delay, skew = asked
        if not self._probing:
            return Path(host.name, True, tcp, True, True, 0, delay, skew)
        (small, _), (full, size) = await asyncio.gather(self._probes(host, full=False), self._probes(host, full=True))
        return Path(host.name, True, tcp, small, full, size, delay, skew)

    async def _connects(self, host: HostRecord) -> bool:
        try:
            async with asyncio.timeout(ANSWER):
                writer = await self._connect(host)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    async def _connect(self, host: HostRecord) -> asyncio.StreamWriter:
        """From the address that the others know us by: they listen to no other."""
        here = (self._me.advertise, 0)
        _, writer = await asyncio.open_connection(host.advertise, CONTROL_PORT, local_addr=here)
        return writer

    async def _asks(self, host: HostRecord) -> tuple[float, float] | None:
        """There and back in seconds, and by how many its clock is ahead; None without an answer."""
        for _ in range(TRIES):
            with self._expecting() as (nonce, answer):
                begun, clock = time.perf_counter(), time.time()
                self._say(host.advertise, _Message("ask", self._me.name, nonce))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ANSWER):
                        theirs = await answer
                    delay = time.perf_counter() - begun
                    return delay, theirs - clock - delay / 2
        return None

    async def _probes(self, host: HostRecord, *, full: bool) -> tuple[bool, int]:
        size = 0
        for _ in range(TRIES):
            with self._expecting() as (nonce, answer):
                payload = msgspec.json.encode(_Message("probe", self._me.name, nonce))
                size = self._probe.send(host.advertise, payload, full=full) or size
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ANSWER):
                        await answer
                    return True, size
        return False, size

    @contextlib.contextmanager
    def _expecting(self):  # type: ignore[no-untyped-def]
        nonce, answer = secrets.token_hex(8), asyncio.get_running_loop().create_future()
        self._waiting[nonce] = answer
        try:
            yield nonce, answer
        finally:
            del self._waiting[nonce]

    def _probed(self, payload: bytes, size: int) -> None:
        with contextlib.suppress(msgspec.DecodeError):
            message = self._decoder.decode(payload)
            if sender := self._others().get(message.host):
                self._say(sender.advertise, _Message("seen", self._me.name, message.nonce, time.time()))

    # ---- UDP --------------------------------------------------------------------------------------------

    def _say(self, address: str, message: _Message) -> None:
        self._udp.sendto(msgspec.json.encode(message), (address, CONTROL_PORT))

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if not self._known(addr):
            return
        try:
            message = self._decoder.decode(data)
        except msgspec.DecodeError:
            return
        self.seen[message.host] = time.time()
        if message.kind == "ask":
            self._say(addr[0], _Message("answer", self._me.name, message.nonce, time.time()))
        elif message.path is not None:
            self.back[message.host] = message.path
        elif (answer := self._waiting.get(message.nonce)) and not answer.done():
            answer.set_result(message.clock)

    def error_received(self, exc: Exception) -> None:
        log.debug("control channel: %s", exc)

    def _known(self, address: tuple[Any, ...]) -> bool:
        return any(host.advertise == address[0] for host in self._others().values())

    # ---- TCP --------------------------------------------------------------------------------------------

    def announce(self, endpoint: EndpointRecord, gone: bool = False) -> None:
        """Tell all other hosts of an endpoint of this one, now and without waiting; who is away misses it."""
        if not self.is_open:
            return
        line = msgspec.json.encode(_Message("endpoint", self._me.name, endpoint=endpoint, gone=gone)) + b"\n"
        for host in self._others().values():
            if host.advertise and host.name != self._me.name:
                self._telling.start(self._tell(host, line), f"tell host {host.name}")

    async def _tell(self, host: HostRecord, line: bytes) -> None:
        try:
            async with asyncio.timeout(ANSWER):
                writer = await self._connect(host)
                try:
                    writer.write(line)
                    await writer.drain()
                finally:
                    writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError) as error:
            log.debug("host %s could not be told directly: %s", host.name, error)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.add(writer)
        try:
            if not (self.is_open and self._known(writer.get_extra_info("peername"))):
                return
            async with asyncio.timeout(ANSWER * 5):
                while line := await reader.readline():
                    message = self._decoder.decode(line)
                    if message.endpoint is not None and message.endpoint.host == message.host:
                        await self._heard(message.endpoint, message.gone)
        except (OSError, TimeoutError, ValueError, msgspec.DecodeError) as error:
            log.debug("control channel: a connection was given up: %s", error)
        finally:
            self._serving.discard(writer)
            writer.close()
