"""How the members of a real store are started and asked who leads, and what they need on this machine."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from netd.lab.topology import LabError, Machine

_JARS = [Path("/usr/share/java", jar) for jar in ("zookeeper.jar", "slf4j-simple.jar")]
_PATIENCE = 2.0  # seconds for a member to say who leads


class Kind(NamedTuple):
    """A kind of store: the scheme and port of its URL, and how its members are run.

    `program` finds what runs, and raises LabError when it is not installed. `command` is the command line of one of
    `members`; it writes the configuration into the member's directory. `leads` asks the member at an address whether
    it leads: None when it knows of no leader; raises OSError or ValueError when it does not answer.
    """

    scheme: str
    port: int
    program: Callable[[], str]
    command: Callable[[str, Machine, Sequence[Machine], Path], list[str]]
    leads: Callable[[str], bool | None]

    def url(self, members: Sequence[Machine]) -> str:
        return f"{self.scheme}://{','.join(f'{member.address}:{self.port}' for member in members)}/netd"


def _etcd(program: str, me: Machine, members: Sequence[Machine], directory: Path) -> list[str]:
    client, peer = f"http://{me.address}:2379", f"http://{me.address}:2380"
    return [
        *(program, "--name", me.name, "--data-dir", str(directory / "data")),
        *("--listen-client-urls", client, "--advertise-client-urls", client),
        *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
        *("--initial-cluster", ",".join(f"{member.name}=http://{member.address}:2380" for member in members)),
    ]


def _etcd_leads(address: str) -> bool | None:
    status = _fetch("POST", address, 2379, "/v3/maintenance/status", "{}")
    return status["leader"] == status["header"]["member_id"] if "leader" in status else None


def _consul(program: str, me: Machine, members: Sequence[Machine], directory: Path) -> list[str]:
    configuration = {
        "bind_addr": me.address,
        "client_addr": me.address,
        "node_name": me.name,
        "server": True,
        "bootstrap_expect": len(members),
        "retry_join": [member.address for member in members if member != me],
        "retry_interval": "1s",
        "data_dir": str(directory / "data"),
        "disable_update_check": True,
        "disable_host_node_id": True,
        "ports": {"dns": -1, "grpc": -1, "https": -1, "serf_wan": -1},
        "performance": {"raft_multiplier": 1},
    }
    file = directory / "consul.json"
    file.write_text(json.dumps(configuration))
    return [program, "agent", "-config-file", str(file)]


def _consul_program() -> str:
    # where scripts/get-consul unpacks it
    fetched = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "netd/consul/usr/bin/consul")
    if program := shutil.which("consul") or (str(fetched) if fetched.exists() else ""):
        return program
    raise LabError("consul is not installed (Debian: consul, last in bullseye; scripts/get-consul fetches it)")


def _consul_leads(address: str) -> bool | None:
    leader = _fetch("GET", address, 8500, "/v1/status/leader")
    return leader.rpartition(":")[0] == address if leader else None


def _zookeeper(java: str, me: Machine, members: Sequence[Machine], directory: Path) -> list[str]:
    data = directory / "data"
    data.mkdir(exist_ok=True)
    (data / "myid").write_text(f"{members.index(me) + 1}\n")
    settings = ["tickTime=1000", "initLimit=10", "syncLimit=5", f"dataDir={data}", "clientPort=2181"]
    settings += [f"clientPortAddress={me.address}", "admin.enableServer=false", "4lw.commands.whitelist=*"]
    if len(members) > 1:
        settings += [f"server.{n}={member.address}:2888:3888" for n, member in enumerate(members, 1)]
    file = directory / "zoo.cfg"
    file.write_text("\n".join(settings) + "\n")
    main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
    return [java, "-Xmx256m", "-cp", ":".join(map(str, _JARS)), main, str(file)]


def _zookeeper_program() -> str:
    if not all(jar.exists() for jar in _JARS):
        raise LabError("ZooKeeper is not installed (Debian: libzookeeper-java, libslf4j-java)")
    return _program("java", "default-jre-headless")


def _zookeeper_leads(address: str) -> bool | None:
    with socket.create_connection((address, 2181), _PATIENCE) as connection, connection.makefile("rb") as answer:
        connection.sendall(b"srvr")
        told = answer.read()
    if b"\nMode: " not in told:
        return None
    return b"\nMode: follower" not in told  # the only one of its store is "standalone"


def _fetch(method: str, address: str, port: int, path: str, body: str | None = None) -> Any:
    connection = http.client.HTTPConnection(address, port, timeout=_PATIENCE)
    try:
        connection.request(method, path, body)
        return json.load(connection.getresponse())
    except http.client.HTTPException as error:
        raise ConnectionError(str(error)) from error
    finally:
        connection.close()


def _program(name: str, package: str) -> str:
    if found := shutil.which(name):
        return found
    raise LabError(f"{name} is not installed (Debian: {package})")


KINDS = {
    "etcd": Kind("etcd", 2379, lambda: _program("etcd", "etcd-server"), _etcd, _etcd_leads),
    "consul": Kind("consul", 8500, _consul_program, _consul, _consul_leads),
    "zookeeper": Kind("zk", 2181, _zookeeper_program, _zookeeper, _zookeeper_leads),
}
