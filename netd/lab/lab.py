"""The lab as a whole: one file says what it should be, `up` makes that so, `down` removes it whatever it is."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import Popen
from typing import NamedTuple

from netd.client.api import ApiError, Client, Unreachable, json_lines
from netd.lab import topology
from netd.lab.stores import KINDS, Kind
from netd.lab.topology import LabError, Machine
from netd.launcher.cgroups import Cgroups

# short: the path of a unix socket has 107 bytes at most
DIRECTORY = Path(os.environ.get("NETD_LAB", "/run/netd-lab"))
_STATE = DIRECTORY / "lab.json"
_PATIENCE = 40.0  # seconds for a store or a daemon to answer
_NETD = (sys.executable, "-m", "netd")
_ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}


@dataclass(frozen=True, slots=True)
class Plan:
    """What the lab should be."""

    hosts: int = 3
    store: str = "etcd"
    nodes: int = 1
    mtu: int = 1500

    def members(self) -> list[Machine]:
        return [topology.store(number) for number in range(1, self.nodes + 1)]

    def machines(self) -> list[Machine]:
        return [topology.host(number) for number in range(1, self.hosts + 1)]

    @property
    def kind(self) -> Kind:
        return KINDS[self.store]

    @property
    def store_url(self) -> str:
        return self.kind.url(self.members())

    def __str__(self) -> str:
        hosts, members = (f"{n} {word}{'s' * (n != 1)}" for n, word in ((self.hosts, "host"), (self.nodes, "member")))
        return f"{hosts} and {self.store} with {members} at MTU {self.mtu}"


class Row(NamedTuple):
    """A line of `status`."""

    name: str
    address: str
    state: str  # up, cut or killed
    runs: str


def read() -> Plan:
    """The plan of the lab that is up; LabError if there is none."""
    try:
        return Plan(**json.loads(_STATE.read_text()))
    except FileNotFoundError:
        raise LabError("there is no lab: `netd lab up` makes one") from None
    except (ValueError, TypeError) as error:
        raise LabError(f"{_STATE} is damaged ({error}): `netd lab down` removes the lab") from error


def find(name: str) -> Machine:
    """The machine that `2`, `host2`, `store1` or `leader` means."""
    plan = read()
    if name == "leader":
        return _leader(plan)
    known = {machine.name: machine for machine in (*plan.machines(), *plan.members())}
    machine = known.get(f"host{name}") or known.get(name)
    if machine is None:
        raise LabError(f'there is no "{name}" in the lab: it has {", ".join(known)}')
    return machine


def up(plan: Plan) -> None:
    """Make the lab as planned, or what is missing of it."""
    _check(plan)
    DIRECTORY.mkdir(mode=0o755, parents=True, exist_ok=True)
    _STATE.write_text(json.dumps(asdict(plan)))
    topology.make_wire(plan.mtu)
    for member in plan.members():
        _boot_member(member, plan)
    _until(lambda: _store_is_well(plan), f"the store does not answer: see {DIRECTORY}/store*/log")
    hosts = plan.machines()
    started = [(host, _boot_host(host, plan)) for host in hosts if not answers(host)]
    for host, daemon in started:
        _wait_for_daemon(host, daemon)
    _import_image(hosts)


def status() -> list[Row]:
    plan = read()
    rows = [Row(h.name, h.address, topology.state(h), "netd" if answers(h) else "-") for h in plan.machines()]
    for member in plan.members():
        runs = f"{plan.store}, {_role(member, plan)}" if _runs(member) else "-"
        rows.append(Row(member.name, member.address, topology.state(member), runs))
    return rows


def heal(machine: Machine) -> None:
    """Join the machine to the others again if it was cut off, and start what does not run on it."""
    plan = read()
    if machine.is_there:
        topology.set_cable(machine, plugged=True)
    if machine.runs_netd:
        if not answers(machine):
            _wait_for_daemon(machine, _boot_host(machine, plan))
        return
    members = plan.members()
    _boot_member(machine, plan)
    if sum(_runs(member) for member in members) * 2 > len(members):
        _until(lambda: _leads(machine, plan) is not None, f"{machine.name} finds no leader: see `netd lab status`")


def kill(machine: Machine) -> None:
    """Take the machine's power: its processes, namespace and run-time state vanish, its disk stays."""
    directory = _directory(machine)
    topology.kill_all(machine.netns, directory)
    _remove_control_groups(machine)
    topology.unmount(directory)
    topology.remove(machine.netns)
    shutil.rmtree(directory / "exec", ignore_errors=True)
    (directory / "netd.sock").unlink(missing_ok=True)


def down() -> None:
    """Remove everything; that nothing is there, or only half of it, is no error."""
    for directory in DIRECTORY.glob("*[0-9]"):
        kill(Machine(directory.name, ""))
    for netns in Path("/run/netns").glob(f"{topology.WIRE}*"):
        topology.kill_all(netns.name, DIRECTORY)
        topology.remove(netns.name)
    topology.unmount(DIRECTORY)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(DIRECTORY)


def url(machine: Machine) -> str:
    """Where the host's daemon listens, as DOCKER_HOST has it."""
    return f"unix://{DIRECTORY / machine.name}/netd.sock"


def answers(machine: Machine) -> bool:
    with _client(machine) as client, contextlib.suppress(Unreachable, ApiError):
        client.get("/version")
        return True
    return False


