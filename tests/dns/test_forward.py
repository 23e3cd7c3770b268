"""Names the tables do not know: facts 1.46 to 1.58, by number, with what is bettered."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from dnslib import EDNS0, QTYPE, RCODE, DNSRecord, EDNSOption

from dns.client import Upstream, View
from tests.dns.helpers import (
    Client,
    World,
    address,
    answer,
    failing,
    fake_upstream,
    question,
    record,
    sandbox_sockets,
    silent,
    upstream,
    world,
)

MOMENT = 0.5  # seconds a busy machine may take; whoever waits for a server waits 0.8 at least


def resolve(dns_socket: Path, test: Callable[[World], Awaitable[None]]) -> None:
    async def run() -> None:
        async with world(dns_socket) as w:
            await w.resolver.put_network("n1", "net1", [record("e1", ("web",), "10.0.0.2")])
            await test(w)

    asyncio.run(run())


def unused_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def timed(client: Client, name: str) -> tuple[float, DNSRecord]:
    start = time.monotonic()
    reply = await client.ask(name)
    return time.monotonic() - start, reply


def test_1_20_unknown_names_go_upstream_known_ones_do_not(dns_socket: Path) -> None:
    async def test(w: World) -> None:
        async with fake_upstream(address("192.0.2.7")) as server:
            client = await w.sandbox(upstreams=(upstream(server.port),))
            assert await client.addresses("example.org") == ["192.0.2.7"]
            assert await client.addresses("web") == ["10.0.0.2"]
            await client.ask("web", "TXT")
            assert server.names == ["example.org."]

    resolve(dns_socket, test)


@pytest.mark.parametrize("kind", ["A", "NS", "PTR", "SRV"])
def test_the_root_is_a_name_like_any_other(dns_socket: Path, kind: str) -> None:
    async def test(w: World) -> None:
        async with fake_upstream(address()) as server:
            client = await w.sandbox(upstreams=(upstream(server.port),), options=("ndots:1",))
            assert (await client.ask(".", kind)).rr
            assert server.names == ["."]

    resolve(dns_socket, test)


def test_1_46_only_the_first_three_servers_count(dns_socket: Path) -> None:
    async def test(w: World) -> None:
        async with fake_upstream(failing(RCODE.REFUSED)) as bad, fake_upstream(address()) as fourth:
            three = tuple(upstream(bad.port, address=f"127.0.0.{i}") for i in (1, 2, 3))
            client = await w.sandbox(upstreams=(*three, upstream(fourth.port)))
            assert (await client.ask("a.example")).header.rcode == RCODE.SERVFAIL
            assert fourth.asked == []

    resolve(dns_socket, test)


def test_1_46_and_1_47_bettered_a_dead_first_server_costs_a_second_once(dns_socket: Path) -> None:
    async def test(w: World) -> None:
        async with fake_upstream(silent) as dead, fake_upstream(address()) as good:
            client = await w.sandbox(upstreams=(upstream(dead.port), upstream(good.port)))
            first, reply = await timed(client, "one.example")
            assert reply.rr and first < 1.0
            for name in ("two.example", "three.example"):
                later, reply = await timed(client, name)
                assert reply.rr and later < MOMENT

    resolve(dns_socket, test)


def test_a_server_that_comes_back_is_noticed_without_making_anybody_wait(dns_socket: Path) -> None:
    async def test(w: World) -> None:
        async with fake_upstream(silent) as first, fake_upstream(address("192.0.2.2")) as second:
            client = await w.sandbox(upstreams=(upstream(first.port), upstream(second.port)))
            await client.ask("a.example")
            first.behave = address("192.0.2.1")
            await asyncio.sleep(1.1)
            took, _ = await timed(client, "b.example")
            assert took < MOMENT
            async with asyncio.timeout(5):
                for number in itertools.count():
                    if await client.addresses(f"c{number}.example") == ["192.0.2.1"]:
                        break
                    await asyncio.sleep(0.05)

    resolve(dns_socket, test)


def test_never_past_four_and_a_half_seconds_then_servfail(dns_socket: Path) -> None:
    async def test(w: World) -> None:
        async with fake_upstream(silent) as dead:
            client = await w.sandbox(upstreams=tuple(upstream(dead.port, address=f"127.0.0.{i}") for i in (1, 2, 3)))
            took, reply = await timed(client, "a.example")
            assert reply.header.rcode == RCODE.SERVFAIL and 4 < took < 4.9

    resolve(dns_socket, test)


def test_option_timeout_shortens_the_wait(dns_socket: Path) -> None:
    async def test(w: World) -> None:
        async with fake_upstream(silent) as dead:
            client = await w.sandbox(upstreams=(upstream(dead.port),), options=("timeout:1", "attempts:3"))
            took, reply = await timed(client, "a.example")
            assert reply.header.rcode == RCODE.SERVFAIL and took < 1
            assert len(dead.asked) == 3

    resolve(dns_socket, test)


def test_a_lost_datagram_is_sent_again(dns_socket: Path) -> None:
    async def test(w: World) -> None:
        def behave(query: DNSRecord) -> list[tuple[float, bytes]]:
            return address()(query) if len(server.asked) > 1 else []

        async with fake_upstream(behave) as server:
            client = await w.sandbox(upstreams=(upstream(server.port),))
            took, reply = await timed(client, "a.example")
            assert reply.rr and took < 1.5

    resolve(dns_socket, test)


def test_1_50_servfail_and_refused_go_to_the_next_all_else_is_relayed(dns_socket: Path) -> None:
    async def test(w: World) -> None:
        async with fake_upstream(silent) as first, fake_upstream(address()) as second:
            client = await w.sandbox(upstreams=(upstream(first.port), upstream(second.port)))
            for rcode in (RCODE.SERVFAIL, RCODE.REFUSED):
                first.behave = failing(rcode)
                took, reply = await timed(client, f"r{rcode}.example")
                assert reply.rr and took < MOMENT
            for rcode in (RCODE.NXDOMAIN, RCODE.NOTIMP, RCODE.FORMERR):
                first.behave = failing(rcode)
                assert (await client.ask(f"r{rcode}.example")).header.rcode == rcode
            first.behave = second.behave = failing(RCODE.REFUSED)
            assert (await client.ask("last.example")).header.rcode == RCODE.SERVFAIL

    resolve(dns_socket, test)


def test_1_51_nxdomain_is_relayed_with_its_soa(dns_socket: Path) -> None:
    async def test(w: World) -> None:
        soa = "example. 300 IN SOA ns.example. mail.example. 1 2 3 4 60"
        async with fake_upstream(lambda q: [(0, answer(q, rcode=3, authority=soa))]) as server:
            client = await w.sandbox(upstreams=(upstream(server.port),))
            reply = await client.ask("no.example")
            assert reply.header.rcode == RCODE.NXDOMAIN and reply.auth[0].rtype == QTYPE.SOA

    resolve(dns_socket, test)


def test_1_48_and_1_52_transport_is_kept_truncation_and_oversize_are_relayed(dns_socket: Path) -> None:
    async def test(w: World) -> None:
        def behave(query: DNSRecord) -> list[tuple[float, bytes]]:
            if not hasattr(query, "tcp") and str(query.q.qname).startswith("cut"):
                reply = query.reply()
                reply.header.tc = 1
                return [(0, bytes(reply.pack()))]
            return [(0, answer(query, "\n".join(f"{query.q.qname} 60 IN A 192.0.2.{i}" for i in range(200))))]

        async with fake_upstream(behave) as server:
            client = await w.sandbox(upstreams=(upstream(server.port),))
            assert (await client.ask("cut.example")).header.tc == 1
            assert len((await client.ask("cut.example", tcp=True)).rr) == 200
            assert [hasattr(q, "tcp") for q in server.asked] == [False, True]
            assert len((await client.ask("big.example")).rr) == 200
            # from the cache it fits the client instead
            again = await client.ask("big.example")
            assert (again.header.tc, again.rr) == (1, [])

    resolve(dns_socket, test)


def test_1_49_flags_and_edns_are_passed_on_on_a_fresh_port_with_a_fresh_id(dns_socket: Path) -> None:
    async def test(w: World) -> None:
        async with fake_upstream(address(ttl=0)) as server:
            client = await w.sandbox(upstreams=(upstream(server.port),))
            query = question("a.example", edns=1400, do=True)
            query.header.ad = query.header.cd = 1
            query.header.rd = 0
            for _ in range(8):
                await client.exchange(query.pack())
            seen = server.asked[0]
            assert (seen.header.rd, seen.header.ad, seen.header.cd) == (0, 1, 1)
            assert (seen.ar[0].rclass, seen.ar[0].ttl) == (1400, 0x8000)
            assert len(server.sources) == 8
            assert len({q.header.id for q in server.asked}) > 1

    resolve(dns_socket, test)


def test_edns_options_of_one_hop_stay_here_others_pass(dns_socket: Path) -> None:
    async def test(w: World) -> None:
        async with fake_upstream(address()) as server:
            client = await w.sandbox(upstreams=(upstream(server.port),))
            for code in (10, 8):  # a cookie, a client subnet
                query = question("a.example")
                query.add_ar(EDNS0(udp_len=1232, opts=[EDNSOption(code, b"\0\1\0\0")]))
                for _ in range(2):
                    await client.exchange(query.pack())
            assert [[o.code for o in q.ar[0].rdata] for q in server.asked] == [[], [8], [8]]

    resolve(dns_socket, test)


@pytest.mark.parametrize("trick", ["id", "question", "not a reply", "garbage", "loop"])
def test_replies_that_do_not_fit_are_ignored(dns_socket: Path, trick: str) -> None:
    async def test(w: World) -> None:
        def behave(query: DNSRecord) -> list[tuple[float, bytes]]:
            bad = bytearray(answer(query, f"{query.q.qname} 60 IN A 6.6.6.6"))
            match trick:
                case "id":
                    bad[0] ^= 0xFF
                case "question":
                    bad[14] ^= 0x01
                case "not a reply":
                    bad[2] &= 0x7F
                case "garbage":
                    bad = bad[:20]
                case "loop":
                    bad[12:14] = b"\xc0\x0c"
            return [(0, bytes(bad)), *address("192.0.2.1", delay=0.05)(query)]

        async with fake_upstream(behave) as server:
            client = await w.sandbox(upstreams=(upstream(server.port),))
            assert await client.addresses("a.example") == ["192.0.2.1"]

    resolve(dns_socket, test)


def test_identical_questions_in_flight_are_one_and_each_keeps_its_spelling(dns_socket: Path) -> None:
    async def test(w: World) -> None:
        async with fake_upstream(address(delay=0.1)) as server:
            client = await w.sandbox(upstreams=(upstream(server.port),))
            names = ["a.example", "A.example", "a.EXAMPLE"] * 5
            replies = await asyncio.gather(*(client.ask(name) for name in names))
            assert [str(r.q.qname) for r in replies] == [n + "." for n in names]
            assert len(server.asked) == 1

    resolve(dns_socket, test)


def test_a_slow_upstream_delays_nobody_else(dns_socket: Path) -> None:
    async def test(w: World) -> None:
        async with fake_upstream(silent) as dead, fake_upstream(address()) as good:
            stuck = await w.sandbox("s1", upstreams=(upstream(dead.port),), options=("timeout:2",))
            fine = await w.sandbox("s2", upstreams=(upstream(good.port),))
            waiting = [asyncio.ensure_future(stuck.ask(f"n{i}.example")) for i in range(50)]
            await asyncio.sleep(0.1)
            for client, name in ((stuck, "web"), (fine, "b.example")):
                took, reply = await timed(client, name)
                assert reply.rr and took < MOMENT
            await asyncio.gather(*waiting)

    resolve(dns_socket, test)


def test_1_53_bettered_too_much_in_flight_is_refused_at_once(dns_socket: Path) -> None:
    async def test(w: World) -> None:
        async with fake_upstream(silent) as dead:
            client = await w.sandbox(upstreams=(upstream(dead.port),))
            with client.connected() as flood:
                for i in range(1100):
                    flood.send(question(f"n{i}.example").pack())
                    if i % 100 == 0:
                        await asyncio.sleep(0.05)
                took, reply = await timed(client, "late.example")
                assert reply.header.rcode == RCODE.REFUSED and took < MOMENT
                assert (await client.ask("web")).rr

    resolve(dns_socket, test)


@pytest.mark.root
def test_1_54_and_1_56_own_servers_are_asked_from_the_sandbox_the_host_s_from_outside(
    dns_socket: Path, netns: Callable[[], str]
) -> None:
    """127.0.0.1 of a `--dns` server is the sandbox's own; that of the host's resolv.conf is the host's."""
    inside = netns()
    subprocess.run(["ip", "netns", "exec", inside, "true"], check=True)
    port = unused_port()
    dnsmasq = subprocess.Popen(
        ["ip", "netns", "exec", inside, "dnsmasq", "-k", "-C", "/dev/null", "--no-resolv", "--no-hosts",
         f"--port={port}", "--listen-address=127.0.0.1", "--bind-interfaces", "--pid-file=",
         "--host-record=in.example,192.0.2.9"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip

    async def test(w: World) -> None:
        async with fake_upstream(address("192.0.2.1")) as outside:
            udp, tcp = sandbox_sockets()
            netns_fd = os.open(f"/run/netns/{inside}", os.O_RDONLY)
            own, host = Upstream(ip_address("127.0.0.1"), port), upstream(outside.port)
            try:
                with udp, tcp:
                    await w.resolver.put_sandbox(View("s1", "s1", ("n1",), upstreams=(own,)), (udp, tcp), netns_fd)
                    client = Client(udp.getsockname()[1], tcp.getsockname()[1])
            finally:
                os.close(netns_fd)
            for _ in range(200):
                if await client.addresses("in.example") == ["192.0.2.9"]:
                    break
                await asyncio.sleep(0.05)
            assert await client.addresses("in.example", tcp=True) == ["192.0.2.9"]
            assert outside.asked == []
            await w.resolver.put_sandbox(View("s1", "s1", ("n1",), upstreams=(host,)))
            assert await client.addresses("a.example") == ["192.0.2.1"]
            # no way out any more: the host's servers are not used, its own still are
            await w.resolver.put_sandbox(View("s1", "s1", ("n1",), upstreams=(host, own), internal=True))
            assert await client.addresses("in.example") == ["192.0.2.9"]
            await w.resolver.put_sandbox(View("s1", "s1", ("n1",), upstreams=(host,), internal=True))
            assert (await client.ask("b.example")).header.rcode == RCODE.SERVFAIL
            assert outside.names == ["a.example."]

    try:
        resolve(dns_socket, test)
    finally:
        dnsmasq.terminate()
        dnsmasq.wait()


def test_1_55_the_resolver_never_asks_itself(dns_socket: Path) -> None:
    async def test(w: World) -> None:
        client = await w.sandbox(upstreams=(Upstream(ip_address("127.0.0.11"), 53),))
        took, reply = await timed(client, "a.example")
        assert reply.header.rcode == RCODE.SERVFAIL and took < MOMENT

    resolve(dns_socket, test)


def test_1_57_with_ndots_set_single_labels_are_left_to_the_search_list(dns_socket: Path) -> None:
    async def test(w: World) -> None:
        async with fake_upstream(address()) as server:
            client = await w.sandbox(upstreams=(upstream(server.port),), options=("ndots:2",))
            for kind in ("A", "AAAA"):
                reply = await client.ask("single", kind)
                assert (reply.header.rcode, reply.rr) == (RCODE.NOERROR, [])
            assert (await client.ask("a.b")).rr
            await client.ask("single", "TXT")
            assert server.names == ["a.b.", "single."]
            for options in ((), ("ndots:0",), ("ndots:x",)):
                other = await w.sandbox("s2", upstreams=(upstream(server.port),), options=options)
                assert (await other.ask("single")).rr

    resolve(dns_socket, test)


def test_rotate_spreads_the_questions(dns_socket: Path) -> None:
    async def test(w: World) -> None:
        async with fake_upstream(address()) as first, fake_upstream(address()) as second:
            both = (upstream(first.port), upstream(second.port))
            client = await w.sandbox(upstreams=both, options=("rotate",))
            for i in range(6):
                await client.ask(f"n{i}.example")
            assert (len(first.asked), len(second.asked)) == (3, 3)

    resolve(dns_socket, test)


def test_an_upstream_on_ipv6_with_a_port(dns_socket: Path) -> None:
    async def test(w: World) -> None:
        async with fake_upstream(address(), address="::1") as server:
            client = await w.sandbox(upstreams=(upstream(server.port, address="::1"),))
            assert (await client.ask("a.example")).rr
            assert (await client.ask("b.example", tcp=True)).rr

    resolve(dns_socket, test)


def test_an_unreachable_server_costs_nothing(dns_socket: Path) -> None:
    async def test(w: World) -> None:
        async with fake_upstream(address()) as good:
            client = await w.sandbox(upstreams=(upstream(unused_port()), upstream(good.port)))
            took, reply = await timed(client, "a.example")
            assert reply.rr and took < MOMENT

    resolve(dns_socket, test)


@pytest.fixture
def dnsmasq() -> Iterator[int]:
    port = unused_port()
    process = subprocess.Popen(
        ["dnsmasq", "-k", "-C", "/dev/null", "--no-resolv", "--no-hosts", f"--port={port}", "--pid-file=",
         "--listen-address=127.0.0.1", "--bind-interfaces", "--host-record=real.example,192.0.2.5,2001:db8::5",
         "--txt-record=real.example,hello", "--local=/example/"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.settimeout(0.2)
        probe.connect(("127.0.0.1", port))
        for _ in range(500):
            with contextlib.suppress(OSError):
                probe.send(question("real.example").pack())
                if probe.recv(512):
                    break
            time.sleep(0.02)
        else:
            pytest.fail("dnsmasq does not answer")
    yield port
    process.terminate()
    process.wait()


def test_a_real_server_behind(dns_socket: Path, dnsmasq: int) -> None:
    async def test(w: World) -> None:
        client = await w.sandbox(upstreams=(upstream(dnsmasq),))
        for tcp in (False, True):
            assert await client.addresses("Real.example", tcp=tcp) == ["192.0.2.5"]
            assert await client.addresses("real.example", "AAAA", tcp=tcp) == ["2001:db8::5"]
            assert await client.addresses("real.example", "TXT", tcp=tcp, edns=1232) == ['"hello"']
            assert (await client.ask("nosuch.example", tcp=tcp)).header.rcode == RCODE.NXDOMAIN

    resolve(dns_socket, test)


def test_1_58_search_domains_are_never_appended(dns_socket: Path) -> None:
    async def test(w: World) -> None:
        async with fake_upstream(address()) as server:
            client = await w.sandbox(upstreams=(upstream(server.port),), search=("corp.example",))
            await client.ask("printer")
            assert server.names == ["printer."]

    resolve(dns_socket, test)


def test_1_44_bettered_an_address_of_ours_is_ours_whatever_upstreams_say_of_it(dns_socket: Path) -> None:
    async def test(w: World) -> None:
        await w.resolver.put_network("n1", "net1", [record("e1", ("web",), "10.0.0.2")])
        async with fake_upstream(address("10.0.0.2")) as server:
            client = await w.sandbox(upstreams=(upstream(server.port),))
            assert await client.addresses("public.example") == ["10.0.0.2"]
            assert await client.addresses("2.0.0.10.in-addr.arpa", "PTR") == ["web.net1."]
            assert server.names == ["public.example."]

    resolve(dns_socket, test)
