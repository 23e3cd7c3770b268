"""Hostile clients: no crash, no growth, and nobody else waits."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from dnslib import RCODE, DNSRecord

from tests.dns.helpers import Client, World, question, record, world
from tests.dns.test_control import memory


def resolve(dns_socket: Path, test: Callable[[World, Client, Client], Awaitable[None]]) -> None:
    """Run a test with a hostile and an innocent sandbox."""

    async def run() -> None:
        async with world(dns_socket) as w:
            await w.resolver.put_network("n1", "net1", [record("e1", ("web",), "10.0.0.2")])
            await test(w, await w.sandbox("hostile"), await w.sandbox("innocent"))

    asyncio.run(run())


async def prompt(client: Client) -> None:
    """The client is served at once, be the machine busy."""
    start = time.monotonic()
    assert await client.addresses("web") == ["10.0.0.2"]
    assert await client.addresses("web", tcp=True) == ["10.0.0.2"]
    assert time.monotonic() - start < 0.5


HOSTILE = {
    "loop to itself": b"\xc0\x0c\0\1\0\1",
    "forward pointer": b"\xc0\xff\0\1\0\1",
    "reserved label": b"\x80web\0\0\1\0\1",
    "label over the end": b"\x3fweb",
    "no end": b"\3web",
    "no type": b"\3web\0",
    "name of 256 bytes": b"\x3f"
    + b"x" * 63
    + b"\x3f"
    + b"x" * 63
    + b"\x3f"
    + b"x" * 63
    + b"\x3f"
    + b"x" * 63
    + b"\0\0\1\0\1",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_malformed_question_is_a_format_error(dns_socket: Path, what: str) -> None:
    async def test(w: World, hostile: Client, innocent: Client) -> None:
        message = b"\x12\x34\1\0\0\1\0\0\0\0\0\0" + HOSTILE[what]
        for reply in (await hostile.exchange(message), *(await hostile.exchange_tcp(message))):
            assert reply[:2] == b"\x12\x34" and reply[3] & 15 == RCODE.FORMERR and len(reply) == 12

    resolve(dns_socket, test)


def test_a_flood_of_damaged_packets_neither_crashes_nor_grows(dns_socket: Path) -> None:
    async def test(w: World, hostile: Client, innocent: Client) -> None:
        pid = (await w.resolver.state()).pid
        rng = random.Random(4)
        seeds = [bytes(question(name, kind, edns=1232).pack()) for name, kind in (("web", "A"), ("WEB", "AAAA"))]

        def flood(count: int) -> None:
            with hostile.connected() as sock:
                for _ in range(count):
                    packet = bytearray(rng.choice(seeds))
                    for _ in range(rng.randrange(4)):
                        packet[rng.randrange(len(packet))] = rng.randrange(256)
                    sock.send(packet[: rng.randrange(len(packet) + 1)] if rng.random() < 0.3 else packet)

        await asyncio.to_thread(flood, 3000)
        await prompt(innocent)
        before = memory(pid)
        for _ in range(5):
            await asyncio.to_thread(flood, 3000)
            await prompt(innocent)
        assert memory(pid) < before + 8
        await asyncio.sleep(0.5)  # its own flood may still fill its socket
        await prompt(hostile)

    resolve(dns_socket, test)


def test_ready_answers_do_not_grow_with_the_ways_to_ask(dns_socket: Path) -> None:
    async def test(w: World, hostile: Client, innocent: Client) -> None:
        pid = (await w.resolver.state()).pid
        before = memory(pid)
        base = bytearray(question("web", "A").pack())
        with hostile.connected() as sock:
            for kind in range(20_000):
                base[-4:-2] = kind.to_bytes(2)
                sock.send(base)
                if kind % 200 == 0:
                    await asyncio.sleep(0)
        await prompt(innocent)
        assert memory(pid) < before + 40

    resolve(dns_socket, test)


def test_pipelined_questions_on_one_connection(dns_socket: Path) -> None:
    async def test(w: World, hostile: Client, innocent: Client) -> None:
        queries = [question("web") for _ in range(300)]
        replies = await hostile.exchange_tcp(*(bytes(q.pack()) for q in queries))
        assert {DNSRecord.parse(r).header.id for r in replies} == {q.header.id for q in queries}

    resolve(dns_socket, test)


def test_a_trickling_writer_and_a_client_that_never_reads_delay_nobody(dns_socket: Path) -> None:
    async def test(w: World, hostile: Client, innocent: Client) -> None:
        _, slow = await asyncio.open_connection(sock=hostile.connected(socket.SOCK_STREAM))
        message = bytes(question("web").pack())
        deaf = hostile.connected(socket.SOCK_STREAM)
        deaf.setblocking(False)
        frame = (len(message).to_bytes(2) + message) * 100
        with deaf:
            for byte in len(message).to_bytes(2) + message[:10]:
                slow.write(bytes((byte,)))
                for _ in range(20):
                    try:
                        deaf.send(frame)
                    except BlockingIOError:
                        break
                await prompt(innocent)
        await prompt(hostile)
        slow.close()

    resolve(dns_socket, test)


def test_frames_of_64_kib_and_of_nothing(dns_socket: Path) -> None:
    async def test(w: World, hostile: Client, innocent: Client) -> None:
        huge = bytes(question("web").pack()) + os.urandom(65000)
        (reply,) = await hostile.exchange_tcp(huge)
        assert reply[3] & 15 in (RCODE.NOERROR, RCODE.FORMERR)
        _, writer = await asyncio.open_connection(sock=hostile.connected(socket.SOCK_STREAM))
        writer.write(b"\0\0" * 5000 + b"\0\1x" * 1000)
        await prompt(hostile)
        writer.close()

    resolve(dns_socket, test)


def test_more_connections_than_allowed_push_out_the_idlest(dns_socket: Path) -> None:
    async def test(w: World, hostile: Client, innocent: Client) -> None:
        pid = (await w.resolver.state()).pid
        idle = [hostile.connected(socket.SOCK_STREAM) for _ in range(300)]
        await prompt(hostile)
        await prompt(innocent)
        assert len(os.listdir(f"/proc/{pid}/fd")) < 180
        for sock in idle:
            sock.close()

    resolve(dns_socket, test)


def test_a_client_that_goes_away_in_the_middle(dns_socket: Path) -> None:
    async def test(w: World, hostile: Client, innocent: Client) -> None:
        for _ in range(50):
            with hostile.connected(socket.SOCK_STREAM) as sock:
                sock.send(b"\0\x40" + os.urandom(random.randrange(60)))
                if random.random() < 0.5:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await prompt(innocent)

    resolve(dns_socket, test)