@contextlib.contextmanager
def _client(machine: Machine) -> Iterator[Client]:
    client = Client(url(machine))
    try:
        yield client
    finally:
        client.close()


def _check(plan: Plan) -> None:
    if _STATE.exists() and (now := read()) != plan:
        same = (now.store, now.nodes, now.mtu) == (plan.store, plan.nodes, plan.mtu)
        if not same or plan.hosts < now.hosts:
            raise LabError(f"a lab of {now} is up, and only hosts can be added to it: run `netd lab down` first")
    if not _STATE.exists() and topology.wire_is_there():
        raise LabError(f"the namespaces of another lab are there, not of one in {DIRECTORY}: `netd lab down` ends it")
    for program, package in (("ip", "iproute2"), ("nsenter", "util-linux"), ("busybox", "busybox-static")):
        if shutil.which(program) is None:
            raise LabError(f"{program} is not installed (Debian: {package})")
    plan.kind.program()


def _directory(machine: Machine) -> Path:
    path = DIRECTORY / machine.name
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def _boot_member(member: Machine, plan: Plan) -> None:
    """Have a member of the store run."""
    topology.plug_in(member, plan.mtu)
    if not _runs(member):
        command = plan.kind.command(plan.kind.program(), member, plan.members(), _directory(member))
        topology.start(member.inside(*command), _directory(member) / "log", _ENVIRONMENT)


def _runs(machine: Machine) -> bool:
    return bool(topology.processes(machine.netns, _directory(machine)))


def _leads(member: Machine, plan: Plan) -> bool | None:
    """Whether the member leads, as it says itself; None if it knows of no leader, or does not answer."""
    try:
        return topology.within(member.netns, lambda: plan.kind.leads(member.address))
    except (OSError, ValueError):
        return None


def _role(member: Machine, plan: Plan) -> str:
    return {True: "leader", False: "follower", None: "no leader"}[_leads(member, plan)]


def _leader(plan: Plan) -> Machine:
    for member in plan.members():
        if member.is_there and _leads(member, plan):
            return member
    raise LabError("the store has no leader now: see `netd lab status`")


def _store_is_well(plan: Plan) -> bool:
    """Every member that can be reached knows the leader, and one of them is it."""
    roles = {_leads(member, plan) for member in plan.members() if topology.state(member) == "up"}
    return True in roles and None not in roles


def _boot_host(host: Machine, plan: Plan) -> Popen[bytes]:
    """Start a host's daemon."""
    topology.plug_in(host, plan.mtu)
    directory = _directory(host)
    (directory / "daemon.json").write_text("{}")
    command = (
        *(*_NETD, "daemon", f"--host={url(host)}", f"--config-file={directory}/daemon.json"),
        *(f"--data-root={directory}/data", f"--exec-root={directory}/exec"),
        *(f"--cluster-store={plan.store_url}", f"--cluster-advertise={host.address}"),
    )
    return topology.start(host.inside(*command), directory / "log", _ENVIRONMENT)


def _wait_for_daemon(host: Machine, daemon: Popen[bytes]) -> None:
    """Until it answers and, unless the host is cut off, is a member of the cluster."""
    log = _directory(host) / "log"
    is_well = _is_member if topology.state(host) == "up" else answers
    _until(lambda: daemon.poll() is not None or is_well(host), f"netd on {host.name} finds no cluster: see {log}")
    if daemon.returncode is not None:
        raise LabError(f"netd on {host.name} ended, see {log}: {log.read_text().strip().rpartition(chr(10))[2]}")


def _is_member(host: Machine) -> bool:
    with _client(host) as client, contextlib.suppress(Unreachable, ApiError):
        return any(found["Self"] and not found["Problem"] for found in client.get("/netd/hosts"))
    return False


def _import_image(hosts: Sequence[Machine]) -> None:
    """busybox, made from this machine's, for the hosts that have no image."""
    if without := [host for host in hosts if answers(host) and not _images(host)]:
        script = Path(__file__).with_name("busybox-image")
        tar = subprocess.run(["sh", script], stdout=subprocess.PIPE, check=True).stdout
        with ThreadPoolExecutor() as threads:
            list(threads.map(lambda host: _import(host, tar), without))


def _import(host: Machine, tar: bytes) -> None:
    query = [("fromSrc", "-"), ("repo", "busybox"), ("changes", "ENV PATH=/bin"), ("changes", 'CMD ["sh"]')]
    with _client(host) as client:
        for told in json_lines(client.stream("POST", "/images/create", query, tar)):
            if "error" in told:
                raise LabError(f"{host.name} does not take the busybox image: {told['error']}")


def _images(host: Machine) -> bool:
    with _client(host) as client:
        return bool(client.get("/images/json"))


def _remove_control_groups(machine: Machine) -> None:
    # the launcher's name for the groups of a daemon
    tag = hashlib.sha256(f"{DIRECTORY}/{machine.name}/exec".encode()).hexdigest()[:8]
    groups = Cgroups(f"/netd-{tag}")
    for container in groups.containers():
        groups.remove(container)
    groups.remove_parent()


def _until(condition: Callable[[], bool], otherwise: str) -> None:
    give_up = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > give_up:
            raise LabError(otherwise)
        time.sleep(0.1)
