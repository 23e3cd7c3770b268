"""The host's kernel as the projection of the desired networks and sandboxes.

Every operation is idempotent and takes desired state; creating, restarting, repairing and cleaning up are one
path. All kernel work happens in one worker thread, in the network namespace of the process, in the order of
the calls.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeVar

from drivers.events import Change, Events
from drivers.probe import make_probe_device, remove_probe_device
from drivers.projection import FIREWALL, Projection, Repairs
from drivers.retries import Retries
from drivers.spec import DriverError, Network, Peer, Sandbox

__all__ = ["Kernel", "make_probe_device", "remove_probe_device"]

log = logging.getLogger(__name__)
T = TypeVar("T")

_SETTLE = 0.05  # seconds between a suspicious event and the repair: changes come in groups
_PAUSE = 0.5  # seconds between two repairs, so that a fight with another program does not become a busy loop


class Kernel:
    """See the module. Made by `await Kernel.open(owner)`; used from one event loop."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.repairs = 0  # differences that somebody else caused and that were put right
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="kernel")
        self._projection: Projection
        self._events: Events | None = None
        self._watching = False
        self._suspects: set[str] = set()  # touched by the worker thread only
        self._repair_timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._rest_until = 0.0  # loop time: there was a repair a moment ago
        self._retries = Retries(lambda failed: self._spawn(self._repair(failed)))

    @classmethod
    async def open(cls, owner: str, overlays: str = "") -> Kernel:
        """`owner` marks this daemon's devices among those of other daemons: a short id without ':'.

        In the directory `overlays`, which is nobody else's, the namespaces of overlay networks are pinned.
        """
        kernel = cls(owner)
        kernel._projection = await kernel._in_worker(partial(Projection, owner, overlays))
        return kernel

    async def close(self) -> None:
        """Stop watching and let go of the sockets; what is in the kernel stays."""
        self._watching = False
        self._retries.stop()
        if self._repair_timer is not None:
            self._repair_timer.cancel()
        if self._events is not None:
            self._listen(False)
            for task in tuple(self._tasks):
                await task
            events, self._events = self._events, None
            await self._in_worker(events.close)
        await self._in_worker(self._projection.close)
        self._worker.shutdown()

    # ---- networks ---------------------------------------------------------------------------------------

    def validate_network(self, network: Network, existing: Iterable[Network]) -> None:
        """Refuse bad options (InvalidOption) and a network in another one's way (OptionConflict)."""
        self._projection.driver(network).validate(network, existing)

    async def ensure_network(self, network: Network) -> None:
        """Make the network's device and rules as they should be."""
        await self._change(network.id, partial(self._projection.ensure_network, network))

    async def remove_network(self, network_id: str) -> None:
        """Remove the network's rules, and its device unless it was there before us."""
        await self._change(network_id, partial(self._projection.remove_network, network_id))

    # ---- endpoints on other hosts -----------------------------------------------------------------------

    async def ensure_peers(self, network_id: str, peers: Iterable[Peer]) -> None:
        """Make these an overlay's remote endpoints. Until the first call after a start, rows found are kept.

        They may be told of an overlay that `reconcile` could not make: it has them as soon as it is made.
        """
        await self._change(network_id, partial(self._projection.ensure_peers, network_id, list(peers)))

    async def put_peer(self, network_id: str, peer: Peer) -> None:
        """Add a remote endpoint to an overlay, or change the one with its id; takes as long however many there are."""
        await self._change(network_id, partial(self._projection.put_peer, network_id, peer))

    async def remove_peer(self, network_id: str, peer_id: str) -> None:
        """Take a remote endpoint from an overlay, if it is there."""
        await self._change(network_id, partial(self._projection.remove_peer, network_id, peer_id))

    # ---- sandboxes --------------------------------------------------------------------------------------

    async def ensure_sandbox(self, sandbox: Sandbox) -> None:
        """Make the namespace's interfaces, routes, resolver redirect and published ports as they should be."""
        await self._change(sandbox.id, partial(self._projection.ensure_sandbox, sandbox))

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Remove the sandbox's links, published ports and tracked connections.

        The namespace itself is its maker's to remove.
        """
        await self._change(sandbox_id, partial(self._projection.remove_sandbox, sandbox_id))

    # ---- all --------------------------------------------------------------------------------------------

    async def reconcile(self, networks: Iterable[Network], sandboxes: Iterable[Sandbox]) -> Repairs:
        """Make the kernel hold exactly this: what is missing is made, what is ours and not wanted is removed.

        An object that cannot be put right is reported in `failed` and does not keep the others from it; it is tried
        again from `watch` on. After a boot all is missing and nobody is to blame: so this is not counted among
        `repairs`.
        """
        work = partial(self._projection.reconcile, list(networks), list(sandboxes))
        repairs = await self._change(None, work)
        self._tell(repairs.repaired, logging.INFO)
        self._retries.note((), repairs.again)
        await self._tell_closed_chains()
        return repairs

    async def _tell_closed_chains(self) -> None:
        try:
            chains = await self._in_worker(self._projection.closed_by)
        except DriverError as error:  # what was reconciled is so all the same
            log.error("cannot look for chains of others that cut containers off: %s", error)
            return
        for chain in chains:
            log.warning(
                "chain %s has the policy drop: it cuts containers off from other networks and from the outside, until "
                "it accepts what comes from and goes to their bridges (with Docker: iptables -I DOCKER-USER -i BRIDGE "
                "-j ACCEPT, and once more with -o)",
                chain,
            )

    async def host_routes(self) -> list[IPv4Network | IPv6Network]:
        """The on-link destinations of the host, which address pools had better avoid."""
        host = self._projection.host
        routes = await self._in_worker(lambda: host.routes(socket.AF_INET) + host.routes(socket.AF_INET6))
        return [ip_network(route.destination) for route in routes if route.destination and route.gateway is None]

    # ---- watching ---------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """From now on repair within a second what somebody else breaks, until `close`.

        What fails, and what `reconcile` could not do, is tried again until it is right or no longer wanted.
        """
        if self._events is None:
            self._events = await self._in_worker(Events)
            self._watching = True
            self._listen(True)
            self._retries.start()

    def _listen(self, on: bool) -> None:
        loop, events = asyncio.get_running_loop(), self._events
        assert events is not None
        for listener in (events.route, events.netfilter):
            if on:
                loop.add_reader(listener, self._heard)
            else:
                loop.remove_reader(listener)

    def _heard(self) -> None:
        # the worker reads, between two operations: so what an operation itself caused is never heard here
        self._listen(False)
        self._spawn(self._read_events())

    def _spawn(self, work: asyncio._CoroutineLike[None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read_events(self) -> None:
        await self._in_worker(self._note_events)
        if self._watching:
            self._listen(True)
        self._plan_repair()

    def _plan_repair(self) -> None:
        if self._suspects and self._repair_timer is None and self._watching:
            loop = asyncio.get_running_loop()
            moment = max(loop.time() + _SETTLE, self._rest_until)
            self._repair_timer = loop.call_at(moment, self._begin_repair)

    def _begin_repair(self) -> None:
        self._repair_timer = None
        self._spawn(self._repair())

    async def _repair(self, failed: Collection[str] = ()) -> None:
        """Put right what is suspected, and what could not be put right before."""
        tried = set(failed)
        cause: Exception | None = None
        try:
            repairs = await self._change(None, partial(self._repair_suspects, tried))
        except Exception as error:  # whatever it is, what is suspected stays so
            cause = error
            repairs = Repairs(again=dict.fromkeys(tried or {""}, str(error) or repr(error)))
        if repairs.repaired or repairs.again:
            self._rest_until = asyncio.get_running_loop().time() + _PAUSE
        self.repairs += len(repairs.repaired)
        self._tell(repairs.repaired, logging.WARNING)
        self._tell(repairs.made, logging.INFO)
        self._retries.note(tried, repairs.again, cause)

    @staticmethod
    def _tell(repaired: Iterable[str], level: int) -> None:
        for sentence in repaired:
            log.log(level, "repaired: %s", sentence)

    # ---- in the worker thread ---------------------------------------------------------------------------

    async def _in_worker(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    async def _change(self, subject: str | None, work: Callable[[], T]) -> T:
        """Run an operation that changes the kernel; events about `subject` (None: anything) are its own."""

        def run() -> T:
            if self._events is None:
                return _translated(work)
            self._note_events()
            try:
                return _translated(work)
            finally:
                # the rows that an operation on a sandbox writes are those of its networks
                changes = {change for change in self._events.drain() if not change.written}
                heard = self._suspected(changes) if subject is not None else set[str]()
                self._events.drain()
                self._suspects |= heard - {subject, FIREWALL}

        try:
            return await self._in_worker(run)
        finally:
            self._plan_repair()

    def _note_events(self) -> None:
        if self._events is not None:
            self._suspects |= self._suspected(self._events.drain())

    def _suspected(self, changes: set[Change]) -> set[str]:
        """The ids of the objects that these changes may have damaged."""
        return {name for change in changes for name in self._projection.touched_by(change)}

    def _repair_suspects(self, tried: set[str]) -> Repairs:
        """Repair these and the suspects, which are added to `tried`: so they are known also if it fails."""
        tried |= self._suspects
        self._suspects = set()
        return self._projection.repair(tried)


def _translated(work: Callable[[], T]) -> T:
    """What a file of /proc/sys or a namespace refused is a DriverError too."""
    try:
        return work()
    except OSError as error:
        raise DriverError(f"the kernel refused: {error}") from error
