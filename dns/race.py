"""One question to several upstreams: in order, the next one beside it when one is slow, the first usable reply wins."""

from __future__ import annotations

from asyncio import AbstractEventLoop, TimerHandle
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from dns import wire
from dns.health import Health
from dns.netns import Namespace
from dns.policy import Policy
from dns.upstream import Exchange, TcpExchange, UdpExchange, Upstream

MAX_LINGERING = 256  # late replies awaited, of the whole process: they tell that a server lives
LINGER = 2.0  # seconds


@dataclass(slots=True)
class Route:
    """Where one sandbox's questions go, and from which namespace (None: the process's own)."""

    servers: tuple[Upstream, ...]
    netns: Namespace | None
    policy: Policy
    health: Health
    host_health: Health
    partition: Hashable  # replies are shared among those who see the same servers from the same place
    cache: bool = True
    turn: int = field(default=0)

    def order(self) -> tuple[Upstream, ...]:
        """The servers as to be asked: by configuration, rotated if wished, the silent ones last."""
        servers = self.servers
        if self.policy.rotate and servers:
            self.turn = (self.turn + 1) % len(servers)
            servers = servers[self.turn :] + servers[: self.turn]
        return tuple(sorted(servers, key=self.is_down))

    def is_down(self, server: Upstream) -> bool:
        return self.health_of(server).down(server)

    def health_of(self, server: Upstream) -> Health:
        return self.host_health if server.host else self.health

    def namespace(self, server: Upstream) -> Namespace | None:
        return None if server.host else self.netns


class Lingering:
    """Exchanges that nobody waits for: a reply shows that the server is alive after all."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._timers: dict[Exchange, TimerHandle] = {}

    @property
    def full(self) -> bool:
        return len(self._timers) >= MAX_LINGERING

    def add(self, route: Route, exchange: Exchange) -> None:
        """Wait for a reply a little longer, without anybody waiting."""
        if self.full:
            exchange.close()
            return
        exchange.done = lambda exchange, reply: self._done(route, exchange, reply)
        self._timers[exchange] = self._loop.call_later(LINGER, self._expire, exchange)

    def _done(self, route: Route, exchange: Exchange, reply: bytes | None) -> None:
        self._timers.pop(exchange).cancel()
        if reply is not None:
            route.health_of(exchange.server).alive(exchange.server)

    def _expire(self, exchange: Exchange) -> None:
        del self._timers[exchange]
        exchange.close()


class Race:
    """Asks until there is a usable reply or the time is up; then calls `done`, with no bytes for no reply."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        lingering: Lingering,
        route: Route,
        message: bytes,
        tcp: bool,
        done: Callable[[bytes, str], None],
    ) -> None:
        self._loop = loop
        self._lingering = lingering
        self._route = route
        self._message = message
        self._kind = TcpExchange if tcp else UdpExchange
        self._done = done
        self._deadline = loop.time() + route.policy.deadline
        self._pending: set[Exchange] = set()
        self._useless: set[Upstream] = set()  # unreachable, or answered with nothing to relay
        self._timer: TimerHandle | None = None
        order = route.order()
        self._plan = deque(_plan(route, order))
        self._retry_silent(order)

    def start(self) -> None:
        """Ask the next server of the plan; also when the one before is slow, or useless."""
        gap = 0.0
        while self._plan and not gap:
            server, patience = self._plan.popleft()
            if server not in self._useless and self._ask(server):
                gap = patience
        if not self._pending:
            self._finish(b"", "")
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(
            min(self._deadline, self._loop.time() + gap) if self._plan else self._deadline, self._tick
        )

    def _ask(self, server: Upstream) -> bool:
        exchange = self._kind(self._loop, server, self._message, self._replied)
        try:
            exchange.start(self._route.namespace(server))
        except OSError:
            self._useless.add(server)  # known at once, so nothing to remember
            return False
        self._pending.add(exchange)
        return True

    def _replied(self, exchange: Exchange, reply: bytes | None) -> None:
        self._pending.discard(exchange)
        if reply is not None:
            self._route.health_of(exchange.server).alive(exchange.server)
            if _usable(reply):
                self._finish(reply, str(exchange.server))
                return
        self._useless.add(exchange.server)
        self.start()

    def _tick(self) -> None:
        if self._loop.time() >= self._deadline - 0.001:
            self._finish(b"", "")
        else:
            self.start()

    def _finish(self, reply: bytes, server: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        now = self._loop.time()
        enough = self._route.policy.gap(len(self._route.servers)) * 0.9
        for exchange in self._pending:
            # it lost although it had its time: silent, unless it answers yet
            if now - exchange.started >= enough:
                self._route.health_of(exchange.server).silent(exchange.server)
            self._lingering.add(self._route, exchange)
        self._pending.clear()
        self._done(reply, server)

    def _retry_silent(self, order: Sequence[Upstream]) -> None:
        """Try a server that was silent beside the others; nobody waits for it."""
        down = [server for server in order if self._route.is_down(server)]
        if len(down) == len(order):
            return  # all of them are asked at once anyway
        for server in down:
            if self._route.health_of(server).due(server) and not self._lingering.full:
                exchange = self._kind(self._loop, server, self._message, self._replied)
                try:
                    exchange.start(self._route.namespace(server))
                except OSError:
                    continue
                self._lingering.add(self._route, exchange)


def _plan(route: Route, order: Sequence[Upstream]) -> list[tuple[Upstream, float]]:
    """Whom to ask, and how long to wait for each until the next is asked too; a silent one is not waited for."""
    gap = route.policy.gap(len(order))
    return [
        (server, 0.0 if route.is_down(server) and server != order[-1] else gap)
        for _ in range(route.policy.attempts)
        for server in order
    ]


def _usable(reply: bytes) -> bool:
    """SERVFAIL and REFUSED let the next server try; all else is relayed, NXDOMAIN too (fact 1.50)."""
    return reply[3] & 15 not in (wire.SERVFAIL, wire.REFUSED)
