"""Real ensembles of three members, each on a machine of its own: a network namespace that can be cut off."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from kvstore.open import open_store
from netd.lab.stores import KINDS
from netd.lab.topology import LabError, Machine
from tests.kvstore.conftest import opened, until_it_works
from tests.kvstore.servers import Server, not_installed

SWITCH = "ensemble"  # a namespace with the bridge: no rule of the tests' own namespace sees what it forwards
NETWORK = "10.98.0"  # the tests are at .1


class Member(Server):
    """One server of an ensemble, which a test may kill, start again, and take off the network."""

    def __init__(self, root: Path, kind: str, machine: Machine, machines: Sequence[Machine]) -> None:
        super().__init__(root)
        self.address = machine.address
        self._kind, self._machine, self._machines = KINDS[kind], machine, machines
        self._wire = f"wire-{machine.name}"
        try:
            self._program = self._kind.program()
        except LabError as error:
            not_installed(kind.upper(), str(error))

    def command(self) -> Sequence[str]:
        command = self._kind.command(self._program, self._machine, self._machines, self.root)
        return ["nsenter", f"--net=/run/netns/{self._machine.name}", *command]

    def plug_in(self) -> None:
        name = self._machine.name
        for arguments in (
            f"netns add {name}",
            f"-n {name} link set lo up",
            f"-n {SWITCH} link add {self._wire} type veth peer name eth0 netns {name}",
            f"-n {SWITCH} link set {self._wire} master bridge up",
            f"-n {name} address add {self.address}/24 dev eth0",
            f"-n {name} link set eth0 up",
        ):
            _ip(arguments)

    def cut(self) -> None:
        """Its packets are lost from now on, without a word to anybody."""
        _ip(f"-n {SWITCH} link set {self._wire} down")

    def heal(self) -> None:
        _ip(f"-n {SWITCH} link set {self._wire} up")

    def answers(self) -> bool:
        return self._leads() is not None

    @property
    def leads(self) -> bool:
        return bool(self._leads())

    def _leads(self) -> bool | None:
        try:
            return self._kind.leads(self.address)
        except (OSError, ValueError):
            return None


class Ensemble:
    """Three members of a kind."""

    def __init__(self, kind: str, root: Path) -> None:
        machines = [Machine(f"{kind[:6]}{number}", f"{NETWORK}.{10 + number}") for number in range(3)]
        self.kind = kind
        self.members = [Member(root / machine.name, kind, machine, machines) for machine in machines]
        self._machines = machines

    def start(self) -> None:
        for arguments in (
            f"netns add {SWITCH}",
            f"-n {SWITCH} link add bridge up type bridge",
            f"link add {SWITCH} type veth peer name tests netns {SWITCH}",
            f"-n {SWITCH} link set tests master bridge up",
            f"address add {NETWORK}.1/24 dev {SWITCH}",
            f"link set {SWITCH} up",
        ):
            _ip(arguments)
        for member in self.members:
            member.plug_in()
            member.launch()
        self.settle()

    def settle(self) -> None:
        """Everything runs, is connected, agrees on a leader and serves."""
        for member in self.members:
            member.heal()
            if not member.runs:
                member.launch()
        for member in self.members:
            member.wait()
        give_up = time.monotonic() + 30
        while sum(member.leads for member in self.members) != 1:
            assert time.monotonic() < give_up, "no leader"
            time.sleep(0.1)
        for member in self.members:
            asyncio.run(_serves(self.url(member)))

    def url(self, *members: Member) -> str:
        """Of these members, or of all."""
        kind = KINDS[self.kind]
        return f"{kind.scheme}://" + ",".join(f"{m.address}:{kind.port}" for m in members or self.members)

    @property
    def leader(self) -> Member:
        return next(member for member in self.members if member.leads)

    def stop(self) -> None:
        for member in self.members:
            member.stop()
        for name in (*(machine.name for machine in self._machines), SWITCH):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", SWITCH], check=False, capture_output=True)


async def _serves(url: str) -> None:
    """Wait until the only member there writes: one that was cut off calls itself a follower for some seconds more."""
    async with opened(lambda: open_store(url)) as store:
        await until_it_works(lambda: store.delete("settled"))


def _ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True)
