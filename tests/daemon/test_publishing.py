"""Published ports: who reaches them, under which address, and what is shown of them."""

from __future__ import annotations

import re

import pytest

from tests.daemon.harness import HOST_IP, OUTSIDE_IP, Daemon, eventually


def publish(daemon: Daemon, *ports: str, serve: tuple[int, ...] = (80,), network: str = "shop") -> str:
    """Run `web` with these `-p` options and a service behind them; returns its address."""
    if network not in {item["Name"] for item in daemon.get("/networks")}:
        daemon.network(network)
    options = [word for port in ports for word in ("-p", port)]
    daemon.docker("run", "-d", "--name", "web", "--net", network, *options, "busybox", "sleep", "1000")
    daemon.serve("web", *serve)
    return daemon.address("web", network)


@pytest.mark.parametrize("network", ["shop", "bridge"])
@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_a_port_is_reached_from_everywhere(daemon: Daemon, kind: str, network: str) -> None:
    publish(daemon, f"8080:80/{kind}", network=network)
    host, gateway = daemon.host, daemon.inspect("web")["NetworkSettings"]["Networks"][network]["Gateway"]
    assert host.ask_outside(HOST_IP, 8080, kind) == f"{OUTSIDE_IP} 80"  # the client's own address is seen
    for address in (HOST_IP, "127.0.0.1", gateway):
        assert host.ask(address, 8080, kind).endswith(" 80"), address
    daemon.run_container("neighbour", network=network)
    daemon.network("other")
    daemon.run_container("stranger", network="other")
    for container in ("neighbour", "stranger", "web"):
        assert daemon.ask_from(container, HOST_IP, 8080, kind).endswith(" 80"), container


def test_a_page_of_a_web_server_is_fetched_from_outside(daemon: Daemon) -> None:
    script = "echo 'hello from shop' >/var/www/index.html; exec httpd -f -p 80 -h /var/www"
    daemon.docker("run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sh", "-c", script)
    fetch = ("curl", "--silent", "--fail", f"http://{HOST_IP}:8080/")
    page = eventually(lambda: daemon.host.run_outside(*fetch, check=False).stdout)  # the server is only starting
    assert page == "hello from shop\n"


def test_a_port_of_the_loopback_address_is_closed_to_the_outside(daemon: Daemon) -> None:
    publish(daemon, "127.0.0.1:8080:80")
    assert daemon.host.ask("127.0.0.1", 8080).endswith(" 80")
    assert daemon.host.ask(HOST_IP, 8080).startswith("nothing")
    assert daemon.host.ask_outside(HOST_IP, 8080).startswith("nothing")
    # nor does a neighbour get there by routing the loopback network to us
    daemon.host.run_outside("ip", "route", "add", "127.0.0.2", "via", HOST_IP, check=False)
    assert daemon.host.ask_outside("127.0.0.2", 8080).startswith("nothing")


def test_the_container_itself_is_not_reached_from_outside_past_its_published_port(daemon: Daemon) -> None:
    address = publish(daemon, "8080:80", serve=(80, 81))
    daemon.host.run_outside("ip", "route", "replace", f"{address}/32", "via", HOST_IP)
    try:
        assert daemon.host.ask_outside(address, 80).startswith("nothing")
        assert daemon.host.ask_outside(address, 81).startswith("nothing")
    finally:
        daemon.host.run_outside("ip", "route", "del", f"{address}/32")


def test_a_range_publishes_port_by_port(daemon: Daemon) -> None:
    publish(daemon, "9000-9004:7000-7004", serve=tuple(range(7000, 7005)))
    for offset in range(5):
        assert daemon.host.ask_outside(HOST_IP, 9000 + offset) == f"{OUTSIDE_IP} {7000 + offset}"
        assert daemon.host.ask("127.0.0.1", 9000 + offset).endswith(f" {7000 + offset}")
    assert daemon.host.ask_outside(HOST_IP, 9005).startswith("nothing")


def test_the_first_free_port_of_a_host_range_is_taken(daemon: Daemon) -> None:
    daemon.docker("run", "-d", "--name", "one", "-p", "8100-8101:80", "busybox", "sleep", "1000")
    daemon.docker("run", "-d", "--name", "two", "-p", "8100-8101:80", "busybox", "sleep", "1000")
    assert "8100" in daemon.docker("port", "one").stdout
    assert "8101" in daemon.docker("port", "two").stdout
    third = daemon.docker("run", "-d", "-p", "8100-8101:80", "busybox", "true", check=False)
    assert third.returncode == 125
    assert "all ports are allocated" in third.stderr or "port is already allocated" in third.stderr


