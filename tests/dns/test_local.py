"""What is answered from the tables: facts 1.12 to 1.45, by number, with what is bettered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from dnslib import CLASS, QTYPE, RCODE, DNSRecord

from tests.dns.helpers import Client, World, address, fake_upstream, question, record, upstream, world

WEB = record("e1", ("web", "www", "abcdef012345", "h1.example.org"), "10.0.0.2", "fd00::2")
DB = record("e2", ("db", "www", "data.base"), "10.0.0.3")


def resolve(dns_socket: Path, test: Callable[[World, Client], Awaitable[None]]) -> None:
    """Run a test in a sandbox on network `net1` (id n1) with the endpoints WEB and DB."""

    async def run() -> None:
        async with world(dns_socket) as w:
            await w.resolver.put_network("n1", "net1", [WEB, DB])
            await test(w, await w.sandbox())

    asyncio.run(run())


def no_data(reply: DNSRecord) -> bool:
    """NOERROR without an answer, with the SOA of RFC 2308."""
    soa = [rr for rr in reply.auth if rr.rtype == QTYPE.SOA]
    return reply.header.rcode == RCODE.NOERROR and not reply.rr and len(soa) == 1


@pytest.mark.parametrize("kind", ["TXT", "MX", "SRV", "HTTPS", "ANY", "NS", "CNAME", "SOA"])
def test_1_12_bettered_no_type_of_a_known_name_leaks(dns_socket: Path, kind: str) -> None:
    async def test(w: World, client: Client) -> None:
        assert no_data(await client.ask("web", kind))
        assert no_data(await client.ask("web.net1", kind))

    resolve(dns_socket, test)


def test_1_13_bettered_the_ttl_is_ten_seconds(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        assert [rr.ttl for rr in (await client.ask("web")).rr] == [10]
        assert [rr.ttl for rr in (await client.ask("2.0.0.10.in-addr.arpa", "PTR")).rr] == [10]

    resolve(dns_socket, test)


def test_1_14_reply_header(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        for rd in (0, 1):
            for _ in range(2):  # made, then ready
                header = (await client.ask("web", rd=rd)).header
                assert (header.qr, header.ra, header.rd, header.aa, header.opcode) == (1, 1, rd, 0, 0)

    resolve(dns_socket, test)


def test_1_14_bettered_edns_is_answered(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        for _ in range(2):
            (opt,) = (await client.ask("web", edns=4096)).ar
            assert (opt.rtype, opt.rclass) == (QTYPE.OPT, 1232)
        assert (await client.ask("web")).ar == []

    resolve(dns_socket, test)


def test_edns_version_one_is_refused_with_badvers(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        message = bytearray(question("web", edns=1232).pack())
        message[-5] = 1  # RFC 6891: version
        reply = DNSRecord.parse(await client.exchange(bytes(message)))
        assert reply.ar[0].ttl >> 24 == 1 and reply.header.rcode == 0 and not reply.rr

    resolve(dns_socket, test)


def test_1_15_class_is_not_checked(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        query = question("web")
        query.q.qclass = CLASS.CH
        (rr,) = DNSRecord.parse(await client.exchange(query.pack())).rr
        assert (rr.rclass, str(rr.rdata)) == (CLASS.IN, "10.0.0.2")

    resolve(dns_socket, test)


def test_1_16_first_question_only_none_is_no_reply_odd_opcode_is_notimp(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        two = question("web")
        two.add_question(question("db").q)
        reply = DNSRecord.parse(await client.exchange(two.pack()))
        assert (len(reply.questions), [str(rr.rdata) for rr in reply.rr]) == (1, ["10.0.0.2"])
        status = question("web")
        status.header.opcode = 2
        reply = DNSRecord.parse(await client.exchange(status.pack()))
        assert (reply.header.rcode, reply.questions) == (RCODE.NOTIMP, [])
        with pytest.raises(TimeoutError):
            await client.exchange(DNSRecord().pack(), timeout=0.2)

    resolve(dns_socket, test)


@pytest.mark.parametrize("name", ["WEB", "wEb", "Www.NET1", "ABCDEF012345", "Web.Net1"])
def test_1_17_any_case_matches_and_the_question_s_is_echoed(dns_socket: Path, name: str) -> None:
    async def test(w: World, client: Client) -> None:
        for _ in range(2):
            reply = await client.ask(name)
            assert str(reply.q.qname) == name + "."
            assert {str(rr.rname) for rr in reply.rr} == {name + "."}

    resolve(dns_socket, test)


def test_1_19_a_name_without_an_address_of_the_family_is_no_data(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        assert no_data(await client.ask("db", "AAAA"))
        await w.resolver.join("n1", record("e3", ("six",), "fd00::3"))
        assert no_data(await client.ask("six", "A"))
        assert await client.addresses("six", "AAAA") == ["fd00::3"]

    resolve(dns_socket, test)


def test_1_20_unknown_without_upstream_is_servfail(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        assert (await client.ask("nosuch")).header.rcode == RCODE.SERVFAIL
        assert (await client.ask("nosuch", tcp=True)).header.rcode == RCODE.SERVFAIL

    resolve(dns_socket, test)


def test_1_21_to_1_23_mx_localhost_and_own_name(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        assert not (await client.ask("web", "MX")).rr
        async with fake_upstream(address("192.0.2.7")) as server:
            outside = await w.sandbox("s2", upstreams=(upstream(server.port),))
            assert await outside.addresses("localhost") == ["192.0.2.7"]
        assert await client.addresses("web") == ["10.0.0.2"]

    resolve(dns_socket, test)


def test_1_24_shared_alias_gives_all_addresses_in_random_order(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        await w.resolver.join("n1", record("e3", ("twin", "www"), "10.0.0.3"))  # same address as db
        orders = {tuple(await client.addresses("www")) for _ in range(40)}
        assert orders == {("10.0.0.2", "10.0.0.3"), ("10.0.0.3", "10.0.0.2")}
        many = [record(f"m{i}", (f"m{i}", "many"), f"10.0.1.{i}") for i in range(1, 13)]
        for each in many:
            await w.resolver.join("n1", each)
        orders = {tuple(await client.addresses("many")) for _ in range(20)}
        assert len(orders) > 5 and {len(set(order)) for order in orders} == {12}

    resolve(dns_socket, test)


def test_1_25_truncation_follows_the_client_s_size(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        for i in range(100):
            await w.resolver.join("n1", record(f"m{i}", ("many",), f"10.0.1.{i}"))
        for size, fits in ((0, 512), (100, 512), (1232, 1232)):
            for _ in range(2):
                query = question("many", edns=size)
                raw = await client.exchange(query.pack())
                reply = DNSRecord.parse(raw)
                assert len(raw) <= fits and reply.header.tc == 1 and len(reply.rr) >= (fits - 60) // 16
        assert len((await client.ask("many", edns=4096)).rr) == 100
        over_tcp = await client.ask("many", tcp=True)
        assert (len(over_tcp.rr), over_tcp.header.tc) == (100, 0)

    resolve(dns_socket, test)


def test_1_26_names_of_an_endpoint(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        for name in ("web", "abcdef012345", "h1.example.org"):
            assert await client.addresses(name) == ["10.0.0.2"]
        assert (await client.ask("h1")).header.rcode == RCODE.SERVFAIL

    resolve(dns_socket, test)


def test_1_28_and_1_29_name_and_network(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        await w.resolver.put_network("n2", "b.c", [record("e5", ("a",), "10.1.0.1")])
        await w.resolver.put_network("n3", "c", [record("e6", ("a.b",), "10.2.0.1")])
        both = await w.sandbox("s2", "n1", "n2", "n3")
        assert await both.addresses("data.base.net1") == ["10.0.0.3"]
        assert await both.addresses("a.b.c") == ["10.2.0.1"]  # `a.b` on `c` comes before `a` on `b.c`
        await w.resolver.leave("n3", "e6")
        assert await both.addresses("a.b.c") == ["10.1.0.1"]
        await w.resolver.join("n1", record("e7", ("a.b.c",), "10.0.0.9"))
        assert await both.addresses("a.b.c") == ["10.0.0.9"]  # a whole name comes first
        assert (await both.ask("x.web.net1")).header.rcode == RCODE.SERVFAIL
        assert (await both.ask("web.n1")).header.rcode == RCODE.SERVFAIL  # an id is no name

    resolve(dns_socket, test)


def test_1_30_to_1_32_records_come_and_go_with_the_endpoint(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        assert len(await client.addresses("www")) == 2
        await w.resolver.leave("n1", "e1")
        assert await client.addresses("www") == ["10.0.0.3"]
        assert (await client.ask("web")).header.rcode == RCODE.SERVFAIL
        await w.resolver.join("n1", record("e2", ("renamed", "www"), "10.0.0.3"))
        assert await client.addresses("renamed") == ["10.0.0.3"]
        assert (await client.ask("db")).header.rcode == RCODE.SERVFAIL

    resolve(dns_socket, test)


def test_1_33_and_1_34_only_own_networks_in_order(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        await w.resolver.put_network("n2", "net2", [record("x", ("web", "only2"), "10.1.0.1")])
        assert (await client.ask("only2")).header.rcode == RCODE.SERVFAIL
        assert await (await w.sandbox("s2", "n2", "n1")).addresses("web") == ["10.1.0.1"]
        last = await w.sandbox("s3", "n1", "n2")
        assert await last.addresses("web") == ["10.0.0.2"]
        assert await last.addresses("web.net2") == ["10.1.0.1"]
        # the first network that knows the name wins, even without such an address
        assert no_data(await last.ask("db", "AAAA"))

    resolve(dns_socket, test)


def test_1_35_and_1_38_links(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        linked = await w.sandbox("s2", links={"n1": {"database": "db", "web": "db", "gone": "nosuch"}})
        assert await linked.addresses("database") == ["10.0.0.3"]
        assert await linked.addresses("web") == ["10.0.0.3"]  # the alias shadows the name
        assert (await client.ask("database")).header.rcode == RCODE.SERVFAIL
        assert (await linked.ask("gone")).header.rcode == RCODE.SERVFAIL
        await w.resolver.join("n1", record("e2", ("db",), "10.0.0.33"))
        assert await linked.addresses("database") == ["10.0.0.33"]  # follows the target's address
        await w.resolver.leave("n1", "e2")
        assert (await linked.ask("database")).header.rcode == RCODE.SERVFAIL
        assert (await linked.ask("web")).header.rcode == RCODE.SERVFAIL

    resolve(dns_socket, test)


def test_1_17_and_1_29_bettered_link_aliases_in_any_case_and_with_a_network(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        linked = await w.sandbox("s2", links={"n1": {"DataBase": "DB"}})
        for name in ("database", "DATABASE", "DataBase.net1", "database.NET1"):
            assert await linked.addresses(name) == ["10.0.0.3"]

    resolve(dns_socket, test)


def test_1_41_and_1_42_pointers(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        six = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa"
        for name in ("2.0.0.10.in-addr.arpa", six, six.upper()):
            for _ in range(2):
                assert await client.addresses(name, "PTR") == ["web.net1."]
        assert (await client.ask("9.0.0.10.in-addr.arpa", "PTR")).header.rcode == RCODE.SERVFAIL
        await w.resolver.put_network("n2", "net2", [record("x", ("far",), "10.1.0.1")])
        assert (await client.ask("1.0.1.10.in-addr.arpa", "PTR")).header.rcode == RCODE.SERVFAIL

    resolve(dns_socket, test)


def test_1_43_a_pointer_question_for_another_name_is_forwarded(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        async with fake_upstream(address()) as server:
            outside = await w.sandbox("s2", upstreams=(upstream(server.port),))
            assert (await outside.ask("example.org", "PTR")).header.rcode == RCODE.NOERROR
            assert server.names == ["example.org."]

    resolve(dns_socket, test)


def test_1_45_bettered_a_name_too_long_for_dns_gives_way_to_the_next(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        await w.resolver.join("n1", record("e9", ("x" * 64, "short"), "10.0.0.9"))
        assert await client.addresses("9.0.0.10.in-addr.arpa", "PTR") == ["short.net1."]

    resolve(dns_socket, test)


def test_names_odd_but_possible_resolve(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        await w.resolver.join("n1", record("e9", ("über_cool", "..", "", "a..b"), "10.0.0.9"))
        query = question("x")
        query.q.qname.label = ("über_cool".encode(),)
        assert b"\x0a\x00\x00\x09" in await client.exchange(query.pack())

    resolve(dns_socket, test)
