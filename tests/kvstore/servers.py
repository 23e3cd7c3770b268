"""Real store servers, each in a directory and on ports of its own, that tests may kill, freeze and restart."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

READY = 90.0  # seconds a server may take to answer
ZOOKEEPER_JARS = ("zookeeper.jar", "slf4j-simple.jar")


def not_installed(kind: str, what: str) -> NoReturn:
    """Skip the test for want of a server's program; NETD_REQUIRE_<KIND>=1 makes that a failure."""
    if os.environ.get(f"NETD_REQUIRE_{kind}") == "1":
        pytest.fail(what)
    pytest.skip(what)


_given: set[int] = set()


def free_port() -> int:
    """A port that nobody has, and that was given to no other server, which may not have it yet."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port


class Server:
    """One server process; `url` is what `open_store` takes."""

    url: str

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = free_port()
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> Sequence[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        self.launch()
        self.wait()

    def launch(self) -> None:
        with (self.root / "log").open("ab") as log:
            self._process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=self.root)

    def wait(self) -> None:
        assert self._process is not None
        give_up = time.monotonic() + READY
        while not self.answers():
            if time.monotonic() > give_up or self._process.poll() is not None:
                raise RuntimeError(f"no answer from {self.command()[0]}:\n{(self.root / 'log').read_text()[-2000:]}")
            time.sleep(0.03)

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def freeze(self) -> None:
        """Stop it in its tracks; connections stay open."""
        self.signal(signal.SIGSTOP)
        assert self._process is not None
        tasks = Path(f"/proc/{self._process.pid}/task")
        while any(" T " not in (task / "stat").read_text().rpartition(")")[2][:3] for task in tasks.iterdir()):
            time.sleep(0.01)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def restart(self) -> None:
        self.kill()
        self.start()

    def stop(self) -> None:
        if self.runs:
            self.thaw()
            self.kill()


class Etcd(Server):
    def __init__(self, root: Path, *, scheme: str = "http", arguments: Sequence[str] = ()) -> None:
        super().__init__(root)
        self.name, self.peer = root.name, f"http://127.0.0.1:{free_port()}"
        self.members = [self]
        self._scheme, self._arguments = scheme, arguments
        self.url = f"etcd://127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        client = f"{self._scheme}://127.0.0.1:{self.port}"
        cluster = ",".join(f"{member.name}={member.peer}" for member in self.members)
        return [
            _program("etcd", "ETCD"),
            *("--name", self.name, "--data-dir", str(self.root / "data")),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", self.peer, "--initial-advertise-peer-urls", self.peer),
            *("--initial-cluster", cluster),
            *self._arguments,
        ]

    def answers(self) -> bool:
        if self._scheme == "https":
            return _connects(self.port)
        return _fetch(f"http://127.0.0.1:{self.port}/health").get("health") == "true"

    def ctl(self, *arguments: str) -> str:
        environment = {**os.environ, "ETCDCTL_API": "3"}
        endpoint = f"--endpoints={self._scheme}://127.0.0.1:{self.port}"
        command = [_program("etcdctl", "ETCD"), endpoint, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


class Consul(Server):
    def __init__(self, root: Path, **configuration: Any) -> None:
        super().__init__(root)
        self._configuration = configuration
        self.url = f"consul://127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        ports = {"http": self.port, "serf_lan": self._port("serf"), "server": self._port("server")}
        configuration = {
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "node_name": "one",
            "disable_update_check": True,
            "disable_host_node_id": True,
            "ports": {"dns": -1, "grpc": -1, "https": -1, "serf_wan": -1, **ports},
            "performance": {"raft_multiplier": 1},
            # a query that waits keeps its place for half a minute after its client has gone, and tests come fast
            "limits": {"http_max_conns_per_client": 10000},
            **self._configuration,
        }
        (self.root / "config.json").write_text(json.dumps(configuration))
        return [
            _consul(),
            *("agent", "-server", "-bootstrap-expect=1"),
            *("-data-dir", str(self.root / "data"), "-config-file", str(self.root / "config.json")),
        ]

    def _port(self, name: str) -> int:
        """Chosen once: a restarted server must find itself in its own records."""
        file = self.root / f"{name}.port"
        if not file.exists():
            file.write_text(str(free_port()))
        return int(file.read_text())

    def answers(self) -> bool:
        base = f"http://127.0.0.1:{self.port}/v1"
        if not _fetch(f"{base}/status/leader"):
            return False
        return bool(_fetch(f"{base}/kv/ready", method="PUT")) or "acl" in self._configuration


class ZooKeeper(Server):
    def __init__(self, root: Path, *, settings: Sequence[str] = (), jars: Sequence[str] = ()) -> None:
        super().__init__(root)
        self._settings, self._jars = settings, (*ZOOKEEPER_JARS, *jars)
        self.url = f"zk://127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        java = Path("/usr/share/java")
        if not all((java / jar).exists() for jar in self._jars):
            not_installed("ZOOKEEPER", "ZooKeeper is not installed (Debian: libzookeeper-java, libslf4j-java)")
        settings = (
            "tickTime=1000",
            "initLimit=10",
            "syncLimit=5",
            f"dataDir={self.root / 'data'}",
            f"clientPort={self.port}",
            "clientPortAddress=127.0.0.1",
            "admin.enableServer=false",
            "4lw.commands.whitelist=*",
            *self._settings,
        )
        (self.root / "zoo.cfg").write_text("\n".join(settings))
        classes = ":".join(str(java / jar) for jar in self._jars)
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        return [_program("java", "ZOOKEEPER"), "-Xmx256m", "-cp", classes, main, str(self.root / "zoo.cfg")]

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"srvr")
                return b"Mode:" in connection.recv(4096)
        except OSError:
            return False


def _program(name: str, kind: str) -> str:
    found = shutil.which(name)
    if found is None:
        not_installed(kind, f"{name} is not installed")
    return found


def _consul() -> str:
    """From the path, or where `scripts/get-consul` unpacks it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "netd/consul/usr/bin/consul"
    if found := shutil.which("consul"):
        return found
    if not cache.exists():
        not_installed("CONSUL", "no Consul server here: scripts/get-consul fetches one")
    return str(cache)


def _fetch(url: str, method: str = "GET") -> Any:
    """The JSON at `url`, or an empty mapping while nothing answers."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=2) as answer:
            return json.load(answer)
    except (OSError, ValueError):
        return {}


def _connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