def test_all_exposed_ports_are_published_on_ports_the_daemon_chooses(daemon: Daemon) -> None:
    daemon.docker(
        *("run", "-d", "--name", "web", "-P", "--expose", "80", "--expose", "53/udp", "busybox", "sleep", "1000")
    )
    daemon.serve("web", 80, 53)
    shown = daemon.docker("port", "web").stdout
    tcp = int(re.findall(r"80/tcp -> 0\.0\.0\.0:(\d+)", shown)[0])
    udp = int(re.findall(r"53/udp -> 0\.0\.0\.0:(\d+)", shown)[0])
    assert daemon.host.ask_outside(HOST_IP, tcp) == f"{OUTSIDE_IP} 80"
    assert daemon.host.ask_outside(HOST_IP, udp, "udp") == f"{OUTSIDE_IP} 53"


def test_what_is_published_is_shown(daemon: Daemon) -> None:
    publish(daemon, "8080:80", "127.0.0.1:8081:81/udp")
    shown = set(daemon.docker("port", "web").stdout.splitlines())
    assert {"80/tcp -> 0.0.0.0:8080", "81/udp -> 127.0.0.1:8081"} <= shown
    ports = daemon.inspect("web")["NetworkSettings"]["Ports"]
    assert ports["81/udp"] == [{"HostIp": "127.0.0.1", "HostPort": "8081"}]
    assert "127.0.0.1:8081->81/udp" in daemon.docker("ps", "--format", "{{.Ports}}").stdout


def test_a_port_that_is_taken_is_refused_and_the_container_stays_created(daemon: Daemon) -> None:
    publish(daemon, "8080:80")
    second = daemon.docker("run", "-d", "--name", "second", "-p", "8080:80", "busybox", "true", check=False)
    assert second.returncode == 125
    assert "Bind for 0.0.0.0:8080 failed: port is already allocated" in second.stderr
    assert daemon.inspect("second")["State"]["Status"] == "created"
    assert daemon.host.ask_outside(HOST_IP, 8080) == f"{OUTSIDE_IP} 80"


def test_a_port_that_a_program_of_the_host_listens_on_is_refused(daemon: Daemon) -> None:
    program = daemon.host.spawn(daemon.host.name, "busybox", "nc", "-l", "-p", "8090")
    eventually(lambda: daemon.host.listens(daemon.host.name, 8090))
    try:
        done = daemon.docker("run", "-d", "-p", "8090:80", "busybox", "true", check=False)
        assert done.returncode == 125
        assert "address already in use" in done.stderr
    finally:
        daemon.host.end(program)


def test_a_port_is_free_again_when_its_container_has_ended(daemon: Daemon) -> None:
    publish(daemon, "8080:80")
    daemon.docker("stop", "-t", "0", "web")
    assert daemon.host.ask_outside(HOST_IP, 8080).startswith("nothing")
    daemon.docker("run", "-d", "--name", "next", "-p", "8080:80", "busybox", "sleep", "1000")
    daemon.serve("next", 80)
    assert daemon.host.ask_outside(HOST_IP, 8080) == f"{OUTSIDE_IP} 80"


def test_published_ports_move_with_the_gateway_network(daemon: Daemon) -> None:
    daemon.network("a")
    publish(daemon, "8080:80", network="b")
    daemon.api("POST", "/networks/a/connect", {"Container": "web"})
    assert daemon.host.ask_outside(HOST_IP, 8080) == f"{OUTSIDE_IP} 80"
    daemon.api("POST", "/networks/a/disconnect", {"Container": "web"})
    assert daemon.host.ask_outside(HOST_IP, 8080) == f"{OUTSIDE_IP} 80"


def test_nothing_is_published_on_an_internal_network(daemon: Daemon) -> None:
    daemon.network("cellar", Internal=True)
    publish(daemon, "8080:80", network="cellar")
    assert daemon.inspect("web")["NetworkSettings"]["Ports"] == {}
    assert daemon.host.ask_outside(HOST_IP, 8080).startswith("nothing")
