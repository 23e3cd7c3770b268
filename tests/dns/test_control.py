"""The process and its client: descriptors, restarts of either side, cost at a thousand sandboxes."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dnslib import RCODE

from dns import client as daemon_side
from dns.client import Resolver, ResolverAway, ResolverError, View
from tests.dns.helpers import Client, end, question, record, sandbox_sockets, world


def test_the_resolver_outlives_its_client_and_is_found_again(dns_socket: Path) -> None:
    async def run() -> None:
        async with world(dns_socket) as w:
            await w.resolver.put_network("n1", "net1", [record("e1", ("web",), "10.0.0.2")])
            client = await w.sandbox("s1")
            pid = (await w.resolver.state()).pid
            await w.resolver.close()
            assert await client.addresses("web") == ["10.0.0.2"]
            again = await Resolver.connect(dns_socket)
            state = await again.state()
            assert (state.pid, state.networks) == (pid, {"n1"})
            assert (state.sandboxes["s1"].udp, state.sandboxes["s1"].tcp) == (client.udp, client.tcp)
            # the view changes, the sockets stay
            await again.put_network("n2", "net2", [record("e2", ("other",), "10.1.0.2")])
            await again.put_sandbox(View("s1", "s1", ("n2",)))
            assert await client.addresses("other") == ["10.1.0.2"]
            w.resolver = again

    asyncio.run(run())


def test_a_table_is_replaced_in_one_step_under_load(dns_socket: Path) -> None:
    async def run() -> None:
        async with world(dns_socket) as w:
            records = [record(f"e{i}", (f"c{i}",), f"10.0.0.{i}") for i in range(100)]
            await w.resolver.put_network("n1", "net1", records)
            client = await w.sandbox("s1")
            done = asyncio.Event()

            async def storm() -> int:
                asked = 0
                while not done.is_set():
                    assert await client.addresses(f"c{asked % 100}") == [f"10.0.0.{asked % 100}"]
                    asked += 1
                return asked

            load = asyncio.ensure_future(storm())
            for i in range(100):
                await w.resolver.put_network("n1", "net1", records)
                await w.resolver.join("n1", record(f"x{i}", (f"x{i}",), "10.9.9.9"))
                await w.resolver.leave("n1", f"x{i}")
            done.set()
            assert await load > 10

    asyncio.run(run())


def test_static_records_resolve_at_every_moment_of_a_resync(dns_socket: Path) -> None:
    """What a daemon tells at its start, again and again, from a connection of its own each time."""

    async def run() -> None:
        async with world(dns_socket) as w:
            records = [record(f"e{i}", (f"c{i}",), f"10.0.0.{i}") for i in range(50)]
            static = ["db 60 IN A 10.1.2.3", "info 60 IN TXT text", "alias 60 IN CNAME db"]
            await w.resolver.put_network("n1", "net1", records, static=static)
            client = await w.sandbox("s1")
            done = asyncio.Event()

            async def storm() -> int:
                asked = 0
                while not done.is_set():
                    for name in ("db", "db.net1", "alias", "c7"):
                        expected = ["10.0.0.7"] if name == "c7" else ["10.1.2.3"]
                        assert await client.addresses(name) == expected
                    asked += 1
                return asked

            load = asyncio.ensure_future(storm())
            for round in range(100):
                daemon = await Resolver.connect(dns_socket)
                more = [record("x", (f"x{round}",), "10.9.9.9")] if round % 2 else []  # each table is another
                await daemon.put_network("n1", "net1", [*records, *more], static=static)
                await daemon.put_sandbox(View("s1", "s1", ("n1",)))
                await daemon.close()
                assert not load.done()
            done.set()
            assert await load > 10

    asyncio.run(run())


def test_a_record_that_is_told_twice_is_there_once(dns_socket: Path) -> None:
    async def run() -> None:
        async with world(dns_socket) as w:
            await w.resolver.put_network("n1", "net1", (), static=["db 60 IN A 10.1.2.3"])
            client = await w.sandbox("s1")
            await w.resolver.put_record("n1", "db 60 IN A 10.1.2.3")
            assert await client.addresses("db") == ["10.1.2.3"]
            await w.resolver.put_network("n1", "net1", ())
            assert await client.addresses("db") == []

    asyncio.run(run())


def test_one_bad_static_record_keeps_no_other_name_from_being_served(dns_socket: Path) -> None:
    async def run() -> None:
        async with world(dns_socket) as w:
            static = ["db 60 IN A not-an-address", "db 60 IN A 10.1.2.3"]
            await w.resolver.put_network("n1", "net1", [record("e1", ("web",), "10.0.0.2")], static=static)
            client = await w.sandbox("s1")
            assert await client.addresses("db") == ["10.1.2.3"]
            assert await client.addresses("web") == ["10.0.0.2"]

    asyncio.run(run())


def test_a_process_that_hangs_is_waited_for_and_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon's start does not fail for it; what is asked meanwhile is refused in time."""

    async def run() -> None:
        first = await Resolver.connect(tmp_path / "dns.sock")
        pid = (await first.state()).pid
        os.kill(pid, signal.SIGSTOP)
        try:
            for patience in ("START_TIMEOUT", "CALL_TIMEOUT"):
                monkeypatch.setattr(daemon_side, patience, 0.3)
            second = await Resolver.connect(tmp_path / "dns.sock")
            assert second.lost.is_set()
            found = asyncio.Event()
            second.on_lost(found.set)
            with pytest.raises(ResolverAway):
                await second.state()
        finally:
            os.kill(pid, signal.SIGCONT)
            monkeypatch.undo()
        async with asyncio.timeout(10):
            await found.wait()
            assert (await second.state()).pid == pid
        for resolver in (first, second):
            await resolver.close()

    asyncio.run(run())
    end(tmp_path / "dns.sock")


