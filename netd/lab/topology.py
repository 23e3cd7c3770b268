"""The lab's machines: network namespaces joined by a bridge that is in a namespace of its own.

Nothing of the machine's own network is touched. Which processes belong to a machine is read from the kernel, so
that even what a crash left behind is found.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from drivers.netns import entered

T = TypeVar("T")

WIRE = "netd-lab"  # the namespace with the bridge in it
_NETNS = Path("/run/netns")
_PATIENCE = 10.0  # seconds for killed processes to vanish


class LabError(Exception):
    """What is wrong, in a sentence that says what to do."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A host or a member of the store: one network namespace with an address on the bridge."""

    name: str  # host1, store1; also its host name
    address: str

    @property
    def netns(self) -> str:
        return f"{WIRE}-{self.name}"

    @property
    def runs_netd(self) -> bool:
        return self.name.startswith("host")

    @property
    def is_there(self) -> bool:
        return (_NETNS / self.netns).exists()

    def inside(self, *command: str) -> list[str]:
        """The command line that runs `command` on this machine, under its host name."""
        # not `ip netns exec`: that hides the cgroup mounts
        entered = ["nsenter", f"--net={_NETNS / self.netns}", "unshare", "--uts", "sh", "-c"]
        return [*entered, 'hostname "$0" && exec "$@"', self.name, *command]


def host(number: int) -> Machine:
    return Machine(f"host{number}", f"10.88.0.{number}")


def store(number: int) -> Machine:
    return Machine(f"store{number}", f"10.88.0.{200 + number}")


def ip(*arguments: str) -> str:
    """What `ip` prints; raises LabError with its words if it fails."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"`ip {' '.join(arguments)}` failed: {done.stderr.strip()}")
    return done.stdout


def wire_is_there() -> bool:
    return (_NETNS / WIRE).exists()


def make_wire(mtu: int) -> None:
    """The bridge, unless it is there."""
    if wire_is_there():
        return
    ip("netns", "add", WIRE)
    ip("-n", WIRE, "link", "set", "lo", "up")
    ip("-n", WIRE, "link", "add", "wire", "mtu", str(mtu), "type", "bridge")
    ip("-n", WIRE, "link", "set", "wire", "up")


def plug_in(machine: Machine, mtu: int) -> None:
    """The machine's namespace and its cable to the bridge, unless they are there.

    It gets no default route: what asks for a name of the outside world is refused at once instead of left waiting.
    """
    if machine.is_there:
        return
    ip("netns", "add", machine.netns)
    near = ("-n", machine.netns)
    ip(*near, "link", "set", "lo", "up")
    ip(*near, "link", "add", "eth0", "mtu", str(mtu), "type", "veth")
    peer = next(link["link"] for link in json.loads(ip(*near, "-json", "link", "show", "eth0")))
    ip(*near, "link", "set", peer, "mtu", str(mtu), "netns", WIRE, "name", machine.name)
    ip("-n", WIRE, "link", "set", machine.name, "master", "wire", "up")
    ip(*near, "address", "add", f"{machine.address}/24", "dev", "eth0")
    ip(*near, "link", "set", "eth0", "up")


def set_cable(machine: Machine, *, plugged: bool) -> None:
    """Cut the machine off from all others, or join it to them again."""
    must_be_there(machine)
    ip("-n", WIRE, "link", "set", machine.name, "up" if plugged else "down")


def must_be_there(machine: Machine) -> None:
    """Raises LabError for a machine that was killed."""
    if not machine.is_there:
        raise LabError(f"{machine.name} was killed: `netd lab heal {machine.name}` brings it back")


def state(machine: Machine) -> str:
    """`up`, `cut` or `killed`."""
    if not machine.is_there:
        return "killed"
    (link,) = json.loads(ip("-n", WIRE, "-json", "link", "show", machine.name))
    return "up" if "UP" in link["flags"] else "cut"


def within(netns: str, work: Callable[[], T]) -> T:
    """What `work` gives when it is called in this network namespace."""

    def enter() -> T:
        with entered(str(_NETNS / netns)):
            return work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(enter).result()


def start(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a process that outlives this one; what it prints goes to the end of `log`."""
    with log.open("ab") as file:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment,
            cwd="/",
            start_new_session=True,
        )


def processes(netns: str, directory: Path) -> list[int]:
    """Processes in this network namespace, and in containers whose root file system is below `directory`."""
    found = set(map(int, ip("netns", "pids", netns).split())) if (_NETNS / netns).exists() else set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and f"={directory}/" in _root_mount(entry):
            found.add(int(entry.name))
    return sorted(found - {os.getpid()})


def _root_mount(process: Path) -> str:
    try:
        lines = (process / "mountinfo").read_text().splitlines()
    except OSError:
        return ""  # it has ended, or is a zombie
    return next((line for line in lines if line.split()[4] == "/"), "")


def kill_all(netns: str, directory: Path) -> None:
    """SIGKILL to all of a machine's processes, until none is left."""
    give_up = time.monotonic() + _PATIENCE
    while pids := processes(netns, directory):
        if time.monotonic() > give_up:
            raise LabError(f"processes {pids} of {netns} do not end, even killed: look why, then run this again")
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)


def remove(netns: str) -> None:
    if (_NETNS / netns).exists():
        ip("netns", "del", netns)


def unmount(directory: Path) -> None:
    """Everything that is mounted below a directory."""
    paths = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for path in sorted((path for path in paths if path.startswith(f"{directory}/")), reverse=True):
        subprocess.run(["umount", "--lazy", path], check=False)
