"""The UDP side of one sandbox: the hot path.

A wake-up drains what has come. A repeated question is one dictionary look-up on the bytes behind its id; no
DNS object, no task, no log line is made for it.
"""

from __future__ import annotations

import contextlib
import logging
from asyncio import AbstractEventLoop
from functools import partial
from socket import SOL_SOCKET, socket
from typing import Any

from dns import wire
from dns.datagrams import BODY, QUERY, SLOTS, Datagrams
from dns.sandbox import Sandbox

log = logging.getLogger(__name__)

_LEAST = 4  # datagrams of a wake-up while answers have to be worked out: one busy sandbox must not hold up the others

_batch = Datagrams()
_lengths, _queries, _bodies, _body_lengths = _batch.lengths, _batch.queries, _batch.bodies, _batch.body_lengths

_SO_RCVBUFFORCE = 33  # <asm-generic/socket.h>
_RECEIVE_BUFFER = 1 << 20  # bytes: a burst waits here instead of being lost


class UdpServer:
    """Answers on one socket, which it owns, until it is closed."""

    def __init__(self, loop: AbstractEventLoop, sock: socket, sandbox: Sandbox) -> None:
        sock.setblocking(False)
        with contextlib.suppress(OSError):  # without privilege: what the system allows anyway
            sock.setsockopt(SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        self._loop = loop
        self._sock = sock
        self._sandbox = sandbox
        self._closed = False
        self._descriptor = sock.fileno()
        self._most = SLOTS
        loop.add_reader(sock, self._drain)

    @property
    def port(self) -> int:
        return int(self._sock.getsockname()[1])

    def retire(self) -> int:
        """Leave further questions to whoever gets this descriptor; those in flight are still answered."""
        self._loop.remove_reader(self._sock)
        return self._sock.fileno()

    def close(self) -> None:
        self._loop.remove_reader(self._sock)
        self._sock.close()
        self._closed = True

    def _drain(self) -> None:
        sandbox = self._sandbox
        ready = sandbox.ready
        if ready.checked != sandbox.shared.tables.generation:
            ready.current()
        known = ({} if sandbox.shared.log.active else ready.exact).get
        first = effort = 0
        try:
            count = _batch.receive(self._descriptor, self._most)
            for slot in range(count):
                at = slot * QUERY
                end = at + _lengths[16 * slot + 14]
                reply = known(bytes(_queries[at + 2 : end]))
                if reply is not None and len(reply) <= BODY:
                    out = slot * BODY
                    _bodies[out : out + len(reply)] = reply
                    _body_lengths[6 * slot + 5] = len(reply)
                else:
                    _batch.send(self._descriptor, first, slot)
                    first = slot + 1
                    effort += self._answer(bytes(_queries[at:end]), _batch.client(slot))
            _batch.send(self._descriptor, first, count)
        except OSError as error:
            # an ICMP error or a firewall concerns one reply, not the socket
            log.debug("sandbox %s: %s", sandbox.view.sandbox[:12], error)
            return
        self._most = _LEAST if effort else min(SLOTS, self._most * 2)
        sandbox.shared.queries += count

    def _answer(self, message: bytes, client: Any) -> int:
        """Answer, or see to it that somebody does; how much work that was."""
        sandbox = self._sandbox
        if not sandbox.shared.log.active and (reply := sandbox.ready.answer(message)) is not None:
            self._sock.sendto(reply, client)
            return 0
        found = sandbox.respond(message, tcp=False, client=client[0])
        if isinstance(found, wire.Query):
            sandbox.forward(found, message, partial(self._reply, found, client), tcp=False, client=client[0])
        elif found:
            self._sock.sendto(found, client)
        return 1

    def _reply(self, query: wire.Query, client: Any, reply: bytes) -> None:
        """Send a reply that came later."""
        if self._closed:
            return
        try:
            self._sock.sendto(reply, client)
        except OSError as error:
            log.debug("sandbox %s: %s", self._sandbox.view.sandbox[:12], error)
            self._sorry(query, client)

    def _sorry(self, query: wire.Query, client: Any) -> None:
        """A reply that cannot be sent (too large for the path) becomes SERVFAIL (fact 1.25)."""
        try:
            self._sock.sendto(wire.compose(query, wire.UDP_SIZE, wire.SERVFAIL), client)
        except OSError as error:
            log.debug("sandbox %s: %s", self._sandbox.view.sandbox[:12], error)