def test_a_message_cut_off_half_way_does_not_spoil_those_that_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process stands still, the socket is full, the daemon gives up: then it goes on."""

    async def run() -> None:
        resolver = await Resolver.connect(tmp_path / "dns.sock")
        pid = (await resolver.state()).pid
        huge = [record(f"e{i}", (f"c{i}", "n" * 60), "10.0.0.2") for i in range(20_000)]
        monkeypatch.setattr(daemon_side, "CALL_TIMEOUT", 0.3)
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(ResolverAway):
                await resolver.put_network("n1", "net1", huge)
        finally:
            os.kill(pid, signal.SIGCONT)
        monkeypatch.setattr(daemon_side, "CALL_TIMEOUT", 5.0)
        await resolver.put_network("n2", "net2", [record("e1", ("web",), "10.0.0.2")])
        state = await resolver.state()
        assert (state.pid, state.networks) == (pid, {"n2"})
        await resolver.close()

    asyncio.run(run())
    log = (tmp_path / "dns.log").read_text()
    assert "cannot be read" not in log, log
    end(tmp_path / "dns.sock")


@pytest.mark.skipif(shutil.which("dnsperf") is None, reason="needs dnsperf")
def test_no_question_is_lost_while_daemons_come_and_go_and_networks_change(dns_socket: Path, tmp_path: Path) -> None:
    async def run() -> None:
        async with world(dns_socket) as w:
            records = [record(f"e{i}", (f"c{i}",), f"10.0.0.{i}") for i in range(100)]
            await w.resolver.put_network("n1", "net1", records)
            client = await w.sandbox("s1")
            questions = tmp_path / "questions"
            questions.write_text("".join(f"c{i} A\nC{i}.net1 AAAA\n" for i in range(100)))
            command = client.dnsperf("-d", questions, "-l", "2", "-Q", "3000")
            load = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            ended = asyncio.ensure_future(load.communicate())
            for round in range(1000):
                if ended.done():
                    break
                daemon = await Resolver.connect(dns_socket)
                await daemon.put_network("n1", "net1", records)
                await daemon.put_sandbox(View("s1", "s1", ("n1",)))
                await daemon.join("n1", record(f"x{round}", ("x",), "10.9.9.9"))
                await daemon.close()
                await asyncio.sleep(0.005)
            said, _ = await ended
            assert b"Queries lost:         0 " in said and b"NOERROR" in said
            assert b"SERVFAIL" not in said

    asyncio.run(run())


def test_a_killed_process_is_back_within_two_seconds_and_says_so(tmp_path: Path) -> None:
    async def run() -> None:
        resolver = await Resolver.connect(tmp_path / "dns.sock")
        told = asyncio.Event()
        resolver.on_lost(told.set)
        udp, tcp = sandbox_sockets()
        with udp, tcp:
            await resolver.put_sandbox(View("s1", "s1"), (udp, tcp))
            start = time.monotonic()
            os.kill((await resolver.state()).pid, signal.SIGKILL)
            async with asyncio.timeout(2):
                await told.wait()
            assert (await resolver.state()).sandboxes == {}
            assert not resolver.lost.is_set()
            # the sockets were kept by the daemon: the very same ports answer again
            await resolver.put_network("n1", "net1", [record("e1", ("web",), "10.0.0.2")])
            await resolver.put_sandbox(View("s1", "s1", ("n1",)), (udp, tcp))
            client = Client(udp.getsockname()[1], tcp.getsockname()[1])
            assert await client.addresses("web") == ["10.0.0.2"]
            assert time.monotonic() - start < 2
        await resolver.close()

    asyncio.run(run())
    end(tmp_path / "dns.sock")


def test_a_process_that_nobody_needs_ends(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from dns.process import run; run(Path({str(tmp_path / 'dns.sock')!r}), 0.2)"
    process = subprocess.Popen([sys.executable, "-P", "-c", code])

    async def run() -> None:
        resolver = await Resolver.connect(tmp_path / "dns.sock", start=False)
        await asyncio.sleep(0.6)  # a daemon is there
        udp, tcp = sandbox_sockets()
        with udp, tcp:
            await resolver.put_sandbox(View("s1", "s1"), (udp, tcp))
        await resolver.close()
        await asyncio.sleep(0.6)  # a sandbox is there
        resolver = await Resolver.connect(tmp_path / "dns.sock", start=False)
        await resolver.delete_sandbox("s1")
        await resolver.close()

    while not (tmp_path / "dns.sock").exists():
        time.sleep(0.01)
    asyncio.run(run())
    assert process.wait(5) == 0
    assert not (tmp_path / "dns.sock").exists()


def test_two_daemons_that_start_at_once_share_one_process(tmp_path: Path) -> None:
    async def run() -> None:
        both = await asyncio.gather(*(Resolver.connect(tmp_path / "dns.sock") for _ in range(2)))
        assert len({(await resolver.state()).pid for resolver in both}) == 1
        for resolver in both:
            await resolver.close()

    asyncio.run(run())
    end(tmp_path / "dns.sock")


def test_without_a_process_a_call_fails_with_a_reason(tmp_path: Path) -> None:
    async def run() -> None:
        with pytest.raises(ResolverError, match="cannot be reached"):
            await Resolver.connect(tmp_path / "dns.sock", start=False)

    asyncio.run(run())


def test_errors_are_told_and_change_nothing(dns_socket: Path) -> None:
    async def run() -> None:
        async with world(dns_socket) as w:
            with pytest.raises(ResolverError, match="'nosuch' is not known"):
                await w.resolver.join("nosuch", record("e1", ("web",), "10.0.0.2"))
            with pytest.raises(ResolverError, match="no sockets"):
                await w.resolver.put_sandbox(View("s9", "s9"))
            with pytest.raises(ResolverError, match="neither true nor false"):
                await w.resolver.put_network("n1", "net1", [], {"netd.dns.private": "perhaps"})
            await w.resolver.leave("nosuch", "e1")
            await w.resolver.delete_network("nosuch")
            await w.resolver.delete_sandbox("nosuch")
            assert (await w.resolver.state()).networks == set()

    asyncio.run(run())


def test_garbage_on_the_control_socket_ends_that_connection_only(dns_socket: Path) -> None:
    async def run() -> None:
        async with world(dns_socket) as w:
            for junk in (b"\0\0\0\x04junk", b"\xff\xff\xff\xff", b"GET / HTTP/1.1\r\n\r\n"):
                reader, writer = await asyncio.open_unix_connection(dns_socket)
                writer.write(junk)
                async with asyncio.timeout(2):
                    assert await reader.read() == b""
                writer.close()
            assert (await w.resolver.state()).pid

    asyncio.run(run())
    # told in the log as an error, which the fixture would take for a failure of the test
    log = dns_socket.with_suffix(".log")
    assert log.read_text().count("cannot be read") == 3
    log.write_text("")


def test_deleting_a_sandbox_closes_its_sockets(dns_socket: Path) -> None:
    async def run() -> None:
        async with world(dns_socket) as w:
            client = await w.sandbox("s1")
            await w.resolver.delete_sandbox("s1")
            with pytest.raises(ConnectionRefusedError):
                await client.ask("web")
            with pytest.raises(ConnectionRefusedError):
                await client.ask("web", tcp=True)

    asyncio.run(run())


def memory(pid: int) -> float:
    """Resident MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def test_a_thousand_sandboxes_on_one_network(dns_socket: Path) -> None:
    """A join is seen by every sandbox at once and costs what the first one cost; below 150 MiB."""

    async def run() -> None:
        async with world(dns_socket) as w:
            await w.resolver.put_network("n1", "net1", [])
            clients = []
            for i in range(1000):
                clients.append(await w.sandbox(f"s{i}"))
                names = (f"c{i}", f"{i:012x}", "all")
                await w.resolver.join("n1", record(f"e{i}", names, f"10.0.{i // 250}.{i % 250}", f"fd00::{i:x}"))
            for i in range(0, 1000, 10):
                assert await clients[i].addresses(f"c{999 - i}")
            start = time.perf_counter()
            for i in range(100):
                await w.resolver.join("n1", record(f"j{i}", (f"j{i}",), "10.1.0.1"))
            assert (time.perf_counter() - start) / 100 < 0.01
            for client in clients[::100]:
                assert await client.addresses("j99") == ["10.1.0.1"]
            assert memory((await w.resolver.state()).pid) < 150

    asyncio.run(run())


