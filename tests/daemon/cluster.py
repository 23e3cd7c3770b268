"""Several hosts with nothing in common but a network and a store: for the end-to-end tests of global networks."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.daemon.harness import Daemon, Host, eventually, run

HUB_IP = "10.99.0.254"
STORE_PORT = 2379


class Member(Daemon):
    """A daemon on a host of its own, with a host name of its own."""

    def __init__(self, hub: Hub, number: int, *options: str) -> None:
        self.machine_address = f"{hub.subnet}.{number}"
        self.hostname = f"host{number}"
        super().__init__(
            Host(f"{hub.name}-{number}"),
            f"--cluster-store={hub.kind}://{hub.address}:{STORE_PORT}/netd",
            f"--cluster-advertise={self.machine_address}",
            *options,
        )
        self.hub = hub

    def command(self) -> list[str]:
        inside, daemon = super().command()[:2], super().command()[2:]
        named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.hostname]
        return [*inside, *named, *daemon]

    def cut(self) -> None:
        """Pull the host's cable."""
        run("ip", "link", "set", f"{self.host.name}p", "down")

    def heal(self) -> None:
        """Plug it in again."""
        run("ip", "link", "set", f"{self.host.name}p", "up")
        run("ip", "-n", self.host.name, "route", "replace", "default", "via", self.hub.address)

    def kill_all(self) -> None:
        """End everything that runs on the host at once: the daemon, the resolver, the containers."""
        assert self.process is not None
        self.process.kill()
        while pids := self.processes():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)  # until they have gone
        self.process.wait()

    def power_off(self) -> None:
        """The host is off: what runs, what is mounted and what is in its kernel is gone."""
        self.kill_all()
        run("ip", "link", "del", f"{self.host.name}p")  # a namespace goes only some time after its name
        for path in sorted(self.mounts(), key=len, reverse=True):
            run("umount", "--lazy", path, check=False)
        shutil.rmtree(self.exec_root)
        run("ip", "netns", "del", self.host.name)

    def boot(self) -> None:
        """Switch the host on, for the first time or again."""
        run("ip", "netns", "add", self.host.name)
        run("ip", "-n", self.host.name, "link", "set", "lo", "up")
        self.hub.plug_in(self)
        self.start()

    def containers_on(self, network: str) -> set[str]:
        """The names that `network inspect` shows, of this host and of the others."""
        return {c["Name"] for c in self.get(f"/networks/{network}")["Containers"].values()}

    def reaches(self, container: str, name: str) -> bool:
        """Whether a container gets an answer to a ping by name."""
        return self.exec(container, "ping", "-c1", "-W1", name)[0] == 0


class Hub:
    """The cable between the hosts: a bridge in the test run's own namespace, through which the store is reached.

    Hubs that are there at the same time need subnets of their own.
    """

    def __init__(self, kind: str, store_port: int, subnet: str = "10.99.0") -> None:
        self.kind = {"zookeeper": "zk"}.get(kind, kind)
        self.subnet, self.address = subnet, f"{subnet}.254"
        self.name = f"c{uuid.uuid4().hex[:6]}"
        self._store_port = store_port
        self._members: list[Member] = []

    def make(self) -> None:
        run("ip", "link", "add", self.name, "type", "bridge")
        run("ip", "address", "add", f"{self.address}/24", "dev", self.name)
        run("ip", "link", "set", self.name, "up")
        # the store listens on 127.0.0.1 of this namespace
        Path(f"/proc/sys/net/ipv4/conf/{self.name}/route_localnet").write_text("1")
        rule = f"iifname {self.name} tcp dport {STORE_PORT} dnat to 127.0.0.1:{self._store_port}"
        run("nft", f"table ip {self.name} {{ chain c {{ type nat hook prerouting priority dstnat; {rule}; }}; }}")

    def member(self, number: int, image: Path, *options: str, kind: type[Member] = Member) -> Member:
        """A host with a running daemon, which gets these options beside the cluster's."""
        member = kind(self, number, *options)
        self._members.append(member)
        member.boot()
        member.import_image(image)
        return member

    def plug_in(self, member: Member) -> None:
        """Give a host its network card and cable."""
        host = member.host.name
        run("ip", "link", "add", f"{host}p", "type", "veth", "peer", "eth0", "netns", host)
        run("ip", "link", "set", f"{host}p", "master", self.name, "up")
        run("ip", "-n", host, "address", "add", f"{member.machine_address}/24", "dev", "eth0")
        run("ip", "-n", host, "link", "set", "eth0", "up")
        run("ip", "-n", host, "route", "add", "default", "via", self.address)

    def block_store(self, *, blocked: bool) -> None:
        """Cut every host from the store, or let them reach it again."""
        verb = ("insert", "rule") if blocked else ("flush", "chain")
        run("nft", "add", "chain", "ip", self.name, "cut", "{ type filter hook prerouting priority -300; }")
        rule = ("iifname", self.name, "tcp", "dport", str(STORE_PORT), "drop") if blocked else ()
        run("nft", *verb, "ip", self.name, "cut", *rule)

    def remove(self) -> None:
        for member in self._members:
            member.remove()
            member.host.remove()
        run("nft", "delete", "table", "ip", self.name, check=False)
        run("ip", "link", "del", self.name, check=False)


def everywhere(members: Sequence[Member], network: str, names: set[str]) -> None:
    """Wait until `network inspect` shows these containers on every host."""
    eventually(lambda: all(m.containers_on(network) == names for m in members), within=5)


def overlay(member: Member, name: str, **more: Any) -> str:
    """Create a global network."""
    return member.network(name, Driver="overlay", **more)
