"""The control channel between two real hosts (namespaces joined by a cable): paths, and early news."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from netd.cluster.channel import Channel
from netd.cluster.channel import Path as Way
from netd.cluster.model import HostRecord
from netd.config.cluster import CONTROL_PORT

pytestmark = pytest.mark.root

HOST = Path(__file__).with_name("channel_host.py")
ONE, TWO = ("one", "127.0.0.120"), ("two", "127.0.0.121")


class Talker:
    """One end of the channel in a process of its own; every line it prints is a JSON object."""

    def __init__(self, netns: str, name: str, address: str, other: str, there: str) -> None:
        self.netns, self.name = netns, name
        command = ["ip", "netns", "exec", netns, sys.executable, str(HOST), name, address, other, there]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._lines = self._process.stdout

    def says(self) -> dict[str, Any]:
        line = self._lines.readline()
        assert line, "it has ended"
        said: dict[str, Any] = json.loads(line)
        return said

    def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        for _ in range(50):
            if condition(said := self.says()):
                return said
        raise AssertionError("it never said so")

    def asks(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(params=[("192.0.2.1", "192.0.2.2", 24), ("fd00::1", "fd00::2", 64)], ids=["ipv4", "ipv6"])
def talkers(request: pytest.FixtureRequest, netns: Callable[[], str]) -> Iterator[tuple[Talker, Talker]]:
    first, second, length = request.param
    a, b = netns(), netns()
    ip("link", "add", "eth0", "netns", a, "type", "veth", "peer", "name", "eth0", "netns", b)
    for name, address in ((a, first), (b, second)):
        ip("-n", name, "address", "add", f"{address}/{length}", "dev", "eth0", *(("nodad",) if ":" in address else ()))
        ip("-n", name, "link", "set", "eth0", "up")
    made = (Talker(a, "a", first, "b", second), Talker(b, "b", second, "a", first))
    yield made
    for talker in made:
        talker.stop()


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def drop(netns: str, rule: str) -> None:
    for command in (
        "add table inet t",
        "add chain inet t in { type filter hook input priority 0; }",
        f"add rule inet t in {rule} drop",
    ):
        subprocess.run(["ip", "netns", "exec", netns, "nft", command], check=True)


def test_a_free_way_is_found_free_both_ways_at_full_size(talkers: tuple[Talker, Talker]) -> None:
    for talker in talkers:
        said = talker.until(lambda said: said["problem"] == "")
        assert said["full"]
        assert said["size"] == 1500
        assert abs(said["skew"]) < 1, "one clock, on a busy machine"


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("udp dport 4789", "UDP port 4789 to host b"),
        ("udp dport 4789 meta length > 1400", "packets of 1500 bytes to host b"),
        ("udp dport 7946", "UDP port 7946 to host b"),
        ("tcp dport 7946", "TCP port 7946 to host b"),
    ],
)
def test_what_is_in_the_way_is_named(talkers: tuple[Talker, Talker], rule: str, told: str) -> None:
    here, there = talkers
    for talker in talkers:
        talker.until(lambda said: said["problem"] == "")
    drop(there.netns, rule)
    said = here.until(lambda said: bool(said["problem"]))
    assert said["problem"].startswith(told)
    if "7946" not in rule:
        said = there.until(lambda said: said["either"].startswith(f"a says: {told}"))
        assert said["problem"] == "", "the way back is free"


def test_endpoints_are_told_directly(talkers: tuple[Talker, Talker]) -> None:
    here, there = talkers
    for talker in talkers:
        talker.until(lambda said: said["problem"] == "")
    here.asks("put web")
    assert there.until(lambda said: "endpoint" in said) == {"endpoint": "web", "gone": False}
    here.asks("gone web")
    assert there.until(lambda said: "endpoint" in said) == {"endpoint": "web", "gone": True}


def test_a_host_that_is_down_is_said_to_be() -> None:
    assert Way("b").problem("192.0.2.2") == (
        "host b (192.0.2.2) does not answer on port 7946: it is down, or the port is blocked"
    )
    assert "clock of host b (192.0.2.2) is 7 s behind" in Way("b", True, True, True, True, skew=-7).problem("192.0.2.2")


@pytest.mark.parametrize("steps", range(8))
def test_a_channel_that_closes_while_somebody_connects_leaves_no_connection_open(steps: int) -> None:
    me, other = (HostRecord(name=n, id=n, advertise=a, version="", started=0.0) for n, a in (ONE, TWO))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        channel = Channel(me, lambda: {"one": me, "two": other}, cast(Any, None))
        await channel.open(probes=False)
        with socket.create_connection((me.advertise, CONTROL_PORT), source_address=(other.advertise, 0)) as caller:
            caller.setblocking(False)
            for _ in range(steps):
                await asyncio.sleep(0)
            await channel.close()
            with contextlib.suppress(ConnectionResetError):
                async with asyncio.timeout(5):
                    assert await loop.sock_recv(caller, 1) == b""

    asyncio.run(main())
