"""What no peer has: wildcards, static records, services, private networks, split DNS, explain and the log."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from dnslib import QTYPE, RCODE

from dns.client import LogEntry, ResolverError, Route
from dns.control import Port
from tests.dns.helpers import Client, World, address, failing, fake_upstream, record, upstream, world


def resolve(dns_socket: Path, test: Callable[[World, Client], Awaitable[None]], **options: str) -> None:
    async def run() -> None:
        async with world(dns_socket) as w:
            web = record("e1", ("web", "*.app"), "10.0.0.2", "fd00::2", ports=(Port(80), Port(53, "udp")))
            await w.resolver.put_network("n1", "net1", [web], options, subnets=["10.0.0.0/20", "fd00::/64"])
            await test(w, await w.sandbox())

    asyncio.run(run())


def test_1_26_bettered_a_wildcard_alias_stands_for_every_name_below(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        for name in ("x.app", "a.b.APP", "x.app.net1"):
            assert await client.addresses(name) == ["10.0.0.2"]
        for name in ("app", "xapp", "app.x"):
            assert (await client.ask(name)).header.rcode == RCODE.SERVFAIL
        await w.resolver.join("n1", record("e2", ("one.app", "*.deep.app"), "10.0.0.3"))
        assert await client.addresses("one.app") == ["10.0.0.3"]  # a name of its own comes first
        assert await client.addresses("x.deep.app") == ["10.0.0.3"]  # and the closer wildcard
        assert (await client.ask("y.one.app")).header.rcode == RCODE.SERVFAIL  # RFC 4592: closest encloser
        await w.resolver.leave("n1", "e2")
        assert await client.addresses("x.deep.app") == ["10.0.0.2"]

    resolve(dns_socket, test)


def test_1_40_bettered_srv_finds_exposed_ports(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        reply = await client.ask("_80._TCP.web", "SRV")
        assert [str(rr.rdata) for rr in reply.rr] == ["0 0 80 web.net1."]
        assert {str(rr.rdata) for rr in reply.ar} == {"10.0.0.2", "fd00::2"}
        assert [str(rr.rdata) for rr in (await client.ask("_53._udp.web.net1", "SRV")).rr] == ["0 0 53 web.net1."]
        assert (await client.ask("_81._tcp.web", "SRV")).header.rcode == RCODE.SERVFAIL
        nothing = await client.ask("_80._tcp.web", "A")
        assert (nothing.header.rcode, nothing.rr) == (RCODE.NOERROR, [])

    resolve(dns_socket, test)


def test_static_records_from_an_option_and_one_by_one(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        assert await client.addresses("fixed") == ["192.0.2.1"]
        assert [rr.ttl for rr in (await client.ask("fixed")).rr] == [10]
        assert await client.addresses("note", "TXT") == ['"hello world"']
        await w.resolver.put_record("n1", "note 77 IN TXT again")
        reply = await client.ask("note", "TXT")
        assert {rr.ttl for rr in reply.rr} == {10, 77}
        await w.resolver.put_record("n1", "short IN CNAME Web")
        reply = await client.ask("SHORT.net1")
        assert [(QTYPE[rr.rtype], str(rr.rdata)) for rr in reply.rr] == [("CNAME", "Web."), ("A", "10.0.0.2")]
        await w.resolver.delete_record("n1", "note", "TXT")
        assert (await client.ask("note", "TXT")).header.rcode == RCODE.SERVFAIL

    resolve(dns_socket, test, **{"netd.dns.records": "fixed IN A 192.0.2.1; note IN TXT 'hello world'"})


def test_a_static_alias_that_leads_outside_is_followed(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        async with fake_upstream(address("192.0.2.9")) as server:
            outside = await w.sandbox("s2", upstreams=(upstream(server.port),))
            await w.resolver.put_record("n1", "ext IN CNAME www.example.org")
            for tcp in (False, True):
                reply = await outside.ask("ext", tcp=tcp)
                assert [str(rr.rdata) for rr in reply.rr] == ["www.example.org.", "192.0.2.9"]
                assert [str(rr.rname) for rr in reply.rr] == ["ext.", "www.example.org."]

    resolve(dns_socket, test)


def test_aliases_in_a_circle_end(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        await w.resolver.put_record("n1", "a IN CNAME b")
        await w.resolver.put_record("n1", "b IN CNAME a")
        assert len((await client.ask("a")).rr) == 8

    resolve(dns_socket, test)


@pytest.mark.parametrize(
    "line", ["", "x", "x IN A nonsense", "x IN NOSUCH 1", "x CH TXT a", "a IN A 1.2.3.4\nb IN A 1.2.3.4"]
)
def test_a_malformed_record_is_an_error_with_a_reason(dns_socket: Path, line: str) -> None:
    async def test(w: World, client: Client) -> None:
        with pytest.raises(ResolverError, match="record"):
            await w.resolver.put_record("n1", line)
        assert await client.addresses("web") == ["10.0.0.2"]

    resolve(dns_socket, test)


def test_the_ttl_is_the_network_s(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        assert [rr.ttl for rr in (await client.ask("web")).rr] == [3]
        with pytest.raises(ResolverError, match=r"netd\.dns\.ttl"):
            await w.resolver.put_network("n1", "net1", [], {"netd.dns.ttl": "soon"})

    resolve(dns_socket, test, **{"netd.dns.ttl": "3"})


def test_a_private_network_leaks_no_single_labels_and_none_of_its_addresses(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        async with fake_upstream(address()) as server:
            inside = await w.sandbox("s2", upstreams=(upstream(server.port),))
            for name, kind in (("nosuch", "A"), ("nosuch", "TXT"), ("9.15.0.10.in-addr.arpa", "PTR")):
                reply = await inside.ask(name, kind)
                assert (reply.header.rcode, len(reply.auth)) == (RCODE.NXDOMAIN, 1)
            assert server.asked == []
            await inside.ask("two.labels")
            await inside.ask("9.16.0.10.in-addr.arpa", "PTR")
            assert len(server.asked) == 2

    resolve(dns_socket, test, **{"netd.dns.private": "true"})


def test_split_dns_by_the_longest_suffix(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        async with (
            fake_upstream(address("192.0.2.1")) as default,
            fake_upstream(address("192.0.2.2")) as corp,
            fake_upstream(address("192.0.2.3")) as lab,
        ):
            routes = (Route("corp.example", (upstream(corp.port),)), Route("lab.corp.example", (upstream(lab.port),)))
            split = await w.sandbox("s2", upstreams=(upstream(default.port),), routes=routes)
            for name, expected in (
                ("a.example", "192.0.2.1"),
                ("CORP.example", "192.0.2.2"),
                ("a.corp.example", "192.0.2.2"),
                ("x.lab.corp.example", "192.0.2.3"),
                ("notcorp.example", "192.0.2.1"),
            ):
                assert await split.addresses(name) == [expected]

    resolve(dns_socket, test)


def test_explain_tells_the_rule_and_why_not_the_others(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        await w.resolver.put_network("n2", "net2", [record("x", ("far",), "10.1.0.1")])
        await w.sandbox("s2", "n1", "n2", upstreams=(upstream(5353),), links={"n1": {"w": "web"}})
        local = await w.resolver.explain("s2", "far")
        assert (local.source, local.steps[-1].answers) == ("local", True)
        assert "net2" in local.steps[-1].rule and "10.1.0.1" in local.records[0]
        kernel = ["left to the resolver: a network has wildcards"] if w.in_kernel else []
        assert [step.outcome for step in local.steps[:-2]] == [*kernel, "no such name"]
        assert "link" in (await w.resolver.explain("s2", "w")).steps[-1].rule
        assert "NODATA" in (await w.resolver.explain("s2", "far", "TXT")).steps[-1].outcome
        outside = await w.resolver.explain("s2", "example.org")
        assert outside.source == "upstream" and "127.0.0.1:5353" in outside.steps[-1].rule
        assert (await w.resolver.explain("s1", "example.org")).source == "none"
        for sandbox, kind in (("nosuch", "A"), ("s1", "NOSUCH")):
            with pytest.raises(ResolverError, match=r"nosuch|NOSUCH"):
                await w.resolver.explain(sandbox, "web", kind)

    resolve(dns_socket, test)


def test_the_log_tells_client_answer_source_and_latency(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        async with fake_upstream(address()) as server:
            talker = await w.sandbox("talker", upstreams=(upstream(server.port),))
            entries = []

            async def collect() -> None:
                async for entry in w.resolver.follow("talker"):
                    entries.append(entry)  # noqa: PERF401  each as it comes

            def wanted() -> list[LogEntry]:
                return [entry for entry in entries if entry.name in ("web.", "log.example.")]

            following = asyncio.ensure_future(collect())
            async with asyncio.timeout(10):
                while not entries:
                    await talker.ask("ready", tcp=True)
                for _ in range(2):
                    await talker.ask("web")
                    await talker.ask("log.example", tcp=True)
                await client.ask("web")
                while len(wanted()) < 4 or [e.name for e in entries].count("last.example.") < 2:
                    await talker.ask("last.example")
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            told = sorted(wanted(), key=lambda entry: entry.time)
            here = "kernel" if w.in_kernel else "local"
            assert [(e.container, e.name, e.type, e.rcode, e.source, e.transport) for e in told] == [
                ("talker", "web.", "A", "NOERROR", here, "udp"),
                ("talker", "log.example.", "A", "NOERROR", "upstream", "tcp"),
                ("talker", "web.", "A", "NOERROR", here, "udp"),
                ("talker", "log.example.", "A", "NOERROR", "cache", "tcp"),
            ]
            assert all(e.client == "127.0.0.1" and 0 < e.latency < 1 and e.records == 1 for e in told)

    resolve(dns_socket, test)


def test_a_zone_file_is_served_without_a_daemon(tmp_path: Path) -> None:
    zone = tmp_path / "zone"
    zone.write_text(
        "$ORIGIN lab.\n$TTL 30\nhost IN A 192.0.2.1 ; comment\nhost IN AAAA 2001:db8::1\n*.w IN CNAME host\n"
    )
    command = [sys.executable, "-P", "-m", "dns", "--zone", str(zone), "--listen"]

    async def run() -> None:
        process = await asyncio.create_subprocess_exec(*command, "127.0.0.1:0", stderr=subprocess.PIPE)
        assert process.stderr is not None
        port = int((await process.stderr.readline()).split()[-1])
        client = Client(port, port)
        try:
            assert await client.addresses("host.lab") == ["192.0.2.1"]
            assert await client.addresses("x.w.lab", "AAAA", tcp=True) == ["2001:db8::1"]
            assert await client.addresses("1.2.0.192.in-addr.arpa", "PTR") == ["host.lab."]
            assert (await client.ask("nosuch.lab")).header.rcode == RCODE.SERVFAIL
        finally:
            process.terminate()
            await process.wait()

    asyncio.run(run())
    assert subprocess.run([*command, "nonsense"], capture_output=True).returncode == 2


def test_a_failing_split_server_does_not_fall_back_to_the_default(dns_socket: Path) -> None:
    async def test(w: World, client: Client) -> None:
        async with fake_upstream(address()) as default, fake_upstream(failing(RCODE.REFUSED)) as corp:
            routes = (Route("corp.example", (upstream(corp.port),)),)
            split = await w.sandbox("s2", upstreams=(upstream(default.port),), routes=routes)
            assert (await split.ask("a.corp.example")).header.rcode == RCODE.SERVFAIL
            assert default.asked == []

    resolve(dns_socket, test)
