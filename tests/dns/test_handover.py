"""An upgrade: a resolver process of another version gives way to a new one, and no question is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dns.client import Resolver, View
from tests.dns.helpers import World, address, end, fake_upstream, record, upstream

OLD = """
import sys
from pathlib import Path
from dns import control, process
control.VERSION = "older"
{more}
process.run(Path(sys.argv[1]))
"""
DEAF = "def retire(self): raise ValueError('what?')\nprocess.ControlServer.retire = retire"


@contextlib.contextmanager
def old_process(path: Path, more: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """A resolver process of another version."""
    process = subprocess.Popen([sys.executable, "-P", "-c", OLD.format(more=more), str(path)])
    try:
        while not path.exists():
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.wait()


async def set_up(path: Path) -> World:
    """A network told to the old process by the daemon before the upgrade."""
    before = World(await Resolver.connect(path, start=False))
    await before.resolver.put_network("n1", "net1", [record("e1", ("web",), "10.0.0.2")])
    return before


@pytest.mark.skipif(shutil.which("dnsperf") is None, reason="needs dnsperf")
def test_no_question_is_lost_when_the_resolver_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "dns.sock"
    (tmp_path / "questions").write_text("web A\nWEB.net1 AAAA\n2.0.0.10.in-addr.arpa PTR\nslow.example A\n")

    async def run(old: subprocess.Popen[bytes]) -> None:
        async with fake_upstream(address("192.0.2.9", delay=0.3, ttl=0)) as server:
            before = await set_up(path)
            client = await before.sandbox("s1", upstreams=(upstream(server.port),))
            command = ["dnsperf", "-s", "127.0.0.1", "-p", str(client.udp), "-d", str(tmp_path / "questions")]
            load = await asyncio.create_subprocess_exec(
                *command,
                *("-l", "5", "-Q", "1000", "-q", "2000", "-c", "10", "-t", "4"),
                stdout=asyncio.subprocess.PIPE,
            )
            await asyncio.sleep(1)
            await before.resolver.close()
            resolver = await Resolver.connect(path)
            state = await resolver.state()
            assert state.pid != old.pid
            assert (state.sandboxes["s1"].udp, state.sandboxes["s1"].tcp) == (client.udp, client.tcp)
            # what a daemon does at its start: networks first
            await resolver.put_network("n1", "net1", [record("e1", ("web",), "10.0.0.2")])
            ports = await resolver.put_sandbox(View("s1", "s1", ("n1",), upstreams=(upstream(server.port),)))
            assert (ports.udp, ports.tcp) == (client.udp, client.tcp)
            said = (await load.communicate())[0].decode()
            assert re.search(r"Queries lost: +0 ", said) and re.search(r"NOERROR \d+ \(100", said), said
            assert await client.addresses("web", tcp=True) == ["10.0.0.2"]
            assert (await resolver.state()).queries > 100
            await resolver.close()
        assert await asyncio.to_thread(old.wait, 8) == 0

    with old_process(path) as old:
        asyncio.run(run(old))
    end(path)


def test_what_the_new_daemon_does_not_want_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "dns.sock"

    async def run(old: subprocess.Popen[bytes]) -> None:
        before = await set_up(path)
        client = await before.sandbox("s1")
        await before.resolver.close()
        resolver = await Resolver.connect(path)
        await resolver.delete_sandbox("s1")
        assert (await resolver.state()).sandboxes == {}
        await resolver.close()
        assert await asyncio.to_thread(old.wait, 8) == 0
        with pytest.raises(ConnectionRefusedError):
            await client.ask("web")

    with old_process(path) as old:
        asyncio.run(run(old))
    end(path)


def test_a_process_that_cannot_hand_over_is_ended_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "dns.sock"

    async def run(old: subprocess.Popen[bytes]) -> None:
        before = await set_up(path)
        await before.sandbox("s1")
        start = time.monotonic()
        resolver = await Resolver.connect(path)
        assert time.monotonic() - start < 2
        state = await resolver.state()
        assert (state.sandboxes, state.networks) == ({}, set())  # as after a crash: the daemon opens new sockets
        await resolver.close()
        await before.resolver.close()

    with old_process(path, DEAF) as old:
        asyncio.run(run(old))
        assert old.wait(2) == 0
    end(path)


def test_the_same_version_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "dns.sock"

    async def run() -> None:
        pids = set()
        for _ in range(2):
            resolver = await Resolver.connect(path)
            pids.add((await resolver.state()).pid)
            await resolver.close()
        assert len(pids) == 1
        assert os.getpid() not in pids

    asyncio.run(run())
    end(path)
