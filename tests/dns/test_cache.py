"""Replies kept and given again: RFC 1035, RFC 2181 section 8 and RFC 2308."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from dnslib import EDNS0, RCODE, RR, DNSRecord

from dns import wire
from dns.cache import Cache, lifetime
from tests.dns.helpers import World, address, answer, fake_upstream, question, record, upstream, world

SOA = "example. 300 IN SOA ns.example. mail.example. 1 2 3 4 60"


def reply(zone: str = "", **more: int | str) -> bytes:
    return answer(question("a.example"), zone, **more)  # type: ignore[arg-type]


def test_ttls_count_down_and_end() -> None:
    cache = Cache()
    cache.put("k", reply("a.example 30 IN CNAME b.example\nb.example 60 IN A 192.0.2.1"), now=100.0)
    for now, ttls in ((100.4, [30, 60]), (107.9, [23, 53]), (129.9, [1, 31])):
        kept = cache.get("k", now)
        assert kept is not None and [rr.ttl for rr in DNSRecord.parse(kept).rr] == ttls
    assert cache.get("k", 130.0) is None
    assert len(cache) == 0


@pytest.mark.parametrize("rcode", [RCODE.NXDOMAIN, RCODE.NOERROR])
def test_a_negative_answer_lives_as_long_as_its_soa_says(rcode: int) -> None:
    cache = Cache()
    cache.put("k", reply(rcode=rcode, authority=SOA), now=0.0)
    assert cache.get("k", 59.0) is not None
    assert cache.get("k", 60.0) is None


@pytest.mark.parametrize(
    "message",
    [
        reply(rcode=RCODE.NXDOMAIN),
        reply(),
        reply(rcode=RCODE.SERVFAIL, authority=SOA),
        reply("a.example 0 IN A 192.0.2.1"),
        reply("a.example 2147483648 IN A 192.0.2.1"),
    ],
    ids=["nxdomain without soa", "no data without soa", "servfail", "zero ttl", "ttl with the top bit"],
)
def test_what_may_not_be_kept_is_not(message: bytes) -> None:
    assert lifetime(message) is None


def test_a_truncated_reply_is_not_kept() -> None:
    message = bytearray(reply("a.example 60 IN A 192.0.2.1"))
    message[2] |= wire.TC >> 8
    assert lifetime(bytes(message)) is None


def test_the_opt_record_is_no_ttl() -> None:
    parsed = DNSRecord.parse(reply("a.example 60 IN A 192.0.2.1"))
    parsed.add_ar(EDNS0(udp_len=1232, flags="do"))
    cache = Cache()
    cache.put("k", bytes(parsed.pack()), now=0.0)
    kept = cache.get("k", 10.0)
    assert kept is not None and DNSRecord.parse(kept).ar[0].ttl == 0x8000


def test_it_is_bounded_and_drops_what_was_not_used_for_longest() -> None:
    cache = Cache(max_bytes=20_000)
    message = reply("a.example 60 IN A 192.0.2.1")
    for i in range(100):
        cache.put(i, message, now=0.0)
        cache.get(0, now=0.0)
    assert 10 < len(cache) < 40
    assert cache.get(0, now=0.0) is not None and cache.get(1, now=0.0) is None


def resolve(dns_socket: Path, test: Callable[[World], Awaitable[None]], **options: str) -> None:
    async def run() -> None:
        async with world(dns_socket) as w:
            await w.resolver.put_network("n1", "net1", [record("e1", ("web",), "10.0.0.2")], options)
            await test(w)

    asyncio.run(run())


def test_a_repeated_question_is_asked_once_in_any_case_and_by_any_transport(dns_socket: Path) -> None:
    async def test(w: World) -> None:
        async with fake_upstream(address()) as server:
            client = await w.sandbox(upstreams=(upstream(server.port),))
            for name, tcp in (("a.example", False), ("A.Example", False), ("a.EXAMPLE", True)):
                reply = await client.ask(name, tcp=tcp)
                assert [str(rr.rname).lower() for rr in reply.rr] == ["a.example."]
                assert str(reply.q.qname) == name + "."
            await client.ask("a.example", "AAAA")
            assert len(server.asked) == 2

    resolve(dns_socket, test)


def test_it_can_be_switched_off_for_a_network(dns_socket: Path) -> None:
    async def test(w: World) -> None:
        async with fake_upstream(address()) as server:
            client = await w.sandbox(upstreams=(upstream(server.port),))
            await client.ask("off.example")
            await client.ask("off.example")
            assert len(server.asked) == 2

    resolve(dns_socket, test, **{"netd.dns.cache": "0"})


def test_sandboxes_share_replies_of_the_host_s_servers_only(dns_socket: Path) -> None:
    async def test(w: World) -> None:
        async with fake_upstream(address()) as server:
            for host, asked in ((True, 1), (False, 3)):
                for name in ("s1", "s2"):
                    client = await w.sandbox(name, upstreams=(upstream(server.port, host=host),))
                    await client.ask("shared.example")
                assert len(server.asked) == asked

    resolve(dns_socket, test)


def test_records_of_all_sections_are_dated(dns_socket: Path) -> None:
    async def test(w: World) -> None:
        def behave(query: DNSRecord) -> list[tuple[float, bytes]]:
            full = query.reply()
            full.add_answer(*RR.fromZone(f"{query.q.qname} 60 IN A 192.0.2.1"))
            full.add_auth(*RR.fromZone("example 90 IN NS ns.example"))
            full.add_ar(*RR.fromZone("ns.example 120 IN A 192.0.2.2"))
            return [(0, bytes(full.pack()))]

        async with fake_upstream(behave) as server:
            client = await w.sandbox(upstreams=(upstream(server.port),))
            await client.ask("full.example")
            await asyncio.sleep(1.05)
            reply = await client.ask("full.example")
            assert [rr.ttl for rr in (*reply.rr, *reply.auth, *reply.ar)] == [59, 89, 119]

    resolve(dns_socket, test)
