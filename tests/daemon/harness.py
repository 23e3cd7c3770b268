"""A real daemon to test against: its own network namespace, its own roots, a neighbour that is "outside".

    outside (192.0.2.2, dnsmasq)  ──lan──  host (192.0.2.1, netd)  ──netd0, br-…──  containers

The neighbour stands for the rest of the world: it reaches published ports, and it answers DNS for
`*.example.test`. Nothing here touches the machine's own network.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.unix_http import Reply, request

ROOT = Path(__file__).parents[2]
NETD = ROOT / ".venv" / "bin" / "netd"
PEER = Path(__file__).parent / "peer.py"
HOST_IP = "192.0.2.1"
OUTSIDE_IP = "192.0.2.2"
REST = 0.6  # seconds, a little more than the daemon pauses between two repairs
NO_PROXY = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}


def run(*command: str | Path, check: bool = True, timeout: float = 60, **options: Any) -> Any:
    """`subprocess.run` with text output, and with what it printed in the error if it fails."""
    options = {"capture_output": True, "text": True, "env": NO_PROXY, **options}
    done = subprocess.run([str(part) for part in command], timeout=timeout, check=False, **options)
    if check and done.returncode != 0:
        words = " ".join(str(part) for part in command)
        raise AssertionError(f"`{words}` ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def eventually(condition: Callable[[], Any], *, within: float = 20, every: float = 0.02) -> Any:
    """Wait until `condition()` is true and return what it gave; fail with its last answer otherwise."""
    deadline = time.monotonic() + within
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s; last answer: {answer!r}")
        time.sleep(every)


def mended(damage: Callable[[], Any], whole: Callable[[], Any], *, within: float = 1) -> None:
    """Damage is mended in so many seconds, at the best of three times: others may be using this machine."""
    took: list[float] = []
    while len(took) < 3 and min(took, default=within) >= within:
        time.sleep(REST)
        damage()
        begun = time.monotonic()
        eventually(whole)
        took.append(time.monotonic() - begun)
    assert min(took) < within, f"mended after {took} s"


@dataclass
class Host:
    """Two network namespaces joined by a cable: the daemon's machine and one neighbour."""

    name: str
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def outside(self) -> str:
        return f"{self.name}-out"

    def make(self) -> None:
        for netns in (self.name, self.outside):
            run("ip", "netns", "add", netns)
            run("ip", "-n", netns, "link", "set", "lo", "up")
        run("ip", "-n", self.name, "link", "add", "lan", "type", "veth", "peer", "lan", "netns", self.outside)
        for netns, address in (
            (self.name, HOST_IP),
            (self.outside, OUTSIDE_IP),
        ):
            run("ip", "-n", netns, "address", "add", f"{address}/24", "dev", "lan")
            run("ip", "-n", netns, "link", "set", "lan", "up")
        run("ip", "-n", self.name, "route", "add", "default", "via", OUTSIDE_IP)

    def start_dns(self) -> None:
        """A DNS server outside: it knows www.example.test and the address's name."""
        self.spawn(
            self.outside,
            *("dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null"),
            *("--port=53", f"--listen-address={OUTSIDE_IP}", "--bind-interfaces", "--user=root", "--pid-file="),
            *("--local=/example.test/", "--host-record=www.example.test,198.51.100.7"),
        )
        eventually(lambda: self.listens(self.outside, 53))

    @staticmethod
    def listens(netns: str, port: int) -> bool:
        return f":{port} " in run("ip", "netns", "exec", netns, "ss", "-Hlntu").stdout

    def spawn(self, netns: str, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Start a process in one of the namespaces; it ends with the fixture at the latest."""
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options}
        process = subprocess.Popen(self.inside(netns, *command), text=True, env=NO_PROXY, **options)
        self.processes.append(process)
        return process

    def end(self, process: subprocess.Popen[str]) -> None:
        """End a process that was started here."""
        self.processes.remove(process)
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()

    @staticmethod
    def inside(netns: str, *command: str | Path) -> list[str]:
        # not `ip netns exec`: that hides the cgroup mounts
        return ["nsenter", f"--net=/run/netns/{netns}", *map(str, command)]

    def run(self, *command: str | Path, **options: Any) -> Any:
        """Run a command on the daemon's machine."""
        return run(*self.inside(self.name, *command), **options)

    def run_outside(self, *command: str | Path, **options: Any) -> Any:
        """Run a command on the neighbour."""
        return run(*self.inside(self.outside, *command), **options)

    def serve(self, netns: str, *ports: int) -> None:
        """Let a service answer on these TCP and UDP ports in the namespace at this path; see peer.py."""
        command = ["nsenter", f"--net={netns}", sys.executable, str(PEER), "serve", *map(str, ports)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

    def serve_outside(self, *ports: int) -> None:
        self.serve(f"/run/netns/{self.outside}", *ports)

    def ask(self, address: str, port: int, kind: str = "tcp") -> str:
        """What the service at this address answers to the daemon's machine; see peer.py."""
        return str(self.run(sys.executable, PEER, "ask", kind, address, str(port)).stdout.strip())

    def ask_outside(self, address: str, port: int, kind: str = "tcp") -> str:
        """What the service at this address answers to the neighbour."""
        return str(self.run_outside(sys.executable, PEER, "ask", kind, address, str(port)).stdout.strip())

    def remove(self) -> None:
        while self.processes:
            self.end(self.processes[-1])
        for netns in (self.name, self.outside):
            run("ip", "netns", "del", netns, check=False)


class Daemon:
    """One `netd daemon` and everything a test wants from it."""

    def __init__(self, host: Host, *options: str) -> None:
        self.host = host
        # the path of a unix socket has 107 bytes at most
        self.directory = Path(tempfile.mkdtemp(prefix="netd-"))
        self.socket = self.directory / "netd.sock"
        self.data_root = self.directory / "data"
        self.exec_root = self.directory / "exec"
        self.log = self.directory / "log"
        self.config = self.directory / "daemon.json"
        self.config.write_text("{}")
        self.options = list(options) or [f"--dns={OUTSIDE_IP}"]
        self.extra_environment: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None

    # ---- its life ---------------------------------------------------------------------------------------

    def command(self) -> list[str]:
        return self.host.inside(
            self.host.name,
            *(NETD, "daemon", f"--host=unix://{self.socket}", f"--config-file={self.config}"),
            *(f"--data-root={self.data_root}", f"--exec-root={self.exec_root}", *self.options),
        )

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**NO_PROXY, **self.extra_environment},
            )
        eventually(self.answers, within=20)

    def answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the daemon ended with {self.process.returncode}:\n{self.log.read_text()}")
        try:
            return self.api("GET", "/_ping").status == 200
        except OSError:
            return False

    def kill9(self) -> None:
        """End the daemon without any chance to say good-bye."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Ask the daemon to end, as a service manager does."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(timeout=20)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def reload(self) -> None:
        os.kill(self.pid, signal.SIGHUP)

    def remove(self) -> None:
        """Take everything away, even what a broken daemon left behind."""
        if self.process is not None:
            if self.process.poll() is None:
                with contextlib.suppress(OSError, AssertionError):
                    self.remove_containers()
                self.process.kill()
                self.process.wait()
            self.process = None
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for path in sorted(self.mounts(), key=len, reverse=True):
            run("umount", "--lazy", path, check=False)
        shutil.rmtree(self.directory, ignore_errors=True)

    def remove_containers(self) -> None:
        for container in self.api("GET", "/containers/json?all=1").json:
            self.api("DELETE", f"/containers/{container['Id']}?force=1&v=1")

    def clean(self) -> None:
        """What a test made in a daemon that the next test shares: containers, networks."""
        self.remove_containers()
        for network in self.api("GET", "/networks").json:
            if network["Name"] not in ("bridge", "host", "none"):
                self.api("DELETE", f"/networks/{network['Id']}")

    # ---- its clients ------------------------------------------------------------------------------------

    def api(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None, timeout: float = 60
    ) -> Reply:
        """One request; `body` is sent as JSON unless it is bytes."""
        return request(self.socket, method, path, body, headers=headers, timeout=timeout)

    def get(self, path: str) -> Any:
        """The JSON at a path that must be there."""
        reply = self.api("GET", path)
        assert reply.status == 200, reply
        return reply.json

    def docker(self, *arguments: str, **options: Any) -> Any:
        """The stock docker CLI, as a user has it."""
        if shutil.which("docker") is None:
            pytest.skip("no docker CLI on this machine")
        return run("docker", *arguments, env=self.environment, **options)

    def netd(self, *arguments: str, **options: Any) -> Any:
        """Our own CLI."""
        return run(NETD, *arguments, env=self.environment, **options)

    @property
    def environment(self) -> dict[str, str]:
        home = str(self.directory)
        return {**NO_PROXY, "DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": home, "HOME": home}

    def import_image(self, tar: Path, name: str = "busybox") -> None:
        changes = "&".join(f"changes={quote(change)}" for change in ("ENV PATH=/bin", 'CMD ["sh"]'))
        body = tar.read_bytes()
        path = f"/images/create?fromSrc=-&repo={name}&tag=latest&{changes}"
        reply = self.api("POST", path, body, headers={"Content-Type": "application/x-tar"})
        assert reply.status == 200, reply

    # ---- containers, in the few words that most tests need ----------------------------------------------

    def create(self, name: str, *command: str, network: str = "bridge", **more: Any) -> str:
        """Create a container through the API; `more` are members of the request, HostConfig's merged in."""
        body = {"Image": "busybox", "Cmd": list(command) or ["sleep", "1000"], "StopTimeout": 1, **more}
        body["HostConfig"] = {"NetworkMode": network, **more.get("HostConfig", {})}
        body["ExposedPorts"] = {port: {} for port in body["HostConfig"].get("PortBindings", {})}
        reply = self.api("POST", f"/containers/create?name={name}", body)
        assert reply.status == 201, reply
        return str(reply.json["Id"])

    def start_container(self, ref: str) -> None:
        reply = self.api("POST", f"/containers/{ref}/start")
        assert reply.status == 204, reply

    def run_container(self, name: str, *command: str, network: str = "bridge", **more: Any) -> str:
        """Create and start; returns the id."""
        identity = self.create(name, *command, network=network, **more)
        self.start_container(identity)
        return identity

    def wait(self, ref: str) -> int:
        return int(self.api("POST", f"/containers/{ref}/wait").json["StatusCode"])

    def remove_container(self, ref: str) -> None:
        reply = self.api("DELETE", f"/containers/{ref}?force=1&v=1")
        assert reply.status == 204, reply

    def network(self, name: str, **more: Any) -> str:
        """Create a network through the API; returns the id."""
        reply = self.api("POST", "/networks/create", {"Name": name, **more})
        assert reply.status == 201, reply
        return str(reply.json["Id"])

    def inspect(self, ref: str) -> Any:
        return self.get(f"/containers/{ref}/json")

    def address(self, ref: str, network: str) -> str:
        return str(self.inspect(ref)["NetworkSettings"]["Networks"][network]["IPAddress"])

    def inside(self, ref: str, *command: str | Path, **options: Any) -> Any:
        """Run a program of this machine in a container's network, with its resolv.conf and hosts file."""
        pid = self.inspect(ref)["State"]["Pid"]
        root = f"/proc/{pid}/root/etc"
        mounts = " && ".join(f"mount --bind {root}/{name} /etc/{name}" for name in ("resolv.conf", "hosts"))
        script = f'{mounts} && exec "$@"'
        return run(
            "nsenter", f"--net=/proc/{pid}/ns/net", "unshare", "-m", "sh", "-c", script, "sh", *command, **options
        )

    def serve(self, ref: str, *ports: int) -> None:
        """Let a service answer on these TCP and UDP ports in a container's network; see peer.py."""
        self.host.serve(f"/proc/{self.inspect(ref)['State']['Pid']}/ns/net", *ports)

    def ask_from(self, ref: str, address: str, port: int, kind: str = "tcp") -> str:
        """What the service at this address answers to a container, or "nothing: REASON"."""
        pid = self.inspect(ref)["State"]["Pid"]
        command = ("nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, PEER, "ask", kind, address, str(port))
        return str(run(*command).stdout.strip())

    def exec(self, ref: str, *command: str) -> tuple[int, str]:
        """Run a command in a container through the API: its exit code and what it printed."""
        body = {"AttachStdout": True, "AttachStderr": True, "Cmd": list(command)}
        reply = self.api("POST", f"/containers/{ref}/exec", body)
        assert reply.status == 201, reply
        identity = reply.json["Id"]
        frames = self.api("POST", f"/exec/{identity}/start", {"Detach": False, "Tty": False}).body
        ended = eventually(lambda: not (found := self.get(f"/exec/{identity}/json"))["Running"] and found)
        return int(ended["ExitCode"]), _text(frames)

    def logs(self, ref: str) -> str:
        return _text(self.api("GET", f"/containers/{ref}/logs?stdout=1&stderr=1").body)

    def resolve(self, ref: str, name: str) -> set[str]:
        """The addresses that a name has inside a container; empty if it does not resolve."""
        output = self.exec(ref, "nslookup", name)[1]
        answers = output.partition("\n\n")[2]
        return {line.split()[-1] for line in answers.splitlines() if line.startswith("Address")}

    # ---- what the machine holds for it ------------------------------------------------------------------

    def processes(self) -> dict[int, str]:
        """Processes that name this daemon's directory, or run in a container of it: pid to command line."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                    # a container's process says nothing of us, but its root is one of our mounts
                    mounts = (entry / "mountinfo").read_text() if words else ""
                    root = next((line for line in mounts.splitlines() if line.split()[4] == "/"), "")
                    if str(self.directory) in words or str(self.data_root) in root:
                        found[int(entry.name)] = words
        return found

    def mounts(self) -> list[str]:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return [path for path in (line.split()[4] for line in lines) if path.startswith(f"{self.directory}/")]

    def links(self) -> dict[str, Any]:
        """Links of the daemon's machine by name: what is set on each, nothing that counts or ticks."""
        keep = ("flags", "mtu", "master", "ifalias")
        return {
            link["ifname"]: {
                **{key: link[key] for key in keep if key in link},
                "kind": link.get("linkinfo", {}).get("info_kind"),
                "port": {
                    key: link.get("linkinfo", {}).get("info_slave_data", {}).get(key) for key in ("hairpin", "isolated")
                },
                "addresses": sorted(item["local"] for item in link["addr_info"] if item["scope"] != "link"),
            }
            for link in json.loads(self.host.run("ip", "-json", "-details", "address").stdout)
        }

    def ruleset(self) -> str:
        return str(self.host.run("nft", "--stateless", "list", "ruleset").stdout)

    def routes(self) -> list[str]:
        # what the kernel adds to every link for IPv6 comes when address detection is done
        lines = self.host.run("ip", "route", "show", "table", "all").stdout.splitlines()
        return sorted(line for line in lines if not line.startswith(("fe80::", "local fe80:", "anycast", "multicast")))

    def files(self, *, but: tuple[str, ...] = ()) -> list[str]:
        """Files and folders under the roots (not inside a container's or image's root file system)."""
        found = []
        for top in (self.data_root, self.exec_root):
            for folder, _, names in os.walk(top):
                found += [str(Path(folder, name).relative_to(self.directory)) for name in names]
                found.append(str(Path(folder).relative_to(self.directory)))
        return sorted(path for path in found if not any(word in path for word in but))

    def cgroups(self, ids: set[str]) -> list[str]:
        """Control groups that carry the id of one of these containers."""
        return sorted(
            folder for folder, _, _ in os.walk("/sys/fs/cgroup") if any(identity in folder for identity in ids)
        )

    def stored(self) -> dict[str, Any]:
        """What the store holds, as the API shows it."""
        return {
            "networks": [self.get(f"/networks/{item['Id']}") for item in self.get("/networks")],
            "containers": self.get("/containers/json?all=1"),
            "images": self.get("/images/json"),
        }

    def snapshot(self) -> dict[str, Any]:
        """The whole state: two of these are equal if nothing changed in between."""
        stored = self.stored()
        for container in stored["containers"]:
            container.pop("Status", None)  # "Up 2 seconds"
        return {
            "links": self.links(),
            "routes": self.routes(),
            "ruleset": self.ruleset(),
            "mounts": sorted(self.mounts()),
            "processes": sorted(self.processes().values()),
            "files": self.files(but=("-wal", "-shm", ".sqlite-journal")),
            "stored": stored,
        }


def _text(frames: bytes) -> str:
    """Docker's multiplexed stream (stdout and stderr, each frame with a header of 8 bytes) as text."""
    text = b""
    while frames:
        length = int.from_bytes(frames[4:8], "big")
        text += frames[8 : 8 + length]
        frames = frames[8 + length :]
    return text.decode(errors="replace")


@contextlib.contextmanager
def nothing_changed(daemon: Daemon) -> Iterator[None]:
    """What happens inside leaves links, routes, rules, mounts, processes, files and the store as they were."""
    before = daemon.snapshot()
    yield
    after = daemon.snapshot()
    for part, value in before.items():
        assert after[part] == value, f"{part} changed"
