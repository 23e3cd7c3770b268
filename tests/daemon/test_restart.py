"""The daemon stops, or is killed; containers, their network and their names go on, and a new one knows all."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon.harness import HOST_IP, OUTSIDE_IP, Daemon, eventually

NewDaemon = Callable[..., Daemon]


@pytest.fixture(params=["stopped", "killed"])
def end(request: pytest.FixtureRequest) -> Callable[[Daemon], None]:
    """How the daemon ends: asked to, or by SIGKILL."""
    return Daemon.stop if request.param == "stopped" else Daemon.kill9


def test_no_query_is_lost_and_twenty_containers_go_on(new_daemon: NewDaemon, tmp_path: Path) -> None:
    daemon = new_daemon()
    daemon.network("shop")
    for number in range(20):
        daemon.run_container(f"c{number}", network="shop")
    before = daemon.get("/containers/json")
    queries = tmp_path / "queries"
    queries.write_text("".join(f"c{number} A\n" for number in range(20)))
    dnsperf = start_dnsperf(daemon, "c0", queries, seconds=6)
    time.sleep(1)
    daemon.kill9()
    time.sleep(1)
    daemon.start()
    time.sleep(1)
    daemon.kill9()
    daemon.start()
    output, _ = dnsperf.communicate(timeout=30)
    sent, completed, lost = (
        int(re.findall(rf"Queries {w}:\s+(\d+)", output)[0]) for w in ("sent", "completed", "lost")
    )
    assert sent > 1000, output
    assert (lost, completed) == (0, sent), output
    assert re.findall(r"NOERROR (\d+) \(100", output), output
    after = daemon.get("/containers/json")
    for container in (*before, *after):
        container.pop("Status")
    assert after == before


def start_dnsperf(daemon: Daemon, ref: str, queries: Path, seconds: int) -> subprocess.Popen[str]:
    """dnsperf inside a container's network, asking its resolver."""
    pid = daemon.inspect(ref)["State"]["Pid"]
    command = ["nsenter", f"--net=/proc/{pid}/ns/net", "dnsperf", "-s", "127.0.0.11", "-d", str(queries)]
    options = ["-l", str(seconds), "-Q", "1000", "-q", "3000", "-c", "10", "-t", "3"]
    return subprocess.Popen(
        [*command, *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_containers_work_while_there_is_no_daemon(new_daemon: NewDaemon, end: Callable[[Daemon], None]) -> None:
    daemon = new_daemon()
    daemon.host.start_dns()
    daemon.network("shop")
    daemon.run_container("db", network="shop", HostConfig={"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}})
    looks = "while sleep 0.2; do ping -c1 -W1 db && nslookup www.example.test && echo fine; done"
    daemon.run_container("web", "sh", "-c", looks, network="shop")
    daemon.serve("db", 80)
    end(daemon)
    assert daemon.host.ask_outside(HOST_IP, 8080) == f"{OUTSIDE_IP} 80"
    time.sleep(1)
    daemon.start()
    assert daemon.logs("web").count("fine") >= 3


def test_an_end_meanwhile_is_known_with_its_exit_code(new_daemon: NewDaemon, end: Callable[[Daemon], None]) -> None:
    daemon = new_daemon()
    daemon.network("shop")
    for code in (0, 3, 77):
        script = f"while [ ! -e /go ]; do sleep 0.1; done; echo ended; exit {code}"
        daemon.run_container(f"code{code}", "sh", "-c", script, network="shop")
    daemon.run_container("killed", network="shop")
    daemon.run_container("away", network="shop", HostConfig={"AutoRemove": True})
    roots = {name: Path(f"/proc/{daemon.inspect(name)['State']['Pid']}/root") for name in ("code0", "code3", "code77")}
    pids = [daemon.inspect(name)["State"]["Pid"] for name in ("killed", "away")]
    end(daemon)
    for root in roots.values():
        (root / "go").touch()
    for pid in pids:
        subprocess.run(["kill", "-9", str(pid)], check=True)
    eventually(lambda: not any(root.exists() for root in roots.values()))
    daemon.start()
    for code in (0, 3, 77):
        state = daemon.inspect(f"code{code}")["State"]
        assert (state["Status"], state["ExitCode"]) == ("exited", code)
        assert daemon.logs(f"code{code}") == "ended\n"
        assert daemon.wait(f"code{code}") == code
    assert daemon.inspect("killed")["State"]["ExitCode"] == 137
    eventually(lambda: daemon.api("GET", "/containers/away/json").status == 404)
    assert daemon.get("/networks/shop")["Containers"] == {}


def test_everything_can_be_done_with_a_container_from_before(
    new_daemon: NewDaemon, end: Callable[[Daemon], None]
) -> None:
    daemon = new_daemon()
    daemon.network("shop")
    daemon.network("back")
    script = "trap 'echo bye; exit 5' TERM; echo hello; while :; do sleep 0.05; done"
    daemon.run_container("web", "sh", "-c", script, network="shop")
    daemon.run_container("db", network="shop")
    end(daemon)
    daemon.start()
    assert daemon.logs("web") == "hello\n"
    assert daemon.exec("web", "echo", "inside") == (0, "inside\n")
    assert daemon.resolve("web", "db") == {daemon.address("db", "shop")}
    assert daemon.api("POST", "/networks/back/connect", {"Container": "web"}).status == 200
    assert daemon.address("web", "back") in daemon.exec("web", "ip", "address")[1]
    assert daemon.api("POST", "/networks/back/disconnect", {"Container": "web"}).status == 200
    assert daemon.api("POST", "/containers/web/stop?t=5").status == 204
    assert daemon.inspect("web")["State"]["ExitCode"] == 5
    assert daemon.logs("web") == "hello\nbye\n"
    daemon.start_container("web")
    daemon.remove_container("web")
    daemon.remove_container("db")


def test_a_start_changes_nothing_that_is_right(new_daemon: NewDaemon, end: Callable[[Daemon], None]) -> None:
    daemon = new_daemon()
    daemon.network("shop", IPAM={"Config": [{"Subnet": "10.77.0.0/24"}]})
    daemon.run_container("web", network="shop", HostConfig={"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}})
    daemon.create("idle", network="shop")
    before = daemon.snapshot()
    end(daemon)
    daemon.start()
    after = daemon.snapshot()
    for part in before:
        assert after[part] == before[part], part


def test_a_new_daemon_hands_out_no_address_or_port_twice(new_daemon: NewDaemon) -> None:
    daemon = new_daemon()
    daemon.network("shop")
    daemon.run_container("one", network="shop", HostConfig={"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}})
    daemon.kill9()
    daemon.start()
    daemon.run_container("two", network="shop")
    assert daemon.address("one", "shop") != daemon.address("two", "shop")
    daemon.create("three", network="shop", HostConfig={"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}})
    assert "port is already allocated" in daemon.api("POST", "/containers/three/start").message


def test_a_second_daemon_on_the_same_roots_is_refused(new_daemon: NewDaemon) -> None:
    daemon = new_daemon()
    second = subprocess.run(daemon.command(), capture_output=True, text=True, timeout=20, check=False)
    assert second.returncode != 0
    assert str(daemon.pid) in second.stderr or "already" in second.stderr
    assert daemon.api("GET", "/_ping").status == 200


def test_stopping_the_daemon_takes_its_socket_away(new_daemon: NewDaemon) -> None:
    daemon = new_daemon()
    daemon.stop()
    assert daemon.process is not None and daemon.process.returncode == 0
    assert not daemon.socket.exists()