def test_a_name_from_a_user_reaches_the_log_escaped(dns_socket: Path) -> None:
    async def run() -> None:
        async with world(dns_socket) as w:
            nasty = "new\nline \x1b[31m\u202e"
            udp, tcp = sandbox_sockets()
            with udp, tcp:
                await w.resolver.put_sandbox(View("s1", nasty, ()), (udp, tcp))
                client = Client(udp.getsockname()[1], tcp.getsockname()[1])
            entries = w.resolver.follow()
            first = asyncio.ensure_future(anext(entries))
            query = question("x")
            query.q.qname.label = (b"a\nb.\x1b\\\xff",)
            async with asyncio.timeout(10):
                while not first.done():
                    assert (await client.exchange(query.pack()))[3] & 15 == RCODE.SERVFAIL
            entry = await first
            await entries.aclose()
            assert entry.name == "a\\010b\\046\\027\\092\\255."
            assert entry.container.isprintable() and entry.container.isascii()

    asyncio.run(run())


def test_descriptors_do_not_leak(dns_socket: Path) -> None:
    async def run() -> None:
        async with world(dns_socket) as w:
            pid = (await w.resolver.state()).pid

            def count() -> int:
                return len(os.listdir(f"/proc/{pid}/fd"))

            before = count()
            for _ in range(5):
                udp, tcp = sandbox_sockets()
                namespace = os.open("/proc/self/ns/net", os.O_RDONLY)
                with udp, tcp:
                    for _ in range(2):
                        await w.resolver.put_sandbox(View("s1", "s1"), (udp, tcp), namespace)
                        await w.resolver.put_sandbox(View("s1", "s1"), None, namespace)
                os.close(namespace)
                await w.resolver.delete_sandbox("s1")
            assert count() == before

    asyncio.run(run())
